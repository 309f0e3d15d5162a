"""The pinboard of `docs/howto/example_adapter.py`, as a server: people on one side, HTTP on the other.

Keeps every post, shows each idempotency key once, and has the faults that the conformance suite asks for.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

TOKEN = "pinboard-token"
BOT = {"id": "u-bot", "name": "palaver", "is_bot": True}
ADA = {"id": "u-ada", "name": "Ada"}


class Pinboard:
    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.lose_answers = 0
        self.rate_limits: list[float] = []
        self.refusals = 0
        self.is_down = False
        self.accepts_token = True
        self._by_key: dict[str, str] = {}
        self._changed = asyncio.Event()

    # people

    def say(self, text: str, *, room: str = "ada", is_private: bool = True, mention: bool = False) -> str:
        """Ada writes; gives the post's id."""
        return self._add(room, ADA, f"@{BOT['name']} {text}" if mention else text, is_private=is_private)

    def poison(self) -> None:
        """A post whose fields are not what they should be."""
        self._add("ada", ADA, "")
        self.posts[-1]["text"] = ["not", "a", "text"]

    def visible(self, room: str) -> list[str]:
        return [post["text"] for post in self.posts if post["room"] == room and post["author"] == BOT]

    def set_outage(self, on: bool) -> None:
        self.is_down = on
        self._note_change()

    def _add(self, room: str, author: dict[str, Any], text: str, *, is_private: bool = True) -> str:
        number = len(self.posts) + 1
        self.posts.append(
            {
                "number": number,
                "id": f"p-{number}",
                "room": room,
                "is_private": is_private,
                "author": author,
                "text": text,
                "written_at": datetime.now(UTC).isoformat(),
            }
        )
        self._note_change()
        return f"p-{number}"

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # the wire

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._gate], client_max_size=16 * 1024 * 1024)
        app.add_routes(
            [
                web.get("/me", self._me),
                web.get("/posts", self._posts),
                web.post("/rooms/{room}/posts", self._post),
                web.put("/posts/{id}", self._edit),
            ]
        )
        return app

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.is_down:
            raise web.HTTPServiceUnavailable
        if not self.accepts_token or request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        response: web.StreamResponse = await handler(request)
        return response

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response(BOT)

    async def _posts(self, request: web.Request) -> web.Response:
        after = int(request.query["after"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(request.query["wait"])):
                while len(self.posts) <= after and not self.is_down:
                    await self._changed.wait()
        if self.is_down:
            raise web.HTTPServiceUnavailable
        return web.json_response({"posts": self.posts[after:]})

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.rate_limits:
            raise web.HTTPTooManyRequests(headers={"Retry-After": str(self.rate_limits.pop(0))})
        if self.refusals:
            self.refusals -= 1
            raise web.HTTPForbidden
        if len(body["text"]) > 2000:
            raise web.HTTPBadRequest
        key = request.headers["Idempotency-Key"]
        if key not in self._by_key:
            self._by_key[key] = self._add(request.match_info["room"], BOT, body["text"])
        if self.lose_answers:
            self.lose_answers -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"id": self._by_key[key]}, status=201)

    async def _edit(self, request: web.Request) -> web.Response:
        body = await request.json()
        for post in self.posts:
            if post["id"] == request.match_info["id"]:
                post["text"] = body["text"]
                return web.json_response({})
        raise web.HTTPNotFound


@contextlib.asynccontextmanager
async def serve(pinboard: Pinboard) -> AsyncIterator[str]:
    """Listen on loopback; yields the address for `api_url`."""
    runner = web.AppRunner(pinboard.application(), shutdown_timeout=0.2, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
