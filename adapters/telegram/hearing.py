"""What an account knows of its own inbound path: state, last proof, and the log line at each change.

Owns no waiting and no request; `polling`, `webhook` and `adapter` report here.
"""

import time
from collections.abc import Callable

import structlog

from adapters.base import Health
from config.names import AccountId

log = structlog.get_logger()

TOKEN_HINT = (
    "Telegram refused this token. @BotFather shows the valid one with /mybots, and /revoke makes a new one; "
    "set it as `token` of this account (environment: PALAVER_ACCOUNTS__<NAME>__TOKEN)."
)


class Hearing:
    """The account's health, changed only through the words below, so that each change is logged exactly once."""

    def __init__(self, account: AccountId, *, now: Callable[[], float] = time.time) -> None:
        self._account = account
        self._now = now
        self._health = Health("starting")

    @property
    def health(self) -> Health:
        return self._health

    @property
    def is_hearing(self) -> bool:
        return self._health.state == "hearing"

    def started(self) -> None:
        self._health = Health("starting", self._health.last_heard_at)

    def heard(self) -> None:
        """The inbound path has just proved itself."""
        is_first, was_hearing = self._health.last_heard_at is None, self.is_hearing
        self._health = Health("hearing", self._now())
        if not was_hearing:
            log.info("adapter.connected" if is_first else "adapter.reconnected", account=self._account)

    def retrying(self, detail: str, *, event: str = "adapter.failed", is_cut_off: bool = False) -> None:
        """Something is in the way that may pass by itself. Told once, however often it is tried."""
        if self._health.state != "retrying" or self._health.detail != detail:
            log.warning(event, account=self._account, reason=detail)
        self._health = Health("retrying", self._health.last_heard_at, detail, is_cut_off)

    def refused(self) -> None:
        """Only the operator can help: the token is not accepted."""
        if self._health.state != "refused":
            log.error("adapter.refused", account=self._account, hint=TOKEN_HINT)
        self._health = Health("refused", self._health.last_heard_at, TOKEN_HINT)

    def stopped(self) -> None:
        self._health = Health("stopped", self._health.last_heard_at)
