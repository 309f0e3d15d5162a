"""Telegram's raw JSON in, our messages out: `parse` and what it may find in one update.

Owns reading plain dictionaries and nothing else: no SDK, no network, no clock but the one handed in. A shape that does
not hold is `MalformedUpdate`, whatever it is, so that a caller has one thing to catch. An album arrives as one update per
picture, and each is a message of its own; only the picture with the caption has a text, and all name the album in `origin`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapters.errors import MalformedUpdate
from adapters.messages import Attachment, AttachmentKind, InboundMessage, Sender, Unsupported
from adapters.quoting import with_quote
from adapters.telegram.entities import Mark, clean_text, marks_of
from config.names import AccountId, ChannelId, Json, PlatformMessageId, PlatformUserId, ThreadId

ALLOWED_UPDATES = ["message", "edited_message", "callback_query"]
"""What we ask Telegram for. Posts in channels have no person behind them; the rest nobody here acts upon."""

MAX_FETCH_BYTES = 20 * 1024 * 1024
"""Source: Bot API, getFile."""

ANONYMOUS_ADMIN, CHANNEL_BOT, CHANNEL_FORWARDER = 1087968824, 136817688, 777000
"""Stand-ins in `from` for a group speaking as itself, somebody speaking as a channel, a linked channel's post."""

FILES: tuple[tuple[str, AttachmentKind, str | None], ...] = (
    (
        "animation",
        "video",
        "video/mp4",
    ),  # before document, which Telegram adds to an animation for old clients
    ("document", "document", None),
    ("voice", "voice", "audio/ogg"),
    ("audio", "audio", None),
    ("video_note", "video", "video/mp4"),
    ("video", "video", None),
)
UNSUPPORTED: tuple[tuple[str, Unsupported], ...] = (
    ("sticker", "sticker"),
    ("venue", "location"),
    ("location", "location"),
    ("contact", "contact"),
    ("poll", "poll"),
    ("game", "game"),
    ("dice", "other"),
    ("story", "other"),
    ("invoice", "other"),
    ("paid_media", "other"),
    ("checklist", "other"),
    ("giveaway", "other"),
    ("giveaway_winners", "other"),
)


@dataclass(frozen=True, slots=True)
class BotIdentity:
    """Who the bot is on Telegram: needed to see whom a group message addresses."""

    user_id: int
    username: str


@dataclass(frozen=True, slots=True)
class ChannelMove:
    """A group became a supergroup and has another id now. Telegram says so twice, once in each chat."""

    old: ChannelId
    new: ChannelId


@dataclass(frozen=True, slots=True)
class ButtonPress:
    """Somebody pressed an inline button; Telegram wants an answer, so that the button stops spinning."""

    query_id: str
    message: InboundMessage | None
    """What the button says, when its data is a command of ours."""


Parsed = InboundMessage | ChannelMove | ButtonPress | None
"""None: nothing for us (a service message, a kind of update we do not act upon)."""


def update_id(update: Json) -> int | None:
    """The update's id if it has one that Telegram could have given."""
    found = update.get("update_id") if isinstance(update, dict) else None
    return found if type(found) is int and 0 <= found < 2**31 - 1 else None


def parse(update: Json, account: AccountId, bot: BotIdentity, *, max_bytes: int, now_ms: int) -> Parsed:
    """What an update says.

    `max_bytes` is the largest file the account takes, `now_ms` the time for what Telegram does not date.

    Raises: MalformedUpdate whatever is wrong with it.
    """
    try:
        return _parse(update, account, bot, max_bytes, now_ms)
    except MalformedUpdate:
        raise
    except _Shape as error:
        raise MalformedUpdate(account, str(error)) from error
    except Exception as error:
        raise MalformedUpdate(account, f"{type(error).__name__} while parsing") from error


def _parse(update: Json, account: AccountId, bot: BotIdentity, max_bytes: int, now_ms: int) -> Parsed:
    if not isinstance(update, dict):
        raise _Shape("an update is not an object")
    if update_id(update) is None:
        raise _Shape("update_id is missing or no valid id")
    for kind, is_edit in (("message", False), ("edited_message", True)):
        if kind in update:
            return _Reader(account, bot, max_bytes, update).message(_object(update, kind), is_edit=is_edit)
    if "callback_query" in update:
        return _Reader(account, bot, max_bytes, update).press(_object(update, "callback_query"), now_ms)
    return None


_Command = Literal["bare", "ours", "other's"]
"""Whether a command names a bot, and which."""


@dataclass(frozen=True, slots=True)
class _Reader:
    account: AccountId
    bot: BotIdentity
    max_bytes: int
    update: Mapping[str, Any]

    def message(self, raw: Mapping[str, Any], *, is_edit: bool) -> InboundMessage | ChannelMove | None:
        chat = _object(raw, "chat")
        chat_type = _text(chat, "type")
        if chat_type == "channel" or raw.get("is_automatic_forward"):
            return None  # a channel's post, also where it is copied to the discussion group: no person speaks
        if chat_type not in ("private", "group", "supergroup"):
            raise _Shape(f"chat type {chat_type[:20]!r} is unknown")
        channel = ChannelId(str(_id(chat, "id")))
        if "migrate_to_chat_id" in raw:
            return ChannelMove(channel, ChannelId(str(_id(raw, "migrate_to_chat_id"))))
        if "migrate_from_chat_id" in raw:
            return ChannelMove(ChannelId(str(_id(raw, "migrate_from_chat_id"))), channel)
        if is_edit and "location" in raw:
            return None  # a live location moving on
        if self._is_my_arrival(raw):
            return self._arrival(raw, chat, channel)
        attachment, unsupported = self._content(raw)
        has_text = "text" in raw or "caption" in raw
        if not (has_text or attachment or unsupported):
            return None
        is_direct = chat_type == "private"
        text, command, is_mentioned = self._said(raw)
        is_for_other = command == "other's"
        reply_to, replies_to_bot = self._reply(raw)
        return InboundMessage(
            account=self.account,
            channel=channel,
            message_id=PlatformMessageId(str(_id(raw, "message_id"))),
            sender=_sender(raw),
            text=text if replies_to_bot or reply_to is None else _with_quote(text, raw),
            sent_at_ms=_time_ms(raw, "edit_date" if is_edit and "edit_date" in raw else "date"),
            channel_kind="direct" if is_direct else "group",
            channel_title=None if is_direct else _optional_text(chat, "title"),
            thread=ThreadId(str(_id(raw, "message_thread_id")))
            if raw.get("is_topic_message") is True
            else None,
            is_addressed=is_direct
            or (not is_for_other and (is_mentioned or command is not None or replies_to_bot)),
            is_command_for_other=is_for_other,
            is_bare_command=command == "bare" and not (is_direct or is_mentioned or replies_to_bot),
            reply_to=reply_to,
            attachments=(attachment,) if attachment else (),
            unsupported=unsupported,
            is_edit=is_edit,
            origin=self._origin(raw),
        )

    def _is_my_arrival(self, raw: Mapping[str, Any]) -> bool:
        """Whether the bot was just added to a group, or a group was made with it in it."""
        arrived = raw.get("new_chat_members", [])
        if not isinstance(arrived, list):
            raise _Shape("new_chat_members is no list")
        return "group_chat_created" in raw or any(
            isinstance(member, dict) and member.get("id") == self.bot.user_id for member in arrived
        )

    def _arrival(self, raw: Mapping[str, Any], chat: Mapping[str, Any], channel: ChannelId) -> InboundMessage:
        """As if whoever brought the bot had said /start: the group learns how to address it."""
        return InboundMessage(
            account=self.account,
            channel=channel,
            message_id=PlatformMessageId(str(_id(raw, "message_id"))),
            sender=_sender(raw),
            text="/start",
            sent_at_ms=_time_ms(raw, "date"),
            channel_kind="group",
            channel_title=_optional_text(chat, "title"),
            origin={"update_id": update_id(self.update), "by": "arrival"},
        )

    def press(self, raw: Mapping[str, Any], now_ms: int) -> ButtonPress:
        query_id = _text(raw, "id")
        data = _optional_text(raw, "data")
        if data is None or not data.startswith("/") or "message" not in raw:
            return ButtonPress(query_id, None)
        under = _object(raw, "message")
        chat = _object(under, "chat")
        is_direct = _text(chat, "type") == "private"
        is_topic = under.get("is_topic_message") is True
        message = InboundMessage(
            account=self.account,
            channel=ChannelId(str(_id(chat, "id"))),
            # a press has no message id of its own, and the button's message may be pressed many times
            message_id=PlatformMessageId(f"press:{query_id}"),
            sender=_person(_object(raw, "from")),
            text=data,
            sent_at_ms=now_ms,
            channel_kind="direct" if is_direct else "group",
            channel_title=None if is_direct else _optional_text(chat, "title"),
            thread=ThreadId(str(_id(under, "message_thread_id"))) if is_topic else None,
            origin={"update_id": update_id(self.update), "by": "button"},
        )
        return ButtonPress(query_id, message)

    def _said(self, raw: Mapping[str, Any]) -> tuple[str, _Command | None, bool]:
        """(text for us, what kind of command it is, mentions us)."""
        field, entities = ("text", "entities") if "text" in raw else ("caption", "caption_entities")
        if field not in raw:
            return "", None, False
        source = raw[field]
        if not isinstance(source, str):
            raise _Shape(f"{field} is no text")
        text = clean_text(source)
        marks = marks_of(text, raw.get(entities, []))
        mine = [mark for mark in marks if self._is_my_mention(mark)]
        start = len(text) - len(text.lstrip())
        for mark in mine:
            if mark.start == start:
                after = text[mark.end :].lstrip()
                if after[:1] in (",", ":"):
                    after = after[1:].lstrip()
                start = len(text) - len(after)
        text_for_us = text[start:].strip()
        command = next((mark for mark in marks if mark.kind == "bot_command" and mark.start == start), None)
        if command is None:
            return text_for_us, None, bool(mine)
        name, at, addressee = command.text.partition("@")
        if at and addressee.lower() != self.bot.username.lower():
            return text_for_us, "other's", bool(mine)
        return name + text[command.end :].rstrip(), "ours" if at else "bare", bool(mine)

    def _is_my_mention(self, mark: Mark) -> bool:
        if mark.kind == "mention":
            return mark.text.lower() == f"@{self.bot.username}".lower()
        return mark.kind == "text_mention" and mark.user_id == self.bot.user_id

    def _reply(self, raw: Mapping[str, Any]) -> tuple[PlatformMessageId | None, bool]:
        """(the message replied to, whether it is the bot's own)."""
        if "reply_to_message" not in raw:
            return None, False
        replied = _object(raw, "reply_to_message")
        replied_id = _id(replied, "message_id")
        is_implicit = "forum_topic_created" in replied or (
            raw.get("is_topic_message") is True and replied_id == raw.get("message_thread_id")
        )
        if is_implicit:  # every message of a topic replies to the topic's creation, which may well be ours
            return None, False
        author = replied.get("from")
        is_mine = isinstance(author, dict) and author.get("id") == self.bot.user_id
        return PlatformMessageId(str(replied_id)), is_mine

    def _content(self, raw: Mapping[str, Any]) -> tuple[Attachment | None, Unsupported | None]:
        found = _attachment(raw)
        if found is not None:
            if found.size_bytes is not None and found.size_bytes > self.max_bytes:
                return None, "too_large"
            return found, None
        for field, what in UNSUPPORTED:
            if field in raw:
                return None, what
        return None, None

    def _origin(self, raw: Mapping[str, Any]) -> dict[str, Json]:
        origin: dict[str, Json] = {"update_id": update_id(self.update)}
        if "media_group_id" in raw:
            origin["album"] = _text(raw, "media_group_id")
        medium = _medium(raw)
        if medium is not None and (unique := _optional_text(medium[1], "file_unique_id")):
            origin["file_unique_id"] = unique
        return origin


def _medium(
    raw: Mapping[str, Any],
) -> tuple[tuple[str, AttachmentKind, str | None], Mapping[str, Any]] | None:
    if "photo" in raw:
        sizes = raw["photo"]
        if not isinstance(sizes, list) or not all(isinstance(size, dict) for size in sizes) or not sizes:
            raise _Shape("photo is no list of sizes")
        largest = max(sizes, key=lambda size: (_count(size, "width") or 0) * (_count(size, "height") or 0))
        return ("photo", "photo", "image/jpeg"), largest
    for description in FILES:
        if description[0] in raw:
            return description, _object(raw, description[0])
    return None


def _attachment(raw: Mapping[str, Any]) -> Attachment | None:
    medium = _medium(raw)
    if medium is None:
        return None
    (_, kind, media_type), file = medium
    return Attachment(
        kind=kind,
        reference=_text(file, "file_id"),
        name=_optional_text(file, "file_name"),
        media_type=_optional_text(file, "mime_type") or media_type,
        size_bytes=_count(file, "file_size"),
    )


def _with_quote(text: str, raw: Mapping[str, Any]) -> str:
    """The text with what it replies to below it: what the person picked of that message, or all of it."""
    replied = _object(raw, "reply_to_message")
    said = (raw["quote"] if isinstance(raw.get("quote"), dict) else {}).get("text")
    if not isinstance(said, str):
        said = replied.get("text") or replied.get("caption")
    if not isinstance(said, str) or not ("from" in replied or "sender_chat" in replied):
        return text
    return with_quote(text, _sender(replied).display_name, clean_text(said).strip())


def _sender(raw: Mapping[str, Any]) -> Sender:
    """The author. An admin who hides behind the group, or a person behind a channel, is known by that chat: it is all
    there is to tell one from another.
    """
    author = raw.get("from")
    stands_in = isinstance(author, dict) and author.get("id") in (
        ANONYMOUS_ADMIN,
        CHANNEL_BOT,
        CHANNEL_FORWARDER,
    )
    if "sender_chat" in raw and (stands_in or author is None):
        chat = _object(raw, "sender_chat")
        return Sender(
            user_id=PlatformUserId(str(_id(chat, "id"))),
            display_name=_optional_text(chat, "title") or _optional_text(chat, "username") or "?",
            username=_optional_text(chat, "username"),
        )
    return _person(_object(raw, "from"))


def _person(user: Mapping[str, Any]) -> Sender:
    names = (_text(user, "first_name"), _optional_text(user, "last_name"))
    return Sender(
        user_id=PlatformUserId(str(_id(user, "id"))),
        display_name=" ".join(name for name in names if name),
        username=_optional_text(user, "username"),
        language=_optional_text(user, "language_code"),
        is_bot=user.get("is_bot") is True,
    )


# reading one field, strictly: what is wrong here goes to quarantine rather than half-understood to an agent


class _Shape(Exception):
    """A field is missing or not what Telegram documents. Names the field, never its content."""


def _object(raw: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = raw.get(field)
    if not isinstance(found, dict):
        raise _Shape(f"{field} is no object")
    return found


def _id(raw: Mapping[str, Any], field: str) -> int:
    found = raw.get(field)
    if type(found) is not int or abs(found) >= 2**53:
        raise _Shape(f"{field} is no id")
    return found


def _text(raw: Mapping[str, Any], field: str) -> str:
    found = raw.get(field)
    if not isinstance(found, str):
        raise _Shape(f"{field} is no text")
    return clean_text(found)


def _optional_text(raw: Mapping[str, Any], field: str) -> str | None:
    return _text(raw, field) or None if raw.get(field) is not None else None


def _count(raw: Mapping[str, Any], field: str) -> int | None:
    found = raw.get(field)
    if found is None:
        return None
    if type(found) is not int or not 0 <= found < 2**53:
        raise _Shape(f"{field} is no count")
    return found


def _time_ms(raw: Mapping[str, Any], field: str) -> int:
    found = raw.get(field)
    if type(found) is not int or not 0 <= found < 2**40:
        raise _Shape(f"{field} is no time")
    return found * 1000
