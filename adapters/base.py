"""The port between the daemon and a platform: `Adapter` (what we call) and `Intake` (what an adapter calls).

Owns the protocol and the capability record. Parsing, formatting and wires belong to the adapters; what happens to a
message belongs to `bot/gateway.py`, which is the one implementation of `Intake` in the daemon.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from adapters.messages import ChannelKind, Choice, Chunk, InboundMessage, Target
from config.names import AccountId, ChannelId, PlatformMessageId


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an account may send. Zero means no limit of ours."""

    per_account_per_s: float = 0
    per_direct_channel_per_s: float = 0
    per_group_channel_per_min: float = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a platform can do. Callers read this record instead of asking which adapter it is."""

    max_text: int
    """Longest text of one message, in `text_unit`s."""
    text_unit: Literal["utf16", "codepoints"] = "codepoints"
    can_edit: bool = False
    can_type: bool = False
    can_choose: bool = False
    """Choices under a reply are buttons; elsewhere they are numbered lines that say what to write."""
    must_greet: bool = False
    """Nobody begins with /start there: who writes directly for the first time is greeted beside the answer."""
    has_threads: bool = False
    is_idempotent: bool = False
    """A send repeated with the same key shows one message only."""
    forgets_keys: bool = False
    """…but the platform knows a key for some minutes only: the adapter must be told which sends may be repeats."""
    max_attachment_bytes: int = 0
    """Largest file that can be fetched from the platform; 0 means none."""
    pace: Pace = Pace()
    preview_interval_s: float = 1.5
    """Least time between two edits of one growing answer."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivered message. Every outcome is on disk when the caller sees it."""

    outcome: Literal["accepted", "declined", "duplicate"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KnownChannel:
    """A channel the bot has met, with the last watermark stored for it."""

    channel: ChannelId
    kind: ChannelKind
    watermark: str | None


class Intake(Protocol):
    """What the daemon offers to an adapter. Every method returns after its effect is durable.

    Raises: `IntakeClosed` when nothing can be stored now (disk full, shutting down): the adapter must not acknowledge
    the message to its platform and should try again later.
    """

    async def deliver(self, message: InboundMessage) -> Receipt: ...

    async def quarantine(self, account: AccountId, raw: bytes, reason: str) -> None:
        """Keep an update nobody could parse, so that it is counted and visible, and the feed goes on."""

    async def move_channel(self, account: AccountId, old: ChannelId, new: ChannelId) -> None:
        """A channel got another id; its sessions and waiting replies follow."""

    async def cursor(self, account: AccountId, name: str) -> str | None: ...

    async def set_cursor(self, account: AccountId, name: str, value: str) -> None:
        """Keep a small fact of the adapter's own across restarts (command-table hash, polling offset)."""

    async def known_channels(self, account: AccountId) -> Sequence[KnownChannel]: ...


class IntakeClosed(Exception):
    """Nothing is taken in now; do not acknowledge, try again after `retry_after_s`."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Health:
    """An adapter's own word on whether it hears anything.

    `last_heard_at` is the time (epoch seconds) of the last proof of the inbound path: a poll that came back, a heartbeat
    that was acknowledged, a webhook call. None before the first.
    """

    state: Literal["starting", "hearing", "retrying", "refused", "stopped"]
    last_heard_at: float | None = None
    detail: str = ""
    is_cut_off: bool = False
    """The platform does not answer. From another machine it may: where there is one, it may hear this account instead."""


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class WebhookRoute:
    """A path that an adapter asks the daemon's HTTP server to serve. `path` begins with a slash.

    The handler gets lower-case header names and the whole body (its size was limited before), and must answer only after
    what came in is durable.
    """

    path: str
    method: Literal["GET", "POST"]
    handle: Callable[[Mapping[str, str], Mapping[str, str], bytes], Awaitable[WebhookResponse]]
    """(headers, query, body) -> response"""


class Adapter(Protocol):
    """One account on one platform."""

    @property
    def account(self) -> AccountId: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def routes(self) -> Sequence[WebhookRoute]:
        """HTTP routes to serve while `run` runs; empty for adapters that poll or hold a connection."""

    def health(self) -> Health: ...

    async def run(self, intake: Intake) -> None:
        """Hear messages and deliver them, in order per channel, until cancelled.

        Reconnecting is the adapter's own affair: an outage, a refused token or a polling conflict is logged, shown in
        `health()` and retried with back-off, and never ends this call. Returns only when the input is at its end (terminal).
        """

    def render(self, markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
        """Cut a reply (CommonMark text) into messages of this platform, with what may be picked under the last one.

        Pure, deterministic, never empty for text that has anything visible in it, never fails whatever the text contains.
        What `capabilities` cannot show as buttons is written as lines below the text (`adapters/choices.py`).
        """

    async def send(
        self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool = False
    ) -> PlatformMessageId:
        """Send one chunk.

        `key` (at most 25 characters of `[A-Za-z0-9_-]`) is the same however often this chunk is tried. `is_repeat` says an
        earlier try may have gone through: an idempotent platform looks it up or relies on the key; any other marks the
        message as a possible repeat.

        Raises: a `DeliveryError`; see `adapters/errors.py` for which promises what.
        """

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        """Replace a sent message. Editing to the same content succeeds. Only if `capabilities.can_edit`."""

    async def typing(self, target: Target) -> None:
        """Show that an answer is being written; lasts a few seconds. Only if `capabilities.can_type`."""

    async def close(self) -> None:
        """Let go of connections. Called once, after `run` has ended and nothing is being sent."""
