"""The Bot API's methods over the fake's world: what each call does, and every refusal in Telegram's words.

Plain synchronous functions of the parameters, so an effect is whole or absent whatever happens to the connection.
getUpdates waits and is therefore served by `server` through `feed`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from telegram.constants import ReactionEmoji

from .feed import Feed
from .markup import MAX_CAPTION_UTF16, MAX_TEXT_UTF16, formatted, utf16_length
from .parameters import Parameters
from .people import People
from .records import (
    GENERAL_TOPIC_ID,
    Chat,
    ChatAction,
    CommandSet,
    Draft,
    JsonObject,
    Message,
    Refusal,
    StoredFile,
    Webhook,
    bad_request,
)

MAX_DOWNLOAD_BYTES = 20 * 1024 * 1024
MAX_UPLOAD_BYTES = 50 * 1024 * 1024
NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same "
    "as a current content and reply markup of the message"
)
CHAT_ACTIONS = frozenset(
    "typing upload_photo record_video upload_video record_voice upload_voice upload_document choose_sticker "
    "find_location record_video_note upload_video_note".split()
)
IMAGE_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")


class BotMethods:
    def __init__(self, people: People, feed: Feed) -> None:
        self.people = people
        self.world = people.world
        self.feed = feed
        handlers: dict[str, Callable[[Parameters], Any]] = {
            "getMe": self._get_me,
            "setWebhook": self._set_webhook,
            "deleteWebhook": self._delete_webhook,
            "getWebhookInfo": self._get_webhook_info,
            "sendMessage": self._send_message,
            "sendMessageDraft": self._send_message_draft,
            "editMessageText": self._edit_message_text,
            "editMessageReplyMarkup": self._edit_message_reply_markup,
            "deleteMessage": self._delete_message,
            "deleteMessages": self._delete_messages,
            "sendChatAction": self._send_chat_action,
            "sendDocument": self._send_document,
            "sendPhoto": self._send_photo,
            "sendVoice": self._send_voice,
            "setMessageReaction": self._set_message_reaction,
            "setMyCommands": self._set_my_commands,
            "getMyCommands": self._get_my_commands,
            "deleteMyCommands": self._delete_my_commands,
            "answerCallbackQuery": self._answer_callback_query,
            "getFile": self._get_file,
            "getChat": self._get_chat,
            "getChatMember": self._get_chat_member,
            "getChatAdministrators": self._get_chat_administrators,
            "leaveChat": self._leave_chat,
        }
        self._handlers = {name.lower(): handler for name, handler in handlers.items()}
        self.names = {name.lower(): name for name in (*handlers, "getUpdates")}
        """Method names are case-insensitive; this gives the documented spelling."""

    def perform(self, method: str, parameters: Parameters) -> Any:
        return self._handlers[method.lower()](parameters)

    # the bot and its updates

    def _get_me(self, _: Parameters) -> JsonObject:
        return self.world.bot.payload() | {
            "can_join_groups": True,
            "can_read_all_group_messages": not self.people.privacy_mode,
            "supports_inline_queries": False,
            "can_connect_to_business": False,
            "has_main_web_app": False,
            "has_topics_enabled": False,
        }

    def _set_webhook(self, p: Parameters) -> bool:
        url = p.text("url")
        secret = p.text("secret_token")
        if url and not re.match(r"https://|http://(127\.0\.0\.1|localhost)[:/]", url):
            raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
        if secret and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
            raise bad_request("secret token contains unallowed characters")
        if (kinds := p.structure("allowed_updates")) is not None:
            self.feed.allow(kinds)
        if p.flag("drop_pending_updates"):
            self.world.pending.clear()
        most = p.integer("max_connections") or 40
        self.world.webhook = Webhook(url, secret or None, max(1, min(most, 100))) if url else None
        self.feed.webhook_changed()
        return True

    def _delete_webhook(self, p: Parameters) -> bool:
        if p.flag("drop_pending_updates"):
            self.world.pending.clear()
        self.world.webhook = None
        self.feed.webhook_changed()
        return True

    def _get_webhook_info(self, _: Parameters) -> JsonObject:
        webhook = self.world.webhook
        answer: JsonObject = {
            "url": webhook.url if webhook else "",
            "has_custom_certificate": False,
            "pending_update_count": len(self.world.pending),
            "allowed_updates": self.world.allowed_updates,
        }
        if webhook:
            answer["max_connections"] = webhook.max_connections
            if webhook.last_error_date is not None:
                answer["last_error_date"] = webhook.last_error_date
                answer["last_error_message"] = webhook.last_error_message
        return answer

    # messages

    def _send_message(self, p: Parameters) -> JsonObject:
        chat = self._writable_chat(p)
        text, entities = self._text(p)
        return self._post(p, chat, "text", text, entities, {})

    def _send_message_draft(self, p: Parameters) -> bool:
        chat = self._writable_chat(p)
        if chat.type != "private":
            raise bad_request("TEXTDRAFT_PEER_INVALID")
        draft_id = p.integer("draft_id")
        if not draft_id:
            raise bad_request("RANDOM_ID_EMPTY")
        text, entities = formatted(p.text("text"), p.text("parse_mode"), p.structure("entities"))
        if utf16_length(text) > MAX_TEXT_UTF16:
            raise bad_request("message is too long")
        thread_id = self._thread(p, chat)
        self.world.drafts.append(Draft(chat.id, draft_id, text, entities, thread_id, time.time()))
        return True

    def _edit_message_text(self, p: Parameters) -> JsonObject:
        message = self._own_message(p, "edit")
        if message.kind != "text":
            raise bad_request("there is no text in the message to edit")
        text, entities = self._text(p)
        markup = self._reply_markup(p)
        if (text, entities, markup) == (message.text, message.entities, message.reply_markup):
            raise bad_request(NOT_MODIFIED)
        self.world.revise(message, text, entities)
        message.reply_markup = markup
        return self.world.message_payload(message)

    def _edit_message_reply_markup(self, p: Parameters) -> JsonObject:
        message = self._own_message(p, "edit")
        markup = self._reply_markup(p)
        if markup == message.reply_markup:
            raise bad_request(NOT_MODIFIED)
        message.reply_markup = markup
        message.edit_date = int(time.time())
        return self.world.message_payload(message)

    def _delete_message(self, p: Parameters) -> bool:
        chat = self._writable_chat(p)
        message = chat.messages.get(p.integer("message_id") or 0)
        if message is None or message.deleted:
            raise bad_request("message to delete not found")
        if not (message.by_bot or chat.type == "private" or chat.bot_status == "administrator"):
            raise bad_request("message can't be deleted")
        message.deleted = True
        return True

    def _delete_messages(self, p: Parameters) -> bool:
        """As documented: those that cannot be found or deleted are skipped."""
        chat = self._writable_chat(p)
        for message_id in p.structure("message_ids") or []:
            message = chat.messages.get(message_id)
            if message is not None and (message.by_bot or chat.type == "private"):
                message.deleted = True
        return True

    def _send_chat_action(self, p: Parameters) -> bool:
        chat = self._writable_chat(p)
        action = p.text("action")
        if action not in CHAT_ACTIONS:
            raise bad_request("wrong parameter action in request")
        thread_id = p.integer("message_thread_id")
        if (
            thread_id != GENERAL_TOPIC_ID or not chat.is_forum
        ):  # only actions take the General topic by its id
            thread_id = self._thread(p, chat)
        self.world.chat_actions.append(ChatAction(chat.id, action, thread_id, time.time()))
        return True

    def _send_document(self, p: Parameters) -> JsonObject:
        chat = self._writable_chat(p)
        file = self._input_file(p, "document")
        medium = self.world.file_payload(file, file_name=file.name, mime_type=file.mime_type)
        return self._post(p, chat, "document", *self._caption(p), {"document": medium})

    def _send_photo(self, p: Parameters) -> JsonObject:
        chat = self._writable_chat(p)
        file = self._input_file(p, "photo")
        if not file.content.startswith(IMAGE_BEGINNINGS):
            raise bad_request("IMAGE_PROCESS_FAILED")
        sizes = [self.world.file_payload(file, width=90, height=90)]
        return self._post(p, chat, "photo", *self._caption(p), {"photo": sizes})

    def _send_voice(self, p: Parameters) -> JsonObject:
        chat = self._writable_chat(p)
        file = self._input_file(p, "voice")
        medium = self.world.file_payload(file, duration=0, mime_type=file.mime_type)
        return self._post(p, chat, "voice", *self._caption(p), {"voice": medium})

    def _set_message_reaction(self, p: Parameters) -> bool:
        chat = self._writable_chat(p)
        message = chat.messages.get(p.integer("message_id") or 0)
        if message is None or message.deleted:
            raise bad_request("message to react not found")
        emoji = [reaction.get("emoji") for reaction in p.structure("reaction") or []]
        if len(emoji) > 1:
            raise bad_request("REACTIONS_TOO_MANY")
        if any(each not in set(ReactionEmoji) for each in emoji):
            raise bad_request("REACTION_INVALID")
        message.reactions[self.world.bot.id] = emoji
        return True

    # commands, buttons, files, chats

    def _set_my_commands(self, p: Parameters) -> bool:
        commands = p.structure("commands")
        if not isinstance(commands, list):
            raise bad_request("expected an Array of BotCommand")
        if len(commands) > 100:
            raise bad_request("BOT_COMMANDS_TOO_MUCH")
        for command in commands:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", str(command.get("command", ""))):
                raise bad_request("BOT_COMMAND_INVALID")
            if not 1 <= utf16_length(str(command.get("description", ""))) <= 256:
                raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
        self._delete_my_commands(p)
        self.world.command_sets.append(CommandSet(self._scope(p), p.text("language_code"), commands))
        return True

    def _get_my_commands(self, p: Parameters) -> list[JsonObject]:
        wanted = (self._scope(p), p.text("language_code"))
        return next((c.commands for c in self.world.command_sets if (c.scope, c.language_code) == wanted), [])

    def _delete_my_commands(self, p: Parameters) -> bool:
        gone = (self._scope(p), p.text("language_code"))
        kept = [each for each in self.world.command_sets if (each.scope, each.language_code) != gone]
        self.world.command_sets = kept
        return True

    def _scope(self, p: Parameters) -> JsonObject:
        scope: JsonObject = p.structure("scope") or {"type": "default"}
        if "chat_id" in scope and self._find_chat(scope["chat_id"]) is None:
            raise bad_request("chat not found")
        return scope

    def _answer_callback_query(self, p: Parameters) -> bool:
        query = self.world.callback_queries.get(p.text("callback_query_id"))
        if query is None or query.answer is not None:
            raise bad_request("query is too old and response timeout expired or query ID is invalid")
        if utf16_length(p.text("text")) > 200:
            raise bad_request("MESSAGE_TOO_LONG")
        query.answer = dict(p.values)
        return True

    def _get_file(self, p: Parameters) -> JsonObject:
        file = self.world.files.get(p.text("file_id"))
        if file is None:
            raise bad_request("wrong file_id or the file is temporarily unavailable")
        if file.declared_size > MAX_DOWNLOAD_BYTES:
            raise bad_request("file is too big")
        return self.world.file_payload(file, file_path=file.path)

    def _get_chat(self, p: Parameters) -> JsonObject:
        chat = self._existing_chat(p)
        return self.world.chat_payload(chat) | {
            "accent_color_id": 1,
            "max_reaction_count": 11,
            "accepted_gift_types": dict.fromkeys(
                (
                    "unlimited_gifts",
                    "limited_gifts",
                    "unique_gifts",
                    "premium_subscription",
                    "gifts_from_channels",
                ),
                False,
            ),
        }

    def _get_chat_member(self, p: Parameters) -> JsonObject:
        chat, user_id = self._existing_chat(p), p.integer("user_id")
        if user_id == self.world.bot.id:
            return self.people.member_payload(self.world.bot, chat.bot_status)
        if user_id not in self.world.users:
            raise bad_request("PARTICIPANT_ID_INVALID")
        status = "left"
        if user_id in chat.members:
            status = "administrator" if user_id in chat.admins else "member"
        return self.people.member_payload(self.world.users[user_id], status)

    def _get_chat_administrators(self, p: Parameters) -> list[JsonObject]:
        chat = self._existing_chat(p)
        if chat.type == "private":
            raise bad_request("there are no administrators in the private chat")
        admins = [self.world.user(admin) for admin in chat.admins]
        return [self.people.member_payload(admin, "administrator") for admin in admins]

    def _leave_chat(self, p: Parameters) -> bool:
        chat = self._writable_chat(p)
        if chat.type == "private":
            raise bad_request("chat member status can't be changed in private chats")
        chat.bot_status = "left"
        return True

    # checks shared by several methods

    def _find_chat(self, chat_id: Any) -> Chat | None:
        if isinstance(chat_id, int):
            return self.world.chats.get(chat_id)
        return self.world.chat_by_username(chat_id) if str(chat_id).startswith("@") else None

    def _existing_chat(self, p: Parameters) -> Chat:
        chat_id = p.values.get("chat_id")
        if chat_id in (None, ""):
            raise bad_request("chat_id is empty")
        chat = self._find_chat(chat_id)
        if chat is None:
            known = any(chat_id in each.members for each in self.world.chats.values())
            if known:
                raise Refusal(403, "Forbidden: bot can't initiate conversation with a user")
            raise bad_request("chat not found")
        return chat

    def _writable_chat(self, p: Parameters) -> Chat:
        chat = self._existing_chat(p)
        if chat.migrated_to is not None:
            raise bad_request(
                "group chat was upgraded to a supergroup chat", migrate_to_chat_id=chat.migrated_to
            )
        if chat.type == "private":
            person = self.world.user(chat.id)
            if person.is_bot:
                raise Refusal(403, "Forbidden: bot can't send messages to bots")
            if person.blocks_bot:
                raise Refusal(403, "Forbidden: bot was blocked by the user")
        elif chat.bot_status == "kicked":
            raise Refusal(403, f"Forbidden: bot was kicked from the {chat.type} chat")
        elif chat.bot_status == "left":
            raise Refusal(403, f"Forbidden: bot is not a member of the {chat.type} chat")
        return chat

    def _thread(self, p: Parameters, chat: Chat) -> int | None:
        """Only topics are threads for sending: not the General one by its id, not a chain of replies."""
        thread_id = p.integer("message_thread_id")
        if thread_id is None:
            return None
        if thread_id not in chat.topics:
            raise bad_request("message thread not found")
        if thread_id in chat.closed_topics and chat.bot_status != "administrator":
            raise bad_request("TOPIC_CLOSED")
        return thread_id

    def _text(self, p: Parameters) -> tuple[str, list[JsonObject]]:
        text, entities = formatted(p.text("text"), p.text("parse_mode"), p.structure("entities"))
        if not text:
            raise bad_request("message text is empty")
        if utf16_length(text) > MAX_TEXT_UTF16:
            raise bad_request("message is too long")
        return text, entities

    def _caption(self, p: Parameters) -> tuple[str, list[JsonObject]]:
        text, entities = formatted(p.text("caption"), p.text("parse_mode"), p.structure("caption_entities"))
        if utf16_length(text) > MAX_CAPTION_UTF16:
            raise bad_request("message caption is too long")
        return text, entities

    def _own_message(self, p: Parameters, verb: str) -> Message:
        chat = self._writable_chat(p)
        message = chat.messages.get(p.integer("message_id") or 0)
        if message is None or message.deleted:
            raise bad_request(f"message to {verb} not found")
        if not message.by_bot or message.is_service:
            raise bad_request(f"message can't be {verb}ed")
        return message

    def _replied_id(self, p: Parameters, chat: Chat) -> int | None:
        given = p.structure("reply_parameters") or {}
        message_id = given.get("message_id", p.integer("reply_to_message_id"))
        if message_id is None:
            return None
        message = chat.messages.get(message_id)
        if message is not None and not message.deleted:
            return int(message_id)
        if given.get("allow_sending_without_reply") or p.flag("allow_sending_without_reply"):
            return None
        raise bad_request("message to be replied not found")

    def _reply_markup(self, p: Parameters) -> JsonObject | None:
        markup: JsonObject | None = p.structure("reply_markup")
        for row in (markup or {}).get("inline_keyboard", []):
            for button in row:
                if "callback_data" in button and not 1 <= len(button["callback_data"].encode()) <= 64:
                    raise bad_request("BUTTON_DATA_INVALID")
        return markup or None

    def _input_file(self, p: Parameters, name: str) -> StoredFile:
        """An upload under its own name, one referred to by attach://, or a file_id known from before."""
        reference = p.values.get(name)
        if isinstance(reference, str) and not reference.startswith("attach://"):
            if reference not in self.world.files:
                raise bad_request("wrong file identifier/HTTP URL specified")
            return self.world.files[reference]
        upload = p.uploads.get(reference.removeprefix("attach://") if isinstance(reference, str) else name)
        if upload is None:
            raise bad_request(f"there is no {name} in the request")
        if not upload.content:
            raise bad_request("file must be non-empty")
        if len(upload.content) > MAX_UPLOAD_BYTES:
            raise Refusal(413, "Request Entity Too Large")
        return self.world.store_file(upload.content, upload.name, upload.mime_type)

    def _post(
        self, p: Parameters, chat: Chat, kind: str, text: str, entities: list[JsonObject], content: JsonObject
    ) -> JsonObject:
        message = self.world.post(
            chat,
            self.world.bot,
            kind=kind,
            text=text,
            entities=entities,
            thread_id=self._thread(p, chat),
            reply_to=self._replied_id(p, chat),
            content=content,
            reply_markup=self._reply_markup(p),
        )
        return self.world.message_payload(message)
