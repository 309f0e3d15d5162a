"""Reading an export into a database: whole sessions or nothing of them, and a second time changes nothing.

Owns checking, what happens to what is there already, and the batches. A session that is in the database is left as it is. A small
session comes in one transaction; a large one stays hidden until its last row is in, and is taken up again where it was cut off.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from config.names import AccountId, ChannelId, PersonId, ThreadId
from sessions.database.base import Database, Transaction
from sessions.errors import StoreError, TransferError
from sessions.keys import session_key
from sessions.sealing import EMPTY, SEALED
from sessions.transfer.records import (
    END_REASONS,
    FORMAT,
    KINDS,
    PERSON_ROLES,
    ROLES,
    SCOPES,
    STATUSES,
    TURN_STATUSES,
    VERSION,
    contents,
)

Record = dict[str, Any]
Progress = Callable[[int], None]
"""Called with the records read so far."""

BATCH: Final = 12_000
"""Rows of one transaction: a tenth of a second. Nobody chats meanwhile, for an import owns the database."""
LARGEST: Final = 36_000
"""Rows of a session above which it comes in several transactions, hidden until it is whole."""

_KINDS: Final = {kind.type: kind for kind in KINDS}
_CHOICES: Final[Mapping[str, Sequence[tuple[str, frozenset[Any]]]]] = {
    "session": (("status", STATUSES), ("scope", SCOPES), ("end_reason", END_REASONS)),
    "turn": (("status", TURN_STATUSES),),
    "message": (("role", ROLES),),
    "person": (("role", PERSON_ROLES),),
}
_NO_CHOICES: Final[Sequence[tuple[str, frozenset[Any]]]] = ()


@dataclass
class Imported:
    """What became of a file."""

    sessions: int = 0
    messages: int = 0
    persons: int = 0
    skipped: int = 0
    """Sessions that were there already, and were left as they are."""
    ended: int = 0
    """Live sessions whose place was taken by another live one: they came in as ended."""
    left_out: int = 0
    """Parts of another program's export that have no place here."""


@dataclass
class _Session:
    """A session as it comes off the file, or the next part of a large one."""

    record: Record
    line: int
    rows: dict[str, list[Record]] = field(default_factory=dict)
    size: int = 1
    turn_ids: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    """Its turns that are still to be run."""
    is_part: bool = False
    is_first: bool = True


async def load(
    database: Database,
    lines: Iterable[bytes],
    now: Callable[[], int],
    *,
    progress: Progress = lambda count: None,
) -> Imported:
    """Import a file of our own format. Raises: TransferError with the line; sessions before it are in."""
    return await store(database, parsed(lines), now, progress=progress)


def parsed(lines: Iterable[bytes]) -> Iterable[tuple[int, Record]]:
    """The records of a file with their lines. Raises: TransferError, also when its end is missing."""
    kind = ""
    for number, line in enumerate(lines, start=1):
        if kind == "end":
            raise TransferError(f"line {number}: there is more after the end")
        try:
            record = orjson.loads(line)
        except ValueError as error:
            raise TransferError(
                f"line {number}: is not JSON ({error}); the file may have been cut off"
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get("type"), str):
            raise TransferError(f"line {number}: is no record")
        kind = record["type"]
        if number == 1:
            if kind != "header" or record.get("format") != FORMAT:
                raise TransferError("line 1: this is no export of Palaver's")
            if record.get("version") != VERSION:
                raise TransferError(
                    f"line 1: the format has version {record.get('version')!r}; this Palaver reads {VERSION}"
                )
        elif kind == "header":
            raise TransferError(f"line {number}: a second header")
        else:
            yield number, record
    if kind != "end":
        raise TransferError("the file has no end: it was cut off while it was written or copied")


async def store(
    database: Database,
    records: Iterable[tuple[int, Record]],
    now: Callable[[], int],
    *,
    progress: Progress = lambda count: None,
) -> Imported:
    """Put records into a database, in batches; the next one is read while one is written. Raises: TransferError.

    Records are taken, and progress is told, in another thread.
    """
    done = Imported()
    intake = _Intake(database, await database.read(contents), done, now)
    source = iter(records)
    try:
        while await asyncio.to_thread(intake.fill, source, progress):
            await intake.flush()
        await intake.flush()
    finally:
        await intake.settle()  # what was complete before a fault is in
    progress(intake.seen)
    return done


class _Intake:
    """Collects what comes off the file until there is enough for a transaction."""

    def __init__(
        self,
        database: Database,
        known: Mapping[str, Mapping[str, tuple[type, ...]]],
        done: Imported,
        now: Callable[[], int],
    ) -> None:
        self._database = database
        self._known = known
        self._done = done
        self._now = now
        self._persons: list[Record] = []
        self._whole: list[_Session] = []
        self._current: _Session | None = None
        self._size = 0
        self._sound: set[tuple[object, ...]] = set()
        """Kinds of records that were found sound: their columns and the types of their values."""
        self._same: dict[str, str] = {}
        """Persons of the file who are known here under another id."""
        self._writing: asyncio.Task[None] | None = None
        self.seen = 0

    def fill(self, records: Iterator[tuple[int, Record]], progress: Progress) -> bool:
        """Take records until there is enough to be stored; False when there are no more. Raises: TransferError."""
        for line, record in records:
            is_enough = self.add(line, record)
            self.seen += 1
            if self.seen % 5000 == 0:
                progress(self.seen)
            if is_enough:
                return True
        self.end()
        return False

    def add(self, line: int, record: Record) -> bool:
        """Take a record; True when there is enough to be stored. Raises: TransferError."""
        kind = record.pop("type")
        match kind:
            case "person":
                self._add_person(line, record)
            case "session":
                self._check(line, kind, record)
                self.end()
                self._current = _Session(record, line)
                self._size += 1
            case "end":
                self.end()
            case _:
                self._add_row(line, kind, record)
        if self._size >= BATCH and (self._whole or self._persons):
            return True
        return self._current is not None and self._current.size >= LARGEST

    def end(self) -> None:
        """The session under way is complete."""
        if self._current is not None:
            self._current.is_part = False
            self._whole.append(self._current)
            self._current = None

    async def flush(self) -> None:
        """Begin to store what is complete, and the part that is there of a session too large to wait for.

        Raises: StoreError, TransferError of the batch before.
        """
        sessions = self._whole
        part = self._current
        held: _Session | None = None
        if part is not None and part.size >= LARGEST:
            part.is_part = True
            held = _held_back(part)
            sessions = [*sessions, part]
        persons = self._persons
        if not sessions and not persons:
            return
        await self.settle()
        self._writing = asyncio.create_task(self._write(persons, sessions))
        self._whole, self._persons, self._size = [], [], 0
        if held is not None:
            self._current = held
        if self._current is not None:
            self._size = self._current.size

    async def settle(self) -> None:
        """Wait for the batch that is being written. Raises: StoreError, TransferError."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def _write(self, persons: Sequence[Record], sessions: Sequence[_Session]) -> None:
        now = self._now()
        try:
            done, self._same = await self._database.write(
                lambda tx: _store(tx, persons, sessions, self._known, self._same, now)
            )
        except (StoreError, TransferError):
            raise
        except Exception as error:
            first = sessions[0].line if sessions else 0
            raise TransferError(f"what follows line {first} does not fit together: {error}") from error
        for name, value in vars(done).items():
            setattr(self._done, name, getattr(self._done, name) + value)

    def _add_person(self, line: int, record: Record) -> None:
        identities = record.pop("identities", [])
        self._check(line, "person", record)
        if not isinstance(identities, list):
            raise TransferError(f"line {line}: identities is no list")
        for identity in identities:
            if not isinstance(identity, dict):
                raise TransferError(f"line {line}: an identity is no record")
            self._check(line, "identity", identity)
        self._persons.append({**record, "identities": identities})
        self._size += 1 + len(identities)

    def _add_row(self, line: int, kind: str, record: Record) -> None:
        session = self._current
        if kind not in _KINDS:
            raise TransferError(
                f"line {line}: this Palaver knows no {kind!r}; a newer one may have written it"
            )
        if session is None:
            raise TransferError(f"line {line}: a {kind} before its session")
        arrived = record.pop("inbox", None) if kind == "turn" else None
        self._check(line, kind, record)
        if _KINDS[kind].has_session_id and record["session_id"] != session.record["id"]:
            raise TransferError(f"line {line}: a {kind} of another session")
        if kind == "turn":
            session.turn_ids.add(record["id"])
            if arrived is not None:
                if not isinstance(arrived, dict):
                    raise TransferError(f"line {line}: inbox is no record")
                self._check(line, "inbox", arrived)
                arrived["session_id"], arrived["turn_id"] = record["session_id"], record["id"]
                session.rows.setdefault("inbox", []).append(arrived)
            # How the turn finds that row again, whose number only the database knows.
            for name in ("account", "channel", "message_id"):
                record[f"inbox_{name}"] = arrived[name] if arrived is not None else ""
        elif kind in ("step", "tool_call") and record["turn_id"] not in session.turn_ids:
            raise TransferError(f"line {line}: a {kind} of a turn that is not in its session")
        session.rows.setdefault(kind, []).append(record)
        session.size += 1
        self._size += 1

    def _check(self, line: int, kind: str, record: Record) -> None:
        look = (kind, *record, *map(type, record.values()))
        if look not in self._sound:
            self._check_columns(line, kind, record)
            self._sound.add(look)
        for name, choices in _CHOICES.get(kind, _NO_CHOICES):
            if record.get(name) not in choices:
                raise TransferError(f"line {line}: {name} of a {kind} cannot be {record.get(name)!r:.60}")

    def _check_columns(self, line: int, kind: str, record: Record) -> None:
        """What is the same for all records with these columns and types, so that it is looked at once."""
        known = self._known[kind]
        for name, value in record.items():
            types = known.get(name)
            if types is None:
                raise TransferError(
                    f"line {line}: a {kind} has no {name!r} here; a newer Palaver may have written it"
                )
            if type(value) not in types:
                raise TransferError(f"line {line}: {name} of a {kind} cannot be {value!r:.60}")
        for name in ("id", "session_id", "turn_id") if kind != "message" else ("session_id",):
            if name in known and record.get(name) is None and type(None) not in known[name]:
                raise TransferError(f"line {line}: a {kind} without {name}")


def _held_back(part: _Session) -> _Session:
    """The next part of a large session, with the turns that wait to be run and what hangs on them.

    A daemon that starts between two tries of an import must not run them in half a conversation.
    """
    waiting = {
        row["id"] for row in part.rows.get("turn", ()) if row["status"] in ("queued", "running")
    } | part.waiting
    rest = _Session(
        part.record, part.line, turn_ids=part.turn_ids, waiting=waiting, is_part=True, is_first=False
    )
    if waiting:
        for kind, name in (("turn", "id"), ("step", "turn_id"), ("tool_call", "turn_id")):
            rest.rows[kind] = [row for row in part.rows.get(kind, ()) if row[name] in waiting]
            part.rows[kind] = [row for row in part.rows.get(kind, ()) if row[name] not in waiting]
    return rest


def _store(
    tx: Transaction,
    persons: Sequence[Record],
    sessions: Sequence[_Session],
    known: Mapping[str, Mapping[str, tuple[type, ...]]],
    same: Mapping[str, str],
    now: int,
) -> tuple[Imported, dict[str, str]]:
    """Everything of one batch in one transaction. May run twice, so it changes none of its arguments."""
    done, same = Imported(), dict(same)
    for person in persons:
        done.persons += _store_person(tx, person, same)
    rows: dict[str, list[Record]] = {}
    again: dict[str, list[Record]] = {}  # of large sessions: some may be there from a try that was cut off
    opened: list[_Session] = []
    for session in sessions:
        record = _placed(tx, session.record, same)
        if record["status"] in ("active", "paused"):
            other = tx.row(
                "SELECT id FROM sessions WHERE key = :key AND status IN ('active', 'paused') AND id <> :id",
                {"key": record["key"], "id": record["id"]},
            )
            if other is not None:
                record |= {"status": "ended", "end_reason": "completed", "paused_at": None}
                record["ended_at"] = record["last_activity_at"]
                done.ended += 1 if not session.is_part else 0
        hidden = orjson.dumps(["importing", record["id"]]).decode()
        there = tx.row("SELECT key FROM sessions WHERE id = :id", {"id": record["id"]})
        if there is not None and there["key"] != hidden:
            if not session.is_part:
                done.skipped += 1
            continue
        if there is None and not session.is_first:  # removed meanwhile by somebody else
            raise TransferError(f"line {session.line}: the session vanished while it was imported")
        if there is None:
            unfinished = {"key": hidden, "status": "ended", "end_reason": "deleted", "ended_at": now}
            _insert(tx, "sessions", [{**record, **unfinished} if session.is_part else record], ("id",))
        elif not session.is_part:
            opened.append(_Session(record, session.line))
        if not session.is_part:
            done.sessions += 1
        target = rows if there is None and not session.is_part else again
        for kind, found in session.rows.items():
            done.messages += len(found) if kind == "message" else 0
            if same:
                found = [
                    {**row, "person_id": same[row["person_id"]]} if row.get("person_id") in same else row
                    for row in found
                ]
            target.setdefault(kind, []).extend(found)
    arrived = rows.get("inbox", []) + again.get("inbox", [])
    _insert(tx, "inbox", arrived, ("account", "channel", "message_id"))
    for kind_of in KINDS:
        if kind_of.type == "turn":
            _insert_turns(tx, rows.get("turn", []) + again.get("turn", []))
            continue
        is_unique = kind_of.type not in _REPEATABLE
        _insert(tx, kind_of.table, rows.get(kind_of.type, []), kind_of.unique if is_unique else ())
        _insert(tx, kind_of.table, again.get(kind_of.type, []), kind_of.unique, is_unique=is_unique)
    for session in opened:
        names = [name for name in session.record if name != "id"]
        tx.execute(
            f"UPDATE sessions SET {', '.join(f'{name} = :{name}' for name in names)} WHERE id = :id",
            _sealed(tx, "sessions", session.record),
        )
    return done, same


_REPEATABLE: Final = frozenset({"tool_call", "error", "task", "event"})
"""Kinds without a unique key of their own in the database."""


def _store_person(tx: Transaction, person: Record, same: dict[str, str]) -> int:
    """Add somebody, unless one of their identities belongs to a person known here: then they are that person."""
    identities = person["identities"]
    for identity in identities:
        row = tx.row(
            "SELECT person_id FROM identities WHERE platform = :platform AND platform_user_id = :user",
            {"platform": identity["platform"], "user": identity["platform_user_id"]},
        )
        if row is not None:
            if row["person_id"] != person["id"]:
                same[person["id"]] = row["person_id"]
            break
    target = same.get(person["id"], person["id"])
    values = {name: value for name, value in person.items() if name != "identities"}
    added = 0
    if target == person["id"]:
        added = tx.execute(
            f"INSERT INTO persons ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"
            " ON CONFLICT (id) DO NOTHING",
            values,
        )
    _insert(
        tx,
        "identities",
        [{**identity, "person_id": target} for identity in identities],
        ("platform", "platform_user_id"),
    )
    return added


def _placed(tx: Transaction, record: Record, same: Mapping[str, str]) -> Record:
    """The session under the person it belongs to here."""
    person = same.get(record["person_id"] or "")
    if person is None:
        return dict(record)
    account, channel = AccountId(record["account"]), ChannelId(record["channel"])
    thread = ThreadId(record["thread"]) if record["thread"] is not None else None
    was = session_key(record["scope"], account, channel, thread, PersonId(record["person_id"]))
    key = session_key(record["scope"], account, channel, thread, PersonId(person))
    return {**record, "person_id": person, "key": key if record["key"] == was else record["key"]}


def _insert_turns(tx: Transaction, turns: Sequence[Record]) -> None:
    for names, group in _alike(turns):
        own = [name for name in names if not name.startswith("inbox_")]
        tx.execute_many(
            f"INSERT INTO turns ({', '.join(own)}, inbox_id) VALUES ({', '.join(f':{name}' for name in own)},"
            " COALESCE((SELECT id FROM inbox WHERE account = :inbox_account AND channel = :inbox_channel"
            " AND message_id = :inbox_message_id), 0)) ON CONFLICT (id) DO NOTHING",
            group,
        )


def _insert(
    tx: Transaction, table: str, rows: Sequence[Record], unique: Sequence[str], *, is_unique: bool = True
) -> None:
    """Add rows; those that are there stay as they are, as far as `unique` tells."""
    sealed = [_sealed(tx, table, row) for row in rows] if tx.seal.is_on and table in SEALED else rows
    for names, group in _alike(sealed):
        listed, values = ", ".join(names), ", ".join(f":{name}" for name in names)
        same = " AND ".join(f"{name} = :{name}" for name in unique)
        if not unique:
            sql = f"INSERT INTO {table} ({listed}) VALUES ({values})"
        elif is_unique:
            sql = f"INSERT INTO {table} ({listed}) VALUES ({values}) ON CONFLICT ({', '.join(unique)}) DO NOTHING"
        else:
            sql = f"INSERT INTO {table} ({listed}) SELECT {values} WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {same})"
        tx.execute_many(sql, group)


def _alike(rows: Sequence[Record]) -> list[tuple[list[str], Sequence[Record]]]:
    """Rows by the columns they have: an older file lacks some, which then get their defaults. Nearly always one group."""
    if not rows:
        return []
    first = rows[0].keys()
    if all(row.keys() == first for row in rows):
        return [(list(first), rows)]
    groups: dict[tuple[str, ...], list[Record]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    return [(list(names), group) for names, group in groups.items()]


def _sealed(tx: Transaction, table: str, row: Record) -> Record:
    if not tx.seal.is_on:
        return row
    fresh = dict(row)
    for column in SEALED[table]:
        value = fresh.get(column)
        if value is not None and value not in EMPTY:
            fresh[column] = tx.seal.seal(value)
    if table == "messages":
        fresh["is_sealed"] = 1
    return fresh
