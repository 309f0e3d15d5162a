"""Python values as PostgreSQL's and back, so that a session operation sees what it would see on SQLite.

Owns how text, integers and truth travel on a connection. Every parameter has a type of its own (text, bigint, bytea), so that
the server need not guess, and one statement is prepared once.
"""

from typing import Any

import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from sessions.database.values import storable

_INT8_OID = 20


class _TextDumper(StrDumper):
    """Text as UTF-8. Halves of characters are mended, and NUL, which PostgreSQL's text cannot hold, becomes U+FFFD."""

    def dump(self, obj: str) -> bytes:
        try:
            encoded = obj.encode()
        except UnicodeEncodeError:
            encoded = storable(obj).encode()
        return encoded.replace(b"\0", b"\xef\xbf\xbd")


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
