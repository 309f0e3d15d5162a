"""The order of what is heard: one queue per account, and channels held back while their gap is read from history.

Owns which event comes next. `take` is called in the order of the wire and never waits. A channel with a gap is *held*:
its live events wait behind the messages of the gap, those of other channels do not. What an event means is `hearing`'s.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from adapters.discord.inbound import sent_at_ms

MAX_WAITING = 10_000
"""Events kept in memory while nothing can be stored; past that, messages are read from history later instead."""

MAX_HELD = 2_000
"""Live events kept for all held channels together; past that, messages are read from history instead."""

FARTHEST_AHEAD_MS = 366 * 24 * 3600 * 1000
"""How far an id may be ahead of our clock. A clock that is more wrong than that would let no certificate pass either."""

EventKind = Literal["message", "edit", "interaction", "met", "spoiled"]
KINDS: dict[str, EventKind] = {
    "MESSAGE_CREATE": "message",
    "MESSAGE_UPDATE": "edit",
    "INTERACTION_CREATE": "interaction",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something heard, as raw JSON. `place` is the Discord channel (a thread is one of its own); "" for spoiled ones."""

    kind: EventKind
    place: str
    number: int
    """The message's or interaction's id: rises with time."""
    data: Any
    guild: str | None = None
    reason: str = ""
    is_live: bool = True
    """Heard now; else read from history, which tells no guild."""


def read_event(name: str, data: Any) -> Event:
    """The event with the few facts that its order depends on; spoiled if it lacks them, or if they cannot be."""
    try:
        guild = data.get("guild_id")
        return Event(
            KINDS[name],
            str(int(data["channel_id"])),
            _possible(int(data["id"])),
            data,
            None if guild is None else str(int(guild)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Event("spoiled", "", 0, {"t": name, "d": data}, reason=f"{name}: {error!r}")


def _possible(number: int) -> int:
    """Watermarks are ids: one out of the far future would hide everything that is said before it."""
    if not 0 < number < 1 << 63 or sent_at_ms(number) > time.time() * 1000 + FARTHEST_AHEAD_MS:
        msg = f"not an id of this time: {number!r:.50}"
        raise ValueError(msg)
    return number


class Feed:
    """What was heard and is not yet handled.

    `wanted` is told of a held channel in which something happens, so that its gap is read first.
    """

    def __init__(self, wanted: Callable[[str], None] = lambda _: None) -> None:
        self.wanted = wanted
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._held: list[Event] = []
        self._gaps: set[str] = set()
        self._dropped: set[str] = set()
        self._is_opening = False
        self._newest: dict[str, int] = {}
        self._drained = asyncio.Event()

    # what comes in

    def take(self, event: Event) -> None:
        if event.place and (self._is_opening or event.place in self._gaps):
            self._hold(event)
            return
        if event.kind == "message" and self._queue.qsize() >= MAX_WAITING:
            self._gaps.add(event.place)
            self._dropped.add(event.place)
            self.wanted(event.place)
            return
        self._put(event)

    def _put(self, event: Event) -> None:
        if event.kind == "message" and event.number > self._newest.get(event.place, 0):
            self._newest[event.place] = event.number
        self._queue.put_nowait(event)

    def _hold(self, event: Event) -> None:
        if len(self._held) >= MAX_HELD and event.kind == "message":
            self._dropped.add(event.place)
        else:
            self._held.append(event)
        if not self._is_opening:
            self.wanted(event.place)

    # gaps

    def hold_everything(self) -> None:
        """A new session begins: which channels have gaps is not known yet."""
        self._is_opening = True

    def hold(self, place: str) -> None:
        self._gaps.add(place)

    def open_except(self, gaps: Iterable[str]) -> None:
        """The gaps are known; all other channels go on."""
        self._gaps = set(gaps)
        self._is_opening = False
        held, self._held = self._held, []
        for event in held:
            if event.place in self._gaps:
                self._hold(event)
            else:
                self.take(event)
        for place in self._dropped - self._gaps:
            self.hold(place)
            self.wanted(place)

    def fill(self, event: Event) -> None:
        """A message of a gap, read from history."""
        self._put(event)

    def must_read_on(self, place: str) -> bool:
        """Whether live messages were let go meanwhile, so that history must be read once more."""
        if place in self._dropped:
            self._dropped.discard(place)
            return True
        return False

    def release(self, place: str) -> None:
        """The gap is filled: what was held goes on, without the messages that history had as well."""
        if self._is_opening:
            # a newer session began meanwhile; its plan decides
            return
        self._gaps.discard(place)
        held, self._held = self._held, []
        for event in held:
            if event.place != place:
                self._held.append(event)
            elif event.kind != "message" or event.number > self._newest.get(place, 0):
                self._put(event)

    def newest(self, place: str) -> int:
        """Highest id of a message of this place that was let through in this process; 0 if none was."""
        return self._newest.get(place, 0)

    # what goes out

    async def next(self) -> Event:
        event = await self._queue.get()
        if self._queue.qsize() <= MAX_WAITING // 10:
            self._drained.set()
        return event

    async def has_room(self) -> None:
        """Wait while much is unhandled already."""
        while self._queue.qsize() > MAX_WAITING // 10:
            self._drained.clear()
            await self._drained.wait()
