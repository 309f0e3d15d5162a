"""What a test sees of the fake Telegram: chats as people see them, the journal of calls, and waiting for either.

It changes nothing in the world. The journal is written by `server`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from .feed import Feed
from .people import People
from .records import Call, ChatAction, Draft, JsonObject, Message, WebhookDelivery
from .world import ChatRef, World

T = TypeVar("T")


class Observation(People):
    def __init__(self, world: World, feed: Feed, *, privacy_mode: bool, sees_bots: bool) -> None:
        super().__init__(world, feed, privacy_mode=privacy_mode, sees_bots=sees_bots)
        self._journal: list[Call] = []
        self._changed = asyncio.Event()

    # reading

    def message(self, chat: ChatRef, message_id: int) -> Message:
        return self.world.message(self.world.chat(chat).id, message_id)

    def messages(
        self, chat: ChatRef, *, thread: int | None = None, by_bot: bool | None = None, deleted: bool = False
    ) -> list[Message]:
        """What people see in the chat now, oldest first; `deleted` includes what they no longer see."""
        return [
            message
            for message in self.world.chat(chat).messages.values()
            if (thread is None or message.thread_id == thread)
            and (by_bot is None or message.by_bot == by_bot)
            and (deleted or not message.deleted)
        ]

    def replies(self, chat: ChatRef, *, thread: int | None = None) -> list[Message]:
        return self.messages(chat, thread=thread, by_bot=True)

    def transcript(self, chat: ChatRef, *, thread: int | None = None) -> list[str]:
        return [
            f"#{message.message_id} {self.world.user(message.sender_id).full_name}: "
            + (message.text if message.kind == "text" else f"[{message.kind}] {message.text}")
            for message in self.messages(chat, thread=thread)
        ]

    def calls(self, method: str | None = None, chat: ChatRef | None = None) -> list[Call]:
        chat_id = None if chat is None else self.world.chat(chat).id
        return [
            call
            for call in self._journal
            if (method is None or call.method.lower() == method.lower())
            and (chat_id is None or call.chat_id == chat_id)
        ]

    def clear_journal(self) -> None:
        self._journal.clear()

    def pending_updates(self) -> list[int]:
        """Ids of the updates that the bot has not confirmed."""
        return [update.id for update in self.world.pending]

    def drafts(self, chat: ChatRef) -> list[Draft]:
        chat_id = self.world.chat(chat).id
        return [draft for draft in self.world.drafts if draft.chat_id == chat_id]

    def chat_actions(self, chat: ChatRef) -> list[ChatAction]:
        chat_id = self.world.chat(chat).id
        return [action for action in self.world.chat_actions if action.chat_id == chat_id]

    def callback_answers(self) -> dict[str, JsonObject]:
        answered = {key: query.answer for key, query in self.world.callback_queries.items()}
        return {key: answer for key, answer in answered.items() if answer is not None}

    def commands(self, scope: JsonObject | None = None, language_code: str = "") -> list[JsonObject]:
        """The bot's commands for exactly this scope and language."""
        wanted = (scope or {"type": "default"}, language_code)
        return next((c.commands for c in self.world.command_sets if (c.scope, c.language_code) == wanted), [])

    def webhook_deliveries(self) -> list[WebhookDelivery]:
        return list(self.feed.deliveries)

    # waiting

    async def wait_for_reply(
        self,
        chat: ChatRef,
        *,
        after: Message | None = None,
        thread: int | None = None,
        containing: str | None = None,
        matching: Callable[[Message], bool] | None = None,
        settled_s: float = 0,
        timeout_s: float = 10,
    ) -> Message:
        """The bot's first message after `after` (default: the last word of a person in this chat or thread).

        `settled_s` waits until its text has not changed for so long: for replies that grow by edits.
        """
        if after is None:
            spoken = [m for m in self.messages(chat, thread=thread, by_bot=False) if not m.is_service]
            start = spoken[-1].order if spoken else 0
        else:
            start = after.order

        def find() -> Message | None:
            for message in self.replies(chat, thread=thread):
                if message.order <= start or (containing is not None and containing not in message.text):
                    continue
                if matching is not None and not matching(message):
                    continue
                if time.monotonic() - message.changed_at >= settled_s:
                    return message
            return None

        return await self._wait(find, timeout_s, f"reply containing {containing!r}", chat)

    async def wait_for_messages(
        self, chat: ChatRef, count: int, *, by_bot: bool | None = True, timeout_s: float = 10
    ) -> list[Message]:
        """All messages (the bot's unless told otherwise) once there are at least `count`."""

        def find() -> list[Message] | None:
            found = self.messages(chat, by_bot=by_bot)
            return found if len(found) >= count else None

        return await self._wait(find, timeout_s, f"{count} messages", chat)

    async def wait_for_calls(self, method: str, count: int = 1, *, timeout_s: float = 10) -> list[Call]:
        """All calls of the method once at least `count` were answered or cut."""

        def find() -> list[Call] | None:
            found = [call for call in self.calls(method) if call.ended_at is not None]
            return found if len(found) >= count else None

        return await self._wait(find, timeout_s, f"{count} calls of {method}", None)

    async def wait_until_confirmed(self, timeout_s: float = 10) -> None:
        """Returns when the bot has confirmed every update."""
        await self._wait(lambda: True if not self.world.pending else None, timeout_s, "empty feed", None)

    async def wait_until_quiet(self, quiet_s: float = 0.3, timeout_s: float = 10) -> None:
        """Returns when for `quiet_s` no call but getUpdates came or was under way."""
        started = time.time()

        def find() -> bool | None:
            others = [call for call in self._journal if call.method != "getUpdates"]
            last = max((call.ended_at or time.time() for call in others), default=0.0)
            return True if time.time() - max(last, started) >= quiet_s else None

        await self._wait(find, timeout_s, f"quiet of {quiet_s} s", None)

    async def _wait(
        self, find: Callable[[], T | None], timeout_s: float, what: str, chat: ChatRef | None
    ) -> T:
        deadline = time.monotonic() + timeout_s
        while (found := find()) is None:
            if time.monotonic() >= deadline:
                shown = "\n".join(self.transcript(chat)) if chat is not None else ""
                last = [f"{call.method} {call.status} {call.result!r:.120}" for call in self._journal[-5:]]
                raise TimeoutError(f"no {what} within {timeout_s} s.\nchat:\n{shown}\nlast calls: {last}")
            self._changed.clear()
            try:
                async with asyncio.timeout(0.05):  # settling is a matter of time, not of a change
                    await self._changed.wait()
            except TimeoutError:
                continue
        return found
