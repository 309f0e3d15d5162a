"""Python values as PostgreSQL's and back, so that a session operation sees what it would see on SQLite.

Owns how text, integers and truth travel on a connection. Every parameter has a type of its own (text, bigint, bytea), so that
the server need not guess, and one statement is prepared once.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from sessions.database.values import storable

_INT8_OID: Final = 20
_FLOAT8_OID: Final = 701
_TEXT_OID: Final = 25
_NO_OID: Final = 0
"""The server tells by the place where it stands."""


def _encoded(text: str) -> bytes:
    """Text as UTF-8. Halves of characters are mended, and NUL, which PostgreSQL's text cannot hold, becomes U+FFFD."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        encoded = storable(text).encode()
    return encoded.replace(b"\0", b"\xef\xbf\xbd") if b"\0" in encoded else encoded


PLAIN: Final[Mapping[type, tuple[int, Callable[[Any], bytes | None]]]] = {
    str: (_TEXT_OID, _encoded),
    int: (_INT8_OID, lambda value: b"%d" % value),
    bool: (_INT8_OID, lambda value: b"1" if value else b"0"),
    float: (_FLOAT8_OID, lambda value: repr(value).encode()),
    type(None): (_NO_OID, lambda _value: None),
}
"""Type and text of the values that nearly all are; the dumpers below give the same for them inside of lists."""


class _TextDumper(StrDumper):
    def dump(self, obj: str) -> bytes:
        return _encoded(obj)


class _TruthDumper(Dumper):
    """True and False as 1 and 0: the columns are integers on both databases."""

    oid = _INT8_OID

    def dump(self, obj: bool) -> bytes:
        return b"1" if obj else b"0"


class _TruthLoader(Loader):
    def load(self, data: Any) -> int:
        return int(bytes(data) == b"t")


class _NumericLoader(Loader):
    """What SUM and AVG of integers give: whole numbers as int, others as float."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


def register(connection: psycopg.Connection[Any]) -> None:
    """Make a connection use these."""
    connection.adapters.register_dumper(str, _TextDumper)
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(bool, _TruthDumper)
    connection.adapters.register_loader("bool", _TruthLoader)
    connection.adapters.register_loader("numeric", _NumericLoader)
