"""Forgetting people who ask for it.

Owns what is removed of a person and in which small, resumable steps; the daemon runs them beside people who chat. What other
people wrote or were answered is theirs, even where it quotes somebody. What stays of a turn is `emptying.py`'s affair.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import orjson

from config.names import PersonId, SessionId
from sessions import audit, cleanup, emptying, search, statistics
from sessions.audit import Actor
from sessions.database.base import Row, Transaction, row_lock
from sessions.database.values import escape_like

_SPAN: Final = 5000
"""Rows that are looked through at a time for what somebody said elsewhere: some milliseconds."""
_PATIENCE_MS: Final = 30_000
"""How long a step waits that cannot be done yet."""


def request(tx: Transaction, person_id: PersonId, now: int, *, actor: Actor = "person") -> None:
    """Have a person forgotten: what they write from now on is a stranger's. `step` removes the rest, whatever happens meanwhile."""
    tx.execute(
        "INSERT INTO erasures (person_id, requested_at, actor, stage) VALUES (:person, :now, :actor, 'requested')"
        # Somebody may come back by an import before the bytes of their first time are overwritten.
        " ON CONFLICT (person_id) DO UPDATE SET requested_at = :now, actor = :actor, stage = 'requested', after = 0,"
        " not_before = 0, counts = '{}' WHERE erasures.stage = 'removed'",
        {"person": person_id, "now": now, "actor": actor},
    )
    row = tx.row(f"SELECT {_COLUMNS} FROM erasures WHERE person_id = :person", {"person": person_id})
    if row is not None and row["stage"] == "requested":
        _Erasure(tx, row, now).begin()


def due(tx: Transaction, now: int) -> int:
    """How many people wait to be forgotten, as far as something can be done about it now."""
    row = tx.row(f"SELECT COUNT(*) AS n FROM erasures WHERE {_DUE}", {"now": now})
    return int(row["n"]) if row else 0


_COLUMNS: Final = "person_id, actor, stage, after, counts"
_DUE: Final = "not_before <= :now AND stage <> 'removed'"


def removed(tx: Transaction) -> list[PersonId]:
    """People of whom no row is left, while their bytes may still lie in unused parts of the file: until `end`."""
    return [row["person_id"] for row in tx.rows("SELECT person_id FROM erasures WHERE stage = 'removed'")]


def end(tx: Transaction, people: Sequence[PersonId]) -> None:
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
        {"pattern": "%" + escape_like(piece) + "%"},
    )
    return found is not None


def step(tx: Transaction, now: int) -> int:
    """Do one small step of one erasure; 0 when nothing is to be done now. Each step is complete in itself."""
    row = tx.row(
        f"SELECT {_COLUMNS} FROM erasures WHERE {_DUE} ORDER BY requested_at LIMIT 1" + row_lock(tx),
        {"now": now},
    )
    if row is None:
        return 0
    erasure = _Erasure(tx, row, now)
    match row["stage"]:
        case "requested":
            erasure.begin()
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

    def begin(self) -> None:
        self.count(
            "identities", self._tx.execute("DELETE FROM identities WHERE person_id = :person", self.person)
        )
        self.go_on("sessions")

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
                {"id": session["id"], "slice": emptying.SLICE},
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
            f"SELECT {columns} FROM {table} WHERE id > :after AND id <= :upto AND person_id = :person"
            f" ORDER BY id LIMIT {emptying.SLICE}",
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
        if len(found) == emptying.SLICE:
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
        for word, amount in emptying.empty_turns(self._tx, session_id, positions, self._now).items():
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
