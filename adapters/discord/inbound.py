"""From Discord's JSON to `InboundMessage`: messages, edits and slash commands, live or from history.

Owns what a message means: who wrote, whether the bot is addressed, what of it the bot cannot take. Pure functions of the
payload and of `Scene`; a payload that makes no sense raises `MalformedUpdate`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adapters.errors import MalformedUpdate
from adapters.messages import Attachment, AttachmentKind, ChannelKind, InboundMessage, Sender, Unsupported
from adapters.quoting import with_quote
from config.names import AccountId, ChannelId, PlatformMessageId, PlatformUserId, ThreadId

DISCORD_EPOCH_MS = 1_420_070_400_000
"""Source: Discord reference, Snowflakes: the upper 42 bits count milliseconds since 2015."""

DEFAULT, REPLY = 0, 19
"""Types of message that people write; all others are the platform's own notices. Source: Discord reference, Message Types."""

APPLICATION_COMMAND, MESSAGE_COMPONENT, CHAT_INPUT, BUTTON = 2, 3, 1, 2
VOICE_MESSAGE = 1 << 13
TOKEN_LIFE_MS = 15 * 60 * 1000
"""Source: Discord reference, Receiving and Responding to Interactions."""

QUESTION_COMMAND = "ask"
"""The command whose argument is the message itself."""

_USER_MENTION = re.compile(r"<@!?(\d+)>")
_ROLE_MENTION = re.compile(r"<@&(\d+)>")
_CHANNEL_MENTION = re.compile(r"<#(\d+)>")
_EMOJI = re.compile(r"<a?(:\w+:)\d+>")


def _no_name(_: int) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a message was said, and what its payload does not tell."""

    account: AccountId
    bot_id: str
    channel: ChannelId
    kind: ChannelKind
    thread: ThreadId | None = None
    title: str | None = None
    bot_role_id: str | None = None
    """The role that belongs to the bot in this guild; mentioning it means the bot."""
    role_name: Callable[[int], str | None] = _no_name
    channel_name: Callable[[int], str | None] = _no_name
    max_attachment_bytes: int = 0


class PassedOver(Exception):
    """Nothing to deliver: the bot's own message, a notice of the platform, an edit that changed no text."""


def parse_message(data: Mapping[str, Any], scene: Scene, *, is_edit: bool = False) -> InboundMessage:
    """Raises: MalformedUpdate; PassedOver if there is nothing to deliver."""
    try:
        return _parse_message(data, scene, is_edit=is_edit)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise MalformedUpdate(scene.account, f"message: {error!r}") from error


def parse_interaction(data: Mapping[str, Any], scene: Scene) -> InboundMessage:
    """Raises: MalformedUpdate; PassedOver for anything but a slash command or one of our buttons."""
    try:
        return _parse_interaction(data, scene)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise MalformedUpdate(scene.account, f"interaction: {error!r}") from error


def is_to_be_answered(data: Any) -> bool:
    """Whether this interaction is a slash command or a press of our button: Discord wants an answer within seconds."""
    if not isinstance(data, Mapping):
        return False
    if data.get("type") == APPLICATION_COMMAND:
        return True
    pressed = data.get("data")
    return (
        data.get("type") == MESSAGE_COMPONENT
        and isinstance(pressed, Mapping)
        and str(pressed.get("custom_id", "")).startswith("/")
    )


def command_name(data: Mapping[str, Any]) -> str:
    """The command that an interaction (`is_to_be_answered`) uses, by slash or by a button; empty if it makes no sense."""
    said = data.get("data")
    if not isinstance(said, Mapping):
        return ""
    if data.get("type") == APPLICATION_COMMAND:
        return str(said.get("name", ""))
    return str(said.get("custom_id", "")).removeprefix("/").partition(" ")[0]


def sent_at_ms(snowflake: int) -> int:
    return (snowflake >> 22) + DISCORD_EPOCH_MS


def _parse_message(data: Mapping[str, Any], scene: Scene, *, is_edit: bool) -> InboundMessage:
    message_id = _snowflake(data["id"])
    author = data["author"]
    author_id = str(_snowflake(author["id"]))
    if author_id == scene.bot_id:
        raise PassedOver("own message")
    if int(data.get("type") or 0) not in (DEFAULT, REPLY):
        raise PassedOver("notice of the platform")
    edited_at_ms = _moment_ms(data.get("edited_timestamp"))
    if is_edit and edited_at_ms is None:
        raise PassedOver("not edited by its author")
    content = _text(data.get("content")) or _forwarded(data)
    attachments, too_large = _attachments(data, scene.max_attachment_bytes)
    reference = data.get("message_reference")
    reply_to = (
        reference.get("message_id") if isinstance(reference, Mapping) and not reference.get("type") else None
    )
    is_direct = scene.kind == "direct"
    text = _readable(_without_leading_mention(content, scene), _names(data), scene).strip()
    return InboundMessage(
        account=scene.account,
        channel=scene.channel,
        message_id=PlatformMessageId(str(message_id)),
        sender=_sender(
            author, data.get("member"), is_bot=bool(author.get("bot")) or bool(data.get("webhook_id"))
        ),
        text=_with_quote(text, data, scene),
        sent_at_ms=edited_at_ms if is_edit and edited_at_ms is not None else sent_at_ms(message_id),
        channel_kind=scene.kind,
        channel_title=scene.title,
        thread=scene.thread,
        is_addressed=is_direct or _is_addressed(data, content, scene),
        reply_to=None if reply_to is None else PlatformMessageId(str(_snowflake(reply_to))),
        attachments=attachments,
        unsupported=_unsupported(data, content, attachments, too_large=too_large),
        is_edit=is_edit,
        # a thread shares its parent's channel, and one watermark cannot serve both: `history` keeps the thread's
        watermark=None if is_edit or scene.thread is not None else str(message_id),
    )


def _parse_interaction(data: Mapping[str, Any], scene: Scene) -> InboundMessage:
    text = _command_of(data)
    interaction_id = _snowflake(data["id"])
    member = data.get("member")
    user = member["user"] if isinstance(member, Mapping) else data["user"]
    said_at_ms = sent_at_ms(interaction_id)
    return InboundMessage(
        account=scene.account,
        channel=scene.channel,
        message_id=PlatformMessageId(str(interaction_id)),
        sender=_sender(
            user, member, is_bot=bool(user.get("bot")), language=_text(data.get("locale")) or None
        ),
        text=text,
        sent_at_ms=said_at_ms,
        channel_kind=scene.kind,
        channel_title=scene.title,
        thread=scene.thread,
        reply_handle={
            "application_id": str(_snowflake(data["application_id"])),
            "token": _required_text(data["token"]),
            "interaction_id": str(interaction_id),
            "expires_at_ms": said_at_ms + TOKEN_LIFE_MS,
        },
        origin={"by": "slash" if int(data["type"]) == APPLICATION_COMMAND else "button"},
    )


def _command_of(data: Mapping[str, Any]) -> str:
    """What somebody said by a slash command or by pressing a button of ours."""
    kind, said = int(data["type"]), data["data"]
    if kind == MESSAGE_COMPONENT and said.get("component_type") == BUTTON and is_to_be_answered(data):
        return _required_text(said["custom_id"])
    if kind != APPLICATION_COMMAND or int(said.get("type") or CHAT_INPUT) != CHAT_INPUT:
        raise PassedOver("neither a slash command nor a button of ours")
    name = _required_text(said["name"])
    argument = " ".join(
        str(option["value"]) for option in said.get("options") or () if "value" in option
    ).strip()
    return argument if name == QUESTION_COMMAND else f"/{name} {argument}".strip()


# pieces of a payload


def _snowflake(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        msg = f"not an id: {value!r:.50}"
        raise TypeError(msg)
    number = int(value)
    if not 0 < number < 1 << 63:
        msg = f"not an id: {number!r:.50}"
        raise ValueError(msg)
    return number


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        msg = f"not a text: {value!r:.50}"
        raise TypeError(msg)
    # half of a surrogate pair can be written in JSON, but neither stored nor sent
    return value.encode("utf-8", "replace").decode() if not value.isascii() else value


def _required_text(value: Any) -> str:
    text = _text(value)
    if not text:
        msg = "empty text where one is needed"
        raise ValueError(msg)
    return text


def _moment_ms(value: Any) -> int | None:
    return None if value is None else int(datetime.fromisoformat(value).timestamp() * 1000)


def _sender(user: Mapping[str, Any], member: Any, *, is_bot: bool, language: str | None = None) -> Sender:
    nick = _text(member.get("nick")) if isinstance(member, Mapping) else ""
    username = _text(user.get("username"))
    return Sender(
        user_id=PlatformUserId(str(_snowflake(user["id"]))),
        display_name=nick or _text(user.get("global_name")) or username or str(user["id"]),
        username=username or None,
        language=language,
        is_bot=is_bot,
    )


def _names(data: Mapping[str, Any]) -> dict[int, str]:
    """Names of the people mentioned, by id."""
    names: dict[int, str] = {}
    for user in data.get("mentions") or ():
        sender = _sender(user, user.get("member"), is_bot=False)
        names[int(sender.user_id)] = sender.display_name
    return names


def _forwarded(data: Mapping[str, Any]) -> str:
    """The text of a forwarded message, which has none of its own."""
    snapshots = data.get("message_snapshots") or ()
    return "\n".join(_text(snapshot["message"].get("content")) for snapshot in snapshots)


def _with_quote(text: str, data: Mapping[str, Any], scene: Scene) -> str:
    """The text with what it replies to below it. The bot's own answers are left out, the conversation has them."""
    answered = data.get("referenced_message")
    if not isinstance(answered, Mapping) or data["message_reference"].get("type"):
        return text
    author = answered["author"]
    if str(author["id"]) == scene.bot_id:
        return text
    said = _readable(_text(answered.get("content")), _names(answered), scene).strip()
    return with_quote(text, _sender(author, None, is_bot=False).display_name, said)


def _is_addressed(data: Mapping[str, Any], content: str, scene: Scene) -> bool:
    mentioned = {str(user["id"]) for user in data.get("mentions") or ()}
    mentioned |= set(_USER_MENTION.findall(content))
    roles = {str(role) for role in data.get("mention_roles") or ()}
    if scene.bot_id in mentioned or (scene.bot_role_id is not None and scene.bot_role_id in roles):
        return True
    answered = data.get("referenced_message")
    is_forward = isinstance(data.get("message_reference"), Mapping) and bool(
        data["message_reference"].get("type")
    )
    return isinstance(answered, Mapping) and not is_forward and str(answered["author"]["id"]) == scene.bot_id


def _without_leading_mention(content: str, scene: Scene) -> str:
    marks = [f"<@!?{re.escape(scene.bot_id)}>"]
    if scene.bot_role_id is not None:
        marks.append(f"<@&{re.escape(scene.bot_role_id)}>")
    found = re.match(rf"\s*(?:(?:{'|'.join(marks)})[\s,:]*)+", content)
    return content[found.end() :] if found else content


def _readable(text: str, names: Mapping[int, str], scene: Scene) -> str:
    """Mentions as a person reads them: `@Ada`, `#general`."""
    if "<" not in text:
        return text

    def named(sign: str, find: Callable[[int], str | None]) -> Callable[[re.Match[str]], str]:
        def replace(mention: re.Match[str]) -> str:
            digits = mention[1]
            name = find(int(digits)) if len(digits) <= 20 else None
            return f"{sign}{name}" if name else mention[0]

        return replace

    text = _USER_MENTION.sub(named("@", names.get), text)
    text = _ROLE_MENTION.sub(named("@", scene.role_name), text)
    text = _CHANNEL_MENTION.sub(named("#", scene.channel_name), text)
    return _EMOJI.sub(r"\1", text)


def _attachments(data: Mapping[str, Any], max_bytes: int) -> tuple[tuple[Attachment, ...], bool]:
    """The files that came along, without those too large; and whether there were such."""
    is_voice = bool(int(data.get("flags") or 0) & VOICE_MESSAGE)
    kept: list[Attachment] = []
    listed = list(data.get("attachments") or ())
    for item in listed:
        media_type = _text(item.get("content_type")) or None
        attachment = Attachment(
            kind="voice" if is_voice else _attachment_kind(media_type),
            reference=_required_text(item["url"]),
            name=_text(item.get("filename")) or None,
            media_type=media_type,
            size_bytes=int(item["size"]),
        )
        if int(item["size"]) <= max_bytes:
            kept.append(attachment)
    return tuple(kept), len(kept) < len(listed)


def _attachment_kind(media_type: str | None) -> AttachmentKind:
    match (media_type or "").partition("/")[0]:
        case "image":
            return "photo"
        case "video":
            return "video"
        case "audio":
            return "audio"
        case _:
            return "document"


def _unsupported(
    data: Mapping[str, Any], content: str, attachments: tuple[Attachment, ...], *, too_large: bool
) -> Unsupported | None:
    if too_large:
        return "too_large"
    if content.strip() or attachments:
        return None
    if data.get("sticker_items"):
        return "sticker"
    return "poll" if data.get("poll") else None
