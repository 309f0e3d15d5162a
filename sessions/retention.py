"""Forgetting: people who ask for it, and messages that are older than the operator keeps them.

Owns what is removed and in which small, resumable steps; the daemon runs them beside people who chat. A turn that was forgotten
leaves its bare numbers (when, how long, tokens), never a word. What other people wrote or were answered is theirs, even where it
quotes somebody. Whole sessions that have had their day are `cleanup.py`'s affair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson

from config.names import AccountId, ChannelId, PersonId, SessionId
from sessions import audit, cleanup, queue, search, statistics
from sessions.audit import Actor
from sessions.database.base import Row, Transaction, row_lock

_SLICE: Final = 100
"""Turns that are emptied at a time."""
_SPAN: Final = 5000
"""Rows that are looked through at a time for what somebody said elsewhere: some milliseconds."""
_PATIENCE_MS: Final = 30_000
"""How long a step waits that cannot be done yet."""


# people


@dataclass(frozen=True, slots=True)
class PersonSummary:
    id: PersonId
    display_name: str
    role: str
    identities: Sequence[tuple[str, str, str | None]]
    """Platform, the platform's id, username."""
    sessions: int
    messages: int
    created_at: int
    last_seen_at: int
    is_being_erased: bool


def request_erase(tx: Transaction, person_id: PersonId, now: int, *, actor: Actor = "person") -> None:
    """Have a person forgotten. `erase_step` does it, from the next moment on and whatever happens meanwhile."""
    tx.execute(
        "INSERT INTO erasures (person_id, requested_at, actor, stage) VALUES (:person, :now, :actor, 'requested')"
        # Somebody may come back by an import before the bytes of their first time are overwritten.
        " ON CONFLICT (person_id) DO UPDATE SET requested_at = :now, actor = :actor, stage = 'requested', after = 0,"
        " not_before = 0, counts = '{}' WHERE erasures.stage = 'removed'",
        {"person": person_id, "now": now, "actor": actor},
    )


def erasures_due(tx: Transaction, now: int) -> int:
    """How many people wait to be forgotten, as far as something can be done about it now."""
    row = tx.row(f"SELECT COUNT(*) AS n FROM erasures WHERE {_DUE}", {"now": now})
    return int(row["n"]) if row else 0


_DUE: Final = "not_before <= :now AND stage <> 'removed'"


def removed(tx: Transaction) -> list[PersonId]:
    """People of whom no row is left, while their bytes may still lie in unused parts of the file: until `end_erasures`."""
    return [row["person_id"] for row in tx.rows("SELECT person_id FROM erasures WHERE stage = 'removed'")]


def end_erasures(tx: Transaction, people: Sequence[PersonId]) -> None:
    """These people's bytes are overwritten; nothing of their erasure is left to be done."""
    for person in people:
        tx.execute("DELETE FROM erasures WHERE person_id = :person AND stage = 'removed'", {"person": person})


def samples(tx: Transaction, person_id: PersonId, *, limit: int = 16) -> list[str]:
    """Pieces of what a person said, as they are stored: after an erasure the database's files are searched for them."""
    rows = tx.rows(
        "SELECT DISTINCT substr(content, CASE WHEN is_sealed = 1 THEN 40 ELSE 1 END, 60) AS piece FROM messages"
        " WHERE person_id = :person AND LENGTH(content) >= 12 ORDER BY piece DESC LIMIT :limit",
        {"person": person_id, "limit": limit},
    )
    return [row["piece"] for row in rows]


def is_said(tx: Transaction, piece: str) -> bool:
    """Whether a piece of text is in a message that is there: others may have said the same, or quoted it."""
    found = tx.row(
        "SELECT 1 AS x FROM messages WHERE content LIKE :pattern ESCAPE '!' LIMIT 1",
        {"pattern": "%" + _literal(piece) + "%"},
    )
    return found is not None


def _literal(words: str) -> str:
    """Words in which LIKE finds nothing special."""
    return words.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def erase_step(tx: Transaction, now: int) -> int:
    """Do one small step of one erasure; 0 when nothing is to be done now. Each step is complete in itself.

    The identities go first: whatever the person writes from then on is a stranger's.
    """
    row = tx.row(
        f"SELECT person_id, actor, stage, after, counts FROM erasures WHERE {_DUE} ORDER BY requested_at LIMIT 1"
        + row_lock(tx),
        {"now": now},
    )
    if row is None:
        return 0
    erasure = _Erasure(tx, row, now)
    match row["stage"]:
        case "requested":
            erasure.count("identities", tx.execute(_OF_PERSON.format(table="identities"), erasure.person))
            erasure.go_on("sessions")
        case "sessions":
            erasure.empty_own_session()
        case "inbox":
            erasure.empty_elsewhere("inbox")
        case "messages":
            erasure.empty_elsewhere("messages")
        case "words":
            erasure.merge_words()
        case _:
            erasure.end()
    return 1


_OF_PERSON: Final = "DELETE FROM {table} WHERE person_id = :person"


class _Erasure:
    """One step of forgetting one person."""

    def __init__(self, tx: Transaction, row: Row, now: int) -> None:
        self._tx = tx
        self._row = row
        self._now = now
        self._counts: dict[str, int] = orjson.loads(row["counts"])
        self.person: Mapping[str, object] = {"person": row["person_id"]}

    def count(self, word: str, amount: int) -> None:
        self._counts[word] = self._counts.get(word, 0) + amount

    def go_on(self, stage: str, after: int = 0, *, not_before: int = 0) -> None:
        self._tx.execute(
            "UPDATE erasures SET stage = :stage, after = :after, not_before = :not_before, counts = :counts"
            " WHERE person_id = :person",
            {
                **self.person,
                "stage": stage,
                "after": after,
                "not_before": not_before,
                "counts": orjson.dumps(self._counts).decode(),
            },
        )

    def empty_own_session(self) -> None:
        """A slice of one of the sessions that are theirs alone; then the session itself."""
        tx = self._tx
        session = tx.row(
            "SELECT id, account, channel, scope FROM sessions WHERE person_id = :person ORDER BY id LIMIT 1",
            self.person,
        )
        if session is None:
            self.go_on("inbox")
            return
        positions = [
            row["position"]
            for row in tx.rows(
                "SELECT DISTINCT position FROM messages WHERE session_id = :id ORDER BY position LIMIT :slice",
                {"id": session["id"], "slice": _SLICE},
            )
        ]
        if positions:
            self._empty(session["id"], positions)
            self.go_on("sessions")
            return
        parameters = {"id": session["id"]}
        tx.execute(
            "UPDATE inbox SET outcome = 'declined', reason = 'erased', person_id = NULL, reply_handle = NULL, thread = NULL"
            " WHERE session_id = :id",
            parameters,
        )
        cleanup.purge(tx, session["id"])
        if session["scope"] in ("person", "person_everywhere"):
            where = {"account": session["account"], "channel": session["channel"]}
            tx.execute(
                "DELETE FROM channels WHERE account = :account AND channel = :channel AND kind = 'direct'",
                where,
            )
        self.count("sessions", 1)
        self.go_on("sessions")

    def empty_elsewhere(self, table: Literal["inbox", "messages"]) -> None:
        """Their words in sessions that others share, found by a look through all rows, a stretch at a time."""
        tx = self._tx
        after = int(self._row["after"])
        stretch = tx.row(
            f"SELECT MAX(id) AS last, COUNT(*) AS n FROM (SELECT id FROM {table} WHERE id > :after ORDER BY id LIMIT :span) AS x",
            {"after": after, "span": _SPAN},
        )
        last = int(stretch["last"] or after) if stretch is not None else after
        columns = "id, session_id, turn_id" if table == "inbox" else "id, session_id, position"
        found = tx.rows(
            f"SELECT {columns} FROM {table} WHERE id > :after AND id <= :upto AND person_id = :person ORDER BY id LIMIT {_SLICE}",
            {**self.person, "after": after, "upto": last},
        )
        if table == "messages":
            by_session: dict[SessionId, list[int]] = {}
            for row in found:
                by_session.setdefault(row["session_id"], []).append(row["position"])
            for session_id, positions in by_session.items():
                self._empty(session_id, sorted(set(positions)))
        else:
            for row in found:
                self._empty_arrived(row)
        if len(found) == _SLICE:
            self.go_on(table, int(found[-1]["id"]))
        elif last > after:
            self.go_on(table, last)
        else:
            self.go_on("messages" if table == "inbox" else "rest")

    def _empty_arrived(self, arrived: Row) -> None:
        """One message that came, with its turn and the replies to it."""
        tx, parameters = self._tx, {"id": arrived["id"]}
        turn = tx.row("SELECT session_id, position FROM turns WHERE id = :turn", {"turn": arrived["turn_id"]})
        if turn is not None:
            self._empty(turn["session_id"], [turn["position"]])
        # The answer to the wish itself may still be on its way; replies to commands are removed after a day anyway.
        self.count(
            "replies",
            tx.execute(
                "DELETE FROM outbox WHERE inbox_id = :id AND NOT (kind IN ('command', 'notice')"
                " AND state IN ('ready', 'sending', 'uncertain'))",
                parameters,
            ),
        )
        tx.execute(
            "UPDATE inbox SET outcome = 'declined', reason = 'erased', person_id = NULL, reply_handle = NULL,"
            " session_id = NULL, turn_id = NULL WHERE id = :id",
            parameters,
        )

    def _empty(self, session_id: SessionId, positions: Sequence[int]) -> None:
        for word, amount in empty_turns(self._tx, session_id, positions, self._now).items():
            self.count(word, amount)

    def end(self) -> None:
        """Nothing is left but the person's own row. What is written down has no word of theirs."""
        tx = self._tx
        waiting = tx.row(
            "SELECT 1 AS x FROM sessions WHERE person_id = :person UNION ALL"
            " SELECT 1 FROM identities WHERE person_id = :person",
            self.person,
        )
        if waiting is not None:  # an import or a step of another node came in between
            self.go_on("requested", not_before=self._now + _PATIENCE_MS)
            return
        tx.execute("UPDATE session_events SET person_id = NULL WHERE person_id = :person", self.person)
        statistics.forget_person(tx, self._row["person_id"])
        tx.execute("DELETE FROM persons WHERE id = :person", self.person)
        audit.record(tx, self._row["actor"], "person_erased", self._row["person_id"], self._counts, self._now)
        self.go_on("words")

    def merge_words(self) -> None:
        """The search index loses their words, a small piece at a time: whole, it takes seconds in which nobody could chat."""
        if search.merge_removed_words(self._tx, is_first=not self._row["after"]):
            self.go_on("words", after=1)
        else:
            self.go_on("removed")


def empty_turns(tx: Transaction, session_id: SessionId, positions: Sequence[int], now: int) -> dict[str, int]:
    """Remove what was said and done in some turns of a session; gives how many rows of what. The turns keep their numbers.

    A turn that waits or runs is ended: whoever runs it can store nothing any more.
    """
    within: dict[str, object] = {"id": session_id}
    within |= {f"position_{number}": position for number, position in enumerate(positions)}
    listed = ", ".join(f":position_{number}" for number in range(len(positions)))
    turns = f"SELECT id FROM turns WHERE session_id = :id AND position IN ({listed})"
    tx.execute(
        "UPDATE turns SET status = 'cancelled', epoch = epoch + 1, finished_at = :now WHERE session_id = :id"
        f" AND position IN ({listed}) AND status IN ('queued', 'running')",
        {**within, "now": now},
    )
    if tx.dialect == "postgresql":
        queue.drop(tx, [row["id"] for row in tx.rows(turns, within)])
    failed = tx.row(
        f"SELECT COUNT(*) AS n FROM tool_calls WHERE outcome = 'error' AND turn_id IN ({turns})", within
    )
    # What a tool was told to remember in a shared session is under the name that it was given.
    remembered = {
        name
        for row in tx.rows(
            f"SELECT arguments FROM tool_calls WHERE name = 'remember' AND turn_id IN ({turns})", within
        )
        if isinstance(name := orjson.loads(row["arguments"]).get("name"), str)
    }
    for name in remembered:
        tx.execute(
            "DELETE FROM session_variables WHERE session_id = :id AND LOWER(name) = LOWER(:name)",
            {"id": session_id, "name": name},
        )
    copied = tx.row(
        f"SELECT COUNT(*) AS n FROM messages m JOIN sessions s ON s.id = m.session_id WHERE m.session_id = :id"
        f" AND m.position IN ({listed}) AND m.turn_id IS NULL AND s.forked_from IS NOT NULL",
        within,
    )
    removed = {
        "steps": tx.execute(f"DELETE FROM steps WHERE turn_id IN ({turns})", within),
        "tool_calls": tx.execute(f"DELETE FROM tool_calls WHERE turn_id IN ({turns})", within),
        "errors": tx.execute(f"DELETE FROM errors WHERE turn_id IN ({turns})", within),
        "replies": tx.execute(f"DELETE FROM outbox WHERE turn_id IN ({turns})", within),
        "messages": tx.execute(
            f"DELETE FROM messages WHERE session_id = :id AND position IN ({listed})", within
        ),
        # Made anew from what is left, as soon as it is needed.
        "summaries": tx.execute("DELETE FROM summaries WHERE session_id = :id", {"id": session_id}),
    }
    tx.execute(
        f"UPDATE turns SET error_ref = NULL WHERE session_id = :id AND position IN ({listed}) AND error_ref IS NOT NULL",
        within,
    )
    tx.execute(
        "UPDATE sessions SET message_count = message_count - :messages, copied_count = copied_count - :copied,"
        " tool_call_count = tool_call_count - :calls,"
        " error_count = CASE WHEN error_count > :errors THEN error_count - :errors ELSE 0 END, summarised_to = 0 WHERE id = :id",
        {
            "id": session_id,
            "messages": removed["messages"] - (int(copied["n"]) if copied else 0),
            "copied": int(copied["n"]) if copied else 0,
            "calls": removed["tool_calls"],
            "errors": removed["errors"] + (int(failed["n"]) if failed else 0),
        },
    )
    return removed


_USERNAME: Final = "COALESCE(i.username, '')"


def list_people(tx: Transaction, *, words: str = "", limit: int = 100) -> list[PersonSummary]:
    """People the bot has met, the latest seen first; with words, those whose name, username or id has them. For operators."""
    # SQLite knows capitals of ASCII letters only, so others are asked for in each form in which a name is likely to be written.
    forms = dict.fromkeys((words, words.lower(), words.upper(), words.title()))
    patterns = {f"pattern_{number}": f"%{_literal(form)}%" for number, form in enumerate(forms)}

    def has(value: str) -> str:
        return "(" + " OR ".join(f"LOWER({value}) LIKE LOWER(:{name}) ESCAPE '!'" for name in patterns) + ")"

    rows = tx.rows(
        "SELECT p.*, (SELECT COUNT(*) FROM sessions s WHERE s.person_id = p.id) AS sessions,"
        " (SELECT COALESCE(SUM(s.message_count), 0) FROM sessions s WHERE s.person_id = p.id) AS messages,"
        " (SELECT COUNT(*) FROM erasures e WHERE e.person_id = p.id) AS erasures FROM persons p"
        f" WHERE {has('p.display_name')} OR {has('p.id')} OR EXISTS (SELECT 1 FROM identities i WHERE i.person_id = p.id"
        f" AND ({has(_USERNAME)} OR {has('i.platform_user_id')}))"
        " ORDER BY p.last_seen_at DESC, p.id DESC LIMIT :limit",
        {**patterns, "limit": limit},
    )
    return [
        PersonSummary(
            row["id"],
            row["display_name"],
            row["role"],
            [
                (one["platform"], one["platform_user_id"], one["username"])
                for one in tx.rows(
                    "SELECT platform, platform_user_id, username FROM identities WHERE person_id = :id"
                    " ORDER BY platform, platform_user_id",
                    {"id": row["id"]},
                )
            ],
            int(row["sessions"]),
            int(row["messages"]),
            row["created_at"],
            row["last_seen_at"],
            bool(row["erasures"]),
        )
        for row in rows
    ]


# age


@dataclass(frozen=True, slots=True)
class Rules:
    """How long messages are kept, in milliseconds; None is for as long as their session."""

    general: int | None = None
    accounts: Mapping[AccountId, int | None] = field(default_factory=dict)
    channels: Mapping[tuple[AccountId, ChannelId], int | None] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Nothing is ever too old."""
        return self.general is None and not any(
            value is not None for value in (*self.accounts.values(), *self.channels.values())
        )

    def kept_ms(self, account: AccountId, channel: ChannelId) -> int | None:
        """By the channel's own rule, else the account's, else the general one."""
        if (account, channel) in self.channels:
            return self.channels[account, channel]
        return self.accounts.get(account, self.general)


def outdated(
    tx: Transaction, rules: Rules, now: int, after: str, batch: int = 500
) -> tuple[list[tuple[SessionId, int]], str | None]:
    """Among the next sessions after an id: those that begin with a message too old, and the time before which it is.

    Gives with them the id to go on after, None at the end. It is a read: the writer is only needed where something is found.
    """
    rows = tx.rows(
        "SELECT s.id, s.account, s.channel, (SELECT m.created_at FROM messages m WHERE m.session_id = s.id"
        " ORDER BY m.position, m.part LIMIT 1) AS oldest FROM sessions s WHERE s.id > :after ORDER BY s.id LIMIT :batch",
        {"after": after, "batch": batch},
    )
    found = []
    for row in rows:
        kept = rules.kept_ms(row["account"], row["channel"])
        if kept is not None and row["oldest"] is not None and row["oldest"] < now - kept:
            found.append((SessionId(row["id"]), now - kept))
    return found, rows[-1]["id"] if len(rows) == batch else None


def count_before(tx: Transaction, session_id: SessionId, before: int) -> int:
    """How many messages of a session are from before a time."""
    row = tx.row(
        "SELECT COUNT(*) AS n FROM messages WHERE session_id = :id AND created_at < :before",
        {"id": session_id, "before": before},
    )
    return int(row["n"]) if row else 0


def forget_before(tx: Transaction, session_id: SessionId, before: int, now: int) -> int:
    """Remove a session's oldest messages, as far as they are from before a time; gives how many, 0 when none is left.

    A small batch. Turns that wait or run are left until they have ended.
    """
    rows = tx.rows(
        "SELECT m.position, MIN(m.created_at) AS at, MAX(CASE WHEN t.status IN ('queued', 'running') THEN 1 ELSE 0 END) AS waits"
        " FROM messages m LEFT JOIN turns t ON t.session_id = m.session_id AND t.position = m.position"
        " WHERE m.session_id = :id AND m.position <= COALESCE((SELECT x.position FROM messages x WHERE x.session_id = :id"
        " ORDER BY x.position, x.part LIMIT 1 OFFSET :slice), (SELECT MAX(y.position) FROM messages y WHERE y.session_id = :id))"
        " GROUP BY m.position ORDER BY m.position",
        {"id": session_id, "slice": 2 * _SLICE},
    )
    positions: list[int] = []
    for row in rows:
        if row["at"] >= before or row["waits"] or len(positions) == _SLICE:
            break
        positions.append(row["position"])
    return empty_turns(tx, session_id, positions, now)["messages"] if positions else 0
