"""Is the daemon well: the store, each adapter's last proof of hearing, and the word to systemd.

Owns what counts as ready. A state is believed only with proof: an adapter that says it hears but has heard nothing for
`DEAF_AFTER_S` is called deaf.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.base import Adapter
from bot.nodes import Node
from config.names import AccountId
from config.settings import ROLES, Role
from sessions.database.base import Database
from sessions.errors import SessionError
from sessions.leases import LeaseName

DEAF_AFTER_S: Final = 180.0
_ELSEWHERE: Final = ("elsewhere", "nobody's")
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
        node: Node | None = None,
        roles: Sequence[Role] = ROLES,
    ) -> None:
        """`closed_because` says why no message is taken in at the moment, if none is; `node` knows which accounts are this one's."""
        self._node = node if node is not None and not node.is_alone else None
        self._roles = roles
        self._database = database
        self._closed_because = closed_because
        self._adapters = adapters
        self._clock = clock
        self.is_stopping = False

    async def report(self) -> Report:
        """Ready means: the store answers, messages are taken in, and at least one of the accounts that this node hears is heard.

        An account that another node hears is no fault here; neither is that there is none.
        """
        store = await self._store()
        accounts = {account: self._account(account, adapter) for account, adapter in self._adapters.items()}
        own = [state for account in accounts.values() if (state := account["state"]) not in _ELSEWHERE]
        is_hearing = any(state == "hearing" for state in own) or (self._node is not None and not own)
        closed_because = self._closed_because()
        is_ready = store == "open" and closed_because is None and is_hearing and not self.is_stopping
        status = "stopping" if self.is_stopping else "ready" if is_ready else "not ready"
        if is_ready and not all(state == "hearing" for state in own):
            status = "degraded"
        intake = "open" if closed_because is None else f"closed: {closed_because}"
        details = {"status": status, "store": store, "intake": intake, "accounts": accounts}
        if self._node is not None:
            details |= {"node": self._node.name, "roles": list(self._roles)}
        return Report(is_ready, details)

    def _account(self, account: AccountId, adapter: Adapter) -> dict[str, object]:
        """How an account is heard, and who hears it and sends for it where that is not always this process."""
        if self._node is None:
            return self._adapter(adapter)
        holders = self._node.holders
        hears, sends = LeaseName("hear", account), LeaseName("send", account)
        elsewhere = {"state": "elsewhere" if hears in holders else "nobody's"}
        about = self._adapter(adapter) if self._node.holds(hears) else elsewhere
        return about | {"heard_by": holders.get(hears), "sent_by": holders.get(sends)}

    async def _store(self) -> str:
        try:
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                await self._database.read(lambda tx: tx.row("SELECT 1 AS one"))
        except TimeoutError:
            return f"failed: no answer within {_STORE_TIMEOUT_S:g} s"
        except (SessionError, ValueError, OSError) as error:
            return f"failed: {error}"
        if self._node is not None and self._node.trouble is not None:
            return f"failed: {self._node.trouble}"
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
