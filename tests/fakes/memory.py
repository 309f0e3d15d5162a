"""A counterparty for the memory adapter's bridge (`adapters/memory/bridge.py`): people on one side, HTTP on the other.

Its own process in kill loops (`python -m tests.fakes.memory --port N`), in the test's process otherwise. Keeps what
people wrote until it is acknowledged, shows each key once, and has the faults that tests need. Imports nothing of ours.

Control routes: POST /_control/say {"text", "channel"?, "person"?, "group"?, "mention"?, "message_id"?} -> {"message_id"}
· POST /_control/poison · POST /_control/faults {"lose_answers"?, "rate_limits"?: [seconds], "refusals"?, "is_down"?}
· GET /_control/sent · GET /_control/visible?channel= · GET /_control/state
"""

import argparse
import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Faults:
    lose_answers: int = 0
    """How many sends are done without an answer."""
    rate_limits: list[float] = field(default_factory=list)
    """Seconds to wait, one for each refused send."""
    refusals: int = 0
    is_down: bool = False


@dataclass
class Counterparty:
    token: str | None = None
    faults: Faults = field(default_factory=Faults)
    sent: list[dict[str, Any]] = field(default_factory=list)
    """Every /sent call that was not refused, repeats included, with the time it came."""
    typing: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: int = 0
    polls: int = 0

    def __post_init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []
        self._posted = 0
        self._shown: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Event()

    # people

    def say(
        self,
        text: str,
        *,
        channel: str | None = None,
        person: str = "ada",
        group: bool = False,
        mention: bool = False,
        message_id: str | None = None,
    ) -> str:
        """Somebody writes; returns the message's id."""
        message_id = message_id or f"h-{self._posted + 1}"
        self._post(
            {
                "channel": channel or ("group" if group else person),
                "message_id": message_id,
                "sender": {"user_id": person, "display_name": person.capitalize(), "username": person},
                "text": text,
                "sent_at_ms": time.time_ns() // 1_000_000,
                "channel_kind": "group" if group else "direct",
                "is_addressed": not group or mention or text.startswith("/"),
            }
        )
        return message_id

    def poison(self) -> None:
        """A message that is none."""
        self._post({"text": ["not", "a", "text"]})

    def visible(self, channel: str) -> list[str]:
        return [shown["text"] for shown in self._shown.values() if shown["channel"] == channel]

    def _post(self, message: dict[str, Any]) -> None:
        self._posted += 1
        self.waiting.append({"number": self._posted, "message": message})
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # the wire

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._gate], client_max_size=16 * 1024 * 1024)
        app.add_routes(
            [
                web.get("/inbound", self._inbound),
                web.post("/sent", self._sent),
                web.post("/edited", self._edited),
                web.post("/typing", self._typing),
                web.post("/_control/say", self._control_say),
                web.post("/_control/poison", self._control_poison),
                web.post("/_control/faults", self._control_faults),
                web.get("/_control/sent", self._control_sent),
                web.get("/_control/visible", self._control_visible),
                web.get("/_control/state", self._control_state),
            ]
        )
        return app

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/_control/"):
            if self.faults.is_down:
                raise web.HTTPServiceUnavailable
            if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
                raise web.HTTPUnauthorized
        response: web.StreamResponse = await handler(request)
        return response

    async def _inbound(self, request: web.Request) -> web.Response:
        after = int(request.query["after"])
        self.polls += 1
        self.acknowledged = max(self.acknowledged, after)
        self.waiting = [item for item in self.waiting if item["number"] > self.acknowledged]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(request.query.get("wait", "0"))):
                while not self.waiting and not self.faults.is_down:
                    await self._changed.wait()
        if self.faults.is_down:
            raise web.HTTPServiceUnavailable
        return web.json_response({"messages": self.waiting})

    async def _sent(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.faults.rate_limits:
            raise web.HTTPTooManyRequests(headers={"Retry-After": str(self.faults.rate_limits.pop(0))})
        if self.faults.refusals:
            self.faults.refusals -= 1
            raise web.HTTPForbidden
        self.sent.append({**body, "at_s": time.time()})
        shown = self._shown.setdefault(
            body["key"],
            {
                "message_id": f"b-{len(self._shown) + 1}",
                "channel": body["target"]["channel"],
                "text": body["text"],
            },
        )
        if self.faults.lose_answers:
            self.faults.lose_answers -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"message_id": shown["message_id"]})

    async def _edited(self, request: web.Request) -> web.Response:
        body = await request.json()
        for shown in self._shown.values():
            if shown["message_id"] == body["message_id"]:
                shown["text"] = body["text"]
                return web.json_response({})
        raise web.HTTPGone

    async def _typing(self, request: web.Request) -> web.Response:
        self.typing.append(await request.json())
        return web.json_response({})

    # control

    async def _control_say(self, request: web.Request) -> web.Response:
        return web.json_response({"message_id": self.say(**await request.json())})

    async def _control_poison(self, request: web.Request) -> web.Response:
        self.poison()
        return web.json_response({})

    async def _control_faults(self, request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            if name not in Faults.__dataclass_fields__:
                raise web.HTTPBadRequest(text=f"no fault is called {name}")
            setattr(self.faults, name, value)
        self._note_change()
        return web.json_response({})

    async def _control_sent(self, request: web.Request) -> web.Response:
        return web.json_response(self.sent)

    async def _control_visible(self, request: web.Request) -> web.Response:
        return web.json_response(self.visible(request.query["channel"]))

    async def _control_state(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"acknowledged": self.acknowledged, "waiting": len(self.waiting), "polls": self.polls}
        )

    def set_outage(self, on: bool) -> None:
        self.faults.is_down = on
        self._note_change()


@contextlib.asynccontextmanager
async def serve(counterparty: Counterparty, port: int = 0) -> AsyncIterator[str]:
    """Listen on loopback; yields the address for `api_url`."""
    runner = web.AppRunner(counterparty.application(), shutdown_timeout=0.2, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _main(port: int, token: str | None) -> None:
    """Serve until SIGTERM or SIGINT; the first line on stdout is {"url": …}."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(Counterparty(token=token), port) as url:
        print(json.dumps({"url": url}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--token")
    parsed = arguments.parse_args()
    asyncio.run(_main(parsed.port, parsed.token))
