"""What people do in the fake Telegram: they open chats, write, edit, press, block, join and migrate groups.

Every act changes the world and queues the update that Telegram would send. It never calls the bot's API methods.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from .feed import Feed
from .markup import automatic_entities, entity_text, formatted, utf16_length
from .records import GENERAL_TOPIC_ID, BotStatus, CallbackQuery, Chat, JsonObject, Message, StoredFile, User
from .world import ChatRef, UserRef, World

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000b494441"
    "54789c6360000200000500017a5eab3f0000000049454e44ae426082"
)
"""A valid PNG of one transparent pixel."""


class People:
    """The acts of persons, over a `World`; `server.FakeTelegram` is the public class."""

    def __init__(self, world: World, feed: Feed, *, privacy_mode: bool, sees_bots: bool) -> None:
        self.world = world
        self.feed = feed
        self.privacy_mode = privacy_mode
        self.sees_bots = sees_bots

    # the world

    def user(
        self,
        first_name: str,
        *,
        user_id: int | None = None,
        last_name: str | None = None,
        username: str | None = None,
        language_code: str | None = "en",
        is_bot: bool = False,
    ) -> User:
        user_id = self.world.fresh_id() if user_id is None else user_id
        if user_id in self.world.users or user_id == self.world.bot.id:
            raise ValueError(f"user {user_id} exists already")
        user = User(user_id, first_name, last_name, username, language_code, is_bot)
        self.world.users[user_id] = user
        return user

    def private_chat(self, user: UserRef) -> Chat:
        """The chat of one person with the bot, as opened by the person; its id is the person's."""
        person = self.world.user(user)
        person.has_started = True
        if person.id not in self.world.chats:
            self.world.chats[person.id] = Chat(person.id, "private", members=[person.id])
        return self.world.chats[person.id]

    def group(self, title: str, members: list[UserRef], *, chat_id: int | None = None) -> Chat:
        chat_id = -self.world.fresh_id() if chat_id is None else chat_id
        return self._add_chat(Chat(chat_id, "group", title=title), members)

    def supergroup(
        self,
        title: str,
        members: list[UserRef],
        *,
        forum: bool = False,
        username: str | None = None,
        chat_id: int | None = None,
    ) -> Chat:
        chat_id = -1_000_000_000_000 - self.world.fresh_id() if chat_id is None else chat_id
        chat = Chat(chat_id, "supergroup", title=title, username=username, is_forum=forum, next_message_id=2)
        return self._add_chat(chat, members)

    def _add_chat(self, chat: Chat, members: list[UserRef]) -> Chat:
        if chat.id in self.world.chats:
            raise ValueError(f"chat {chat.id} exists already")
        chat.members = [self.world.user(member).id for member in members]
        self.world.chats[chat.id] = chat
        return chat

    def topic(self, chat: ChatRef, name: str) -> int:
        """Opens a forum topic (in a private chat too, as Telegram now allows); gives its thread id."""
        where = self.world.chat(chat)
        if where.type not in ("supergroup", "private"):
            raise ValueError("topics exist in supergroups and private chats only")
        where.is_forum = True
        where.next_message_id = max(where.next_message_id, GENERAL_TOPIC_ID + 1)
        owner = self.world.user(where.members[0]) if where.members else self.world.bot
        event = {"forum_topic_created": {"name": name, "icon_color": 7322096}}
        where.topics[where.next_message_id] = name
        message = self.world.post(
            where, owner, kind="forum_topic_created", content=event, thread_id=where.next_message_id
        )
        self._announce(message)
        return message.message_id

    def close_topic(self, chat: ChatRef, thread: int) -> None:
        where = self.world.chat(chat)
        where.closed_topics.append(thread)
        owner = self.world.user(where.members[0])
        content: JsonObject = {"forum_topic_closed": {}}
        self._announce(
            self.world.post(where, owner, kind="forum_topic_closed", content=content, thread_id=thread)
        )

    def promote(self, user: UserRef, chat: ChatRef) -> None:
        self.world.chat(chat).admins.append(self.world.user(user).id)

    def file(self, file_id: str) -> StoredFile:
        return self.world.files[file_id]

    # writing

    def say(
        self,
        user: UserRef,
        chat: ChatRef,
        text: str,
        *,
        thread: int | None = None,
        reply_to: Message | int | None = None,
        entities: list[JsonObject] | None = None,
        mentions: dict[str, UserRef] | None = None,
        deliver: bool = True,
    ) -> Message:
        """A person writes. `mentions` turns a name in the text into a mention of somebody without username.

        `deliver=False` leaves the message out of the feed, as if it had been written before the bot could see it.
        """
        plain, given = formatted(text, None, entities)
        if not plain:
            raise ValueError("people cannot send empty texts either")
        found = given if entities is not None else automatic_entities(plain)
        for name, mentioned in (mentions or {}).items():
            position = plain.index(name)
            mark = {
                "type": "text_mention",
                "offset": utf16_length(plain[:position]),
                "length": utf16_length(name),
            }
            found = [*found, mark | {"user": self.world.user(mentioned).payload()}]
        return self._write(user, chat, "text", plain, found, {}, thread, reply_to, deliver)

    def edit(self, message: Message, text: str, *, entities: list[JsonObject] | None = None) -> Message:
        """A person edits an own text or caption."""
        edited = self.world.message(message.chat_id, message.message_id)
        plain, given = formatted(text, None, entities)
        self.world.revise(edited, plain, given if entities is not None else automatic_entities(plain))
        if self._bot_sees(edited):
            self.feed.put("edited_message", self.world.message_payload(edited))
        return edited

    def delete(self, message: Message) -> None:
        """Somebody deletes a message; Telegram tells bots nothing of it."""
        self.world.message(message.chat_id, message.message_id).deleted = True

    def photo(
        self,
        user: UserRef,
        chat: ChatRef,
        content: bytes = PIXEL,
        *,
        caption: str = "",
        size: int | None = None,
        thread: int | None = None,
        reply_to: Message | int | None = None,
    ) -> Message:
        """Arrives in two sizes, the larger last, as Telegram sends photos."""
        small = self.world.store_file(content, "thumb.jpg", "image/jpeg")
        large = self.world.store_file(content, "photo.jpg", "image/jpeg", size)
        sizes = [
            self.world.file_payload(small, width=90, height=90),
            self.world.file_payload(large, width=1280, height=1280),
        ]
        return self._write_medium(user, chat, "photo", caption, sizes, thread, reply_to)

    def document(
        self,
        user: UserRef,
        chat: ChatRef,
        content: bytes = b"hello, file\n",
        *,
        name: str = "notes.txt",
        mime_type: str = "text/plain",
        caption: str = "",
        size: int | None = None,
        thread: int | None = None,
        reply_to: Message | int | None = None,
    ) -> Message:
        """`size` declares another size than the content has, e.g. above the 20 MB a bot may fetch."""
        file = self.world.store_file(content, name, mime_type, size)
        medium = self.world.file_payload(file, file_name=name, mime_type=mime_type)
        return self._write_medium(user, chat, "document", caption, medium, thread, reply_to)

    def voice(
        self,
        user: UserRef,
        chat: ChatRef,
        content: bytes = b"OggS fake",
        *,
        duration_s: int = 3,
        thread: int | None = None,
        reply_to: Message | int | None = None,
    ) -> Message:
        file = self.world.store_file(content, "voice.oga", "audio/ogg")
        medium = self.world.file_payload(file, duration=duration_s, mime_type="audio/ogg")
        return self._write_medium(user, chat, "voice", "", medium, thread, reply_to)

    def sticker(
        self,
        user: UserRef,
        chat: ChatRef,
        emoji: str = "\N{WAVING HAND SIGN}",
        *,
        thread: int | None = None,
        reply_to: Message | int | None = None,
    ) -> Message:
        file = self.world.store_file(b"RIFF fake", "sticker.webp", "image/webp")
        shape = {"width": 512, "height": 512, "is_animated": False, "is_video": False, "type": "regular"}
        medium = self.world.file_payload(file, emoji=emoji, set_name="tests", **shape)
        return self._write_medium(user, chat, "sticker", "", medium, thread, reply_to)

    def location(
        self,
        user: UserRef,
        chat: ChatRef,
        latitude: float = 52.52,
        longitude: float = 13.405,
        *,
        thread: int | None = None,
        reply_to: Message | int | None = None,
    ) -> Message:
        medium = {"latitude": latitude, "longitude": longitude}
        return self._write_medium(user, chat, "location", "", medium, thread, reply_to)

    def press(self, user: UserRef, message: Message, data: str) -> str:
        """A person presses the inline button whose callback_data is `data`; gives the query's id."""
        pressed = self.world.message(message.chat_id, message.message_id)
        rows = (pressed.reply_markup or {}).get("inline_keyboard", [])
        offered = [button.get("callback_data") for button in itertools.chain.from_iterable(rows)]
        if data not in offered:
            raise ValueError(f"message {pressed.message_id} offers no button {data!r}, only {offered!r}")
        person = self.world.user(user)
        query = CallbackQuery(
            str(4_000_000_000 + self.world.fresh_id()), pressed.chat_id, pressed.message_id, person.id, data
        )
        self.world.callback_queries[query.id] = query
        update: JsonObject = {
            "id": query.id,
            "from": person.payload(),
            "message": self.world.message_payload(pressed),
            "chat_instance": str(hash(pressed.chat_id) & 0xFFFFFFFF),
            "data": data,
        }
        self.feed.put("callback_query", update)
        return query.id

    def react(self, user: UserRef, message: Message, emoji: str | None) -> None:
        """Updates of this kind come only to bots that name message_reaction in allowed_updates."""
        target = self.world.message(message.chat_id, message.message_id)
        person = self.world.user(user)
        old = target.reactions.pop(person.id, [])
        if emoji is not None:
            target.reactions[person.id] = [emoji]
        update: JsonObject = {
            "chat": self.world.chat_payload(self.world.chat(target.chat_id)),
            "message_id": target.message_id,
            "user": person.payload(),
            "date": int(time.time()),
            "old_reaction": [{"type": "emoji", "emoji": each} for each in old],
            "new_reaction": [{"type": "emoji", "emoji": emoji}] if emoji else [],
        }
        self.feed.put("message_reaction", update)

    # memberships

    def join(self, user: UserRef, chat: ChatRef) -> Message:
        person, where = self.world.user(user), self.world.chat(chat)
        where.members.append(person.id)
        event = {"new_chat_members": [person.payload()]}
        return self._announce(self.world.post(where, person, kind="new_chat_members", content=event))

    def part(self, user: UserRef, chat: ChatRef) -> Message:
        person, where = self.world.user(user), self.world.chat(chat)
        where.members = [member for member in where.members if member != person.id]
        event = {"left_chat_member": person.payload()}
        return self._announce(self.world.post(where, person, kind="left_chat_member", content=event))

    def add_bot(self, user: UserRef, chat: ChatRef) -> None:
        where = self.world.chat(chat)
        self._change_bot_status(user, where, "member")
        event = {"new_chat_members": [self.world.bot.payload()]}
        self._announce(self.world.post(where, self.world.user(user), kind="new_chat_members", content=event))

    def remove_bot(self, user: UserRef, chat: ChatRef) -> None:
        self._change_bot_status(user, self.world.chat(chat), "kicked")

    def blocked_by(self, user: UserRef, blocked: bool = True) -> None:
        person = self.world.user(user)
        chat = self.private_chat(person)
        person.blocks_bot = blocked
        self._change_bot_status(person, chat, "kicked" if blocked else "member")

    def _change_bot_status(self, user: UserRef, chat: Chat, status: BotStatus) -> None:
        old, chat.bot_status = chat.bot_status, status
        update: JsonObject = {
            "chat": self.world.chat_payload(chat),
            "from": self.world.user(user).payload(),
            "date": int(time.time()),
            "old_chat_member": self.member_payload(self.world.bot, old),
            "new_chat_member": self.member_payload(self.world.bot, status),
        }
        self.feed.put("my_chat_member", update)

    def member_payload(self, user: User, status: str) -> JsonObject:
        answer: JsonObject = {"status": status, "user": user.payload()}
        if status == "kicked":
            answer["until_date"] = 0
        if status == "administrator":
            rights = (
                "can_manage_chat can_delete_messages can_manage_video_chats can_restrict_members "
                "can_promote_members can_change_info can_invite_users can_post_stories can_edit_stories "
                "can_delete_stories"
            ).split()
            answer |= {"can_be_edited": False, "is_anonymous": False} | dict.fromkeys(rights, True)
        return answer

    def migrate(self, chat: ChatRef) -> Chat:
        """A group becomes a supergroup with another id; the old one refuses and names the new one."""
        old = self.world.chat(chat)
        if old.type != "group":
            raise ValueError(f"only groups migrate, {old.id} is a {old.type}")
        new = self.supergroup(old.title or "", list(old.members))
        new.admins = list(old.admins)
        old.migrated_to = new.id
        owner = self.world.user(old.members[0]) if old.members else self.world.bot
        there = {"migrate_to_chat_id": new.id}
        self._announce(self.world.post(old, owner, kind="migrate_to_chat_id", content=there))
        back = {"migrate_from_chat_id": old.id}
        self._announce(self.world.post(new, owner, kind="migrate_from_chat_id", content=back))
        return new

    def inject(self, body: Any, with_id: bool = True) -> int:
        """Any JSON becomes an update, word for word: missing fields, wrong types, kinds nobody knows.

        With `with_id`, an object without update_id receives one. Gives Telegram's own number for it.
        """
        return self.feed.put_verbatim(body, with_id=with_id)

    # inside

    def _write_medium(
        self,
        user: UserRef,
        chat: ChatRef,
        kind: str,
        caption: str,
        medium: Any,
        thread: int | None,
        reply_to: Message | int | None,
    ) -> Message:
        plain, _ = formatted(caption, None, None)
        return self._write(
            user, chat, kind, plain, automatic_entities(plain), {kind: medium}, thread, reply_to, True
        )

    def _write(
        self,
        user: UserRef,
        chat: ChatRef,
        kind: str,
        text: str,
        entities: list[JsonObject],
        content: JsonObject,
        thread: int | None,
        reply_to: Message | int | None,
        deliver: bool,
    ) -> Message:
        sender, where = self.world.user(user), self.world.chat(chat)
        if where.migrated_to is not None:
            raise ValueError(f"group {where.id} migrated to {where.migrated_to}")
        if sender.id not in where.members:
            raise ValueError(f"{sender.full_name} is not in chat {where.id}")
        if thread is not None and thread not in where.topics and thread != GENERAL_TOPIC_ID:
            raise ValueError(f"chat {where.id} has no topic {thread}")
        message = self.world.post(
            where,
            sender,
            kind=kind,
            text=text,
            entities=entities,
            thread_id=None if thread == GENERAL_TOPIC_ID else thread,
            reply_to=reply_to.message_id if isinstance(reply_to, Message) else reply_to,
            content=content,
        )
        return self._announce(message) if deliver else message

    def _announce(self, message: Message) -> Message:
        if self._bot_sees(message):
            self.feed.put("message", self.world.message_payload(message))
        return message

    def _bot_sees(self, message: Message) -> bool:
        """Telegram shows a bot no other bot's messages by default; in privacy mode only what is meant for it."""
        chat = self.world.chat(message.chat_id)
        if self.world.user(message.sender_id).is_bot and not message.is_service and not self.sees_bots:
            return False
        if chat.bot_status in ("left", "kicked"):
            return False
        if not self.privacy_mode or chat.type == "private" or message.is_service:
            return True
        replied = chat.messages.get(message.reply_to) if message.reply_to is not None else None
        if replied is not None and replied.by_bot:
            return True
        mine = f"@{self.world.bot.username}".lower()
        for entity in message.entities:
            marked = entity_text(message.text, entity).lower()
            if entity["type"] == "mention" and marked == mine:
                return True
            if entity["type"] == "bot_command" and ("@" not in marked or marked.endswith(mine)):
                return True
            if entity["type"] == "text_mention" and entity["user"]["id"] == self.world.bot.id:
                return True
        return False
