"""What the fake Telegram remembers, as plain records; no behaviour beyond each record's own JSON.

Records are live: a `Message` held by a test shows later edits, deletion and reactions. They are also what
`--state FILE` keeps and what the control API answers with, so every field must survive JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Base64Bytes

JsonObject = dict[str, Any]
ChatType = Literal["private", "group", "supergroup", "channel"]
BotStatus = Literal["member", "administrator", "left", "kicked"]
GENERAL_TOPIC_ID = 1


class Refusal(Exception):
    """A Bot API call that Telegram answers with ok=false."""

    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    def body(self) -> JsonObject:
        answer: JsonObject = {"ok": False, "error_code": self.code, "description": self.description}
        if self.parameters:
            answer["parameters"] = self.parameters
        return answer


def bad_request(reason: str, **parameters: int) -> Refusal:
    return Refusal(400, f"Bad Request: {reason}", **parameters)


@dataclass
class User:
    id: int
    first_name: str
    last_name: str | None = None
    username: str | None = None
    language_code: str | None = "en"
    is_bot: bool = False
    blocks_bot: bool = False
    has_started: bool = False
    """Whether a private chat with the bot was ever opened; a bot cannot write first."""

    @property
    def full_name(self) -> str:
        return f"{self.first_name} {self.last_name}" if self.last_name else self.first_name

    def payload(self) -> JsonObject:
        answer: JsonObject = {"id": self.id, "is_bot": self.is_bot, "first_name": self.first_name}
        optional = {
            "last_name": self.last_name,
            "username": self.username,
            "language_code": self.language_code,
        }
        return answer | {key: value for key, value in optional.items() if value}


@dataclass
class Revision:
    """One earlier state of a message's text."""

    text: str
    entities: list[JsonObject]
    replaced_at: int


@dataclass
class Message:
    chat_id: int
    message_id: int
    date: int
    order: int
    """Position among all messages of all chats, since ids count per chat."""
    sender_id: int
    by_bot: bool
    """Sent by the bot under test (other bots are ordinary senders here)."""
    kind: str = "text"
    """text, photo, document, voice, sticker, location, or the name of a service message."""
    text: str = ""
    """The text, or the caption of a medium."""
    entities: list[JsonObject] = field(default_factory=list)
    thread_id: int | None = None
    is_topic_message: bool = False
    reply_to: int | None = None
    content: JsonObject = field(default_factory=dict)
    """Further fields of the message's JSON: the medium or the service event."""
    reply_markup: JsonObject | None = None
    revisions: list[Revision] = field(default_factory=list)
    edit_date: int | None = None
    changed_at: float = 0.0
    """time.monotonic() of the last change of the text."""
    deleted: bool = False
    reactions: dict[int, list[str]] = field(default_factory=dict)
    """User id to emoji; the bot's under its own id."""

    @property
    def is_service(self) -> bool:
        return self.kind in SERVICE_KINDS


SERVICE_KINDS = frozenset(
    {
        "forum_topic_created",
        "forum_topic_closed",
        "left_chat_member",
        "migrate_from_chat_id",
        "migrate_to_chat_id",
        "new_chat_members",
    }
)


@dataclass
class Chat:
    id: int
    type: ChatType
    title: str | None = None
    username: str | None = None
    is_forum: bool = False
    members: list[int] = field(default_factory=list)
    admins: list[int] = field(default_factory=list)
    topics: dict[int, str] = field(default_factory=dict)
    closed_topics: list[int] = field(default_factory=list)
    migrated_to: int | None = None
    bot_status: BotStatus = "member"
    next_message_id: int = 1
    messages: dict[int, Message] = field(default_factory=dict)


@dataclass
class StoredFile:
    file_id: str
    path: str
    name: str
    mime_type: str
    content: Base64Bytes
    declared_size: int
    """What Telegram says the size is; may be set larger than the content to test limits."""

    @property
    def unique_id(self) -> str:
        return f"U{self.file_id[-12:]}"


@dataclass
class Draft:
    """One sendMessageDraft preview as last shown."""

    chat_id: int
    draft_id: int
    text: str
    entities: list[JsonObject]
    thread_id: int | None
    shown_at: float


@dataclass
class ChatAction:
    chat_id: int
    action: str
    thread_id: int | None
    at: float


@dataclass
class CommandSet:
    scope: JsonObject
    language_code: str
    commands: list[JsonObject]


@dataclass
class CallbackQuery:
    id: str
    chat_id: int
    message_id: int
    user_id: int
    data: str
    answer: JsonObject | None = None


@dataclass
class Call:
    """One Bot API request, as it came and as it was answered."""

    number: int
    method: str
    params: JsonObject
    at: float
    """time.time() of the arrival."""
    ended_at: float | None = None
    status: int | None = None
    """HTTP status; None while it hangs or when the connection was cut."""
    result: Any = None
    """The result, or the description of the refusal."""
    fault: str | None = None
    inside_penalty: bool = False

    @property
    def chat_id(self) -> Any:
        return self.params.get("chat_id")


@dataclass
class WebhookDelivery:
    update_id: int
    at: float
    status: int | None
    error: str | None = None


@dataclass
class Webhook:
    url: str
    secret_token: str | None = None
    max_connections: int = 40
    last_error_date: int | None = None
    last_error_message: str | None = None


@dataclass
class PendingUpdate:
    id: int
    """Telegram's own number; the body may claim another one, or none, when it is poison."""
    body: Any
