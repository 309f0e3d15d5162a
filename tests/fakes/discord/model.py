"""What exists in the fake community: people, guilds, channels, messages, interactions, and the records kept of calls.

Plain mutable state; the rules that change it are in ``world``, the wire shape in ``payloads``.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

JsonObject = dict[str, Any]

GUILD_TEXT: Final = 0
DM: Final = 1
PUBLIC_THREAD: Final = 11
PRIVATE_THREAD: Final = 12
FORUM: Final = 15

DEFAULT_MESSAGE: Final = 0
THREAD_CREATED: Final = 18
REPLY: Final = 19
CHAT_INPUT_COMMAND: Final = 20
THREAD_STARTER: Final = 21

EPHEMERAL: Final = 1 << 6
LOADING: Final = 1 << 7

InteractionState = Literal["open", "deferred", "answered", "acknowledged"]


@dataclass
class Settings:
    """What a test may change at any time; the defaults are Discord's own figures."""

    heartbeat_interval_s: float = 41.25
    heartbeat_grace: float = 2.0
    """A client silent for this many intervals is closed with 4009."""
    nonce_window_s: float = 300.0
    interaction_answer_s: float = 3.0
    interaction_token_s: float = 900.0
    attachment_url_s: float = 86_400.0
    session_resume_s: float = 300.0
    session_event_buffer: int = 10_000
    max_text: int = 2000
    max_attachment_bytes: int = 10 * 1024 * 1024
    shards: int = 1
    session_starts_total: int = 1000
    message_content_intent: bool = True
    """Granted in the developer portal; without it identifying with the intent is closed with 4014."""
    members_intent: bool = True
    presence_intent: bool = True
    announce_dm_channels: bool = False
    """CHANNEL_CREATE for DMs. Since gateway v8 bots get none; on for those who want to see the event anyway."""
    gateway_sends_per_minute: int = 120


@dataclass
class User:
    id: str
    username: str
    global_name: str | None = None
    is_bot: bool = False
    locale: str = "en-US"
    accepts_dms: bool = True


@dataclass
class Guild:
    id: str
    name: str
    owner_id: str
    locale: str = "en-US"
    member_ids: list[str] = field(default_factory=list)
    nicknames: dict[str, str] = field(default_factory=dict)
    available: bool = True


@dataclass
class Channel:
    """A text channel, thread or DM. ``can_view`` and ``can_send`` are the bot's permissions in it."""

    id: str
    type: int
    name: str | None = None
    guild_id: str | None = None
    parent_id: str | None = None
    owner_id: str | None = None
    recipient_id: str | None = None
    last_message_id: str | None = None
    can_view: bool = True
    can_send: bool = True
    archived: bool = False
    locked: bool = False
    thread_member_ids: list[str] = field(default_factory=list)
    typing: list[float] = field(default_factory=list)
    """When the bot said it is typing here, by the fake's clock."""

    @property
    def is_dm(self) -> bool:
        return self.type == DM

    @property
    def is_thread(self) -> bool:
        return self.type in (PUBLIC_THREAD, PRIVATE_THREAD)


@dataclass(frozen=True)
class Upload:
    """A file that a person (or the bot) attaches."""

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Attachment:
    id: str
    filename: str
    content_type: str
    size: int
    description: str | None = None


@dataclass
class Message:
    """One message; ``versions`` holds every text it has had, the shown one last."""

    id: str
    channel_id: str
    author_id: str
    text: str
    type: int = DEFAULT_MESSAGE
    at_s: float = 0.0
    versions: list[str] = field(default_factory=list)
    edited_at_s: float | None = None
    deleted: bool = False
    flags: int = 0
    nonce: str | None = None
    enforce_nonce: bool = False
    reply_to: str | None = None
    reference_channel_id: str | None = None
    allowed_mentions: JsonObject | None = None
    mention_ids: list[str] = field(default_factory=list)
    mention_everyone: bool = False
    attachments: list[Attachment] = field(default_factory=list)
    embeds: list[JsonObject] = field(default_factory=list)
    components: list[JsonObject] = field(default_factory=list)
    reactions: dict[str, list[str]] = field(default_factory=dict)
    interaction_id: str | None = None
    thread_id: str | None = None

    @property
    def is_ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def is_loading(self) -> bool:
        """The "is thinking…" message of a deferred interaction, not yet filled."""
        return bool(self.flags & LOADING)


@dataclass
class Interaction:
    """A slash command a person used, or a button they pressed.

    ``refusals`` counts answers that came too late, twice, or with a dead token.
    """

    id: str
    token: str
    command: str
    user_id: str
    channel_id: str
    at_s: float
    type: int = 2
    data: JsonObject = field(default_factory=dict)
    state: InteractionState = "open"
    answered_at_s: float | None = None
    callback_type: int | None = None
    ephemeral: bool = False
    original_id: str | None = None
    delivered: bool = False
    refusals: int = 0
    pressed_id: str | None = None
    """The message whose button was pressed."""


@dataclass
class Call:
    """One REST request as it came in, and what it was answered."""

    at_s: float
    method: str
    route: str
    """The template, as in ``POST /channels/{channel_id}/messages`` without the method."""
    path: str
    query: dict[str, str]
    body: Any
    status: int = 0
    """0: no answer was given (reset, hang, or the answer was lost)."""
    code: int | None = None
    fault: str | None = None
    in_penalty: bool = False
    """Came in while the client had been told by a 429 to wait."""
    result_id: str | None = None


@dataclass(frozen=True)
class GatewayEntry:
    """Something that happened on the gateway: connect, identify, resume, resumed, invalid, reconnect, close, drop …"""

    at_s: float
    what: str
    session_id: str | None = None
    shard: int | None = None
    code: int | None = None
    detail: str = ""
