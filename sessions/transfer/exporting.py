"""Writing an export: sessions with all their rows, as lines of JSON, whatever the size of the database.

Owns reading in an order that never needs more than a page in memory. Each session is read in one view of the database, so it is
whole; a daemon that works meanwhile is not held up. What the records are is `records.py`.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import orjson

from sessions.database.base import Database, Row, Transaction
from sessions.scope import OperatorScope, Scope, condition, within
from sessions.transfer.records import HEADER, KINDS, Kind, contents

PAGE: Final = 2000
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
_READ_AT_ONCE: Final = 1000
"""Messages of the sessions that are read in one view: small enough for a daemon's clean-up of its log to get in between."""

Progress = Callable[[int, int], None]
"""Called with the messages written so far and how many there are."""


@dataclass(frozen=True, slots=True)
class Exported:
    persons: int
    sessions: int
    messages: int
    unsent_replies: int
    """Chunks that wait to be sent; they are not part of an export."""


def pages_of_sessions(tx: Transaction, scope: Scope, ids: Sequence[str] | None, after: str) -> list[Row]:
    """Sessions to be written, in order of their ids: id, message_count."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    chosen = ""
    if ids is not None:
        chosen = f" AND s.id IN ({', '.join(f':id_{number}' for number in range(len(ids)))})"
        parameters = {**parameters, **{f"id_{number}": value for number, value in enumerate(ids)}}
    return tx.rows(
        "SELECT s.id, s.message_count FROM sessions s WHERE s.id > :after AND (s.end_reason IS NULL OR s.end_reason <> 'deleted')"
        f" AND {where}{chosen} ORDER BY s.id LIMIT 200",
        {"after": after, **parameters},
    )


async def in_batches(
    database: Database, scope: Scope, ids: Sequence[str] | None
) -> tuple[list[list[str]], int]:
    """The sessions to be written, in groups that are read at once, and how many messages they have.

    Ids only: ten million sessions are a gigabyte, not more.
    """
    groups: list[list[str]] = []
    size, total = _READ_AT_ONCE, 0
    slices = [None] if ids is None else [sorted(ids)[at : at + 500] for at in range(0, len(ids), 500)]
    for chosen in slices:
        after = ""
        while True:
            page = await database.read(
                lambda tx, chosen=chosen, after=after: pages_of_sessions(tx, scope, chosen, after)  # type: ignore[misc]  # bound early
            )
            if not page:
                break
            for row in page:
                if size >= _READ_AT_ONCE:
                    groups.append([])
                    size = 0
                groups[-1].append(row["id"])
                size += 5 + int(row["message_count"])
                total += int(row["message_count"])
            after = page[-1]["id"]
    return groups, total


async def export(
    database: Database,
    write: Callable[[bytes], object],
    *,
    scope: Scope | None = None,
    ids: Sequence[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write sessions within the scope as JSONL; all of them, or those named. `write` is called in another thread.

    With the operator's scope and no ids everybody is written who was ever met; else those who appear in what is written.
    """
    scope = scope or OperatorScope()
    groups, total = await in_batches(database, scope, ids)
    known = await database.read(contents)
    waiting = await database.read(_waiting)
    write(_line(HEADER))
    persons = 0
    after: str | None = None
    if ids is None and isinstance(scope, OperatorScope):
        after = ""
        while page := await database.read(lambda tx, after=after: _persons(tx, known, after=after)):  # type: ignore[misc]  # bound early
            write(b"".join(map(_line, page)))
            persons += len(page)
            after = page[-1]["id"]
    else:
        people = await database.read(lambda tx: _appearing(tx, itertools.chain.from_iterable(groups)))
        for at in range(0, len(people), PAGE):
            page = await database.read(lambda tx, at=at: _persons(tx, known, ids=people[at : at + PAGE]))  # type: ignore[misc]  # bound early
            write(b"".join(map(_line, page)))
            persons += len(page)
    sessions = messages = 0
    for group in groups:
        spool, counted, after = await database.read(
            lambda tx, group=group, after=after: _spooled(tx, known, group, after)  # type: ignore[misc]  # bound early
        )
        with spool:
            await asyncio.to_thread(_pour, spool, write)
        persons += counted["person"]
        sessions += counted["session"]
        messages += counted["message"]
        progress(messages, max(total, messages))
    write(_line({"type": "end", "persons": persons, "sessions": sessions, "messages": messages}))
    return Exported(persons, sessions, messages, waiting)


def _pour(spool: IO[bytes], write: Callable[[bytes], object]) -> None:
    while piece := spool.read(1 << 20):
        write(piece)


def _line(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _waiting(tx: Transaction) -> int:
    row = tx.row(
        "SELECT COUNT(*) AS n FROM outbox WHERE state IN ('ready', 'sending', 'uncertain') AND is_final = 1"
    )
    return int(row["n"]) if row else 0


def _persons(
    tx: Transaction,
    known: Mapping[str, Mapping[str, tuple[type, ...]]],
    *,
    after: str = "",
    ids: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    chosen, parameters = "p.id > :after", dict[str, object](after=after, page=PAGE)
    if ids is not None:
        chosen = f"p.id IN ({', '.join(f':id_{number}' for number in range(len(ids)))})"
        parameters = {f"id_{number}": value for number, value in enumerate(ids)} | {"page": PAGE}
    rows = tx.rows(
        f"SELECT 'person' AS type, {_listed(known['person'], 'p')} FROM persons p WHERE {chosen} ORDER BY p.id LIMIT :page",
        parameters,
    )
    if not rows:
        return []
    identities = tx.rows(
        f"SELECT person_id, {_listed(known['identity'], 'i')} FROM identities i"
        " WHERE person_id >= :first AND person_id <= :last ORDER BY person_id, platform, platform_user_id",
        {"first": rows[0]["id"], "last": rows[-1]["id"]},
    )
    by_person: dict[str, list[dict[str, Any]]] = {}
    for identity in identities:
        named = dict(identity)
        by_person.setdefault(named.pop("person_id"), []).append(named)
    return [{**row, "identities": by_person.get(row["id"], [])} for row in rows]


def _appearing(tx: Transaction, ids: Iterable[str]) -> list[str]:
    """Who owns these sessions or wrote in them."""
    found: set[str] = set()
    for session_id in ids:
        for row in tx.rows(
            "SELECT person_id FROM sessions WHERE id = :id AND person_id IS NOT NULL"
            " UNION SELECT person_id FROM messages WHERE session_id = :id AND person_id IS NOT NULL"
            " UNION SELECT i.person_id FROM turns t JOIN inbox i ON i.id = t.inbox_id"
            " WHERE t.session_id = :id AND i.person_id IS NOT NULL",
            {"id": session_id},
        ):
            found.add(row["person_id"])
    return sorted(found)


def _spooled(
    tx: Transaction,
    known: Mapping[str, Mapping[str, tuple[type, ...]]],
    ids: Sequence[str],
    after: str | None,
) -> tuple[IO[bytes], dict[str, int], str | None]:
    """The lines of some sessions. A large one goes to a file, because a reader that is tried again must not write twice.

    With `after`, first the people whom the bot has met since that one: they may have written in these sessions.
    """
    spool = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))  # noqa: SIM115 - the caller closes it
    try:
        counted, after = _write_sessions(tx, spool.write, known, ids, after)
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool, counted, after


def _write_sessions(
    tx: Transaction,
    write: Callable[[bytes], object],
    known: Mapping[str, Mapping[str, tuple[type, ...]]],
    ids: Sequence[str],
    after: str | None,
) -> tuple[dict[str, int], str | None]:
    counted = {"person": 0, "session": 0, "message": 0}
    while after is not None and (page := _persons(tx, known, after=after)):
        write(b"".join(map(_line, page)))
        counted["person"] += len(page)
        after = page[-1]["id"]
    for session_id in ids:
        row = tx.row(
            f"SELECT 'session' AS type, {_listed(known['session'], 's')} FROM sessions s WHERE s.id = :id"
            " AND (s.end_reason IS NULL OR s.end_reason <> 'deleted')",
            {"id": session_id},
        )
        if row is None:  # removed since
            continue
        write(_line(row))
        counted["session"] += 1
        for kind in KINDS:
            for rows in _pages(tx, kind, known, session_id):
                write(b"".join([_line(found) for found in rows]))
                if kind.type == "message":
                    counted["message"] += len(rows)
    return counted, after


def _pages(
    tx: Transaction, kind: Kind, known: Mapping[str, Mapping[str, tuple[type, ...]]], session_id: str
) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The rows of one kind, a page at a time."""
    own = known[kind.type]
    listed = _listed(own, "x")
    # A page goes on after the last row of the one before: by columns of the record, or by others that are asked for besides.
    order = kind.order.split(", ")
    places = [
        column.removeprefix("x.") if column.startswith("x.") and column[2:] in own else f"place_{number}"
        for number, column in enumerate(order)
    ]
    extra = [
        (column, place) for column, place in zip(order, places, strict=True) if place.startswith("place_")
    ]
    listed += "".join(f", {column} AS {place}" for column, place in extra)
    if kind.type == "turn":
        listed += ", i.id AS inbox_id, " + ", ".join(f"i.{name} AS inbox_{name}" for name in known["inbox"])
    belongs = "x.session_id = :session" if kind.has_session_id else "t.session_id = :session"
    beyond = f" AND ({kind.order}) > ({', '.join(f':after_{number}' for number in range(len(order)))})"
    parameters: dict[str, object] = {"session": session_id, "page": PAGE}
    following = ""
    while True:
        rows = tx.rows(
            f"SELECT '{kind.type}' AS type, {listed} FROM {kind.table} x{kind.join}"
            f" WHERE {belongs}{following} ORDER BY {kind.order} LIMIT :page",
            parameters,
        )
        if not rows:
            return
        parameters |= {f"after_{number}": rows[-1][place] for number, place in enumerate(places)}
        following = beyond
        for _, place in extra:
            for row in rows:
                del row[place]  # type: ignore[attr-defined]  # a row is a dict of its own
        yield _with_inbox(rows, own, known["inbox"]) if kind.type == "turn" else rows
        if len(rows) < PAGE:
            return


def _with_inbox(rows: Sequence[Row], own: Iterable[str], inbox: Iterable[str]) -> list[dict[str, Any]]:
    """Turns with the messages that queued them, which are rows of another table."""
    names = ["type", *own]
    arrived = [(name, f"inbox_{name}") for name in inbox]
    return [
        {name: row[name] for name in names}
        | {"inbox": None if row["inbox_id"] is None else {name: row[column] for name, column in arrived}}
        for row in rows
    ]


def _listed(names: Iterable[str], alias: str) -> str:
    return ", ".join(f"{alias}.{name}" for name in names)


__all__ = ["Exported", "Progress", "export", "in_batches"]
