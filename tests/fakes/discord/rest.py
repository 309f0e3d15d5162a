"""The REST side of the wire: finds the route, lets faults and limits have their turn, checks the token, writes the answer.

What each route does is in ``routes``. The content type is exactly ``application/json``, because clients compare it whole.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from aiohttp import BodyPartReader, web

from tests.fakes.discord import errors
from tests.fakes.discord.exchange import Exchange, Reply, Route
from tests.fakes.discord.faults import Fault, Faults, RateLimits
from tests.fakes.discord.gateway import Gateway, abort
from tests.fakes.discord.interactions import Interactions
from tests.fakes.discord.messages import MessageBoard
from tests.fakes.discord.model import Call, Upload
from tests.fakes.discord.routes import ROUTES
from tests.fakes.discord.world import World

PREFIX = "/api/v10"
PROXY_PAGE = "<html><body><h1>{}</h1>The upstream server did not answer as it should.</body></html>"


class RestApi:
    """Answers ``/api/v10`` and the CDN, and keeps the journal."""

    def __init__(
        self,
        world: World,
        board: MessageBoard,
        interactions: Interactions,
        gateway: Gateway,
        faults: Faults,
        limits: RateLimits,
        token: str,
    ) -> None:
        self.world = world
        self.journal: list[Call] = []
        self.outage: Literal["status", "reset"] | None = None
        self.is_revoked = False
        self._board = board
        self._interactions = interactions
        self._gateway = gateway
        self._faults = faults
        self._limits = limits
        self._token = token
        self._release = asyncio.Event()
        self._is_stopping = False

    def routes(self) -> list[web.RouteDef]:
        table = [web.route(route.method, PREFIX + route.template, self._handler(route)) for route in ROUTES]
        return [
            *table,
            web.get("/cdn/attachments/{channel_id}/{attachment_id}/{filename}", self._download),
            web.route("*", "/{tail:.*}", self._nowhere),
        ]

    def release_hangs(self, *, for_good: bool = False) -> None:
        self._is_stopping = self._is_stopping or for_good
        self._release.set()
        self._release = asyncio.Event()

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._answer(route, request)

        return handle

    async def _answer(self, route: Route, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix(PREFIX)
        call = Call(self.world.clock.now_s(), route.method, route.template, path, dict(request.query), None)
        fault: Fault | None = None
        headers = {"Via": "1.1 google"}
        uploads: list[Upload] = []
        unreadable: errors.ApiError | None = None
        try:
            call.body, uploads = await read_body(request)
        except errors.ApiError as refusal:
            unreadable = refusal
        self._note(call)
        try:
            if self.outage == "reset":
                return self._cut(call, request)
            if self.outage == "status":
                return self._page(call, 503)
            fault = self._faults.draw(route.method, route.template, path)
            call.fault = fault.kind if fault else None
            answered = await self._fail_before(fault, route, call, request)
            if answered is not None:
                return answered
            if route.needs_token and (
                request.headers.get("Authorization") != f"Bot {self._token}" or self.is_revoked
            ):
                raise errors.unauthorized()
            verdict = self._limits.judge(route.method, route.template, path, major_parameters(request))
            headers |= verdict.headers
            call.in_penalty = verdict.in_penalty
            if verdict.retry_after_s is not None:
                return self._too_many(
                    call, verdict.retry_after_s, is_global=verdict.is_global, headers=headers
                )
            if unreadable is not None:
                raise unreadable
            exchange = Exchange(
                self.world,
                self._board,
                self._interactions,
                self._gateway,
                request.match_info,
                request.query,
                call.body,
                uploads,
            )
            reply = route.answer(exchange)
        except errors.ApiError as refusal:
            call.code = refusal.code
            reply = Reply(refusal.status, refusal.body())
        call.result_id = reply.result_id
        return await self._fail_after(fault, call, request, reply, headers)

    async def _fail_before(
        self, fault: Fault | None, route: Route, call: Call, request: web.Request
    ) -> web.StreamResponse | None:
        """Carry out what happens before a request is handled; None: go on and handle it."""
        if fault is None:
            return None
        if fault.kind == "status":
            return self._page(call, fault.status)
        if fault.kind == "cloudflare":
            call.status = 429
            return web.Response(status=429, text="error code: 1015", content_type="text/html")
        if fault.kind in ("rate_limit", "global_rate_limit"):
            everywhere = fault.kind == "global_rate_limit"
            major = major_parameters(request)
            self._limits.penalise(
                route.method, route.template, major, fault.retry_after_s, everywhere=everywhere
            )
            return self._too_many(
                call, fault.retry_after_s, is_global=everywhere, headers={"Via": "1.1 google"}
            )
        if fault.kind == "garbage":
            call.status = 200
            return web.Response(text=PROXY_PAGE.format("OK"), content_type="text/html")
        if fault.kind == "reset":
            return self._cut(call, request)
        if fault.kind == "hang":
            await self._until_released()
            return self._cut(call, request)
        if fault.kind == "slow":
            await asyncio.sleep(fault.delay_s)
        return None

    async def _fail_after(
        self, fault: Fault | None, call: Call, request: web.Request, reply: Reply, headers: dict[str, str]
    ) -> web.StreamResponse:
        kind = fault.kind if fault else None
        if kind == "lost_answer":
            return self._cut(call, request)
        if kind == "late_answer" and fault is not None:
            await asyncio.sleep(fault.delay_s)
        call.status = reply.status
        self.world.note_change()
        if reply.status == 204:
            return web.Response(status=204, headers=headers)
        content = json.dumps(reply.body).encode()
        if kind == "garbled_answer":
            content = content[: len(content) // 2]
        return web.Response(
            status=reply.status, body=content, content_type="application/json", headers=headers
        )

    async def _until_released(self) -> None:
        if not self._is_stopping:
            await self._release.wait()

    def _cut(self, call: Call, request: web.Request) -> web.StreamResponse:
        call.status = 0
        abort(request.transport, reset=True)
        return web.Response()

    def _page(self, call: Call, status: int) -> web.StreamResponse:
        call.status = status
        text = PROXY_PAGE.format(status)
        return web.Response(status=status, text=text, content_type="text/html", headers={"Via": "1.1 google"})

    def _too_many(
        self, call: Call, retry_after_s: float, *, is_global: bool, headers: dict[str, str]
    ) -> web.StreamResponse:
        call.status = 429
        retry_after_s = math.ceil(retry_after_s * 1000) / 1000
        content = {
            "message": "You are being rate limited.",
            "retry_after": retry_after_s,
            "global": is_global,
        }
        headers = headers | {
            "Retry-After": str(math.ceil(retry_after_s)),
            "X-RateLimit-Scope": "global" if is_global else "user",
        }
        if is_global:
            headers["X-RateLimit-Global"] = "true"
        return web.Response(
            status=429, body=json.dumps(content).encode(), content_type="application/json", headers=headers
        )

    def _note(self, call: Call) -> None:
        self.journal.append(call)
        self.world.note_change()

    async def _download(self, request: web.Request) -> web.StreamResponse:
        content = self.world.files.get(request.match_info["attachment_id"])
        try:
            expires_at_s = int(request.query.get("ex", "0"), 16)
        except ValueError:
            expires_at_s = 0
        if content is None or expires_at_s < self.world.clock.now_s():
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=content, content_type="application/octet-stream")

    async def _nowhere(self, request: web.Request) -> web.StreamResponse:
        call = Call(
            self.world.clock.now_s(), request.method, request.path, request.path, dict(request.query), None
        )
        call.status, call.code = 404, 0
        self._note(call)
        return web.Response(
            status=404, body=json.dumps(errors.not_found().body()).encode(), content_type="application/json"
        )


def major_parameters(request: web.Request) -> str:
    """What rate limit buckets are kept apart by. Source: Discord reference, "Rate Limits"."""
    names = ("channel_id", "guild_id", "webhook_id", "webhook_token", "interaction_id")
    return "+".join(request.match_info[name] for name in names if name in request.match_info)


async def read_body(request: web.Request) -> tuple[Any, list[Upload]]:
    """JSON, or multipart with ``payload_json`` and files."""
    if request.content_type == "multipart/form-data":
        body: Any = {}
        uploads: list[Upload] = []
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise errors.invalid_json()
            content = await part.read(decode=False)
            if part.name == "payload_json":
                body = parse_json(content)
            else:
                kind = part.headers.get("Content-Type", "application/octet-stream")
                uploads.append(Upload(part.filename or "unknown", bytes(content), kind))
        return body, uploads
    raw = await request.read()
    return (parse_json(raw) if raw else None), []


def parse_json(raw: bytes | bytearray) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        raise errors.invalid_json() from None
