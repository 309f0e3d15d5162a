"""A network that is cut at a chosen moment: a TCP relay that watches what the client sends.

Owns relaying and cutting. It knows nothing of the protocol that runs through it, but the bytes it was told to wait for.
"""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Literal, Self

Moment = Literal["before", "after"]


class SeveringRelay:
    """Passes on everything between its own port and a server's, until it is told to cut."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._trigger: tuple[bytes, Moment] | None = None
        self._is_silent = False
        self._is_refusing = False
        self._instead: tuple[bytes, bytes] = (b"", b"")
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close(self._listener)
        self.cut()

    def cut_at(self, words: bytes, moment: Moment) -> None:
        """The next time the client sends these words: cut before the server gets them, or before the client gets the answer."""
        self._trigger = (words, moment)

    def answer_instead(self, words: bytes, others: bytes) -> None:
        """From now on the server seems to say something else of the same length."""
        self._instead = (words, others)

    def fall_silent(self) -> None:
        """Pass nothing on any more, in either direction, and close nothing."""
        self._is_silent = True

    def refuse(self) -> None:
        """Cut, and let nobody in any more."""
        self._is_refusing = True
        self.cut()

    def recover(self) -> None:
        """New connections pass again; those that were silenced are gone."""
        self.cut()
        self._is_silent = self._is_refusing = False

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _close(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_refusing:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port), timeout=5)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._pairs.append((client, server))
            answers_stop = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, answers_stop), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client, answers_stop), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, answers_stop: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._is_silent:
                    continue
                trigger = self._trigger
                if trigger is not None and trigger[0] in data:
                    self._trigger = None
                    self.cuts += 1
                    if trigger[1] == "before":
                        break
                    answers_stop.set()  # `_back` cuts when the answer comes
                server.sendall(data)
        _close(client)
        _close(server)

    def _back(self, server: socket.socket, client: socket.socket, answers_stop: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if answers_stop.is_set():
                    break
                if not self._is_silent:
                    words, others = self._instead
                    client.sendall(data.replace(words, others) if words else data)
        _close(client)
        _close(server)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
