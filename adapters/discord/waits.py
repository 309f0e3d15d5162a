"""How long the Discord adapter waits for what, in one record that tests shorten."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the adapter waits for what; tests shorten them."""

    first_retry_s: float = 0.5
    longest_retry_s: float = 30.0
    refused_retry_s: float = 300.0
    """Between tries with a token or configuration that Discord refuses."""
    before_identify_s: float = 3.0
    """Before a session is opened anew; Discord asks for 1 to 5 s after it called the last one invalid."""
    guild_stream_s: float = 1.0
    """Silence after which the guilds announced at the start are taken to be complete."""
    heartbeat_timeout_s: float = 60.0
    request_timeout_s: float = 30.0
    catch_up_pause_s: float = 0.1
    """Between two history requests of one reader."""
    accept_notice_s: float = 5.0
    """Before a person who used a command is told that it cannot be taken in just now."""
    declined_clear_s: float = 3.0
    """Before the "is thinking…" of a declined command is removed, if no reply has taken its place."""
    commands_retry_s: float = 60.0
    watermark_flush_s: float = 15.0

    def backed_off_s(self, failures: int) -> float:
        """Capped exponential with jitter."""
        return float(
            min(self.longest_retry_s, self.first_retry_s * 2 ** min(failures, 16)) * random.uniform(0.5, 1)
        )
