"""From what the connection hears to what the daemon stores: one committer per account, in order, skipping nothing.

Owns what is done with each event (`feed` owns their order, `inbound` their meaning). Nothing here ends the feed: what
cannot be parsed is quarantined, and while the daemon takes nothing in, the same message is tried again.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import discord
import structlog

from adapters.base import Intake
from adapters.discord.feed import Event, Feed, read_event
from adapters.discord.history import CatchUp
from adapters.discord.inbound import PassedOver, Scene, is_to_be_answered, parse_interaction, parse_message
from adapters.discord.interactions import Interactions
from adapters.discord.link import Link
from adapters.discord.waits import Waits
from adapters.discord.watermarks import Watermarks, insist
from adapters.errors import MalformedUpdate
from adapters.handover import hand_over
from adapters.messages import InboundMessage
from config.names import AccountId, ChannelId, ThreadId

THREAD_TYPES = frozenset({10, 11, 12})
MAX_TEXTS_REMEMBERED = 5000

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a Discord channel beside its id; `parent` is set for threads."""

    guild: str | None
    parent: str | None = None


class Hearing:
    """The ears of one account (`link.Ears`), and the work behind them (`run`)."""

    def __init__(
        self,
        account: AccountId,
        intake: Intake,
        interactions: Interactions,
        link: Callable[[], Link | None],
        waits: Waits,
        *,
        max_attachment_bytes: int,
        on_state: Callable[[bool, str, bool], None],
        on_heard: Callable[[], None],
    ) -> None:
        self._account = account
        self._intake = intake
        self._interactions = interactions
        self._link = link
        self._max_attachment_bytes = max_attachment_bytes
        self._on_state = on_state
        self.heard = on_heard
        self._waits = waits
        self._marks = Watermarks(account, intake, waits)
        self.feed = Feed()
        self._catch_up = CatchUp(account, intake, self.feed, self._marks, link, waits)
        self.feed.wanted = self._catch_up.hurry
        self._bot_id = ""
        self._last_link: Link | None = None
        self._places: dict[str, Place] = {}
        self._texts: OrderedDict[int, int] = OrderedDict()
        self._sessions = 0
        self._wishes: asyncio.Queue[Callable[[], Any]] = asyncio.Queue()

    # the ears: synchronous, in the order of the wire

    def session_opened(self) -> None:
        self._sessions += 1
        self.feed.hold_everything()

    def session_ready(self) -> None:
        link, session = self._link(), self._sessions
        self._on_state(True, "", False)
        if link is not None:
            self._wishes.put_nowait(lambda: self._catch_up.plan(link, lambda: session == self._sessions))

    def session_resumed(self) -> None:
        link = self._link()
        self._on_state(True, "", False)
        if link is not None:
            self._wishes.put_nowait(lambda: self._catch_up.check_after_resume(link))

    def session_lost(self, reason: str, *, is_cut_off: bool = False) -> None:
        self._on_state(False, reason, is_cut_off)

    def event(self, name: str, data: Any) -> None:
        if name == "INTERACTION_CREATE" and is_to_be_answered(data):
            self._interactions.begin(data)
        self.feed.take(read_event(name, data))

    def spoiled(self, raw: str, reason: str) -> None:
        self.feed.take(Event("spoiled", "", 0, raw, reason=reason))

    def guild_came(self, guild: discord.Guild) -> None:
        self._wishes.put_nowait(self._catch_up.guild_came(guild))

    def channel_made(self, channel_id: int) -> None:
        self.feed.take(Event("met", "", channel_id, None))

    # the work

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commit())
            tasks.create_task(self._catch_up.run())
            tasks.create_task(self._grant_wishes())
            tasks.create_task(self._marks.keep_flushing())

    async def flush(self) -> None:
        await self._marks.flush()

    async def _grant_wishes(self) -> None:
        while True:
            wish = await self._wishes.get()
            failures = 0
            while True:
                try:
                    await wish()
                    break
                except Exception:
                    # channels are held until their gaps are known, so this must succeed
                    failures += 1
                    logger.exception("adapter.catch_up_failed", account=self._account)
                    await asyncio.sleep(self._waits.backed_off_s(failures))
                    if failures > 3 and self._wishes.qsize():
                        break

    async def _commit(self) -> None:
        while True:
            event = await self.feed.next()
            try:
                await self._handle(event)
            except Exception as error:
                # a mistake of ours in one event: it is kept, and the next ones go on
                logger.exception("adapter.event_failed", account=self._account)
                await self._quarantine(event, repr(error))

    async def _handle(self, event: Event) -> None:
        if event.kind == "met":
            await self._catch_up.meet(str(event.number), 0)
            return
        if event.kind == "spoiled":
            await self._quarantine(event, event.reason)
            return
        try:
            scene = await self._scene(event)
            message = self._parse(event, scene)
        except PassedOver:
            await self._note(event, is_delivered=False)
            return
        except MalformedUpdate as error:
            await self._quarantine(event, error.reason)
            await self._note(event, is_delivered=False)
            if event.kind == "interaction":
                self._interactions.settle(str(event.number), is_declined=True)
            return
        receipt = await hand_over(self._intake, message)
        if event.kind == "interaction":
            self._interactions.settle(str(event.number), is_declined=receipt.outcome == "declined")
            await self._catch_up.meet(event.place, event.number)
        else:
            await self._note(event, is_delivered=message.watermark is not None)

    def _parse(self, event: Event, scene: Scene) -> InboundMessage:
        if event.kind == "interaction":
            return parse_interaction(event.data, scene)
        message = parse_message(event.data, scene, is_edit=event.kind == "edit")
        # a link's preview arriving looks like an edit; only a changed text is one
        text = hash(str(event.data.get("content")))
        is_known = self._texts.get(event.number) == text
        self._texts[event.number] = text
        while len(self._texts) > MAX_TEXTS_REMEMBERED:
            self._texts.popitem(last=False)
        if event.kind == "edit" and is_known:
            raise PassedOver("text unchanged")
        return message

    async def _note(self, event: Event, *, is_delivered: bool) -> None:
        """Keep how far a place was heard where the daemon did not store it together with a message."""
        if event.kind == "message" and not is_delivered:
            await self._marks.note(event.place, event.number)

    async def _quarantine(self, event: Event, reason: str) -> None:
        raw = (
            event.data
            if isinstance(event.data, str)
            else json.dumps(event.data, ensure_ascii=False, default=repr)
        )
        logger.warning("adapter.update_quarantined", account=self._account, kind=event.kind, reason=reason)
        data = raw.encode("utf-8", "replace")
        await insist(lambda: self._intake.quarantine(self._account, data, reason), self._waits)

    # where it was said

    async def _scene(self, event: Event) -> Scene:
        link = self._last_link = self._link() or self._last_link
        if link is None:
            raise MalformedUpdate(self._account, "heard before any login")
        if link.user is not None:
            self._bot_id = str(link.user.id)
        place = self._places.get(event.place)
        if place is None:
            place = await self._find_place(event, link)
        if place.guild is None:
            return Scene(
                self._account,
                self._bot_id,
                ChannelId(event.place),
                "direct",
                max_attachment_bytes=self._max_attachment_bytes,
            )
        channel = place.parent or event.place
        guild = link.get_guild(int(place.guild))
        shown = guild.get_channel_or_thread(int(channel)) if guild else None
        own_role = guild.self_role if guild else None
        return Scene(
            self._account,
            self._bot_id,
            ChannelId(channel),
            "group",
            thread=ThreadId(event.place) if place.parent is not None else None,
            title=f"{guild.name} #{shown.name}" if guild and shown else None,
            bot_role_id=str(own_role.id) if own_role else None,
            role_name=lambda number: _name_of(guild.get_role(number) if guild else None),
            channel_name=lambda number: _name_of(guild.get_channel_or_thread(number) if guild else None),
            max_attachment_bytes=self._max_attachment_bytes,
        )

    async def _find_place(self, event: Event, link: Link) -> Place:
        known = link.get_channel(int(event.place))
        if isinstance(known, discord.Thread):
            place = Place(str(known.guild.id), str(known.parent_id))
        elif isinstance(known, discord.abc.GuildChannel):
            place = Place(str(known.guild.id))
        elif event.is_live and event.guild is None:
            place = Place(None)
        else:
            asked = await self._ask_for_place(event, link)
            if asked is None:
                return Place(event.guild)
            place = asked
        self._places[event.place] = place
        return place

    async def _ask_for_place(self, event: Event, link: Link) -> Place | None:
        """Ask Discord what this channel is: a thread that was archived, a direct channel from history."""
        try:
            async with asyncio.timeout(self._waits.request_timeout_s):
                found: Any = await link.http.get_channel(int(event.place))
            guild = found.get("guild_id")
            is_thread = found["type"] in THREAD_TYPES and found.get("parent_id")
            return Place(
                None if guild is None else str(guild), str(found["parent_id"]) if is_thread else None
            )
        except Exception as error:  # noqa: BLE001 - its messages count as the channel's own then
            logger.warning(
                "adapter.channel_unknown", account=self._account, channel=event.place, reason=repr(error)
            )
            return None


def _name_of(thing: Any) -> str | None:
    return None if thing is None else str(thing.name)
