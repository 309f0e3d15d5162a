"""The port between a turn and whatever answers: `Agent`, the events it yields, and the toolbox it is given.

Owns shapes only. Recording, deadlines and replay belong to `bot/turns.py`; tools to `bot/tools/`.

The rule that makes a crash cheap: a turn pulls events one at a time and makes every `ModelAnswer` durable before it asks for
the next event, and `Toolbox.call` makes every result durable before it returns. An agent must therefore not start
what follows from an answer (a tool call, the next request) before its `yield` of that answer has returned, and must begin a
run from `context.steps`, which hold what an earlier, interrupted run of the same turn already got.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from config.names import Json, SessionId, TurnId


@dataclass(frozen=True, slots=True)
class ContextAttachment:
    kind: str
    name: str | None
    media_type: str | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """One message of the conversation as the agent sees it."""

    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None
    """Who said it, in a session that several people share; None otherwise."""
    attachments: tuple[ContextAttachment, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call that a model asked for."""

    call_id: str
    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model request as the provider reports them."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a tool call gave. `content` is what the model reads, for failures too."""

    call_id: str
    name: str
    content: str
    is_error: bool = False


# What is recorded of a turn, in order; also what a repeated run starts from.


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A whole answer of the model: text, tool calls, or both. A step."""

    text: str
    tool_requests: tuple[ToolRequest, ...] = ()
    usage: Usage = Usage()
    model: str | None = None


RecordedStep = ModelAnswer | ToolOutcome


# Events


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer as it is being written; for the live preview only, never recorded."""

    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The answer to the person (CommonMark). The last event of every successful run."""

    text: str


Event = TextDelta | ModelAnswer | Final


@dataclass(frozen=True, slots=True)
class AgentContext:
    """All an agent gets to know."""

    turn_id: TurnId
    session_id: SessionId
    instructions: str
    messages: Sequence[ContextMessage]
    """Oldest first; the last one is the message to answer."""
    steps: Sequence[RecordedStep] = ()
    """Steps of this turn already recorded before a crash, oldest first."""
    person_name: str | None = None
    language: str = "en"
    now: datetime | None = None
    """Time of the turn with zone; None means the agent has no clock."""
    model: str | None = None
    """The persona's model, None for the agent's own."""
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    name: str
    description: str
    parameters: Mapping[str, Json]
    """JSON schema of an object."""


class Toolbox(Protocol):
    """The tools of one turn."""

    @property
    def specs(self) -> Sequence[ToolSpec]: ...

    async def call(self, request: ToolRequest) -> ToolOutcome:
        """Run a tool and record it. Never raises for a failing, unknown or wrongly called tool: the outcome says so.

        A call that was recorded before a crash returns the recorded outcome without running again. Calls may be made
        side by side only if they came from one `ModelAnswer`.
        """


class Agent(Protocol):
    @property
    def name(self) -> str:
        """What /status calls it: `offline`, `openai:gpt-…`."""

    def run(self, context: AgentContext, tools: Toolbox) -> AsyncIterator[Event]:
        """Answer. Cancelling the consumer must stop it within a second.

        Raises: `AgentError` when no answer can be had.
        """

    async def close(self) -> None: ...


@runtime_checkable
class Loading(Protocol):
    """An optional verb of an agent that needs time before its first answer."""

    async def load(self) -> None:
        """Get ready. An agent that is asked before gets ready then."""


AgentErrorKind = Literal[
    "refused_key",  # 401, 403: only the operator can help
    "unknown_model",  # 404: as above
    "rate_limited",
    "unavailable",  # 5xx, connection refused, cut
    "timeout",
    "context_too_long",
    "bad_answer",  # garbage, empty, too large
    "too_many_steps",
    "fault",  # a bug of ours or of a library
]


class AgentError(Exception):
    """The agent has no answer. `kind` chooses the sentence for the person; the text is for the operator only."""

    def __init__(self, kind: AgentErrorKind, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s
