"""What an adapter hands in and what it is given to send: normalised, frozen, free of any platform's SDK.

Owns the shapes between platforms and the gateway. Does not own what is stored (`sessions/models.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from config.names import AccountId, ChannelId, Json, PlatformMessageId, PlatformUserId, ThreadId

ChannelKind = Literal["direct", "group"]
AttachmentKind = Literal["photo", "document", "voice", "audio", "video", "other"]
Unsupported = Literal["sticker", "location", "contact", "poll", "game", "too_large", "other"]


@dataclass(frozen=True, slots=True)
class Sender:
    """Who wrote, as the platform tells it."""

    user_id: PlatformUserId
    display_name: str
    username: str | None = None
    language: str | None = None
    """IETF tag the platform reports (`de`, `pt-br`); None when it tells nothing."""
    is_bot: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message, kept by reference: nothing is downloaded until somebody asks."""

    kind: AttachmentKind
    reference: str
    """What the platform needs to hand the file out again (Telegram file_id, Discord attachment URL, a local path)."""
    name: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One message of a person, as every platform's adapter delivers it.

    `text` is what the person said to the bot: a leading mention of the bot is taken off, and a command has the form
    `/name arguments` whatever the platform's own spelling (`/help@our_bot`, a slash command with options).
    """

    account: AccountId
    channel: ChannelId
    message_id: PlatformMessageId
    sender: Sender
    text: str
    sent_at_ms: int
    """When the platform says it was sent: milliseconds since the epoch, UTC."""
    channel_kind: ChannelKind = "direct"
    channel_title: str | None = None
    thread: ThreadId | None = None
    is_addressed: bool = True
    """In a group: it mentions the bot, replies to it, or is a command meant for it. Always True in direct channels."""
    is_command_for_other: bool = False
    """A command spelled for another bot (`/help@other_bot`)."""
    is_bare_command: bool = False
    """In a group: a command that names no bot, so that one we do not know may be meant for another."""
    reply_to: PlatformMessageId | None = None
    attachments: tuple[Attachment, ...] = ()
    unsupported: Unsupported | None = None
    """Set when the message carries something the bot cannot take; `text` may then be empty."""
    is_edit: bool = False
    """True when this replaces an earlier message with the same id; `sent_at_ms` is then the time of the edit."""
    reply_handle: Mapping[str, Json] | None = None
    """What the adapter needs to answer this very message (a Discord interaction's token). Opaque to everybody else."""
    watermark: str | None = None
    """If set, stored as this channel's cursor in the same transaction as the message (Discord snowflake)."""
    origin: Mapping[str, Json] = field(default_factory=dict)
    """Facts about where it came from worth keeping (client, device); no secrets."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a reply that fits one platform message, already in the platform's own form.

    Made by `Adapter.render`, stored in the outbox as JSON, handed back to `Adapter.send` unchanged: what was committed
    is what is sent, however often it is tried.
    """

    text: str
    markup: Json = None
    """Whatever the adapter's `send` needs beside the text (Telegram: a list of message entities)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Something the person may pick under a reply: a button where the platform has any, else a numbered line.

    Picking it is the same as writing the command, so nothing has to be remembered about a button.
    """

    label: str
    """A few words, shown on the button."""
    command: str
    """What is said by picking it: `/name arguments`, at most 64 bytes of UTF-8 (what Telegram carries)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a reply goes."""

    account: AccountId
    channel: ChannelId
    channel_kind: ChannelKind = "direct"
    thread: ThreadId | None = None
    reply_to: PlatformMessageId | None = None
    """The message being answered. If it has been deleted meanwhile, the adapter sends without the reference."""
    reply_handle: Mapping[str, Json] | None = None
    answers: PlatformMessageId | None = None
    """The message that this reply answers, set for each of its chunks: what was sent for it can only stand after that."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command as a platform's menu shows it."""

    name: str
    """Lower case, `[a-z][a-z0-9_]{0,31}`, without the slash."""
    description: str
    """One line in the language asked for, at most 100 characters."""
    argument: str | None = None
    """Name of its one free-text argument (`question`), None when it takes none."""
    is_argument_required: bool = False
    is_personal: bool = False
    """Its reply is for who asked: in a group, where the platform can, nobody else is shown it."""
    argument_hint: str = ""
    """What may stand in the argument, in a few words, at most 100 characters; for menus that ask for it."""
    argument_values: tuple[str, ...] = ()
    """The only values that it takes, where there are few; empty if it is free text."""
