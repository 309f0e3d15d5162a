"""Slash commands as Discord wants them answered: at once, and then within fifteen minutes.

Owns the immediate "is thinking…" (`begin`), and what becomes of it when the command is taken in, declined, or cannot be
taken in. The requests are `answers`'; filling it with the reply is `sending`'s.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import structlog

from adapters.discord.answers import LOADING, Answers, Handle, TokenSpent
from adapters.discord.inbound import TOKEN_LIFE_MS, command_name, sent_at_ms
from adapters.discord.waits import Waits
from adapters.errors import DeliveryError
from config.names import AccountId

MAX_REMEMBERED = 2000

NOT_NOW = {
    "en": "I cannot take messages in just now and keep trying. If nothing follows within a few minutes, please ask again.",
    "de": "Ich kann gerade nichts annehmen und versuche es weiter. Kommt in ein paar Minuten nichts, frag bitte noch einmal.",
}
STOPPED = {
    "en": "I was stopped before I could take this in. Please ask again in a minute.",
    "de": "Ich wurde angehalten, bevor ich das annehmen konnte. Frag bitte in einer Minute noch einmal.",
}

logger = structlog.get_logger()


class Interactions:
    """Every slash command from its arrival until its answer is somebody else's."""

    def __init__(
        self,
        account: AccountId,
        answers: Answers,
        waits: Waits,
        *,
        language: str,
        is_personal: Callable[[str], bool] = lambda _name: False,
    ) -> None:
        """`is_personal` tells of a command's name whether its answer is only for who used it."""
        self.answers = answers
        self._is_personal = is_personal
        self._account = account
        self._waits = waits
        self._language = language if language in NOT_NOW else "en"
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: OrderedDict[str, tuple[Handle, asyncio.Event]] = OrderedDict()
        self._answered: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._private: set[str] = set()
        """Of those in `_attending`, the interactions whose answers only one person sees."""
        self._attending: OrderedDict[str, asyncio.Task[None]] = OrderedDict()
        self._unanswered: set[str] = set()
        """Interactions that Discord would not let us answer, or whose "is thinking…" was removed."""

    def begin(self, data: Any) -> None:
        """Show "is thinking…", at once and without waiting for anything."""
        try:
            interaction_id = int(data["id"])
            handle = Handle(
                str(int(data["application_id"])),
                str(data["token"]),
                str(interaction_id),
                sent_at_ms(interaction_id) + TOKEN_LIFE_MS,
            )
        except (KeyError, TypeError, ValueError):
            return  # its quarantine is the parser's affair
        taken_in = asyncio.Event()
        self._open[handle.interaction_id] = (handle, taken_in)
        if data.get("guild_id") is not None and self._is_personal(command_name(data)):
            self._private.add(handle.interaction_id)
        self._attending[handle.interaction_id] = self._spawn(self._attend(handle, taken_in))
        while len(self._attending) > MAX_REMEMBERED:
            gone, _ = self._attending.popitem(last=False)
            self._unanswered.discard(gone)
            self._private.discard(gone)

    def settle(self, interaction_id: str, *, is_declined: bool) -> None:
        """The command is on disk, or was declined (a reply may still say so)."""
        handle, taken_in = self._open.pop(interaction_id, (None, None))
        if taken_in is not None:
            taken_in.set()
        if handle is not None and is_declined:
            self._spawn(self._clear(handle))

    async def has_answer(self, handle: Handle) -> bool | None:
        """Whether "is thinking…" stands there to be filled; None if it began in another process."""
        attending = self._attending.get(handle.interaction_id)
        if attending is None:
            return None
        # a quick reply must not overtake the deferral
        await asyncio.wait({attending}, timeout=self._waits.accept_notice_s + self._waits.request_timeout_s)
        return handle.interaction_id not in self._unanswered

    def is_private(self, handle: Handle) -> bool:
        """Whether only who used the command sees its answer, as far as this process knows."""
        return handle.interaction_id in self._private

    def note_private(self, handle: Handle) -> None:
        """It began in another process, and its answer turned out to be seen by one person only."""
        self._private.add(handle.interaction_id)

    def answer_of(self, handle: Handle) -> tuple[str, str] | None:
        """Key of the chunk that took the place of "is thinking…", and its message's id; None if unknown here."""
        return self._answered.get(handle.interaction_id)

    def note_answer(self, handle: Handle, key: str, message_id: str) -> None:
        self._answered[handle.interaction_id] = (key, message_id)
        while len(self._answered) > MAX_REMEMBERED:
            self._answered.popitem(last=False)

    def is_notice(self, message: Mapping[str, Any]) -> bool:
        """Whether the answer holds no more than our word that it cannot be given just now."""
        return message.get("content") in NOT_NOW.values()

    async def stop(self) -> None:
        """Hearing has ended. Who waits for a command that was never taken in is told so."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        abandoned = [handle for handle, _ in self._open.values()]
        self._open.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.gather(*(self._say(handle, STOPPED) for handle in abandoned))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _attend(self, handle: Handle, taken_in: asyncio.Event) -> None:
        try:
            await self.answers.defer(handle, is_private=self.is_private(handle))
        except (DeliveryError, TokenSpent) as error:
            # too late, most likely: the reply will find another way
            self._unanswered.add(handle.interaction_id)
            logger.warning("adapter.interaction_unanswered", account=self._account, reason=str(error))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._waits.accept_notice_s):
                await taken_in.wait()
                return
        await self._say(handle, NOT_NOW)

    async def _clear(self, handle: Handle) -> None:
        await asyncio.sleep(self._waits.declined_clear_s)
        if handle.interaction_id in self._answered:
            return
        try:
            standing = await self.answers.look(handle)
            if standing.get("flags", 0) & LOADING and handle.interaction_id not in self._answered:
                self._unanswered.add(handle.interaction_id)
                await self.answers.remove(handle)
        except (DeliveryError, TokenSpent) as error:
            logger.info("adapter.interaction_not_cleared", account=self._account, reason=str(error))

    async def _say(self, handle: Handle, texts: Mapping[str, str]) -> None:
        if handle.interaction_id in self._answered:
            return
        try:
            await self.answers.write(handle, "@original", texts[self._language])
        except (DeliveryError, TokenSpent) as error:
            logger.warning("adapter.interaction_unanswered", account=self._account, reason=str(error))
