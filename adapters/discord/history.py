"""Catching up: what was said while nobody listened is read from each channel's history, in order.

Owns which channels have a gap when a session begins, and the reading of gaps; how far each was heard is
`watermarks`. Messages read here go the same way as live ones (`feed`).

A channel that was never met begins at its newest message: nothing is replayed. A first message in such a channel, or a
person's very first direct message, sent while the bot was away stays unanswered: nothing tells us of it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import discord
import structlog

from adapters.base import Intake
from adapters.discord.failures import in_words
from adapters.discord.feed import Event, Feed
from adapters.discord.link import Link
from adapters.discord.waits import Waits
from adapters.discord.watermarks import Watermarks, insist, stored_watermarks
from config.names import AccountId

PAGE = 100
READERS = 2
MAX_RESUME_GUILDS = 50
"""Guilds whose channels are listed after a RESUME to see whether it told everything."""

MAX_RESUME_DIRECT = 50

logger = structlog.get_logger()


class CatchUp:
    """Reads gaps. `link` gives the login of the moment."""

    def __init__(
        self,
        account: AccountId,
        intake: Intake,
        feed: Feed,
        marks: Watermarks,
        link: Callable[[], Link | None],
        waits: Waits,
    ) -> None:
        self._account = account
        self._intake = intake
        self._feed = feed
        self._marks = marks
        self._link = link
        self._waits = waits
        self._from: dict[str, int] = {}
        self._guild_of: dict[str, str | None] = {}
        self._ordinary: deque[str] = deque()
        self._urgent: deque[str] = deque()
        self._reading: set[str] = set()
        self._postponed: set[str] = set()
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Event()

    # which channels have gaps

    async def plan(self, link: Link, is_current: Callable[[], bool]) -> None:
        """A new session began: find the gaps, let all other channels go on; nothing if a newer one began meanwhile."""
        known = {
            str(one.channel): one
            for one in await insist(lambda: self._intake.known_channels(self._account), self._waits)
        }
        stored = stored_watermarks(known.values())
        last_heard = max(stored.values(), default=None)
        gaps: dict[str, int] = {}
        never_met: dict[str, int] = {}
        self._guild_of = {}
        for guild in link.guilds:
            for channel in conversations(guild):
                place, newest = str(channel.id), channel.last_message_id or 0
                self._guild_of[place] = str(guild.id)
                begin = await self._watermark(place, stored)
                if begin is None:
                    # made after the last message we know of: all of it was said while nobody listened
                    is_new = last_heard is not None and channel.id > last_heard
                    begin = never_met[place] = 0 if is_new else newest
                if newest > begin:
                    gaps[place] = begin
        for place, one in known.items():
            if one.kind == "direct" and place not in self._guild_of:
                begin = await self._watermark(place, stored)
                if begin is not None:
                    gaps[place] = begin
        if not is_current():
            return
        self._schedule(gaps)
        self._feed.open_except(gaps)
        if gaps:
            logger.info("adapter.catch_up_started", account=self._account, channels=len(gaps))
        for place, begin in never_met.items():
            await self._marks.store(place, begin)

    async def check_after_resume(self, link: Link) -> None:
        """A RESUME should have told everything; look whether it did, at the price of two requests a guild."""
        newest: dict[str, int] = {}
        for guild in link.guilds[:MAX_RESUME_GUILDS]:
            here = {channel.id for channel in conversations(guild)}
            try:
                listed: list[Any] = list(await link.http.get_all_guild_channels(guild.id))
                listed += (await link.http.get_active_threads(guild.id))["threads"]
            except (discord.DiscordException, OSError, KeyError, TypeError) as error:
                logger.info("adapter.channels_not_listed", account=self._account, reason=in_words(error))
                continue
            for channel in listed:
                if channel.get("last_message_id") and int(channel["id"]) in here:
                    newest[str(int(channel["id"]))] = int(channel["last_message_id"])
            await asyncio.sleep(self._waits.catch_up_pause_s)
        gaps: dict[str, int] = {}
        known = await insist(lambda: self._intake.known_channels(self._account), self._waits)
        stored = stored_watermarks(known)
        for place, last in newest.items():
            begin = await self._watermark(place, stored)
            if begin is not None and last > begin:
                gaps[place] = begin
        direct = [str(one.channel) for one in known if one.kind == "direct" and str(one.channel) in stored]
        for place in sorted(direct, key=lambda one: stored[one])[-MAX_RESUME_DIRECT:]:
            gaps[place] = max(stored[place], self._feed.newest(place))
        self._schedule(gaps)

    def guild_came(self, guild: discord.Guild) -> Callable[[], Awaitable[None]]:
        """A guild was joined or is back: hold its channels, at once; the work given back decides on each."""
        places = {str(channel.id): channel.last_message_id or 0 for channel in conversations(guild)}
        for place in places:
            self._guild_of[place] = str(guild.id)
            self._feed.hold(place)

        async def decide() -> None:
            known = await insist(lambda: self._intake.known_channels(self._account), self._waits)
            stored = stored_watermarks(known)
            for place, newest in places.items():
                begin = await self._watermark(place, stored)
                if begin is None:
                    await self._marks.store(place, newest)
                if begin is not None and newest > begin:
                    self._schedule({place: begin})
                elif place not in self._from:
                    self._feed.release(place)

        return decide

    async def meet(self, place: str, newest: int) -> None:
        """A channel was made or opened to us: from here on nothing said in it is missed."""
        if await self._marks.read(place) is None:
            await self._marks.store(place, newest)

    async def _watermark(self, place: str, stored: dict[str, int]) -> int | None:
        found = [
            number for number in (stored.get(place), await self._marks.read(place)) if number is not None
        ]
        if not found:
            return None
        # what this process let through waits in the queue, ahead of all that is read now
        return max(*found, self._feed.newest(place))

    # reading them

    def hurry(self, place: str) -> None:
        """Something happens in a held channel: read its gap first."""
        if place not in self._urgent and place not in self._postponed:
            self._urgent.append(place)
            self._wake.set()

    def _schedule(self, gaps: dict[str, int]) -> None:
        for place, begin in gaps.items():
            self._feed.hold(place)
            self._from[place] = begin
            if place not in self._ordinary:
                self._ordinary.append(place)
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(self._read_gaps())

    async def _read_gaps(self) -> None:
        while True:
            place = self._next_place()
            if place is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._reading.add(place)
            try:
                is_read = await self._read_place(place)
            except Exception as error:  # noqa: BLE001 - the next channel must not suffer
                # held until it can be read: letting live messages pass would move the watermark over the gap
                is_read = False
                self._postpone(place, error)
            finally:
                self._reading.discard(place)
            if is_read:
                self._failures.pop(place, None)
                self._from.pop(place, None)
                self._feed.release(place)

    def _postpone(self, place: str, error: Exception) -> None:
        failures = self._failures[place] = self._failures.get(place, 0) + 1
        logger.warning(
            "adapter.catch_up_postponed", account=self._account, channel=place, reason=in_words(error)
        )
        self._postponed.add(place)

        def again() -> None:
            self._postponed.discard(place)
            self._ordinary.append(place)
            self._wake.set()

        wait_s = self._waits.backed_off_s(failures)
        if isinstance(error, discord.RateLimited):
            wait_s = max(wait_s, error.retry_after)
        asyncio.get_running_loop().call_later(wait_s, again)

    def _next_place(self) -> str | None:
        for waiting in (self._urgent, self._ordinary):
            for place in list(waiting):
                if place not in self._reading:
                    waiting.remove(place)
                    return place
        return None

    async def _read_place(self, place: str) -> bool:
        """Everything after the watermark, page by page. True if the channel may go on.

        A channel that cannot be read (no access, gone) goes on. Without a login it stays held; the next session plans anew.
        """
        cursor = self._from.get(place) or self._feed.newest(place) or await self._marks.read(place)
        if cursor is None and self._from.get(place) is None:
            return True
        cursor = cursor or 0
        while True:
            await self._feed.has_room()
            link = self._link()
            if link is None:
                return False
            try:
                page: list[Any] = await link.http.logs_from(int(place), PAGE, after=cursor)
            except (discord.Forbidden, discord.NotFound) as error:
                logger.info(
                    "adapter.channel_not_readable",
                    account=self._account,
                    channel=place,
                    reason=in_words(error),
                )
                return True
            for message in sorted(page, key=lambda one: int(one["id"])):
                cursor = self._from[place] = int(message["id"])
                self._feed.fill(
                    Event("message", place, cursor, message, self._guild_of.get(place), is_live=False)
                )
            if page:
                logger.info("adapter.catch_up_read", account=self._account, channel=place, messages=len(page))
            if len(page) < PAGE and not self._feed.must_read_on(place):
                await asyncio.sleep(self._waits.catch_up_pause_s)
                return True
            await asyncio.sleep(self._waits.catch_up_pause_s)


def conversations(guild: discord.Guild) -> Iterable[Any]:
    """Every place of a guild where people write and the bot could read."""
    return [*guild.text_channels, *guild.voice_channels, *guild.stage_channels, *guild.threads]
