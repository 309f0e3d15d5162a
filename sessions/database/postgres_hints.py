"""Hints between nodes: short words that say "look now", by PostgreSQL's NOTIFY.

Owns sending and hearing them, on connections of their own. A hint may be lost, come late, or come twice: whoever waits for one also
looks by itself from time to time. It carries names only, never what people said.
"""

import asyncio
import threading
from typing import Final

import psycopg
from psycopg import sql

from sessions.database.postgres_connections import Connections, Limits
from sessions.errors import StoreError

_CHANNEL: Final = "palaver_hints"
_GATHERED_S: Final = 0.005
"""Hints of so short a time go out together, each once: commits with a NOTIFY wait for one another on the server."""
_RETRY_S: Final = 1.0
_SEPARATOR: Final = "\n"
_LONGEST: Final = 7000
"""Of one NOTIFY, in bytes; the server takes 8000."""


class PostgresHints:
    """Sends and hears hints while it is open. Make it in the event loop that uses it."""

    def __init__(self, url: str) -> None:
        """Raises: StoreUnavailable for an address that is none."""
        # A send that hangs must not keep the next ones: they would be as good as lost.
        self._connections = Connections(
            url, Limits(statement_s=2, lock_s=2, connect_s=2, cut_network_s=5, answer_s=3)
        )
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[str] = asyncio.Queue(maxsize=10_000)
        self._waiting: dict[str, None] = {}
        self._sending: asyncio.Task[None] | None = None
        self._is_closed = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="postgres-hints", daemon=True)
        self._listener.start()

    def hint(self, topic: str) -> None:
        """Tell all nodes, this one included, to look. Returns at once."""
        if self._is_closed.is_set():
            return
        self._waiting[topic] = None
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="hints")

    async def next(self) -> str:
        """The next hint that anybody sent."""
        return await self._heard.get()

    async def close(self) -> None:
        """What was hinted before still goes out."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=2)
        self._is_closed.set()
        await asyncio.to_thread(self._listener.join, 3)
        self._connections.close()

    async def _send(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHERED_S)
            topics, size = [], 0
            while self._waiting and size < _LONGEST:
                topic = next(iter(self._waiting))
                del self._waiting[topic]
                topics.append(topic)
                size += len(topic.encode()) + 1
            try:
                await asyncio.to_thread(self._notify, _SEPARATOR.join(topics))
            except (StoreError, psycopg.Error):
                return  # lost: the others look by themselves

    def _notify(self, words: str) -> None:
        with self._connections.lent() as connection:
            connection.execute("SELECT pg_notify($1, $2)", [_CHANNEL, words])

    def _listen(self) -> None:
        """In a thread of its own: psycopg hands on what comes only to whoever waits for it."""
        while not self._is_closed.is_set():
            try:
                with self._connections.lent() as connection:
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(_CHANNEL)))
                    while not self._is_closed.is_set():
                        for notice in connection.notifies(timeout=1.0):
                            for topic in notice.payload.split(_SEPARATOR):
                                self._loop.call_soon_threadsafe(self._hear, topic)
                    connection.close()
            except (StoreError, psycopg.Error):
                self._is_closed.wait(_RETRY_S)
            except RuntimeError:  # the event loop has ended before us
                return

    def _hear(self, topic: str) -> None:
        if not self._heard.full():
            self._heard.put_nowait(topic)
