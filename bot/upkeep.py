"""The quiet work between messages: words into the search index, statistics summed up, meanings worked out, people forgotten.

Owns when it is done: in small batches with pauses, so that people who chat never wait for it. What is done belongs to
`sessions/search.py`, `statistics.py` and `semantic.py`. Nothing is lost if it never runs: searches and statistics read what it
has not come to yet, only slower.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from bot import retention
from sessions import search, semantic, statistics
from sessions.database.base import Database
from sessions.errors import StoreError
from sessions.hot import HotSessions
from sessions.semantic import Encoder

_ROUND_S: Final = 3.0
_PAUSE_S: Final = 0.02
_RETRY_S: Final = 30.0
_HOUR_S: Final = 3600.0

log = structlog.get_logger()


class Upkeep:
    """One object for a daemon; `run` goes on until it is cancelled."""

    def __init__(
        self,
        database: Database,
        *,
        encoder: Encoder | None = None,
        hot: HotSessions | None = None,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """With an encoder, messages get vectors for the search by meaning; with a cache, the statistics know its hits."""
        self._database = database
        self._hot = hot
        self._counted = (0, 0)
        self._encoder = encoder
        self._now = now
        self._hours_forgotten_at = float("-inf")

    async def run(self) -> None:
        """Round after round. A store that is not there now is tried again later."""
        while True:
            pause_s = _ROUND_S
            try:
                await self.work()
            except StoreError as error:
                log.warning("store.upkeep_failed", reason=error.reason)
                pause_s = _RETRY_S
            except Exception:  # chat goes on without; the next round may do better
                log.exception("store.upkeep_failed")
                pause_s = _RETRY_S
            await asyncio.sleep(pause_s)

    async def work(self) -> None:
        """Do all that is there to be done now. Raises: StoreError."""
        if await self._database.read(search.has_pending):
            await self._in_batches(lambda: self._database.write(search.index_pending))
        if await self._database.read(statistics.has_changes):
            await self._in_batches(lambda: self._database.write(statistics.fold))
        await self.count_cache()
        if time.monotonic() - self._hours_forgotten_at > _HOUR_S:
            await self._in_batches(
                lambda: self._database.write(lambda tx: statistics.forget_old_hours(tx, self._now()))
            )
            self._hours_forgotten_at = time.monotonic()
        if steps := await retention.erase_people(self._database, self._now):
            log.info("people.erased", steps=steps)
        await retention.overwrite_removed(self._database)
        if (encoder := self._encoder) is not None:
            await self._in_batches(lambda: self._encode(encoder))

    async def count_cache(self) -> None:
        """Write down how often the cache helped since the last time. Raises: StoreError."""
        if self._hot is None or self._counted == (known := (self._hot.hits, self._hot.misses)):
            return
        hits, misses = known[0] - self._counted[0], known[1] - self._counted[1]
        await self._database.write(lambda tx: statistics.count_cache(tx, hits, misses, self._now()))
        self._counted = known

    async def _in_batches(self, step: Callable[[], Awaitable[int]]) -> None:
        while await step():  # noqa: ASYNC110 - not waiting for anything: the pause is for others
            await asyncio.sleep(_PAUSE_S)

    async def _encode(self, encoder: Encoder) -> int:
        messages = await self._database.read(semantic.pending)
        if not messages:
            return 0
        vectors = await asyncio.to_thread(encoder.encode, [message.content for message in messages])
        return await self._database.write(lambda tx: semantic.save(tx, messages, vectors))
