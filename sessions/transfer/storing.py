"""One batch of an import: sessions, whole or in part, and the people in them, put into the database in one transaction.

Owns what happens to what is there already. That the rows are sound and belong together was looked at in `intake.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from config.names import AccountId, ChannelId, PersonId, ThreadId
from sessions.database.base import Transaction
from sessions.errors import TransferError
from sessions.keys import session_key
from sessions.sealing import EMPTY, SEALED
from sessions.transfer.records import KINDS

Record = dict[str, Any]
Rows = dict[tuple[str, ...], list[Any]]
"""Rows of one table by the columns they have: an older file lacks some, which then get their defaults. Nearly always one group.

The values of one row follow those of the one before: a list for the batch, not an object for each of its rows.
"""
ARRIVED: Final = ("inbox_account", "inbox_channel", "inbox_message_id")
"""How a turn finds the message that queued it, whose number only the database knows."""


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
class Part:
    """A session as it comes off the file, or the next part of a large one."""

    record: Record
    line: int
    rows: dict[str, Rows] = field(default_factory=dict)
    size: int = 1
    turn_ids: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    """Its turns that are still to be run."""
    is_part: bool = False
    is_first: bool = True


def put(rows: dict[str, Rows], kind: str, columns: tuple[str, ...], values: Iterable[object]) -> None:
    try:
        rows[kind][columns].extend(values)
    except KeyError:
        rows.setdefault(kind, {})[columns] = [*values]


def _apart(columns: Sequence[str], values: Sequence[Any]) -> Iterator[Record]:
    """Each row by itself."""
    for at in range(0, len(values), len(columns)):
        yield dict(zip(columns, values[at : at + len(columns)], strict=True))


def held_back(part: Part) -> Part:
    """The next part of a large session, with the turns that wait to be run and what hangs on them.

    A daemon that starts between two tries of an import must not run them in half a conversation.
    """
    waiting = part.waiting | {
        row["id"]
        for columns, values in part.rows.get("turn", {}).items()
        for row in _apart(columns, values)
        if row["status"] in ("queued", "running")
    }
    rest = Part(part.record, part.line, turn_ids=part.turn_ids, waiting=waiting, is_part=True, is_first=False)
    if waiting:
        for kind, name in (("turn", "id"), ("step", "turn_id"), ("tool_call", "turn_id")):
            for columns, values in part.rows.pop(kind, {}).items():
                for row in _apart(columns, values):
                    target = rest if row[name] in waiting else part
                    put(target.rows, kind, columns, row.values())
    return rest


def store_batch(
    tx: Transaction,
    persons: Sequence[Record],
    sessions: Sequence[Part],
    same: Mapping[str, str],
    now: int,
) -> tuple[Imported, dict[str, str]]:
    """Everything of one batch in one transaction. May run twice, so it changes none of its arguments."""
    done, same = Imported(), dict(same)
    for person in persons:
        done.persons += _store_person(tx, person, same)
    rows: dict[str, Rows] = {}
    again: dict[str, Rows] = {}  # of large sessions: some may be there from a try that was cut off
    opened: list[Part] = []
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
            record = {**record, **unfinished} if session.is_part else record
            _insert(tx, "sessions", {tuple(record): [*record.values()]}, ("id",))
        elif not session.is_part:
            opened.append(Part(record, session.line))
        if not session.is_part:
            done.sessions += 1
        target = rows if there is None and not session.is_part else again
        for kind, alike in session.rows.items():
            gathered = target.setdefault(kind, {})
            for names, values in alike.items():
                done.messages += len(values) // len(names) if kind == "message" else 0
                if same and "person_id" in names:
                    place = names.index("person_id")
                    values = values.copy()
                    values[place :: len(names)] = [same.get(one, one) for one in values[place :: len(names)]]
                gathered.setdefault(names, []).extend(values)
    for target in (rows, again):
        _insert(tx, "inbox", target.get("inbox", {}), ("account", "channel", "message_id"))
        for kind_of in KINDS:
            found_of = target.get(kind_of.type, {})
            if kind_of.type == "turn":
                _insert_turns(tx, found_of)
            elif kind_of.type not in _REPEATABLE:
                _insert(tx, kind_of.table, found_of, kind_of.unique)
            elif target is rows:
                _insert(tx, kind_of.table, found_of, ())
            else:
                _insert_again(tx, kind_of.table, found_of, kind_of.unique)
    for session in opened:
        changed = [name for name in session.record if name != "id"]
        tx.execute(
            f"UPDATE sessions SET {', '.join(f'{name} = :{name}' for name in changed)} WHERE id = :id",
            _sealed_row(tx, "sessions", session.record),
        )
    for session in sessions:
        if session.record.get("forked_from") and "copied_count" not in session.record and not session.is_part:
            _count_copied(tx, session.record["id"])
    return done, same


def _count_copied(tx: Transaction, session_id: str) -> None:
    """An older file counts what a fork took along with what was said in it."""
    copied = "(SELECT COUNT(*) FROM messages m WHERE m.session_id = sessions.id AND m.turn_id IS NULL)"
    tx.execute(
        f"UPDATE sessions SET message_count = message_count - {copied}, copied_count = {copied}"
        " WHERE id = :id AND copied_count = 0",
        {"id": session_id},
    )


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
    for identity in identities:
        named = {**identity, "person_id": target}
        _insert(tx, "identities", {tuple(named): [*named.values()]}, ("platform", "platform_user_id"))
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


def _insert_turns(tx: Transaction, turns: Rows) -> None:
    for names, values in turns.items():
        own = [name for name in names if not name.startswith("inbox_")]
        tx.insert_many(
            f"turns ({', '.join(own)}, inbox_id)",
            f"({', '.join(f':{name}' for name in own)}, COALESCE((SELECT id FROM inbox WHERE account = :inbox_account"
            " AND channel = :inbox_channel AND message_id = :inbox_message_id), 0))",
            values,
            "ON CONFLICT (id) DO NOTHING",
        )


def _insert(tx: Transaction, table: str, found: Rows, unique: Sequence[str]) -> None:
    """Add rows; those that are there stay as they are, as far as `unique` tells."""
    same = f"ON CONFLICT ({', '.join(unique)}) DO NOTHING" if unique else ""
    for names, values in _sealed(tx, table, found).items():
        listed, row = ", ".join(names), ", ".join(f":{name}" for name in names)
        tx.insert_many(f"{table} ({listed})", f"({row})", values, same)


def _insert_again(tx: Transaction, table: str, found: Rows, unique: Sequence[str]) -> None:
    """Add rows to a table without a unique key, of which some may be there from a try that was cut off."""
    same = " AND ".join(f"{name} = :{name}" for name in unique)
    for names, values in _sealed(tx, table, found).items():
        listed, row = ", ".join(names), ", ".join(f":{name}" for name in names)
        for one in _apart(names, values):
            tx.execute(
                f"INSERT INTO {table} ({listed}) SELECT {row} WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {same})",
                one,
            )


def _sealed(tx: Transaction, table: str, found: Rows) -> Rows:
    if not tx.seal.is_on or table not in SEALED:
        return found
    sealed: Rows = {}
    for names, values in found.items():
        for row in _apart(names, values):
            changed = _sealed_row(tx, table, row)
            put({table: sealed}, table, tuple(changed), changed.values())
    return sealed


def _sealed_row(tx: Transaction, table: str, row: Record) -> Record:
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
