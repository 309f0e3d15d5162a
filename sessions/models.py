"""What is remembered, as frozen records: sessions, turns, messages, replies and what arrives to become them.

Owns shapes, the words of the vocabulary and ids. Rules about them live in the modules named after them.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from config.names import (
    AccountId,
    ChannelId,
    Json,
    PersonId,
    PlatformMessageId,
    PlatformUserId,
    SessionId,
    ThreadId,
    TurnId,
)

SessionStatus = Literal["active", "paused", "ended", "archived"]
EndReason = Literal["reset", "completed", "abandoned", "expired", "deleted"]
SessionScope = Literal["person", "person_everywhere", "channel", "member"]
TurnStatus = Literal["queued", "running", "completed", "failed", "timeout", "cancelled", "declined"]
Role = Literal["user", "assistant", "system"]
PersonRole = Literal["member", "operator", "blocked"]
ReplyKind = Literal["answer", "command", "notice", "error"]
ChunkState = Literal["ready", "sending", "uncertain", "sent", "skipped", "failed"]


_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_PAIRS: Final = tuple(one + other for one in _LETTERS for other in _LETTERS)
_id_lock = threading.Lock()
_last_id = 0


def new_id() -> str:
    """A ULID: 26 characters, sorts by the millisecond it was made in, and within one by which of a process came first.

    Source: https://github.com/ulid/spec (48 bits of time, 80 of chance). Every message takes one: made here it costs a third
    of what the library's objects do.
    """
    global _last_id  # noqa: PLW0603 - the order of a process is the process's
    with _id_lock:
        now = time.time_ns() // 1_000_000
        if _last_id >> 80 == now:
            _last_id += 1
        else:
            _last_id = now << 80 | int.from_bytes(os.urandom(10))
        value = _last_id
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


@dataclass(frozen=True, slots=True)
class Person:
    id: PersonId
    display_name: str
    role: PersonRole
    language: str | None
    was_told_declined: bool = False
    """On this platform they were told once that they may not talk to the bot."""


@dataclass(frozen=True, slots=True)
class Session:
    id: SessionId
    key: str
    scope: SessionScope
    platform: str
    account: AccountId
    channel: ChannelId
    thread: ThreadId | None
    person_id: PersonId | None
    """None when the whole channel shares the session."""
    persona: str | None
    status: SessionStatus
    end_reason: EndReason | None
    title: str | None
    description: str | None
    current_task: str | None
    metadata: Mapping[str, Json]
    message_count: int
    """With those that a fork took along; what is said of them in statistics is where they were said."""
    tool_call_count: int
    error_count: int
    input_tokens: int
    output_tokens: int
    created_at: int
    """This and all other times: milliseconds since the epoch, UTC."""
    last_activity_at: int
    paused_at: int | None
    ended_at: int | None
    archived_at: int | None
    forked_from: SessionId | None = None
    expire_after_ms: int | None = None
    """Idle time of its own after which it ends: 0 is never, None what is set for all."""


@dataclass(frozen=True, slots=True)
class Message:
    session_id: SessionId
    position: int
    """Place of its turn in the lane; a conversation is read in order of (position, part)."""
    part: int
    role: Role
    content: str
    author: str | None
    created_at: int
    turn_id: TurnId | None = None
    attachments: Sequence[Mapping[str, Json]] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Incoming:
    """What the store is told of a message that arrived (the gateway makes it of the adapter's)."""

    platform: str
    account: AccountId
    channel: ChannelId
    channel_kind: Literal["direct", "group"]
    message_id: PlatformMessageId
    dedupe_id: str
    """Unique within (account, channel); an edit has one of its own."""
    user_id: PlatformUserId
    display_name: str
    username: str | None
    language: str | None
    text: str
    sent_at: int
    channel_title: str | None = None
    thread: ThreadId | None = None
    attachments: Sequence[Mapping[str, Json]] = ()
    reply_handle: Mapping[str, Json] | None = None
    watermark: str | None = None
    origin: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the replies to one message go."""

    account: AccountId
    channel: ChannelId
    channel_kind: Literal["direct", "group"]
    thread: ThreadId | None
    reply_to: PlatformMessageId | None
    reply_handle: Mapping[str, Json] | None
    inbox_id: int


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A recorded model answer or tool result, as JSON the turn knows how to read."""

    number: int
    kind: Literal["answer", "tool_result"]
    payload: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a stretch of a conversation was about. Derived: the messages it covers stay as they are."""

    version: int
    level: int
    """1 if made of messages, above if made of summaries."""
    from_position: int
    to_position: int
    content: str
    tokens: int
    made_by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Window:
    """What decides how much of a session its model sees, and what was learned about that."""

    own_tokens: int | None = None
    """A limit set for this session alone."""
    learned_tokens: int | None = None
    """What went through after the provider had refused more."""
    learned_for: str | None = None
    """The agent that this was learned with."""
    ratio: float = 1.0
    """Tokens that the provider reports for one that we count."""
    revision: int = 0
    """Grows when messages change or are removed, not when some are added."""
    summarised_to: int = 0
    """The last position that the summaries cover; 0 without any."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A turn taken to be run. Whoever holds it may store a result only while `epoch` is the turn's current one."""

    turn_id: TurnId
    session_id: SessionId
    position: int
    epoch: int
    attempts: int
    queued_at: int
    is_cancelled: bool
    """A stop was asked for before it began."""
    address: Address
    persona: str | None
    person_id: PersonId | None
    person_name: str | None
    language: str | None
    is_shared: bool
    messages: Sequence[Message]
    """The end of the conversation after what the summaries cover, oldest first; the last is the message to answer."""
    steps: Sequence[StepRecord]
    summaries: Sequence[Summary] = ()
    """Of what came before the messages, oldest first."""
    window: Window = Window()
    is_from_memory: bool = False
    """The messages before its own were not read from the store."""
    is_blocked: bool = False
    """Its person was blocked after the message had been taken in."""
    msg_id: int | None = None
    """Its place in the queue that nodes share; None where there is one process."""

    @property
    def is_resumed(self) -> bool:
        """Somebody began it before: there may be steps of it, and a preview. If it was given back at a stop, that was no attempt."""
        return self.epoch > 1


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as it is recorded."""

    step: int
    call_id: str
    name: str
    arguments: Mapping[str, Json]
    result: str
    is_error: bool
    cause: str | None
    started_at: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """What went wrong: `ref` is what the person is told, `cause` is for the operator."""

    ref: str
    kind: str
    message: str
    cause: str | None


@dataclass(frozen=True, slots=True)
class OutgoingChunk:
    """A row of the outbox as the sender needs it."""

    id: int
    key: str
    address: Address
    kind: ReplyKind
    part: int
    body: Mapping[str, Json]
    is_final: bool
    state: ChunkState
    attempts: int
    not_before: int
    platform_message_id: PlatformMessageId | None
    repeats: int
    turn_id: TurnId | None
    session_id: SessionId | None
    created_at: int
