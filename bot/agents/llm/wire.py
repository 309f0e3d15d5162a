"""The HTTP client under the vendors' libraries: its timeouts, and what of an answer it lets into memory.

Owns the client. The silence limit is the read timeout; a line of a stream or the body of an error may be no longer than
we are willing to hold; nothing here retries.
"""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass

import httpx2

_MAX_LINE_BYTES = 4 * 1024 * 1024
_MAX_ERROR_BODY_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0


class AnswerTooLarge(httpx2.ReadError):
    """More came than any answer may hold. A transport error, so that the vendors' libraries clean up as after one."""


@dataclass(slots=True)
class Exchange:
    """What is seen of one request's answer below the vendors' libraries."""

    has_response: bool = False
    has_done_mark: bool = False
    """`data: [DONE]` came: how servers that send no finish reason end a whole answer."""


_exchange: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def watch_exchange() -> Exchange:
    """Begin watching the next request of this context."""
    exchange = Exchange()
    _exchange.set(exchange)
    return exchange


def make_client(silence_s: float) -> httpx2.AsyncClient:
    """A client for all models of one agent. Closed by whoever made it."""
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(silence_s, connect=min(silence_s, _CONNECT_TIMEOUT_S)),
        limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
        event_hooks={"response": [_limit]},
        # A model on this machine is never behind the proxy that HTTP_PROXY names.
        mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
    )


async def _limit(response: httpx2.Response) -> None:
    exchange = _exchange.get()
    if exchange is not None:
        exchange.has_response = True
    inner = response.stream
    if isinstance(inner, httpx2.AsyncByteStream):
        response.stream = _LimitedStream(inner, exchange, is_error=response.is_error)


class _LimitedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, exchange: Exchange | None, *, is_error: bool) -> None:
        self._inner = inner
        self._exchange = exchange
        self._is_error = is_error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = line = 0
        tail = b""
        async for chunk in self._inner:
            total += len(chunk)
            newline = chunk.rfind(b"\n")
            line = line + len(chunk) if newline < 0 else len(chunk) - newline - 1
            longest = max(line, newline)
            if longest > _MAX_LINE_BYTES:
                raise AnswerTooLarge("one line of the answer is too long")
            if self._is_error and total > _MAX_ERROR_BODY_BYTES:
                return  # an error says what it has to say at its beginning
            if self._exchange is not None and not self._exchange.has_done_mark:
                self._exchange.has_done_mark = b"[DONE]" in tail + chunk
                tail = chunk[-8:]
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)  # the client measures `elapsed` on the stream it made
