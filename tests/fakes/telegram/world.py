"""The state of the fake Telegram and its JSON: who and what exists, found by id, shown as the Bot API shows it.

It owns identifiers, look-ups and the shape of payloads. It decides no refusals of API methods (`methods`), acts
for nobody (`people`) and hands nothing out (`feed`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from .records import (
    CallbackQuery,
    Chat,
    ChatAction,
    CommandSet,
    Draft,
    JsonObject,
    Message,
    PendingUpdate,
    Revision,
    StoredFile,
    User,
    Webhook,
)

UserRef = User | int
ChatRef = Chat | int
BOT_USERNAME = "palaver_test_bot"
DEFAULT_KINDS = (
    "message", "edited_message", "channel_post", "edited_channel_post", "inline_query", "chosen_inline_result",
    "callback_query", "shipping_query", "pre_checkout_query", "poll", "poll_answer", "my_chat_member",
    "chat_join_request", "chat_boost", "removed_chat_boost",
)  # fmt: skip
"""What a bot that names no allowed_updates receives: all but chat_member and the reactions."""


@dataclass
class World:
    bot: User
    users: dict[int, User] = field(default_factory=dict)
    chats: dict[int, Chat] = field(default_factory=dict)
    files: dict[str, StoredFile] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    chat_actions: list[ChatAction] = field(default_factory=list)
    command_sets: list[CommandSet] = field(default_factory=list)
    callback_queries: dict[str, CallbackQuery] = field(default_factory=dict)
    pending: list[PendingUpdate] = field(default_factory=list)
    allowed_updates: list[str] = field(default_factory=lambda: list(DEFAULT_KINDS))
    webhook: Webhook | None = None
    next_update_id: int = 100_000_001
    next_id: int = 1001
    """For users, groups, files and queries alike."""
    next_order: int = 1

    def fresh_id(self) -> int:
        self.next_id += 1
        return self.next_id

    # looking up; a test's mistake is a KeyError with words, an API caller's is refused in `methods`

    def user(self, ref: UserRef) -> User:
        user_id = ref if isinstance(ref, int) else ref.id
        if user_id == self.bot.id:
            return self.bot
        if user_id not in self.users:
            raise KeyError(f"no user {user_id} in the fake Telegram")
        return self.users[user_id]

    def chat(self, ref: ChatRef) -> Chat:
        chat_id = ref if isinstance(ref, int) else ref.id
        if chat_id not in self.chats:
            raise KeyError(f"no chat {chat_id} in the fake Telegram")
        return self.chats[chat_id]

    def message(self, chat_id: int, message_id: int) -> Message:
        chat = self.chat(chat_id)
        if message_id not in chat.messages:
            raise KeyError(f"no message {message_id} in chat {chat_id}")
        return chat.messages[message_id]

    def user_by_username(self, username: str) -> User | None:
        wanted = username.removeprefix("@").lower()
        everyone = [self.bot, *self.users.values()]
        return next((user for user in everyone if (user.username or "").lower() == wanted), None)

    def chat_by_username(self, username: str) -> Chat | None:
        wanted = username.removeprefix("@").lower()
        return next((chat for chat in self.chats.values() if (chat.username or "").lower() == wanted), None)

    # changing

    def post(
        self,
        chat: Chat,
        sender: User,
        *,
        kind: str = "text",
        text: str = "",
        entities: list[JsonObject] | None = None,
        thread_id: int | None = None,
        reply_to: int | None = None,
        content: JsonObject | None = None,
        reply_markup: JsonObject | None = None,
    ) -> Message:
        """Stores a message and gives it its id; the thread follows the replied-to message as on Telegram."""
        replied = chat.messages.get(reply_to) if reply_to is not None else None
        is_topic_message = thread_id in chat.topics
        if thread_id is None and replied is not None:
            if replied.is_topic_message:
                thread_id, is_topic_message = replied.thread_id, True
            elif chat.type == "supergroup" and not chat.is_forum:
                thread_id = replied.thread_id or replied.message_id
        message = Message(
            chat_id=chat.id,
            message_id=chat.next_message_id,
            date=int(time.time()),
            order=self.next_order,
            sender_id=sender.id,
            by_bot=sender.id == self.bot.id,
            kind=kind,
            text=text,
            entities=entities or [],
            thread_id=thread_id,
            is_topic_message=is_topic_message,
            reply_to=reply_to,
            content=content or {},
            reply_markup=reply_markup,
            changed_at=time.monotonic(),
        )
        chat.next_message_id += 1
        self.next_order += 1
        chat.messages[message.message_id] = message
        return message

    def revise(self, message: Message, text: str, entities: list[JsonObject]) -> None:
        now = int(time.time())
        message.revisions.append(Revision(message.text, message.entities, now))
        message.text, message.entities, message.edit_date = text, entities, now
        message.changed_at = time.monotonic()

    def store_file(
        self, content: bytes, name: str, mime_type: str, declared_size: int | None = None
    ) -> StoredFile:
        number = self.fresh_id()
        folder = {"image": "photos", "audio": "voice", "video": "videos"}.get(
            mime_type.partition("/")[0], "documents"
        )
        ending = name.rpartition(".")[2] if "." in name else "bin"
        file = StoredFile(
            file_id=f"AgACAgIAAxkBAAI{number:012d}",
            path=f"{folder}/file_{number}.{ending}",
            name=name,
            mime_type=mime_type,
            content=content,
            declared_size=len(content) if declared_size is None else declared_size,
        )
        self.files[file.file_id] = file
        return file

    # JSON

    def chat_payload(self, chat: Chat) -> JsonObject:
        answer: JsonObject = {"id": chat.id, "type": chat.type}
        if chat.type == "private":
            person = self.users[chat.id].payload()
            answer |= {key: person[key] for key in ("first_name", "last_name", "username") if key in person}
        else:
            answer["title"] = chat.title
            if chat.username:
                answer["username"] = chat.username
        if chat.is_forum and chat.type == "supergroup":
            answer["is_forum"] = True
        return answer

    def message_payload(self, message: Message, *, with_reply: bool = True) -> JsonObject:
        chat = self.chats[message.chat_id]
        answer: JsonObject = {
            "message_id": message.message_id,
            "from": self.user(message.sender_id).payload(),
            "chat": self.chat_payload(chat),
            "date": message.date,
        }
        if message.thread_id is not None:
            answer["message_thread_id"] = message.thread_id
        if message.is_topic_message:
            answer["is_topic_message"] = True
        if message.edit_date is not None:
            answer["edit_date"] = message.edit_date
        # in a topic, what replies to nothing replies to the topic's first message
        replied_id = message.reply_to or (message.thread_id if message.is_topic_message else None)
        replied = chat.messages.get(replied_id) if replied_id is not None else None
        if with_reply and replied is not None and not replied.deleted and replied is not message:
            answer["reply_to_message"] = self.message_payload(replied, with_reply=False)
        answer |= message.content
        if message.text:
            name = "text" if message.kind == "text" else "caption"
            answer[name] = message.text
            if message.entities:
                answer["entities" if name == "text" else "caption_entities"] = message.entities
        if message.reply_markup:
            answer["reply_markup"] = message.reply_markup
        return answer

    def file_payload(self, file: StoredFile, **further: Any) -> JsonObject:
        base = {"file_id": file.file_id, "file_unique_id": file.unique_id, "file_size": file.declared_size}
        return base | further
