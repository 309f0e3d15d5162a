"""Encryption at rest: what people said, what tools did and what the agent remembers is unreadable without a key.

Owns the seal (Fernet: AES-128-CBC with HMAC-SHA-256), the check that the keys fit the database, and the rotation that brings
every row under the first key. A database opens sealed values by itself when it reads rows, so that no reader can forget to;
who writes one of `SEALED` calls `tx.seal.seal`. Names, times, counts and ids stay readable: the store works with them.

A sealed value is `MARK KEY_ID ":" TOKEN`. The mark is made by chance when the first key is set and kept in the database, so
nobody can write a text that passes for a sealed one.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.fernet import Fernet, InvalidToken

from sessions import leases, search
from sessions.database.base import Database, Row, Seal, Transaction
from sessions.errors import StoreCorrupt, StoreUnavailable

SEALED: Final[Mapping[str, Sequence[str]]] = {
    "messages": ("content", "attachments"),
    "tool_calls": ("arguments", "result", "cause"),
    "errors": ("cause",),
    "steps": ("payload",),
    "summaries": ("content",),
    "outbox": ("body",),
    "session_variables": ("value",),
    "session_tasks": ("task",),
    "sessions": ("title", "description", "current_task", "metadata"),
    "quarantine": ("raw",),
}
"""The columns that are sealed, by table."""

EMPTY: Final = ("[]", "{}")
"""JSON with nothing in it, which is not worth a seal."""

_CHECK: Final = "this key fits this database"
_FIRST: Final = "\x01"
"""What every sealed value begins with, so that all others are known at a glance."""


class PlainSeal:
    """No encryption: everything passes through."""

    is_on = False
    head = ""

    def seal(self, text: str) -> str:
        return text

    def open(self, text: str) -> str:
        return text

    def seal_bytes(self, raw: bytes) -> bytes:
        return raw

    def open_bytes(self, raw: bytes) -> bytes:
        return raw


PLAIN: Final = PlainSeal()


class KeySeal:
    """Seals with the first key, opens with any."""

    def __init__(self, mark: str, keys: Sequence[str], *, is_on: bool = True) -> None:
        """`is_on` False opens but seals nothing any more. Raises: ValueError for what is no key."""
        self.is_on = is_on
        self._fernets = {key_id(key): Fernet(key.encode()) for key in keys}
        first = next(iter(self._fernets))
        self._mark = mark
        self._keys = keys
        self._mark_bytes = mark.encode()
        self._prefix = f"{mark}{first}:"
        self._first = self._fernets[first]
        self.head = self._prefix if is_on else mark
        """What a value begins with that is sealed with the first key; when off, any sealed value."""

    def ended(self) -> "KeySeal":
        """One that opens as this does and seals nothing any more."""
        return KeySeal(self._mark, self._keys, is_on=False)

    def seal(self, text: str) -> str:
        if not self.is_on:
            return text
        return self._prefix + self._first.encrypt(text.encode("utf-8", "surrogatepass")).decode("ascii")

    def open(self, text: str) -> str:
        if not text.startswith(self._mark):
            return text
        name, _, token = text[len(self._mark) :].partition(":")
        return self._opened(name, token.encode()).decode("utf-8", "surrogatepass")

    def seal_bytes(self, raw: bytes) -> bytes:
        return self._prefix.encode() + self._first.encrypt(raw) if self.is_on else raw

    def open_bytes(self, raw: bytes) -> bytes:
        if not raw.startswith(self._mark_bytes):
            return raw
        name, _, token = raw[len(self._mark_bytes) :].partition(b":")
        return self._opened(name.decode(errors="replace"), token)

    def _opened(self, name: str, token: bytes) -> bytes:
        fernet = self._fernets.get(name)
        if fernet is None:
            raise StoreCorrupt(
                f"a value is sealed with the key {name}, which is not among store.encryption_keys",
                "Add that key after the others and run `palaver keys rotate`.",
            )
        try:
            return fernet.decrypt(token)
        except InvalidToken as error:
            raise StoreCorrupt("a sealed value is damaged", _DAMAGE_HINT) from error


_DAMAGE_HINT = (
    "`palaver verify` says more; put back a backup, or save what is readable with `palaver salvage`."
)


def key_id(key: str) -> str:
    """Six characters that tell keys apart and betray nothing of them."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"palaver key id:" + key.encode()).digest())[:6].decode()


def new_key() -> str:
    """A key as `store.encryption_keys` takes it."""
    return Fernet.generate_key().decode()


def read_keys(values: Sequence[str]) -> list[str]:
    """Keys as they are written in the settings: a key itself, or `file:PATH` for one with a key per line.

    Raises: StoreUnavailable for a file that cannot be read and for what is no key.
    """
    keys: list[str] = []
    for number, value in enumerate(values, start=1):
        found = [value.strip()]
        where = f"store.encryption_keys, entry {number}"
        if value.startswith("file:"):
            path = Path(value.removeprefix("file:")).expanduser()
            try:
                found = path.read_text(encoding="ascii").split()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "is not text"
                raise StoreUnavailable(f"{where}: cannot read {path}: {reason}", _KEY_HINT) from error
            where += f" ({path})"
            if not found:
                raise StoreUnavailable(f"{where}: the file is empty", _KEY_HINT)
        for key in found:
            try:
                Fernet(key.encode())
            except ValueError as error:
                raise StoreUnavailable(f"{where}: this is no key", _KEY_HINT) from error
            if key not in keys:
                keys.append(key)
    return keys


_KEY_HINT = "`palaver keys new` makes one: 44 characters of base64."


def find(tx: Transaction, keys: Sequence[str]) -> Seal | None:
    """The seal of a database, or None when it has none yet and keys were given: then `begin` it.

    Raises: StoreUnavailable when the keys do not fit what is stored. Then nothing may be read or written.
    """
    row = tx.row("SELECT mark, key_ids, proof FROM seals WHERE id = 1")
    if row is None:
        return None if keys else PLAIN
    known = orjson.loads(row["key_ids"])
    if not keys:
        raise StoreUnavailable(
            f"the database is encrypted (key {', '.join(known)}) and store.encryption_keys is empty",
            "Set the key again. To end encryption: `palaver keys rotate --off`.",
        )
    missing = [name for name in known if name not in {key_id(key) for key in keys}]
    if missing:
        raise StoreUnavailable(
            f"store.encryption_keys lacks the key {', '.join(missing)} that this database is encrypted with",
            "Add it; a new key goes before it, then run `palaver keys rotate`.",
        )
    seal = KeySeal(_FIRST + row["mark"], keys)
    if seal.open(row["proof"]) != _CHECK:
        raise StoreUnavailable("the keys do not fit this database", "Look at store.encryption_keys.")
    return seal


def begin(tx: Transaction, keys: Sequence[str], now: int) -> Seal:
    """The seal of a database, made if there is none; from now on values may be sealed with the first key.

    Raises: StoreUnavailable while nodes are there that may not have that key.
    """
    found = find(tx, keys)
    if found is PLAIN:
        return found
    if found is None:
        _check_nobody_is_there(tx, keys[0])
        mark = secrets.token_urlsafe(
            9
        )  # without the first character, so that nobody opens it as if it were sealed
        tx.execute(
            "INSERT INTO seals (id, mark, key_ids, proof, changed_at) VALUES (1, :mark, '[]', :proof, :now)"
            " ON CONFLICT (id) DO NOTHING",
            {"mark": mark, "proof": KeySeal(_FIRST + mark, keys).seal(_CHECK), "now": now},
        )
        found = find(tx, keys)
        assert found is not None
    row = tx.row("SELECT key_ids FROM seals WHERE id = 1")
    assert row is not None
    used = orjson.loads(row["key_ids"])
    if key_id(keys[0]) not in used:  # before the first value under it: nobody may lose that key now
        _check_nobody_is_there(tx, keys[0])
        tx.execute(
            "UPDATE seals SET key_ids = :used, changed_at = :now WHERE id = 1",
            {"used": orjson.dumps([*used, key_id(keys[0])]).decode(), "now": now},
        )
    return found


def _check_nobody_is_there(tx: Transaction, key: str) -> None:
    if nodes := leases.nodes(tx):
        raise StoreUnavailable(
            f"the key {key_id(key)} is new to the database, and nodes work there that may not have it ({', '.join(nodes)})",
            "Stop every node first: one that does not know the new key could read nothing any more."
            " One that died counts until its lease ends.",
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """How far a rotation came: the table, and the key of the last row looked at."""

    table: str = next(iter(SEALED))
    after: Sequence[str | int] | None = None


def rotate_step(
    tx: Transaction, seal: Seal, stretch: Stretch, *, batch: int = 200
) -> tuple[Stretch | None, int]:
    """Bring the next rows under the first key, or out of the seal when it is off.

    Gives where to go on (None at the end) and how many rows were changed. It may be cut off anywhere and begun anew: a row is
    either as it was or as it shall be, and both can be read until `end_rotation`.
    """
    columns, keys = SEALED[stretch.table], _KEYS[stretch.table]
    place = ", ".join(keys)
    parameters: dict[str, object] = {"batch": batch, "length": len(seal.head), "head": seal.head}
    flags = []
    for column in columns:
        head = ":head_bytes" if column == "raw" else ":head"
        same = "=" if seal.is_on else "<>"
        flags.append(
            f"(substr({column}, 1, CAST(:length AS INTEGER)) {same} {head} OR {column} IS NULL) AS {column}_is_current"
        )
        if column == "raw":
            parameters["head_bytes"] = seal.head.encode()
    if "raw" in columns:
        del parameters["head"]
    where = ""
    if stretch.after is not None:
        where = f" WHERE ({place}) > ({', '.join(f':after_{name}' for name in keys)})"
        parameters |= {f"after_{name}": value for name, value in zip(keys, stretch.after, strict=True)}
    rows = tx.rows(
        f"SELECT {place}, {', '.join(columns)}, {', '.join(flags)} FROM {stretch.table}{where}"
        f" ORDER BY {place} LIMIT :batch",
        parameters,
    )
    changed = 0
    for row in rows:
        fresh: dict[str, object] = {
            column: seal.seal_bytes(row[column]) if column == "raw" else seal.seal(row[column])
            for column in columns
            if not row[f"{column}_is_current"] and row[column] not in EMPTY
        }
        if fresh:
            changed += 1
            sets = ", ".join(f"{column} = :{column}" for column in fresh)
            if stretch.table == "messages":
                sets += ", is_sealed = :is_sealed"
                fresh["is_sealed"] = int(seal.is_on)
            tx.execute(
                f"UPDATE {stretch.table} SET {sets} WHERE {' AND '.join(f'{name} = :key_{name}' for name in keys)}",
                {**fresh, **{f"key_{name}": row[name] for name in keys}},
            )
    if len(rows) == batch:
        return Stretch(stretch.table, tuple(rows[-1][name] for name in keys)), changed
    tables = list(SEALED)
    number = tables.index(stretch.table) + 1
    return (Stretch(tables[number]) if number < len(tables) else None), changed


async def rotate(
    database: Database,
    keys: Sequence[str],
    now: int,
    *,
    is_off: bool = False,
    pause_s: float = 0.0,
    progress: Callable[[str, int], None] = lambda table, changed: None,
) -> int:
    """Bring a whole database under its first key, or out of the seal; gives how many rows were changed.

    Whatever ends it early, a second run finishes it. Raises: StoreError.
    """
    found = await database.read(lambda tx: find(tx, keys))
    if not isinstance(found, KeySeal):
        return 0
    seal = found.ended() if is_off else found
    total = 0
    stretch: Stretch | None = Stretch()
    while stretch is not None:
        stretch, changed = await database.write(lambda tx, at=stretch: rotate_step(tx, seal, at))  # type: ignore[misc]  # bound early
        total += changed
        if stretch is not None:
            progress(stretch.table, total)
        await asyncio.sleep(pause_s)
    await database.write(lambda tx: end_rotation(tx, seal, keys, now))
    await database.write(search.wipe_removed_words)
    await database.wipe(whole=True)
    return total


def end_rotation(tx: Transaction, seal: Seal, keys: Sequence[str], now: int) -> None:
    """Every row is as it shall be: the other keys are needed no more."""
    if not seal.is_on:
        tx.execute("DELETE FROM seals")
        return
    tx.execute(
        "UPDATE seals SET key_ids = :used, proof = :proof, changed_at = :now WHERE id = 1",
        {"used": orjson.dumps([key_id(keys[0])]).decode(), "proof": seal.seal(_CHECK), "now": now},
    )


_KEYS: Final[Mapping[str, Sequence[str]]] = {
    "messages": ("id",),
    "tool_calls": ("id",),
    "errors": ("id",),
    "steps": ("turn_id", "number"),
    "summaries": ("id",),
    "outbox": ("id",),
    "session_variables": ("session_id", "name"),
    "session_tasks": ("id",),
    "sessions": ("id",),
    "quarantine": ("id",),
}


def opener(seal: Seal) -> Callable[[Row], Row]:
    """What makes a row readable that came from the database."""
    if seal is PLAIN:
        return lambda row: row

    def opened(row: Row) -> Row:
        changed: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, str):
                if value[:1] == _FIRST:
                    changed[name] = seal.open(value)
            elif isinstance(value, bytes) and value[:1] == _FIRST.encode():
                changed[name] = seal.open_bytes(value)
        return {**row, **changed} if changed else row

    return opened
