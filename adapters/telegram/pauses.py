"""How long the Telegram adapter waits: for a long poll, between retries, between checks. Nothing here does the waiting."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential delays with jitter."""

    first_s: float
    most_s: float

    def delay_s(self, attempt: int) -> float:
        """The delay before try `attempt` + 1, where the first failed try is 0: between half and the whole of its step."""
        step_s = min(self.most_s, self.first_s * 2.0 ** min(attempt, 30))
        return step_s * random.uniform(0.5, 1)


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
