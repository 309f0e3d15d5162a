"""A Telegram Bot API server for tests: real HTTP on loopback, refusals and failures as the real one has them.

It owns a small world (people, chats, messages, files) and what happens to it. It does not know anything of our
code: python-telegram-bot's real `Bot` is pointed at `base_url` and `base_file_url`.

In process::

    async with FakeTelegram(token="123456:TEST") as telegram:
        telegram.base_url, telegram.base_file_url       # for PTB's Bot; telegram.url for an account's api_url
        ada = telegram.user("Ada", username="ada", language_code="en")
        chat = telegram.private_chat(ada)
        question = telegram.say(ada, chat, "/start hello")
        answer = await telegram.wait_for_reply(chat, after=question, settled_s=0.2)
        assert answer.text == "..."                     # `answer` is live: later edits show in it

As its own process (`python -m tests.fakes.telegram --port 0 --token T [--state FILE]`)::

    async with spawn(token="123456:TEST") as telegram:  # RemoteTelegram: the same names, awaited, keywords
        ada = await telegram.call("user", first_name="Ada")
        chat = await telegram.call("private_chat", user=ada)
        await telegram.call("say", user=ada, chat=chat, text="hi")
        await telegram.call("wait_for_reply", chat=chat)

`POST {control_url}/_control/<name>` with a JSON object of arguments does every public act of `FakeTelegram`;
`GET {control_url}/_control/` lists them with their signatures. `/_control` is also served on the API's port, but
the control port stays open during `outage("refuse")`.

A user, chat or message may be given as the object or (users, chats) as its id.

World   user(first_name, *, user_id, last_name, username, language_code, is_bot) -> User
        private_chat(user) -> Chat      group(title, members, *, chat_id) -> Chat
        supergroup(title, members, *, forum, username, chat_id) -> Chat     topic(chat, name) -> int (thread id)
        close_topic(chat, thread)       promote(user, chat)            file(file_id) -> StoredFile
People  say(user, chat, text, *, thread, reply_to, entities, mentions, deliver) -> Message
            /commands, @mentions, URLs become entities; mentions={"Bob": bob} makes text_mention entities
        edit(message, text) -> Message                 delete(message)
        photo|document|voice|sticker|location(user, chat, ...) -> Message
        press(user, message, data) -> callback query id          react(user, message, emoji)
        join(user, chat)   part(user, chat)   add_bot(user, chat)   remove_bot(user, chat)
        blocked_by(user, blocked=True)                 migrate(chat) -> Chat (the supergroup)
        inject(body, with_id=True) -> int              any JSON as an update, verbatim (poison)
Faults  fault(kind, method="*", *, count, probability, seed, skip, chat, retry_after, delay_s, done) -> int
            kinds: "429" "400" "403" "500" "502" "hang" "reset" "answer_lost" "slow" "garbage"; "getFile" and
            "download" are methods too; patterns like "send*" work; count=None means until cleared
        clear_faults(fault_id=None)     fault_hits(fault_id) -> int
        await outage("refuse" | "502" | None)          revoke_token(revoked=True)
        flood_limits(enabled=True, **numbers)          flood_report() -> FloodReport (calls_inside_penalty, ...)
Read    messages(chat, *, thread, by_bot, deleted=False) -> list[Message]   transcript(chat) -> list[str]
        message(chat, message_id) -> Message           replies(chat) = messages(chat, by_bot=True)
        calls(method=None, chat=None) -> list[Call]    clear_journal()
        pending_updates() -> list[int]                 drafts(chat) -> list[Draft]
        chat_actions(chat) -> list[ChatAction]         callback_answers() -> dict[id, params]
        commands(scope, language_code) -> list         webhook_deliveries() -> list[WebhookDelivery]
Wait    await wait_for_reply(chat, *, after, thread, containing, matching, settled_s, timeout_s) -> Message
        await wait_for_messages(chat, count, *, by_bot=True, timeout_s) -> list[Message]
        await wait_for_calls(method, count=1, *, timeout_s) -> list[Call]
        await wait_until_confirmed(timeout_s)          every update was fetched and confirmed
        await wait_until_quiet(quiet_s, timeout_s)     no API call but getUpdates for that long

Every wait raises TimeoutError with the transcript of what there was instead.
"""

from __future__ import annotations

from .control import RemoteTelegram, spawn
from .faults import FaultKind, FloodReport
from .records import Call, Chat, ChatAction, Draft, Message, Revision, StoredFile, User, WebhookDelivery
from .server import FakeTelegram

__all__ = [
    "Call",
    "Chat",
    "ChatAction",
    "Draft",
    "FakeTelegram",
    "FaultKind",
    "FloodReport",
    "Message",
    "RemoteTelegram",
    "Revision",
    "StoredFile",
    "User",
    "WebhookDelivery",
    "spawn",
]
