"""Messages, people and turns as the tests need them: everything has a sensible value until a test says otherwise."""

import itertools
from typing import Any

from config.names import AccountId, ChannelId, PersonId, PlatformMessageId, PlatformUserId, SessionId
from sessions import inbox, lane, lifecycle, people
from sessions.database.base import Row, Transaction
from sessions.inbox import QueuedTurn
from sessions.models import Claim, ErrorRecord, Incoming, Person, Session, SessionScope, StepRecord, ToolCall

NOW = 1_800_000_000_000
DAY = 86_400_000
ACCOUNT = AccountId("telegram.main")
CHANNEL = ChannelId("chat-1")

_numbers = itertools.count(1)


def incoming(text: str = "hello", **changes: Any) -> Incoming:
    """A direct message from one and the same person; each has a message id of its own."""
    number = str(next(_numbers))
    message_id = changes.pop("message_id", number)
    values: dict[str, Any] = {
        "platform": "telegram",
        "account": ACCOUNT,
        "channel": CHANNEL,
        "channel_kind": "direct",
        "message_id": PlatformMessageId(message_id),
        "dedupe_id": message_id,
        "user_id": PlatformUserId("user-1"),
        "display_name": "Ada",
        "username": "ada",
        "language": "en",
        "text": text,
        "sent_at": NOW,
    }
    return Incoming(**(values | changes))


def resolved(
    tx: Transaction,
    message: Incoming,
    *,
    scope: SessionScope = "person",
    now: int = NOW,
    expire_after_ms: int = DAY,
    separate_threads: bool = True,
    persona: str | None = None,
) -> tuple[Session, Person, bool]:
    """The session and the person of a message, and whether the session is new."""
    person = people.meet(tx, message, now)
    found = lifecycle.resolve(
        tx,
        message,
        person,
        scope,
        separate_threads=separate_threads,
        expire_after_ms=expire_after_ms,
        persona=persona,
        now=now,
    )
    return found.session, person, found.is_new


def arrive(tx: Transaction, message: Incoming | None = None, **how: Any) -> QueuedTurn:
    """Take a message in as the gateway does."""
    message = message or incoming()
    session, person, _ = resolved(tx, message, **how)
    return inbox.accept(tx, message, session, person, how.get("now", NOW), ahead=lane.waiting(tx, session.id))


def claimed(tx: Transaction, session_id: SessionId, now: int = NOW) -> Claim:
    """The session's next turn, which must be there."""
    claim = lane.claim(tx, session_id, now, context_messages=50)
    assert claim is not None
    return claim


def session_row(tx: Transaction, session_id: SessionId) -> Row:
    row = tx.row("SELECT * FROM sessions WHERE id = :id", {"id": session_id})
    assert row is not None
    return row


def turn_row(tx: Transaction, turn_id: str) -> Row:
    row = tx.row("SELECT * FROM turns WHERE id = :id", {"id": turn_id})
    assert row is not None
    return row


def count(tx: Transaction, table: str) -> int:
    row = tx.row(f"SELECT COUNT(*) AS n FROM {table}")
    assert row is not None
    return int(row["n"])


def tool_call(step: int = 1, *, is_error: bool = False, result: str = "4") -> ToolCall:
    return ToolCall(step, "call-1", "calculator", {"sum": "2+2"}, result, is_error, None, NOW, 3)


def answer_step(number: int = 1, text: str = "four") -> StepRecord:
    return StepRecord(number, "answer", {"text": text})


def error_record(ref: str = "K7Q2MN") -> ErrorRecord:
    return ErrorRecord(ref, "timeout", "no answer within 60 s", "TimeoutError: ")


def person_of(tx: Transaction, message: Incoming) -> PersonId:
    return people.meet(tx, message, NOW).id
