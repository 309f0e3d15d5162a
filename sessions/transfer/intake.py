"""What comes off an import file, looked at and gathered until there is enough for a transaction.

Owns checking: columns, types, and that rows belong to their session. What becomes of a batch is `storing.py`.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sessions.database.base import Database
from sessions.errors import StoreError, TransferError
from sessions.transfer.records import (
    END_REASONS,
    KINDS,
    PERSON_ROLES,
    ROLES,
    SCOPES,
    STATUSES,
    TURN_STATUSES,
)
from sessions.transfer.storing import ARRIVED, Imported, Part, Record, held_back, put, store_batch

Typed = tuple[int, str, Record]
"""A record with its line and its kind."""
Progress = Callable[[int], None]
"""Called with the records read so far."""

BATCH: Final = 4000
"""Rows of one transaction: some hundredths of a second. More are slower, for they no longer fit the processor's own memory."""
LARGEST: Final = 36_000
"""Rows of a session above which it comes in several transactions, hidden until it is whole."""
_RUN: Final = 250
"""Records that are looked at together."""

_KINDS: Final = {kind.type: kind for kind in KINDS}
_CHOICES: Final[Mapping[str, Sequence[tuple[str, frozenset[Any]]]]] = {
    "session": (("status", STATUSES), ("scope", SCOPES), ("end_reason", END_REASONS)),
    "turn": (("status", TURN_STATUSES),),
    "message": (("role", ROLES),),
    "person": (("role", PERSON_ROLES),),
}
_SHARED: Final = frozenset({kind.type for kind in KINDS if kind.has_session_id})
_NEEDED: Final[Mapping[str, Sequence[str]]] = {
    "message": ("session_id",),
    "inbox": ("account", "channel", "message_id"),
}
_OF_TURNS: Final = frozenset({"step", "tool_call"})


class _Look:
    """Records of one kind that have the same columns, and the types of values that were found sound in them."""

    __slots__ = ("choices", "columns", "types")

    def __init__(self, kind: str, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.types: set[tuple[type, ...]] = set()
        self.choices = _CHOICES.get(kind, ())


class Intake:
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
        self._whole: list[Part] = []
        self._current: Part | None = None
        self._size = 0
        self._looks: dict[str, dict[tuple[str, ...], _Look]] = {kind: {} for kind in known}
        self._same: dict[str, str] = {}
        """Persons of the file who are known here under another id."""
        self._writing: asyncio.Task[None] | None = None
        self.seen = 0

    def fill(self, records: Iterator[Typed], progress: Progress) -> bool:
        """Take records until there is enough to be stored; False when there are no more. Raises: TransferError."""
        run: list[Typed] = []
        try:
            for typed in records:
                run.append(typed)
                if len(run) >= _RUN or len(run) + self._size >= BATCH:
                    self._take(run)
                    progress(self.seen)
                    run = []
                    if self._is_enough():
                        return True
        finally:
            self._take(run)  # also what came before a fault in the file
        self.end()
        return False

    def _take(self, run: Sequence[Typed]) -> None:
        for kind, group in itertools.groupby(run, key=itemgetter(1)):
            alike = list(group)
            if not self._add_alike(kind, [record for _, _, record in alike]):
                for line, _, record in alike:
                    self._add(line, kind, record)
            self.seen += len(alike)

    def _is_enough(self) -> bool:
        if self._size >= BATCH and (self._whole or self._persons):
            return True
        return self._current is not None and self._current.size >= LARGEST

    def _add_alike(self, kind: str, rows: Sequence[Record]) -> bool:
        """Take rows that all look like one that was found sound before; else False, and nothing is done.

        An export holds the rows of a session kind by kind, so nearly all come this way, in a third of the time that looking at
        each by itself takes.
        """
        session = self._current
        if session is None or kind not in _KINDS:
            return False
        arrived = [row.pop("inbox", None) for row in rows] if kind == "turn" else []
        columns, came = self._look_at(kind, rows), self._look_at("inbox", arrived)
        is_sound = (
            columns is not None
            and (kind != "turn" or came is not None)
            and (kind not in _SHARED or {row["session_id"] for row in rows} == {session.record["id"]})
            and (kind not in _OF_TURNS or session.turn_ids.issuperset([row["turn_id"] for row in rows]))
        )
        if not is_sound or columns is None:
            for row, one in zip(rows, arrived, strict=False):
                row["inbox"] = one
            return False
        if kind == "turn" and came is not None:
            session.turn_ids.update([row["id"] for row in rows])
            put(session.rows, "turn", (*columns, *ARRIVED), _with_arrived(rows, arrived))
            put(session.rows, "inbox", (*came, "session_id", "turn_id"), _with_turns(rows, arrived))
        else:
            put(session.rows, kind, columns, itertools.chain.from_iterable(map(dict.values, rows)))
        session.size += len(rows)
        self._size += len(rows)
        return True

    def _look_at(self, kind: str, records: Sequence[Any]) -> tuple[str, ...] | None:
        """The columns of records that all look like one that was found sound; None if one does not."""
        if not all(isinstance(record, dict) for record in records):
            return None
        columns = set(map(tuple, records))
        look = self._looks[kind].get(columns.pop()) if len(columns) == 1 else None
        if look is None or not look.types.issuperset([tuple(map(type, one.values())) for one in records]):
            return None
        for name, choices in look.choices:
            if not choices.issuperset([record.get(name) for record in records]):
                return None
        return look.columns

    def _add(self, line: int, kind: str, record: Record) -> None:
        match kind:
            case "person":
                self._add_person(line, record)
            case "session":
                self._check(line, kind, record)
                self.end()
                self._current = Part(record, line)
                self._size += 1
            case "end":
                self.end()
            case _:
                self._add_row(line, kind, record)

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
        held: Part | None = None
        if part is not None and part.size >= LARGEST:
            part.is_part = True
            held = held_back(part)
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

    async def _write(self, persons: Sequence[Record], sessions: Sequence[Part]) -> None:
        now = self._now()
        try:
            done, self._same = await self._database.write(
                lambda tx: store_batch(tx, persons, sessions, self._same, now)
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
        columns = self._check(line, kind, record)
        if kind in _SHARED and record["session_id"] != session.record["id"]:
            raise TransferError(f"line {line}: a {kind} of another session")
        values: Iterable[object] = record.values()
        if kind == "turn":
            session.turn_ids.add(record["id"])
            columns += ARRIVED
            values = (*values, *self._add_arrived(line, session, record, arrived))
        elif kind in _OF_TURNS and record["turn_id"] not in session.turn_ids:
            raise TransferError(f"line {line}: a {kind} of a turn that is not in its session")
        put(session.rows, kind, columns, values)
        session.size += 1
        self._size += 1

    def _add_arrived(self, line: int, session: Part, turn: Record, arrived: Any) -> Sequence[str]:
        """Take the message that queued a turn; gives what it is found by."""
        if arrived is None:
            return ("", "", "")
        if not isinstance(arrived, dict):
            raise TransferError(f"line {line}: inbox is no record")
        columns = (*self._check(line, "inbox", arrived), "session_id", "turn_id")
        put(session.rows, "inbox", columns, (*arrived.values(), turn["session_id"], turn["id"]))
        return arrived["account"], arrived["channel"], arrived["message_id"]

    def _check(self, line: int, kind: str, record: Record) -> tuple[str, ...]:
        """The columns of a sound record. Raises: TransferError. Looked at for each record, so cheap when it is like others."""
        columns = tuple(record)
        look = self._looks[kind].get(columns)
        if look is None:
            look = self._looks[kind][columns] = _Look(kind, columns)
        types = tuple(map(type, record.values()))
        if types not in look.types:
            self._check_columns(line, kind, record)
            look.types.add(types)
        for name, choices in look.choices:
            if record.get(name) not in choices:
                raise TransferError(f"line {line}: {name} of a {kind} cannot be {record.get(name)!r:.60}")
        return look.columns

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
        for name in _NEEDED.get(kind, ("id", "session_id", "turn_id")):
            if name in known and record.get(name) is None and type(None) not in known[name]:
                article = "an" if kind[0] in "aeiou" else "a"
                raise TransferError(f"line {line}: {article} {kind} without {name}")


def _with_arrived(turns: Sequence[Record], arrived: Sequence[Record]) -> Iterator[Any]:
    for turn, one in zip(turns, arrived, strict=True):
        yield from turn.values()
        yield one["account"]
        yield one["channel"]
        yield one["message_id"]


def _with_turns(turns: Sequence[Record], arrived: Sequence[Record]) -> Iterator[Any]:
    for turn, one in zip(turns, arrived, strict=True):
        yield from one.values()
        yield turn["session_id"]
        yield turn["id"]
