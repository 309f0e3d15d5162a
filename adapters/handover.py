"""`hand_over`: giving one message to the daemon until it is taken.

Owns the rule that a feed neither skips a message nor ends because the store stumbled. For adapters that keep a message
themselves until it is accepted; when to tell the platform is theirs to decide.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from adapters.base import Intake, IntakeClosed, Receipt
from adapters.messages import InboundMessage
from config.names import AccountId

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
LEAST_DELAY_S = 0.01

T = TypeVar("T")
logger = structlog.get_logger()


async def hand_over(
    intake: Intake, message: InboundMessage, *, on_wait: Callable[[], None] | None = None
) -> Receipt:
    """Deliver `message`, trying again for as long as it takes. `on_wait` is called once, before the first wait."""
    return await until_taken(lambda: intake.deliver(message), message.account, on_wait=on_wait)


async def until_taken(
    call: Callable[[], Awaitable[T]], account: AccountId, *, on_wait: Callable[[], None] | None = None
) -> T:
    """Await `call()` until it succeeds; for any method of an `Intake`."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            return await call()
        except IntakeClosed as closed:
            pause_s = max(closed.retry_after_s, LEAST_DELAY_S)
            reason = closed.reason
        except Exception as error:  # noqa: BLE001 -- whatever is wrong behind the port, nothing may be skipped
            pause_s = delay_s * random.uniform(0.5, 1)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)
            reason = type(error).__name__
        logger.warning(
            "adapter.delivery_postponed", account=account, reason=reason, retry_after_s=round(pause_s, 3)
        )
        if on_wait is not None:
            on_wait()
            on_wait = None
        await asyncio.sleep(pause_s)
