"""A pooler between clients and PostgreSQL, as PgBouncer is one: clients come and go, its own connections to the server stay.

Owns what a client notices of it. The server's process that it is told of is an invention; and where the pooler hands its connections
round, each transaction gets the one that was used last. It needs a server that asks for no password, and clients that log in alike.
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

_INVENTED_KEY: Final = struct.pack("!cIII", b"K", 12, 999_999, 1)
_OFFERS: Final = (80877103, 80877104)
"""Requests for TLS and for GSS encryption: they come before the start-up message and are answered with a single letter."""


class Pooler:
    """Listens on `port` until the end of its `with`."""

    def __init__(self, server_port: int, *, is_handing_round: bool) -> None:
        self._server_port = server_port
        self._is_handing_round = is_handing_round
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._free: list[_Server] = []
        self._ends = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # ValueError: of an end that `__exit__` has closed
        with contextlib.suppress(OSError, EOFError, ValueError):
            startup = _startup(client)
            server = self._take(startup)
            client.sendall(server.greeting)
            while True:
                if self._is_handing_round:
                    self._free.append(server)
                    select.select([client], [], [])
                    server = self._take(startup)
                server.serve(client, until_idle=self._is_handing_round)

    def _take(self, startup: bytes) -> "_Server":
        try:
            return self._free.pop()
        except IndexError:
            server = _Server(self._server_port, startup)
            self._ends.append(server.end)
            return server


class _Server:
    """One connection to the server, logged in."""

    def __init__(self, port: int, startup: bytes) -> None:
        self.end = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.end.settimeout(None)
        self.end.sendall(startup)
        said = _Messages()
        greeting = b""
        while said.is_idle is None:
            for kind, message in said.of(_received(self.end)):
                greeting += _INVENTED_KEY if kind == b"K" else message
        self.greeting = greeting

    def serve(self, client: socket.socket, *, until_idle: bool) -> None:
        """Pass everything on in both directions, for one transaction or for ever. Raises: EOFError when one of them has left."""
        asked, said = _Messages(), _Messages()
        unanswered = 0
        while True:
            for end in select.select([client, self.end], [], [])[0]:
                if end is client:
                    data = _received(client)
                    unanswered += sum(kind in b"SQ" for kind, _ in asked.of(data))
                    self.end.sendall(data)
                else:
                    data = _received(self.end)
                    unanswered -= sum(kind == b"Z" for kind, _ in said.of(data))
                    client.sendall(data)
            if until_idle and said.is_idle and not unanswered:
                return


class _Messages:
    """Whole messages out of a stream, and whether the last ReadyForQuery said that no transaction is open."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_idle: bool | None = None

    def of(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._rest += data
        while len(self._rest) >= 5:
            length = 1 + struct.unpack("!I", self._rest[1:5])[0]
            if len(self._rest) < length:
                return
            message, self._rest = self._rest[:length], self._rest[length:]
            if message[:1] == b"Z":
                self.is_idle = message[5:6] == b"I"
            yield message[:1], message


def _startup(client: socket.socket) -> bytes:
    while True:
        head = _received(client, 4)
        message = head + _received(client, struct.unpack("!I", head)[0] - 4)
        if struct.unpack("!I", message[4:8])[0] not in _OFFERS:
            return message
        client.sendall(b"N")


def _received(end: socket.socket, size: int = 65536) -> bytes:
    data = end.recv(size)
    if not data:
        raise EOFError
    return data
