"""Several daemons on one PostgreSQL database: `Fleet` starts them, and looks into the database that they share.

Owns nothing of what they do: a node is a `Daemon` with the others' database. Leases are short here, so that a takeover is soon.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from tests.process.counterparties import Counterparty
from tests.process.daemon import Daemon, eventually, merged, quick_settings
from tests.process.talk import Talk


class Fleet:
    """Nodes by name, in folders of their own."""

    def __init__(
        self,
        folder: Path,
        url: str,
        people: Counterparty,
        *,
        make: Callable[..., Daemon] = Daemon,
        **sections: Any,
    ) -> None:
        """`make` is what makes a daemon of a folder and settings."""
        self.url = url
        self._make = make
        self.people = people
        self._folder = folder
        self._sections = sections
        self.nodes: dict[str, Daemon] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.end()

    def settings(self, name: str, **sections: Any) -> Mapping[str, Any]:
        quick = quick_settings(self._folder / "unused.db", {"main": self.people.account()}, server=self.url)
        own = {"node": {"name": name}}
        return merged(merged(merged(quick, own), self._sections), sections)

    def add(self, name: str, **sections: Any) -> Daemon:
        """A node, not started yet."""
        self.nodes[name] = self._make(self._folder / name, self.settings(name, **sections), name=name)
        return self.nodes[name]

    async def start(self, *names: str, **sections: Any) -> list[Daemon]:
        nodes = [self.add(name, **sections) for name in names]
        for node in nodes:
            node.launch()
        await asyncio.gather(*(node.wait_ready() for node in nodes))
        return nodes

    # what they share

    async def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(self.url, row_factory=dict_row) as connection:
            cursor = await connection.execute(sql.encode(), parameters)
            return list(await cursor.fetchall())

    async def holder(self, kind: str) -> str | None:
        """Name of the node that hears, sends or keeps up just now."""
        rows = await self.rows(
            "SELECT node FROM leases WHERE kind = %s AND ends_at > EXTRACT(EPOCH FROM clock_timestamp()) * 1000",
            kind,
        )
        return str(rows[0]["node"]).rpartition(".")[0] if rows else None

    async def owner(self) -> tuple[Daemon, Daemon]:
        """The node that hears, once it also sends; and the first of the others."""

        async def owns_both() -> str | None:
            hears, sends = await self.holder("hear"), await self.holder("send")
            return hears if hears == sends else None

        name = await eventually(owns_both, timeout_s=20, what="one owner")
        return self.nodes[name], next(node for other, node in self.nodes.items() if other != name)


async def answered_after(talk: Talk, daemon: Daemon, *, timeout_s: float = 30) -> float:
    """Somebody writes; seconds until all that was said is answered."""
    began = time.monotonic()
    await talk.say(talk.chats[0])
    await talk.wait_answered(daemon, timeout_s=timeout_s)
    return time.monotonic() - began
