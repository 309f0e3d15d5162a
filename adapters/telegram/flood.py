"""Tells a limit of one chat from a limit of the whole bot, which Telegram's 429 does not say.

Owns only the memory of recent refusals; waiting is the governor's.
"""

import time
from collections.abc import Callable
from typing import Literal

from config.names import ChannelId

WHOLE_BOT_CHANNELS = 3
"""So many channels under a penalty at the same time are taken for the bot's own limit being exceeded."""


class FloodWatch:
    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until: dict[ChannelId, float] = {}

    def scope(self, channel: ChannelId, retry_after_s: float) -> Literal["account", "channel"]:
        """Whom a refusal in this channel holds, given the others that are still in force."""
        now = self._now()
        self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[channel] = now + retry_after_s
        return "account" if len(self._until) >= WHOLE_BOT_CHANNELS else "channel"
