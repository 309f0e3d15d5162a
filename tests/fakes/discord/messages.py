"""What Discord lets be written, edited, deleted and read: the rules of messages, for people and for the bot alike.

A person's message (``post``) and the bot's request (``post_as_bot``) end in the same place; only the bot is refused.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.discord import errors
from tests.fakes.discord.model import (
    CHAT_INPUT_COMMAND,
    DEFAULT_MESSAGE,
    EPHEMERAL,
    LOADING,
    REPLY,
    THREAD_CREATED,
    THREAD_STARTER,
    Attachment,
    Channel,
    Interaction,
    JsonObject,
    Message,
    Upload,
    User,
)
from tests.fakes.discord.payloads import member_payload, message_event, user_payload
from tests.fakes.discord.world import (
    DIRECT_MESSAGE_REACTIONS,
    DIRECT_MESSAGE_TYPING,
    DIRECT_MESSAGES,
    GUILD_MESSAGE_REACTIONS,
    GUILD_MESSAGE_TYPING,
    GUILD_MESSAGES,
    World,
)

MENTION = re.compile(r"<@!?(\d+)>")
MAX_NONCE = 25
MAX_EMBEDS = 10
MAX_FILES = 10


@dataclass(frozen=True)
class Draft:
    """A message body from a request, checked."""

    text: str | None = None
    embeds: list[JsonObject] | None = None
    components: list[JsonObject] | None = None
    flags: int = 0
    allowed_mentions: JsonObject | None = None
    nonce: str | None = None
    enforce_nonce: bool = False
    reference: JsonObject | None = None
    uploads: Sequence[Upload] = ()
    kept_attachment_ids: list[str] | None = None
    given: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_empty(self) -> bool:
        return not ((self.text or "").strip() or self.embeds or self.components or self.uploads)


ACTION_ROW, BUTTON = 1, 2
MAX_ROWS, MAX_IN_ROW = 5, 5
MAX_LABEL, MAX_CUSTOM_ID = 80, 100


def check_components(rows: list[JsonObject], path: str) -> None:
    """Rows of buttons, as far as bots here use components. Source: Discord reference, Component Reference."""
    where = f"{path}components"
    if len(rows) > MAX_ROWS:
        raise errors.invalid_form(
            where, "BASE_TYPE_BAD_LENGTH", f"Must be between 1 and {MAX_ROWS} in length."
        )
    seen: set[str] = set()
    for row in rows:
        buttons = row.get("components") or []
        if row.get("type") != ACTION_ROW or not 1 <= len(buttons) <= MAX_IN_ROW:
            raise errors.invalid_form(
                where, "BASE_TYPE_BAD_LENGTH", f"Must be between 1 and {MAX_IN_ROW} in length."
            )
        for button in buttons:
            label, custom_id = str(button.get("label") or ""), str(button.get("custom_id") or "")
            if button.get("type") != BUTTON or button.get("style") not in (1, 2, 3, 4):
                raise errors.invalid_form(
                    where, "BASE_TYPE_CHOICES", "This is no button that can be pressed."
                )
            if not 1 <= len(label) <= MAX_LABEL or not 1 <= len(custom_id) <= MAX_CUSTOM_ID:
                raise errors.invalid_form(
                    where, "BASE_TYPE_BAD_LENGTH", "Label or custom_id has a bad length."
                )
            if custom_id in seen:
                raise errors.invalid_form(
                    where, "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated"
                )
            seen.add(custom_id)


class MessageBoard:
    """Every message there is, and the rules for them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._by_nonce: dict[str, Message] = {}

    # -- reading a request ----------------------------------------------------------------------------------

    def read_draft(self, body: Any, uploads: Sequence[Upload], *, path: str = "") -> Draft:
        """Check a request's message body; ``path`` is where it lies in the request (``data.`` in a callback)."""
        if not isinstance(body, dict):
            raise errors.invalid_json()
        settings = self.world.settings
        text = body.get("content")
        if text is not None and not isinstance(text, str):
            text = str(text)
        if text is not None and len(text) > settings.max_text:
            raise errors.invalid_form(
                f"{path}content", "BASE_TYPE_MAX_LENGTH", f"Must be {settings.max_text} or fewer in length."
            )
        nonce = body.get("nonce")
        if nonce is not None and len(str(nonce)) > MAX_NONCE:
            raise errors.invalid_form(
                f"{path}nonce", "BASE_TYPE_MAX_LENGTH", f"Must be {MAX_NONCE} or fewer in length."
            )
        embeds = body.get("embeds")
        if embeds and len(embeds) > MAX_EMBEDS:
            raise errors.invalid_form(
                f"{path}embeds", "BASE_TYPE_MAX_LENGTH", f"Must be {MAX_EMBEDS} or fewer in length."
            )
        if len(uploads) > MAX_FILES:
            raise errors.invalid_form(
                f"{path}attachments", "BASE_TYPE_MAX_LENGTH", f"Must be {MAX_FILES} or fewer in length."
            )
        if any(len(upload.content) > settings.max_attachment_bytes for upload in uploads):
            raise errors.too_large()
        check_components(body.get("components") or [], path)
        allowed = body.get("allowed_mentions")
        if allowed is not None:
            check_allowed_mentions(allowed, path)
        listed = body.get("attachments")
        kept = None if listed is None else [str(a["id"]) for a in listed if int(a["id"]) >= len(uploads)]
        return Draft(
            text=text,
            embeds=embeds,
            components=body.get("components"),
            flags=int(body.get("flags") or 0),
            allowed_mentions=allowed,
            nonce=None if nonce is None else str(nonce),
            enforce_nonce=body.get("enforce_nonce") is True,
            reference=body.get("message_reference"),
            uploads=uploads,
            kept_attachment_ids=kept,
            given=frozenset(body),
        )

    # -- writing --------------------------------------------------------------------------------------------

    def post(
        self,
        channel: Channel,
        author: User,
        text: str,
        *,
        reply_to: Message | None,
        uploads: Sequence[Upload],
    ) -> Message:
        """A person writes. Their own client stops what is too long or empty, so that is an error of the test."""
        if len(text) > 2 * self.world.settings.max_text:
            raise ValueError(
                f"{len(text)} characters; even with Nitro a person can write {2 * self.world.settings.max_text}"
            )
        if not text.strip() and not uploads:
            raise ValueError("a person cannot send an empty message")
        if channel.is_dm and author.id not in (channel.recipient_id, self.world.bot.id):
            raise ValueError(f"user {author.username} is not part of this DM")
        if reply_to is not None and reply_to.channel_id != channel.id:
            raise ValueError("a reply stays in the channel of the message it answers")
        return self._add(channel, author, Draft(text=text, uploads=uploads), reply_to=reply_to)

    def post_as_bot(self, channel: Channel, draft: Draft) -> Message:
        """The bot's own send, with everything that Discord refuses."""
        self.check_may_send(channel)
        if draft.is_empty:
            raise errors.empty_message()
        repeated = self._known_nonce(draft)
        if repeated is not None:
            return repeated
        message = self._add(
            channel, self.world.bot, draft, reply_to=self._find_reference(channel, draft.reference)
        )
        if draft.nonce is not None and draft.enforce_nonce:
            self._by_nonce[draft.nonce] = message
        return message

    def post_for_interaction(
        self, interaction: Interaction, draft: Draft, *, loading: bool, is_original: bool
    ) -> Message:
        """An answer to a slash command, or the "is thinking…" that stands for it."""
        if not loading and draft.is_empty:
            raise errors.empty_message()
        return self._add(
            self.world.channels[interaction.channel_id],
            self.world.bot,
            draft,
            reply_to=None,
            interaction=interaction,
            kind=CHAT_INPUT_COMMAND if is_original else DEFAULT_MESSAGE,
            flags=LOADING if loading else 0,
        )

    def edit_as_bot(self, message: Message, draft: Draft) -> Message:
        channel = self.world.visible_channel(message.channel_id)
        if message.author_id != self.world.bot.id:
            raise errors.not_own_message()
        if channel.archived:
            raise errors.thread_archived()
        return self.apply_edit(message, draft)

    def apply_edit(self, message: Message, draft: Draft) -> Message:
        """Change what the request names, and leave the rest; refused when nothing would remain."""
        text = (draft.text or "") if "content" in draft.given else message.text
        embeds = (draft.embeds or []) if "embeds" in draft.given else message.embeds
        components = (draft.components or []) if "components" in draft.given else message.components
        kept = message.attachments
        if draft.kept_attachment_ids is not None:
            kept = [attachment for attachment in kept if attachment.id in draft.kept_attachment_ids]
        if not (text.strip() or embeds or components or kept or draft.uploads):
            raise errors.empty_message()
        message.embeds, message.components = embeds, components
        message.attachments = [*kept, *self._store(draft.uploads)]
        if "allowed_mentions" in draft.given:
            message.allowed_mentions = draft.allowed_mentions
        return self.edit(message, text=text)

    def edit(self, message: Message, *, text: str) -> Message:
        if message.deleted:
            raise ValueError(f"message {message.id} is deleted")
        was_loading = message.is_loading
        message.text = text
        if was_loading:
            message.versions = [text]
        else:
            message.versions.append(text)
            message.edited_at_s = self.world.clock.now_s()
        message.flags &= ~LOADING
        self._set_mentions(message)
        self._tell("MESSAGE_UPDATE", message)
        return message

    def delete(self, message: Message) -> Message:
        if message.deleted:
            raise ValueError(f"message {message.id} is deleted already")
        message.deleted = True
        channel = self.world.channels[message.channel_id]
        data: JsonObject = {"id": message.id, "channel_id": channel.id}
        if channel.guild_id is not None:
            data["guild_id"] = channel.guild_id
        self._emit("MESSAGE_DELETE", channel, data, GUILD_MESSAGES, DIRECT_MESSAGES)
        return message

    def delete_as_bot(self, message: Message) -> None:
        self.world.visible_channel(message.channel_id)
        if message.author_id != self.world.bot.id:
            raise errors.missing_permissions()
        self.delete(message)

    def start_thread(
        self, parent: Channel, name: str, *, owner_id: str, message: Message | None, is_private: bool = False
    ) -> Channel:
        """A thread from a message (it shares the message's id), or one of its own."""
        if parent.guild_id is None or parent.is_thread:
            raise ValueError(f"channel {parent.id} cannot have threads")
        if message is not None and message.thread_id is not None:
            raise errors.thread_exists()
        thread = self.world.add_thread(
            parent, name, owner_id=owner_id, thread_id=message.id if message else None, private=is_private
        )
        owner = self.world.users[owner_id]
        if message is not None:
            message.thread_id = thread.id
            self._tell("MESSAGE_UPDATE", message)
            self._add(thread, owner, Draft(text=""), reply_to=message, kind=THREAD_STARTER)
        elif not is_private:
            self._add(
                parent, owner, Draft(text=name), reply_to=None, kind=THREAD_CREATED, thread_id=thread.id
            )
        return thread

    def react(self, message: Message, user: User, emoji: str, *, remove: bool = False) -> None:
        there = message.reactions.setdefault(emoji, [])
        if (user.id in there) != remove:
            return
        (there.remove if remove else there.append)(user.id)
        channel = self.world.channels[message.channel_id]
        data: JsonObject = {
            "user_id": user.id,
            "channel_id": channel.id,
            "message_id": message.id,
            "message_author_id": message.author_id,
            "emoji": {"id": None, "name": emoji},
            "burst": False,
            "type": 0,
        }
        if channel.guild_id is not None:
            data["guild_id"] = channel.guild_id
            data["member"] = member_payload(self.world.guilds[channel.guild_id], user, with_user=True)
        name = "MESSAGE_REACTION_REMOVE" if remove else "MESSAGE_REACTION_ADD"
        self._emit(name, channel, data, GUILD_MESSAGE_REACTIONS, DIRECT_MESSAGE_REACTIONS)

    def show_typing(self, channel: Channel, user: User) -> None:
        if user.id == self.world.bot.id:
            channel.typing.append(self.world.clock.now_s())
        data: JsonObject = {
            "channel_id": channel.id,
            "user_id": user.id,
            "timestamp": int(self.world.clock.now_s()),
        }
        if channel.guild_id is not None:
            data["guild_id"] = channel.guild_id
            data["member"] = member_payload(self.world.guilds[channel.guild_id], user, with_user=True)
        self._emit("TYPING_START", channel, data, GUILD_MESSAGE_TYPING, DIRECT_MESSAGE_TYPING)

    # -- reading --------------------------------------------------------------------------------------------

    def find(self, channel_id: str, message_id: str) -> Message:
        channel = self.world.visible_channel(channel_id)
        message = self.world.messages.get(message_id)
        if message is None or message.deleted or message.is_ephemeral or message.channel_id != channel.id:
            raise errors.unknown_message()
        return message

    def page(
        self, channel_id: str, *, limit: int, before: int | None, after: int | None, around: int | None
    ) -> list[Message]:
        """A page of history, newest first whichever way it was asked for."""
        channel = self.world.visible_channel(channel_id)
        if not 1 <= limit <= 100:
            raise errors.invalid_form("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
        stands = [m for m in self.world.history.get(channel.id, []) if not m.deleted and not m.is_ephemeral]
        if around is not None:
            middle = bisect_left(stands, around, key=_number)
            start = max(0, middle - limit // 2)
            found = stands[start : start + limit]
        elif after is not None:
            start = bisect_right(stands, after, key=_number)
            found = stands[start : start + limit]
        else:
            end = len(stands) if before is None else bisect_left(stands, before, key=_number)
            found = stands[max(0, end - limit) : end]
        return found[::-1]

    def check_may_send(self, channel: Channel) -> None:
        if channel.is_dm:
            if not self.world.users[channel.recipient_id or ""].accepts_dms:
                raise errors.cannot_dm()
        elif not self.world.can_send(channel):
            raise errors.missing_permissions()
        if channel.locked:
            raise errors.thread_archived()

    # -- within ---------------------------------------------------------------------------------------------

    def _known_nonce(self, draft: Draft) -> Message | None:
        """The message already made with this nonce, in any channel: the reference asks only for the same author.

        What Discord does when that message is deleted is not documented; here it makes a new one.
        """
        if draft.nonce is None or not draft.enforce_nonce:
            return None
        known = self._by_nonce.get(draft.nonce)
        if known is None or known.deleted:
            return None
        age_s = self.world.clock.now_s() - known.at_s
        return known if age_s <= self.world.settings.nonce_window_s else None

    def _find_reference(self, channel: Channel, reference: JsonObject | None) -> Message | None:
        if reference is None or int(reference.get("type") or 0) != 0:
            return None
        message = self.world.messages.get(str(reference.get("message_id")))
        if message is None or message.deleted or message.channel_id != channel.id:
            if reference.get("fail_if_not_exists", True):
                raise errors.invalid_form(
                    "message_reference", "MESSAGE_REFERENCE_UNKNOWN_MESSAGE", "Unknown message"
                )
            return None
        if message.type not in (DEFAULT_MESSAGE, REPLY, CHAT_INPUT_COMMAND):
            raise errors.invalid_form(
                "message_reference",
                "REPLIES_CANNOT_REPLY_TO_SYSTEM_MESSAGE",
                "Cannot reply to a system message",
            )
        return message

    def _add(
        self,
        channel: Channel,
        author: User,
        draft: Draft,
        *,
        reply_to: Message | None,
        kind: int | None = None,
        flags: int = 0,
        interaction: Interaction | None = None,
        thread_id: str | None = None,
    ) -> Message:
        if kind is None:
            kind = REPLY if reply_to else DEFAULT_MESSAGE
        text = draft.text or ""
        message = Message(
            id=self.world.snowflakes.make(),
            channel_id=channel.id,
            author_id=author.id,
            text=text,
            type=kind,
            at_s=self.world.clock.now_s(),
            versions=[text],
            flags=flags | draft.flags & ~(LOADING if interaction else LOADING | EPHEMERAL),
            nonce=draft.nonce,
            enforce_nonce=draft.enforce_nonce,
            reply_to=reply_to.id if reply_to else None,
            reference_channel_id=reply_to.channel_id if reply_to else None,
            allowed_mentions=draft.allowed_mentions,
            attachments=self._store(draft.uploads),
            embeds=draft.embeds or [],
            components=draft.components or [],
            interaction_id=interaction.id if interaction else None,
            thread_id=thread_id,
        )
        self._set_mentions(message)
        self.world.messages[message.id] = message
        self.world.history.setdefault(channel.id, []).append(message)
        channel.last_message_id = message.id
        if channel.is_thread:
            channel.archived = False
            if author.id not in channel.thread_member_ids:
                channel.thread_member_ids.append(author.id)
        self._tell("MESSAGE_CREATE", message)
        return message

    def _set_mentions(self, message: Message) -> None:
        """Who is really mentioned, after what ``allowed_mentions`` lets through. Source: Discord reference."""
        allowed = message.allowed_mentions
        parse = None if allowed is None else set(allowed.get("parse") or [])
        named = [user_id for user_id in MENTION.findall(message.text) if user_id in self.world.users]
        if parse is not None and "users" not in parse and allowed is not None:
            named = [user_id for user_id in named if user_id in set(map(str, allowed.get("users") or []))]
        answered = self.world.messages.get(message.reply_to or "") if message.type == REPLY else None
        if answered is not None and (allowed is None or allowed.get("replied_user") is True):
            named.append(answered.author_id)
        message.mention_ids = list(dict.fromkeys(named))
        everyone = "@everyone" in message.text or "@here" in message.text
        may = message.author_id == self.world.bot.id and (parse is None or "everyone" in parse)
        message.mention_everyone = (
            everyone and may and self.world.channels[message.channel_id].guild_id is not None
        )

    def _store(self, uploads: Sequence[Upload]) -> list[Attachment]:
        stored = []
        for upload in uploads:
            attachment = Attachment(
                self.world.snowflakes.make(), upload.filename, upload.content_type, len(upload.content)
            )
            self.world.files[attachment.id] = upload.content
            stored.append(attachment)
        return stored

    def _tell(self, name: str, message: Message) -> None:
        if message.is_ephemeral:
            self.world.note_change()
            return
        channel = self.world.channels[message.channel_id]
        self._emit(name, channel, message_event(self.world, message), GUILD_MESSAGES, DIRECT_MESSAGES)

    def _emit(self, name: str, channel: Channel, data: JsonObject, guild_intent: int, dm_intent: int) -> None:
        if not self.world.can_view(channel):
            self.world.note_change()
        elif channel.guild_id is None:
            self.world.emit(name, data, intent=dm_intent)
        else:
            self.world.emit(name, data, guild_id=channel.guild_id, intent=guild_intent)


def check_allowed_mentions(allowed: Any, path: str) -> None:
    """Refuse the combinations that Discord refuses: a kind both parsed and listed."""
    if not isinstance(allowed, dict):
        raise errors.invalid_form(
            f"{path}allowed_mentions", "MODEL_TYPE_CONVERT", "Only dictionaries may be used."
        )
    for kind in set(allowed.get("parse") or []):
        if kind not in ("users", "roles", "everyone"):
            raise errors.invalid_form(
                f"{path}allowed_mentions.parse",
                "BASE_TYPE_CHOICES",
                "Value must be one of ('users', 'roles', 'everyone').",
            )
        if allowed.get(kind):
            raise errors.invalid_form(
                f"{path}allowed_mentions",
                "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
                f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.',
            )


def reaction_users(world: World, message: Message, emoji: str) -> list[JsonObject]:
    return [user_payload(world.users[user_id]) for user_id in message.reactions.get(emoji, [])]


def _number(message: Message) -> int:
    return int(message.id)
