"""A load balancer before several nodes: each request goes to the next of them, and its answer goes back, whatever it is.

Owns no rule about who is well: it is the simplest one there is, which knows nothing of owners and asks nobody twice.
"""

from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web


class Balancer:
    """Listens at `url` until the end of its `async with`. Nodes may be added at any time; without any it answers 502."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        """Where they listen: http://127.0.0.1:8080"""
        self.answers: list[int] = []
        """The status of every answer."""
        self._next = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        if not self.nodes:
            return web.Response(status=502)
        self._next += 1
        node = self.nodes[self._next % len(self.nodes)]
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        body = await request.read()
        try:
            async with self._session.request(
                request.method, f"{node}{request.path_qs}", data=body, headers=headers
            ) as answer:
                self.answers.append(answer.status)
                return web.Response(status=answer.status, body=await answer.read())
        except aiohttp.ClientError:
            self.answers.append(502)
            return web.Response(status=502)
