"""What happens to one raw update: parsed, handed in, or quarantined. The common end of polling and webhook.

Owns no waiting: what the intake refuses is raised to the caller, who knows how to ask Telegram to keep the update.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import structlog

from adapters.base import Intake
from adapters.errors import MalformedUpdate
from adapters.messages import InboundMessage
from adapters.telegram.inbound import BotIdentity, ButtonPress, ChannelMove, parse
from config.names import AccountId, ChannelId, Json

log = structlog.get_logger()


class Feed:
    """The inbound side of one account, for one `run`."""

    def __init__(
        self,
        account: AccountId,
        intake: Intake,
        *,
        max_attachment_bytes: int,
        answer_press: Callable[[str], Awaitable[object]],
    ) -> None:
        self.identity: BotIdentity | None = None
        """Set before the first update is taken: without it nobody can tell whom a group message addresses."""
        self._account = account
        self._intake = intake
        self._max_attachment_bytes = max_attachment_bytes
        self._answer_press = answer_press
        self._moved: set[tuple[ChannelId, ChannelId]] = set()
        self._answering: set[asyncio.Task[object]] = set()

    async def take(self, update: Json) -> None:
        """Return once everything the update brings is durable.

        Raises: IntakeClosed and whatever else the intake raises; nothing is lost then, take it again.
        """
        if self.identity is None:
            raise RuntimeError("an update came before the bot knew who it is")
        now_ms = int(time.time() * 1000)
        try:
            parsed = parse(
                update, self._account, self.identity, max_bytes=self._max_attachment_bytes, now_ms=now_ms
            )
        except MalformedUpdate as error:
            await self.quarantine(_raw(update), error.reason)
            return
        match parsed:
            case InboundMessage():
                await self._intake.deliver(parsed)
            case ChannelMove():
                await self._move(parsed)
            case ButtonPress():
                if parsed.message is not None:
                    await self._intake.deliver(parsed.message)
                self._answer(parsed.query_id)

    async def quarantine(self, raw: bytes, reason: str) -> None:
        await self._intake.quarantine(self._account, raw, reason)
        log.warning("adapter.update_quarantined", account=self._account, reason=reason, size_bytes=len(raw))

    async def _move(self, move: ChannelMove) -> None:
        if (move.old, move.new) not in self._moved:  # Telegram tells it in both chats
            await self._intake.move_channel(self._account, move.old, move.new)
            self._moved.add((move.old, move.new))
            log.info("adapter.channel_moved", account=self._account, old=move.old, new=move.new)

    def _answer(self, query_id: str) -> None:
        """Beside the feed: a button that spins on is a blemish, a feed that waits for it is an outage."""

        async def answer() -> None:
            try:
                await self._answer_press(query_id)
            except Exception as error:  # noqa: BLE001 - nobody is there to handle it
                log.debug("adapter.press_unanswered", account=self._account, reason=type(error).__name__)

        task = asyncio.create_task(answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def close(self) -> None:
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


def _raw(update: Json) -> bytes:
    try:
        return json.dumps(update).encode()
    except RecursionError:
        return b'"nested too deeply to be written"'
