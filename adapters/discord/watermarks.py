"""How far each place was heard: what the daemon stores with the messages, and what it has no room for.

Owns the marks of threads (they share their parent's channel, hence its one watermark), of channels never met, and of those
whose last word was the bot's own. They are kept as cursors named `watermark:<place>`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import structlog

from adapters.base import Intake, IntakeClosed, KnownChannel
from adapters.discord.waits import Waits
from config.names import AccountId

logger = structlog.get_logger()

T = TypeVar("T")


async def insist(work: Callable[[], Awaitable[T]], waits: Waits) -> T:
    """Ask the daemon's store until it answers."""
    failures = 0
    while True:
        try:
            return await work()
        except IntakeClosed as closed:
            await asyncio.sleep(max(closed.retry_after_s, 0.01))
        except Exception as error:  # noqa: BLE001 - whatever is wrong behind the port, the feed must not die of it
            failures += 1
            logger.warning("adapter.store_not_reached", reason=repr(error))
            await asyncio.sleep(waits.backed_off_s(failures))


class Watermarks:
    """The last message handled, for places whose watermark the daemon does not keep: threads, and channels never met."""

    def __init__(self, account: AccountId, intake: Intake, waits: Waits) -> None:
        self._account = account
        self._intake = intake
        self._waits = waits
        self._stored: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._stored_at: dict[str, float] = {}

    async def read(self, place: str) -> int | None:
        if place not in self._stored:
            value = await insist(
                lambda: self._intake.cursor(self._account, f"watermark:{place}"), self._waits
            )
            if value is None or not value.isdigit():
                return None
            self._stored[place] = int(value)
        return max(self._stored[place], self._waiting.get(place, 0))

    async def store(self, place: str, number: int) -> None:
        if number <= self._stored.get(place, -1):
            return
        await insist(
            lambda: self._intake.set_cursor(self._account, f"watermark:{place}", str(number)), self._waits
        )
        self._stored[place] = number
        self._stored_at[place] = time.monotonic()

    async def note(self, place: str, number: int) -> None:
        """Store soon. A watermark that is a little old costs a few messages read twice, which the daemon refuses."""
        if (
            place not in self._stored
            or time.monotonic() - self._stored_at.get(place, 0) > self._waits.watermark_flush_s
        ):
            await self.store(place, number)
        else:
            self._waiting[place] = max(number, self._waiting.get(place, 0))

    async def flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for place, number in waiting.items():
            await self.store(place, number)

    async def keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(self._waits.watermark_flush_s)
            await self.flush()


def stored_watermarks(known: Iterable[KnownChannel]) -> dict[str, int]:
    """The watermarks that the daemon keeps, by channel."""
    return {
        str(one.channel): int(one.watermark)
        for one in known
        if one.watermark is not None and one.watermark.isdigit()
    }
