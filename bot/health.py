"""Is the daemon well: the store, each adapter's last proof of hearing, and the word to systemd.

Owns what counts as ready. A state is believed only with proof: an adapter that says it hears but has heard nothing for
`DEAF_AFTER_S` is called deaf.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from adapters.base import Adapter
from config.names import AccountId
from sessions.database.base import Database
from sessions.errors import SessionError

DEAF_AFTER_S: Final = 180.0
_STORE_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Report:
    is_ready: bool
    details: Mapping[str, object]


class HealthCheck:
    def __init__(
        self,
        database: Database,
        adapters: Mapping[AccountId, Adapter],
        *,
        clock: Callable[[], float] = time.time,
        closed_because: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`closed_because` says why no message is taken in at the moment, if none is."""
        self._database = database
        self._closed_because = closed_because
        self._adapters = adapters
        self._clock = clock
        self.is_stopping = False

    async def report(self) -> Report:
        """Ready means: the store answers, messages are taken in, and at least one adapter hears."""
        store = await self._store()
        accounts = {account: self._adapter(adapter) for account, adapter in self._adapters.items()}
        is_hearing = any(account["state"] == "hearing" for account in accounts.values())
        closed_because = self._closed_because()
        is_ready = store == "open" and closed_because is None and is_hearing and not self.is_stopping
        status = "stopping" if self.is_stopping else "ready" if is_ready else "not ready"
        if is_ready and not all(account["state"] == "hearing" for account in accounts.values()):
            status = "degraded"
        intake = "open" if closed_because is None else f"closed: {closed_because}"
        return Report(is_ready, {"status": status, "store": store, "intake": intake, "accounts": accounts})

    async def _store(self) -> str:
        try:
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                await self._database.read(lambda tx: tx.row("SELECT 1 AS one"))
        except TimeoutError:
            return f"failed: no answer within {_STORE_TIMEOUT_S:g} s"
        except (SessionError, ValueError, OSError) as error:
            return f"failed: {error}"
        return "open"

    def _adapter(self, adapter: Adapter) -> dict[str, object]:
        health = adapter.health()
        ago = None if health.last_heard_at is None else round(self._clock() - health.last_heard_at, 1)
        state: str = health.state
        if state == "hearing" and (ago is None or ago > DEAF_AFTER_S):
            state = "deaf"
        return {"state": state, "last_heard_s_ago": ago, "detail": health.detail}


def notify_systemd(state: str) -> None:
    """Tell the service manager (`READY=1`, `STOPPING=1`); does nothing where there is none.

    Source: sd_notify(3), a datagram to the socket named in NOTIFY_SOCKET.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.sendto(state.encode(), address)
    except OSError:
        return  # a manager that does not listen is no reason to stop
