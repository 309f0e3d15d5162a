"""A server that is farther away than it is: passes on everything between a port of its own and the server's, but later.

    async with at_a_distance(url, 0.001) as far: ...

It is a process of its own, `python -m tests.fakes.distance PORT SECONDS`, which prints its port and works until it is killed.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


@asynccontextmanager
async def at_a_distance(url: str, there_and_back_s: float) -> AsyncIterator[str]:
    """The address of the same server where every answer takes so much longer."""
    place = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.distance", str(place.port), str(there_and_back_s / 2)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = json.loads(await process.stdout.readline())["port"]
        yield urlunsplit(place._replace(netloc=place.netloc.replace(f":{place.port}", f":{port}")))
    finally:
        process.kill()
        await process.wait()


class _End(asyncio.Protocol):
    """One end of a connection; what comes in here goes out at the other."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        for data in self.early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._pass_on, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def _pass_on(self, data: bytes) -> None:
        assert self.other is not None
        if self.other.transport is None:
            self.other.early.append(data)
        else:
            self.other.transport.write(data)


async def main(port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    dialling: set[asyncio.Task[object]] = set()

    def come() -> _End:
        near, far = _End(delay_s), _End(delay_s)
        near.other, far.other = far, near
        task: asyncio.Task[object] = loop.create_task(loop.create_connection(lambda: far, "127.0.0.1", port))
        dialling.add(task)
        task.add_done_callback(dialling.discard)
        return near

    server = await loop.create_server(come, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
