"""Reading what was said and what happened: pages of a conversation, and the story of one message.

Owns the reads; every one takes a `Scope`. Words are looked for in `search.py`; writing belongs to `inbox.py`, `lane.py`
and `outbox.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sessions.database.base import Row, Transaction
from sessions.database.values import escape_like
from sessions.forking import NOT_TWICE_IN_KEY
from sessions.lane import read_message
from sessions.models import Message
from sessions.scope import Scope, condition, within

_COLUMNS = "m.session_id, m.position, m.part, m.role, m.content, m.author, m.created_at, m.turn_id, m.attachments, m.metadata"


_LONGEST_WORD = 200  # longer patterns are refused by SQLite; nobody looks for such a word


@dataclass(frozen=True, slots=True)
class Page:
    messages: Sequence[Message]
    """Oldest first."""
    number: int
    """1 is the newest page."""
    total: int
    """Messages under the key."""


def page(tx: Transaction, key: str, scope: Scope, *, number: int = 1, size: int = 10) -> Page:
    """One page of all that was said under a session key, ended sessions included, counted from the newest."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    where = f"{where} AND {NOT_TWICE_IN_KEY}"
    total = tx.row(
        f"SELECT COUNT(*) AS n FROM messages m JOIN sessions s ON s.id = m.session_id WHERE s.key = :key AND {where}",
        {"key": key, **parameters},
    )
    rows = tx.rows(
        f"SELECT {_COLUMNS} FROM messages m JOIN sessions s ON s.id = m.session_id WHERE s.key = :key AND {where}"
        # the live session may be an older one that was taken up again
        " ORDER BY CASE WHEN s.status IN ('active', 'paused') THEN 0 ELSE 1 END, s.last_activity_at DESC, s.id DESC,"
        " m.position DESC, m.part DESC LIMIT :size OFFSET :offset",
        {"key": key, "size": size, "offset": (number - 1) * size, **parameters},
    )
    return Page([read_message(row) for row in reversed(rows)], number, int(total["n"]) if total else 0)


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is known of one message: the rows as they are, for `palaver why`."""

    inbox: Row
    title: str | None
    """What people call the channel."""
    person: Row | None
    session: Row | None
    turn: Row | None
    tool_calls: Sequence[Row]
    errors: Sequence[Row]
    chunks: Sequence[Row]
    ahead: int


def trace(tx: Transaction, inbox: Row) -> Trace:
    """The story of a message, by its row of the inbox. For operators."""
    by_turn = {"id": inbox["turn_id"]}
    turn = tx.row("SELECT * FROM turns WHERE id = :id", by_turn)
    session = tx.row("SELECT * FROM sessions WHERE id = :id", {"id": inbox["session_id"]})
    ahead = (
        tx.row(
            "SELECT COUNT(*) AS n FROM turns WHERE session_id = :session AND position < :position"
            " AND (finished_at IS NULL OR finished_at > :queued)",
            {"session": turn["session_id"], "position": turn["position"], "queued": turn["queued_at"]},
        )
        if turn
        else None
    )
    person = tx.row(
        "SELECT p.id, p.display_name, p.role, i.platform_user_id FROM persons p LEFT JOIN identities i ON i.person_id = p.id"
        " AND i.platform = :platform WHERE p.id = :id",
        {"id": inbox["person_id"], "platform": inbox["account"].partition(".")[0]},
    )
    channel = tx.row(
        "SELECT title FROM channels WHERE account = :account AND channel = :channel",
        {"account": inbox["account"], "channel": inbox["channel"]},
    )
    return Trace(
        inbox=inbox,
        title=channel["title"] if channel else None,
        person=person,
        session=session,
        turn=turn,
        tool_calls=tx.rows("SELECT * FROM tool_calls WHERE turn_id = :id ORDER BY id", by_turn),
        errors=tx.rows("SELECT * FROM errors WHERE turn_id = :id ORDER BY created_at", by_turn),
        chunks=tx.rows("SELECT * FROM outbox WHERE inbox_id = :id ORDER BY id", {"id": inbox["id"]}),
        ahead=int(ahead["n"]) if ahead else 0,
    )


def find_inbox(tx: Transaction, words: Sequence[str]) -> list[Row]:
    """Rows of the inbox that an operator means: by (account, channel, message id), by message id, by a reference or a turn's id.

    Gives at most 20, newest first. `words` are what was typed after `palaver why`.
    """
    if len(words) == 3:
        account, channel, message = words
        return tx.rows(
            "SELECT * FROM inbox WHERE account = :account AND channel = :channel"
            " AND (message_id = :message OR message_id LIKE :edits ESCAPE '!') ORDER BY id DESC LIMIT 20",
            {
                "account": account,
                "channel": channel,
                "message": message,
                "edits": f"{escape_like(message)}:%",
            },
        )
    word = words[0].strip(" ().,;:")
    return tx.rows(
        "SELECT * FROM inbox WHERE message_id = :word OR turn_id = :word"
        " OR turn_id IN (SELECT turn_id FROM errors WHERE ref = :ref)"
        " OR id IN (SELECT inbox_id FROM outbox WHERE platform_message_id = :word) ORDER BY id DESC LIMIT 20",
        {"word": word, "ref": word.upper().removeprefix("REF").strip()},
    )
