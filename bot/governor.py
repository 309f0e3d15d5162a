"""Pace per account and channel: the one place that every call to a platform passes.

Owns the windows a platform counts in, the holds it told us to keep (they survive restarts in the store), and how an
account that is down is probed: by one request at a time with growing pauses. Final replies go before previews; a preview
never waits, it is left out. What to send is `bot/delivery.py`.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from adapters.base import Pace
from config.names import AccountId, ChannelId

_PROBE_FIRST_S = 1.0
_PROBE_LONGEST_S = 60.0
_REMEMBERED_CHANNELS = 5000


class Window:
    """At most `limit` events in any `period_s` seconds, exactly: the times of the last ones are kept."""

    def __init__(self, limit: float, period_s: float) -> None:
        # "Half a message a second" is one in two seconds.
        self._limit = max(1, int(limit))
        self._period_s = period_s * self._limit / limit
        self._times: deque[float] = deque(maxlen=self._limit)

    def wait_s(self, now: float) -> float:
        """Seconds until the next event is allowed."""
        if len(self._times) < self._limit:
            return 0
        return max(0.0, self._times[0] + self._period_s - now)

    def take(self, at: float) -> None:
        self._times.append(at)

    def is_empty(self, now: float) -> bool:
        """True once no event counts any more."""
        return not self._times or self._times[-1] + self._period_s <= now


@dataclass(slots=True)
class _Channel:
    windows: list[Window]
    waiting_finals: int = 0


@dataclass(slots=True)
class _Account:
    pace: Pace
    window: Window | None
    channels: dict[ChannelId, _Channel] = field(default_factory=dict)
    holds: dict[ChannelId | None, float] = field(default_factory=dict)
    """Until when a channel is held; None is the whole account."""
    waiting_finals: int = 0
    failures: int = 0
    probe_at: float = 0
    is_probing: bool = False
    most_channels: int = _REMEMBERED_CHANNELS
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Governor:
    """All accounts' pace. Times are of the given monotonic clock, in seconds."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        probe_first_s: float = _PROBE_FIRST_S,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._probe_first_s = probe_first_s
        self._accounts: dict[AccountId, _Account] = {}

    def add(self, account: AccountId, pace: Pace) -> None:
        window = Window(pace.per_account_per_s, 1) if pace.per_account_per_s else None
        self._accounts[account] = _Account(pace, window)

    def remember(
        self, account: AccountId, sent: Iterable[tuple[ChannelId, Literal["direct", "group"], float]]
    ) -> None:
        """Count messages sent before a restart: (channel, kind, seconds ago), oldest first."""
        now, state = self._clock(), self._accounts[account]
        for channel, kind, ago in sent:
            self._take(state, self._channel(account, channel, kind), now - ago)

    def hold(self, account: AccountId, channel: ChannelId | None, seconds: float) -> None:
        """Say nothing for so long; None holds the whole account."""
        now = self._clock()
        holds = self._accounts[account].holds
        for over in [place for place, until in holds.items() if until <= now]:
            del holds[over]
        holds[channel] = max(holds.get(channel, now), now + seconds)

    def failed(self, account: AccountId) -> None:
        """The platform was not reached: pause the whole account, longer each time."""
        state = self._accounts[account]
        state.failures += 1
        pause = min(_PROBE_LONGEST_S, self._probe_first_s * 2 ** min(10, state.failures - 1))
        state.probe_at = self._clock() + pause * (1 + 0.5 * self._jitter())  # never sooner than the pause
        state.is_probing = False
        self._wake(state)

    def answered(self, account: AccountId) -> None:
        """The platform answered, whatever it said: the account is up."""
        state = self._accounts[account]
        if state.failures or state.is_probing:
            state.failures = 0
            state.is_probing = False
            self._wake(state)

    def unused(self, account: AccountId) -> None:
        """A call that `acquire` let through was not made after all: if it was the probe, another may take its place."""
        state = self._accounts[account]
        if state.is_probing:
            state.is_probing = False
            self._wake(state)

    def is_down(self, account: AccountId) -> bool:
        return self._accounts[account].failures > 0

    async def acquire(
        self, account: AccountId, channel: ChannelId, kind: Literal["direct", "group"]
    ) -> float:
        """Wait for a final reply's turn to go out. Gives the seconds waited.

        While the account is down only one caller at a time gets through, as a probe; it must report `answered` or `failed`.
        """
        state, place = self._accounts[account], self._channel(account, channel, kind)
        started = self._clock()
        state.waiting_finals += 1
        place.waiting_finals += 1
        try:
            while True:
                wait = self._wait_s(state, place, channel)
                if wait == 0:
                    break
                if wait is None:
                    state.changed.clear()
                    await state.changed.wait()
                else:
                    await asyncio.sleep(wait)
        finally:
            state.waiting_finals -= 1
            place.waiting_finals -= 1
        if state.failures:
            state.is_probing = True
        self._take(state, place, self._clock())
        return self._clock() - started

    def try_acquire(self, account: AccountId, channel: ChannelId, kind: Literal["direct", "group"]) -> bool:
        """A preview's turn, if it may go out right now and takes nothing from a final reply."""
        state, place = self._accounts[account], self._channel(account, channel, kind)
        if state.failures or state.waiting_finals or self._wait_s(state, place, channel) != 0:
            return False
        self._take(state, place, self._clock())
        return True

    def held_s(self, account: AccountId, channel: ChannelId) -> float:
        """Seconds that a hold still lasts, for typing indicators and the like, which never wait."""
        holds, now = self._accounts[account].holds, self._clock()
        return max(0.0, holds.get(None, now) - now, holds.get(channel, now) - now)

    def _wait_s(self, state: _Account, place: _Channel, channel: ChannelId) -> float | None:
        """Seconds until a call may go out; None: until another's probe has ended."""
        if state.is_probing:
            return None
        now = self._clock()
        waits = [
            state.holds.get(None, now) - now,
            state.holds.get(channel, now) - now,
            state.probe_at - now if state.failures else 0.0,
        ]
        if state.window is not None:
            waits.append(state.window.wait_s(now))
        waits += [window.wait_s(now) for window in place.windows]
        return max(0.0, *waits)

    @staticmethod
    def _take(state: _Account, place: _Channel, at: float) -> None:
        if state.window is not None:
            state.window.take(at)
        for window in place.windows:
            window.take(at)

    def _channel(self, account: AccountId, channel: ChannelId, kind: Literal["direct", "group"]) -> _Channel:
        state = self._accounts[account]
        place = state.channels.get(channel)
        if place is None:
            windows = []
            pace = state.pace
            if pace.per_direct_channel_per_s:  # groups are held to one a second as well
                windows.append(Window(pace.per_direct_channel_per_s, 1))
            if kind == "group" and pace.per_group_channel_per_min:
                windows.append(Window(pace.per_group_channel_per_min, 60))
            self._forget_idle(state)
            place = state.channels[channel] = _Channel(windows)
        return place

    def _forget_idle(self, state: _Account) -> None:
        """Channels in whose windows nothing counts any more need no memory."""
        if len(state.channels) < state.most_channels:
            return
        now = self._clock()
        for channel, place in list(state.channels.items()):
            if place.waiting_finals == 0 and all(window.is_empty(now) for window in place.windows):
                del state.channels[channel]
        # With so many busy ones, the next look is worth its while only after as many again.
        state.most_channels = max(_REMEMBERED_CHANNELS, 2 * len(state.channels))

    @staticmethod
    def _wake(state: _Account) -> None:
        state.changed.set()
