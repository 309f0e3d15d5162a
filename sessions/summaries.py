"""Summaries: which messages are due, what a summary takes the place of, and storing it so that only a whole one is ever seen.

Owns the table `summaries`. A summary covers a stretch of positions and is never changed: a later version may stand for it. The
messages stay as they are, so everything here can be made again. The text is written by the session's model
(`bot/summarising.py`) or is a digest (`digest.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from config.names import SessionId
from config.settings import Settings
from sessions import context, lane, tokens, window
from sessions.database.base import Row, Transaction, row_lock
from sessions.models import Message, Summary

MOST_MESSAGES: Final = 100
"""Of one summary, so that a conversation that was imported whole is done piece by piece."""

_SHARE: Final = 0.7
"""The oldest part, of messages that are due."""
_LOOK: Final = 500
_MOST_IN_FORCE: Final = 6
_STACK_SHARE: Final = 3 / 8
_FEWEST_TOKENS: Final = 40
_VERSIONS_KEPT: Final = 50


@dataclass(frozen=True, slots=True)
class Basis:
    """What a summary was made from. It is stored only while this is still so."""

    version: int
    revision: int
    summarised_to: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Messages to be summarised, and what there is already."""

    session_id: SessionId
    persona: str | None
    basis: Basis
    messages: Sequence[Message]
    stack: Sequence[Summary]
    """The summaries in force, oldest first."""
    room_tokens: int
    """Of the window without the instructions, by our own count."""
    is_live: bool
    """Only while the session is: after /reset nobody needs it."""
    has_more: bool = False
    """So much is due that this is only its beginning."""

    @property
    def from_position(self) -> int:
        return self.messages[0].position

    @property
    def to_position(self) -> int:
        return self.messages[-1].position

    @property
    def limit_tokens(self) -> int:
        """Of one summary."""
        return max(_FEWEST_TOKENS, min(context.SUMMARY_TOKENS, self.room_tokens // 6))


@dataclass(frozen=True, slots=True)
class Made:
    """A summary about to be stored."""

    level: int
    from_position: int
    to_position: int
    content: str
    tokens: int
    made_by: str
    input_tokens: int = 0
    output_tokens: int = 0


ToolTokens = Callable[[str | None], int]
"""What the requests of a persona's agent hold beside the conversation, in tokens by our count."""


def _no_tools(_persona: str | None) -> int:
    return 0


def plan(
    tx: Transaction, session_id: SessionId, settings: Settings, tool_tokens: ToolTokens = _no_tools
) -> Plan | None:
    """What is to be summarised next; None while nothing is due.

    Due are the oldest 70 % of the messages that no summary covers, once the window is 70 % full or they are more than the model
    sees. `tool_tokens` tells what a persona's requests hold beside the conversation. What is being answered, the last answer and
    the last message of a person are never among them.
    """
    found = _session(tx, session_id)
    if found is None or found["status"] not in ("active", "paused"):
        return None
    state = window.read(found)
    bounds = {"id": session_id, "after": state.summarised_to, "until": _first_unfinished(tx, session_id)}
    newest = tx.row(
        "SELECT COUNT(*) AS n, MAX(CASE WHEN role = 'assistant' THEN position END) AS answered,"
        " MAX(CASE WHEN role = 'user' THEN position END) AS asked FROM (SELECT role, position FROM messages"
        " WHERE session_id = :id AND position > :after AND position < :until"
        " ORDER BY position DESC, part DESC LIMIT :look) AS newest",
        {**bounds, "look": _LOOK},
    )
    assert newest is not None
    if newest["n"] < context.FEWEST_TO_SUMMARISE:
        return None
    most = settings.agent.context_messages
    wanted = min(int(_SHARE * newest["n"]), MOST_MESSAGES)
    messages = _read(tx, bounds, wanted + 2 if newest["n"] > most else newest["n"])
    instructions = window.instructions_of(settings, found["persona"])
    limit = window.limit_of(settings, found["account"], found["channel"], state)
    stack = window.summaries_of(tx, session_id) if state.summarised_to else []
    beside = tool_tokens(found["persona"])
    if newest["n"] < most:
        seen = context.compose(
            messages,
            stack,
            instructions=instructions,
            limit_tokens=2**40,
            ratio=state.ratio,
            tool_tokens=beside,
            is_shared=found["person_id"] is None,
        )
        if seen.parts.total < context.DUE_SHARE * limit:
            return None
    keep_from = min(newest["answered"] or 2**62, newest["asked"] or 2**62)
    chosen = _whole_turns(messages, wanted, keep_from)
    if not chosen:
        return None
    room = context.room_beside(limit, int((tokens.count(instructions) + beside) * state.ratio))
    return Plan(
        session_id,
        found["persona"],
        Basis(_version(tx, session_id), state.revision, state.summarised_to),
        chosen,
        stack,
        int(room / state.ratio),
        is_live=True,
        has_more=int(_SHARE * newest["n"]) > MOST_MESSAGES,
    )


def plan_again(
    tx: Transaction, session_id: SessionId, settings: Settings, tool_tokens: ToolTokens = _no_tools
) -> Plan | None:
    """A plan to make all summaries of a session anew from its messages, read with `stretch`; None if it has none."""
    found = _session(tx, session_id)
    if found is None or not found["summarised_to"]:
        return None
    state = window.read(found)
    limit = window.limit_of(settings, found["account"], found["channel"], state)
    fixed = tokens.count(window.instructions_of(settings, found["persona"])) + tool_tokens(found["persona"])
    room = context.room_beside(limit, int(fixed * state.ratio))
    return Plan(
        session_id,
        found["persona"],
        Basis(_version(tx, session_id), state.revision, state.summarised_to),
        (),
        (),
        int(room / state.ratio),
        is_live=False,
    )


def stretch(tx: Transaction, again: Plan, after: int) -> list[Message]:
    """The next messages that the summaries of a session cover, after a position; empty at the end."""
    bounds = {"id": again.session_id, "after": after, "until": again.basis.summarised_to + 1}
    messages = _read(tx, bounds, MOST_MESSAGES + 1)
    if len(messages) <= MOST_MESSAGES:
        return messages
    return _whole_turns(messages, MOST_MESSAGES, 2**62) or messages


def versions(tx: Transaction, again: Plan) -> list[int]:
    """Versions in force that summaries made anew take the place of."""
    return [summary.version for summary in window.summaries_of(tx, again.session_id)]


def pair_to_merge(stack: Sequence[Made | Summary], room_tokens: int) -> int | None:
    """Which summary is to be made one with the next because they have become too much for the window; None while they have not.

    It is the oldest of the least digested pairs: so what was said first is not digested anew with every summary.
    """
    total = sum(summary.tokens for summary in stack)
    if len(stack) < 2 or (
        len(stack) <= _MOST_IN_FORCE and total <= max(room_tokens * _STACK_SHARE, 2 * _FEWEST_TOKENS)
    ):
        return None
    return min(
        range(len(stack) - 1), key=lambda number: (max(stack[number].level, stack[number + 1].level), number)
    )


def store(tx: Transaction, made_from: Plan, made: Sequence[Made], replaces: Sequence[int], now: int) -> bool:
    """Put summaries in force, instead of those versions. False, and nothing is changed, if a reset, an erased message or another
    summary came first.
    """
    row = tx.row(
        "SELECT status, revision, summarised_to FROM sessions WHERE id = :id" + row_lock(tx),
        {"id": made_from.session_id},
    )
    if row is None or (made_from.is_live and row["status"] not in ("active", "paused")):
        return False
    if Basis(_version(tx, made_from.session_id), row["revision"], row["summarised_to"]) != made_from.basis:
        return False
    version = made_from.basis.version
    for summary in made:
        version += 1
        tx.execute(
            "INSERT INTO summaries (session_id, version, level, from_position, to_position, content, tokens, made_by,"
            " input_tokens, output_tokens, created_at) VALUES (:id, :version, :level, :first, :last, :content, :tokens,"
            " :made_by, :input, :output, :now)",
            {
                "id": made_from.session_id,
                "version": version,
                "level": summary.level,
                "first": summary.from_position,
                "last": summary.to_position,
                "content": tx.seal.seal(summary.content),
                "tokens": summary.tokens,
                "made_by": summary.made_by,
                "input": summary.input_tokens,
                "output": summary.output_tokens,
                "now": now,
            },
        )
    for replaced in replaces:
        tx.execute(
            "UPDATE summaries SET replaced_by = :by WHERE session_id = :id AND version = :version",
            {"by": made_from.basis.version + 1, "id": made_from.session_id, "version": replaced},
        )
    if version > _VERSIONS_KEPT:
        tx.execute(
            "DELETE FROM summaries WHERE session_id = :id AND replaced_by IS NOT NULL AND version <= :old",
            {"id": made_from.session_id, "old": version - _VERSIONS_KEPT},
        )
    tx.execute(
        # Made anew, they may reach as far as before: who remembers the old ones must see that they are not the same.
        "UPDATE sessions SET summarised_to = :to, revision = revision + :anew WHERE id = :id",
        {
            "to": max(summary.to_position for summary in made),
            "anew": int(not made_from.is_live),
            "id": made_from.session_id,
        },
    )
    return True


def discard(tx: Transaction, session_id: SessionId) -> int:
    """Remove all summaries of a session, for example because what they tell was erased; later turns make new ones.

    Gives how many.
    """
    tx.execute(
        "UPDATE sessions SET summarised_to = 0, revision = revision + 1 WHERE id = :id", {"id": session_id}
    )
    return tx.execute("DELETE FROM summaries WHERE session_id = :id", {"id": session_id})


def summarised_sessions(tx: Transaction, after: str = "", limit: int = 200) -> list[SessionId]:
    """Ids of sessions that have summaries, in order, from after an id."""
    return [
        row["session_id"]
        for row in tx.rows(
            "SELECT DISTINCT session_id FROM summaries WHERE session_id > :after AND replaced_by IS NULL"
            " ORDER BY session_id LIMIT :limit",
            {"after": after, "limit": limit},
        )
    ]


def _session(tx: Transaction, session_id: SessionId) -> Row | None:
    return tx.row(
        f"SELECT status, persona, person_id, account, channel, {', '.join(window.COLUMNS)} FROM sessions WHERE id = :id",
        {"id": session_id},
    )


def _version(tx: Transaction, session_id: SessionId) -> int:
    row = tx.row("SELECT MAX(version) AS version FROM summaries WHERE session_id = :id", {"id": session_id})
    return int(row["version"] or 0) if row else 0


def _first_unfinished(tx: Transaction, session_id: SessionId) -> int:
    row = tx.row(
        "SELECT MIN(position) AS position FROM turns WHERE session_id = :id AND status IN ('queued', 'running')",
        {"id": session_id},
    )
    return int(row["position"]) if row and row["position"] is not None else 2**62


def _read(tx: Transaction, bounds: dict[str, object], limit: int) -> list[Message]:
    """The oldest messages within the bounds."""
    rows = tx.rows(
        "SELECT session_id, position, part, role, content, author, created_at, turn_id, attachments, metadata FROM messages"
        " WHERE session_id = :id AND position > :after AND position < :until ORDER BY position, part LIMIT :limit",
        {**bounds, "limit": limit},
    )
    return [lane.read_message(row) for row in rows]


def _whole_turns(messages: Sequence[Message], most: int, before: int) -> list[Message]:
    """The longest beginning of at most so many messages that breaks no turn apart and ends before a position."""
    end = 0
    for number in range(1, min(most, len(messages)) + 1):
        is_whole = number == len(messages) or messages[number].position != messages[number - 1].position
        if is_whole and messages[number - 1].position < before:
            end = number
    return list(messages[:end])
