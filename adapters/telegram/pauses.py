"""How long the Telegram adapter waits: for a long poll, between retries, between checks. Nothing here does the waiting."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential delays with jitter."""

    first_s: float
    most_s: float

    def delay_s(self, attempt: int) -> float:
        """How long to wait after failure number `attempt`, counted from 0; never less than the first step."""
        step_s = min(self.most_s, self.first_s * 2.0 ** min(attempt, 30))
        return max(self.first_s, step_s * random.uniform(2 / 3, 1))


@dataclass(frozen=True, slots=True)
class Pauses:
    poll_timeout_s: int = 25
    """How long Telegram holds a poll while there is nothing to tell."""
    least_poll_s: float = 1.0
    """Shortest time between two empty polls, should a server not hold them."""
    network: Backoff = Backoff(1, 30)
    refused: Backoff = Backoff(30, 600)
    conflict: Backoff = Backoff(5, 60)
    intake: Backoff = Backoff(0.5, 30)
    commands: Backoff = Backoff(60, 3600)
    webhook_check_s: float = 180
