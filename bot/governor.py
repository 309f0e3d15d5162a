"""Pace per account and channel: the one place that every call to a platform passes.

Owns the windows a platform counts in, the holds it told us to keep (they survive restarts in the store), and how an account that is
down is probed: by one request at a time with growing pauses. Final replies go before previews; a preview never waits, it is
left out. What to send is `bot/delivery.py`.
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


@dataclass(slots=True)
class _Channel:
    windows: list[Window]
    held_until: float = 0
    waiting_finals: int = 0


@dataclass(slots=True)
class _Account:
    pace: Pace
    window: Window | None
    channels: dict[ChannelId, _Channel] = field(default_factory=dict)
    held_until: float = 0
    waiting_finals: int = 0
    failures: int = 0
    probe_at: float = 0
    is_probing: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Governor:
    """All accounts' pace. Times are of the given monotonic clock, in seconds."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._accounts: dict[AccountId, _Account] = {}

    def add(self, account: AccountId, pace: Pace) -> None:
        window = Window(pace.per_account_per_s, 1) if pace.per_account_per_s else None
        self._accounts[account] = _Account(pace, window)

    def remember(
        self, account: AccountId, sent: Iterable[tuple[ChannelId, Literal["direct", "group"], float]]
    ) -> None:
        """Count messages sent before a restart: (channel, kind, seconds ago), oldest first."""
        now = self._clock()
        for channel, kind, ago in sent:
            for window in self._channel(account, channel, kind).windows:
                window.take(now - ago)

    def hold(self, account: AccountId, channel: ChannelId | None, seconds: float) -> None:
        """Say nothing for so long; None holds the whole account."""
        until = self._clock() + seconds
        state = self._accounts[account]
        if channel is None:
            state.held_until = max(state.held_until, until)
        else:
            known = state.channels.get(channel) or self._channel(account, channel, "direct")
            known.held_until = max(known.held_until, until)

    def failed(self, account: AccountId) -> None:
        """The platform was not reached: pause the whole account, longer each time."""
        state = self._accounts[account]
        state.failures += 1
        pause = min(_PROBE_LONGEST_S, _PROBE_FIRST_S * 2 ** min(10, state.failures - 1))
        state.probe_at = self._clock() + pause * (0.75 + 0.5 * self._jitter())
        state.is_probing = False
        self._wake(state)

    def answered(self, account: AccountId) -> None:
        """The platform answered, whatever it said: the account is up."""
        state = self._accounts[account]
        if state.failures or state.is_probing:
            state.failures = 0
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
                wait = self._wait_s(state, place)
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
        self._take(state, place)
        return self._clock() - started

    def try_acquire(self, account: AccountId, channel: ChannelId, kind: Literal["direct", "group"]) -> bool:
        """A preview's turn, if it may go out right now and takes nothing from a final reply."""
        state, place = self._accounts[account], self._channel(account, channel, kind)
        if state.failures or state.waiting_finals or place.waiting_finals or self._wait_s(state, place) != 0:
            return False
        self._take(state, place)
        return True

    def held_s(self, account: AccountId, channel: ChannelId) -> float:
        """Seconds that a hold still lasts, for typing indicators and the like, which never wait."""
        state = self._accounts[account]
        until = state.held_until
        if (place := state.channels.get(channel)) is not None:
            until = max(until, place.held_until)
        return max(0.0, until - self._clock())

    def _wait_s(self, state: _Account, place: _Channel) -> float | None:
        """Seconds until a call may go out; None: until another's probe has ended."""
        if state.is_probing:
            return None
        now = self._clock()
        waits = [
            state.held_until - now,
            place.held_until - now,
            state.probe_at - now if state.failures else 0.0,
        ]
        if state.window is not None:
            waits.append(state.window.wait_s(now))
        waits += [window.wait_s(now) for window in place.windows]
        return max(0.0, *waits)

    def _take(self, state: _Account, place: _Channel) -> None:
        now = self._clock()
        if state.window is not None:
            state.window.take(now)
        for window in place.windows:
            window.take(now)

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
            place = state.channels[channel] = _Channel(windows)
            self._forget_idle(state)
        return place

    def _forget_idle(self, state: _Account) -> None:
        """Channels quiet for over a minute need no memory."""
        if len(state.channels) < 5000:
            return
        now = self._clock()
        for channel, place in list(state.channels.items()):
            if (
                place.waiting_finals == 0
                and place.held_until <= now
                and all(w.wait_s(now - 0.001) == 0 for w in place.windows)
            ):
                del state.channels[channel]
            if len(state.channels) < 4000:
                return

    @staticmethod
    def _wake(state: _Account) -> None:
        state.changed.set()
