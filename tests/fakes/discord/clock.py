"""Time and ids of the fake: one clock that tests may move forward, and snowflakes with real time bits.

Does not own any waiting: everything that expires compares with this clock when it is asked.
"""

import time
from datetime import UTC, datetime

DISCORD_EPOCH_MS = 1_420_070_400_000
"""2015-01-01T00:00Z; the upper 42 bits of an id count milliseconds since then. Source: Discord reference, Snowflakes."""


class Clock:
    """Wall time that never runs backwards, plus what tests have skipped with ``advance``."""

    def __init__(self) -> None:
        self._start_s = time.time()
        self._start_monotonic_s = time.monotonic()
        self._skipped_s = 0.0

    def now_s(self) -> float:
        return self._start_s + (time.monotonic() - self._start_monotonic_s) + self._skipped_s

    def advance(self, seconds: float) -> None:
        """Let windows (nonce, interaction, attachment addresses, rate limits) age without waiting."""
        if seconds < 0:
            raise ValueError(f"time only moves forward, not by {seconds!r} s")
        self._skipped_s += seconds


class Snowflakes:
    """Ids in the shape of Discord's: strictly rising, the time of their making in the upper bits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def make(self) -> str:
        candidate = (int(self._clock.now_s() * 1000) - DISCORD_EPOCH_MS) << 22
        self._last = max(candidate, self._last + 1)
        return str(self._last)


def timestamp_of(snowflake: str) -> str:
    """The ISO 8601 time at which an id was made, as Discord writes it."""
    return iso((int(snowflake) >> 22) + DISCORD_EPOCH_MS)


def iso(unix_ms: float) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).isoformat(timespec="microseconds")
