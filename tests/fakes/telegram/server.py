"""`FakeTelegram`: the HTTP server, its faults at work and its journal being written.

It owns connections (answers, cuts, hangs, outages). The API's rules are in `methods`, people's acts in `people`,
what a test reads and waits for in `observation`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from aiohttp import web

from .control import control_routes
from .faults import Fault, FaultKind, FaultPlan, FloodLimits, FloodReport, too_many_requests
from .feed import Feed
from .methods import BotMethods
from .observation import Observation
from .parameters import Parameters, read_parameters
from .records import Call, Refusal, User, bad_request
from .state import StateFile
from .world import BOT_USERNAME, ChatRef, World

T = TypeVar("T")
Outage = Literal["refuse", "502"]
HOST = "127.0.0.1"
HTML_ERROR = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"
)
LOG = logging.getLogger(__name__)


class FakeTelegram(Observation):
    """See the package's docstring for everything it offers."""

    def __init__(
        self,
        token: str = "123456:TEST-fake-telegram-token",
        *,
        port: int = 0,
        control_port: int = 0,
        username: str = BOT_USERNAME,
        privacy_mode: bool = False,
        sees_bots: bool = False,
        state: Path | None = None,
        webhook_retry_s: float = 0.2,
    ) -> None:
        if not re.fullmatch(r"\d+:\S+", token):
            raise ValueError("a token looks like 123456:ABC, the number being the bot's id")
        self.token = token
        bot = User(
            int(token.partition(":")[0]), "Palaver", username=username, language_code=None, is_bot=True
        )
        self._state = StateFile(state) if state is not None else None
        world = (self._state.load() if self._state is not None else None) or World(bot)
        feed = Feed(world, self._notify, webhook_retry_s=webhook_retry_s)
        super().__init__(world, feed, privacy_mode=privacy_mode, sees_bots=sees_bots)
        self.internal_errors: list[str] = []
        """Faults of the fake itself; leaving `async with` raises if there were any."""
        self._methods = BotMethods(self, feed)
        self._port, self._control_port = port, control_port
        self._next_call = 1
        self._faults = FaultPlan()
        self._flood = FloodLimits()
        self._revoked = False
        self._outage: Outage | None = None
        self._api_runner: web.AppRunner | None = None
        self._control_runner: web.AppRunner | None = None
        self._reserved: socket.socket | None = None

    # running

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """For python-telegram-bot, which appends the token."""
        return f"{self.url}/bot"

    @property
    def base_file_url(self) -> str:
        return f"{self.url}/file/bot"

    @property
    def control_url(self) -> str:
        return f"http://{HOST}:{self._control_port}"

    async def start(self) -> Self:
        # bound for life but never listening: the port stays ours, and refuses, while an outage lasts
        self._reserved = _bound(self._port)
        self._port = self._reserved.getsockname()[1]
        await self._open_api()
        control = web.Application()
        control.add_routes(control_routes(self, may_close_api=True))
        listener = _bound(self._control_port)
        self._control_port = listener.getsockname()[1]
        self._control_runner = await _serve(control, listener)
        self.feed.start()
        return self

    async def stop(self) -> None:
        await self.feed.stop()
        for runner in (self._api_runner, self._control_runner):
            if runner is not None:
                await runner.cleanup()
        if self._reserved is not None:
            self._reserved.close()
        if self._state is not None:
            self._state.save(self.world)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None and self.internal_errors:
            raise AssertionError("the fake Telegram itself failed: " + "; ".join(self.internal_errors))

    async def _open_api(self) -> None:
        api = web.Application(client_max_size=64 * 1024 * 1024)
        api.add_routes(control_routes(self, may_close_api=False))
        api.router.add_route("*", r"/bot{token:[^/]+}/{method}", self._serve_method)
        api.router.add_get(r"/file/bot{token:[^/]+}/{path:.+}", self._serve_file)
        api.router.add_route("*", "/{anything:.*}", self._serve_nothing)
        self._api_runner = await _serve(api, _bound(self._port))

    # failing on purpose

    def fault(
        self,
        kind: FaultKind,
        method: str = "*",
        *,
        count: int | None = 1,
        probability: float = 1.0,
        seed: int = 0,
        skip: int = 0,
        chat: ChatRef | None = None,
        retry_after: int = 1,
        delay_s: float = 1.0,
        done: bool | None = None,
    ) -> int:
        """Makes the next `count` matching calls fail (None: until cleared); gives the fault's id.

        `skip` lets that many matching calls pass first. `done` says whether the call takes effect before it fails;
        by default it does for answer_lost, slow and garbage only. `delay_s` belongs to slow, `retry_after` to 429.
        """
        return self._faults.add(
            kind,
            method,
            count=count,
            probability=probability,
            seed=seed,
            skip=skip,
            chat_id=None if chat is None else self.world.chat(chat).id,
            retry_after=retry_after,
            delay_s=delay_s,
            done=done,
        )

    def clear_faults(self, fault_id: int | None = None) -> None:
        self._faults.clear(fault_id)

    def fault_hits(self, fault_id: int) -> int:
        """How many calls the fault has struck."""
        return self._faults.hits(fault_id)

    async def outage(self, kind: Outage | None) -> None:
        """'refuse' closes every connection and the port, '502' answers HTML to all, None ends the outage."""
        before, self._outage = self._outage, kind
        if kind == "refuse" and before != "refuse" and self._api_runner is not None:
            await self._api_runner.cleanup()
            self._api_runner = None
        elif kind != "refuse" and before == "refuse":
            await self._open_api()

    def revoke_token(self, revoked: bool = True) -> None:
        self._revoked = revoked

    def flood_limits(
        self,
        enabled: bool = True,
        *,
        bot_per_s: float = 30,
        private_per_s: float = 1,
        private_burst: int = 3,
        group_per_window: int = 20,
        group_window_s: float = 60,
        extension_s: float = 1,
    ) -> None:
        """Switches enforcement on or off and starts counting anew."""
        self._flood = FloodLimits(
            enabled, bot_per_s, private_per_s, private_burst, group_per_window, group_window_s, extension_s
        )

    def flood_report(self) -> FloodReport:
        return self._flood.report()

    def _notify(self) -> None:
        self._changed.set()
        if self._state is not None:
            self._state.save_soon(self.world)

    # serving

    async def _serve_nothing(self, _: web.Request) -> web.StreamResponse:
        return _answer(Refusal(404, "Not Found"))

    async def _serve_file(self, request: web.Request) -> web.StreamResponse:
        return await self._journaled(request, "download", lambda parameters: self._file_content(request))

    def _file_content(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        file = next((file for file in self.world.files.values() if file.path == path), None)
        if file is None:
            raise Refusal(404, "Not Found")
        return web.Response(body=file.content, content_type="application/octet-stream")

    async def _serve_method(self, request: web.Request) -> web.StreamResponse:
        asked = request.match_info["method"]
        method = self._methods.names.get(asked.lower(), asked)
        return await self._journaled(
            request, method, lambda parameters: self._methods.perform(method, parameters)
        )

    async def _journaled(
        self, request: web.Request, method: str, perform: Callable[[Parameters], Any]
    ) -> web.StreamResponse:
        call = Call(self._next_call, method, {}, time.time())
        self._next_call += 1
        self._journal.append(call)
        try:
            response = await self._judge(request, call, perform)
            if call.fault not in ("reset", "answer_lost"):
                call.status = response.status
        except Refusal as refusal:
            call.status, call.result = refusal.code, refusal.description
            response = _answer(refusal)
        except asyncio.CancelledError:
            call.result = "the client left"
            raise
        except Exception as error:
            LOG.exception("the fake Telegram failed at %s", method)
            self.internal_errors.append(f"{method}: {error!r}")
            call.status, call.result = 500, repr(error)
            response = _answer(Refusal(500, f"Internal Server Error: {error!r}"))
        finally:
            call.ended_at = time.time()
            self._notify()
        return response

    async def _judge(
        self, request: web.Request, call: Call, perform: Callable[[Parameters], Any]
    ) -> web.StreamResponse:
        """Everything that may befall a call, in the order in which Telegram's front and back would do it."""
        if self._outage == "502":
            call.fault = "502"
            return _html_error(502)
        token = request.match_info["token"]
        if not re.fullmatch(r"\d+:\S+", token):
            raise Refusal(404, "Not Found")
        if token != self.token or self._revoked:
            raise Refusal(401, "Unauthorized")
        try:
            parameters = await read_parameters(request)
        except (ValueError, UnicodeDecodeError):
            raise bad_request("can't parse the request's body") from None
        call.params = parameters.values
        if call.method != "download" and call.method.lower() not in self._methods.names:
            raise Refusal(404, "Not Found")
        fault = self._faults.pick(call.method, call.chat_id)
        if fault is not None:
            call.fault = fault.kind
            if not fault.done:
                return await self._fail(request, call, fault)
        result = await self._effect(call, parameters, perform)
        call.result = result if not isinstance(result, web.Response) else "content"
        self._notify()
        if fault is not None:
            failed = await self._fail(request, call, fault)
            if fault.kind != "slow":
                return failed
        if isinstance(result, web.Response):
            return result
        return web.json_response({"ok": True, "result": result})

    async def _effect(self, call: Call, parameters: Parameters, perform: Callable[[Parameters], Any]) -> Any:
        if self._flood.limits(call.method):
            chat = self.world.chats.get(call.chat_id) if isinstance(call.chat_id, int) else None
            before = self._flood.calls_inside_penalty
            try:
                self._flood.admit(call.chat_id, is_group=chat is not None and chat.type != "private")
            finally:
                call.inside_penalty = self._flood.calls_inside_penalty > before
        if call.method != "getUpdates":
            return perform(parameters)
        allowed = parameters.structure("allowed_updates")
        offset, limit = parameters.integer("offset") or 0, parameters.integer("limit") or 100
        return await self.feed.get_updates(offset, limit, parameters.integer("timeout") or 0, allowed)

    async def _fail(self, request: web.Request, call: Call, fault: Fault) -> web.StreamResponse:
        match fault.kind:
            case "429":
                scope = call.chat_id if isinstance(call.chat_id, int) else None
                self._flood.penalize(scope, fault.retry_after)
                self._flood.refused += 1
                raise too_many_requests(fault.retry_after)
            case "400":
                raise bad_request("injected by the test")
            case "403":
                raise Refusal(403, "Forbidden: bot was blocked by the user")
            case "500" | "502":
                return _html_error(int(fault.kind))
            case "hang":
                await asyncio.Event().wait()
                raise AssertionError("nobody sets this event; the client's leaving ends the wait")
            case "slow":
                await asyncio.sleep(fault.delay_s)
                return web.Response()
            case "garbage":
                return web.Response(body=b'{"ok": tru\x00\xff<!-- not JSON', content_type="application/json")
            case "reset" | "answer_lost":
                _cut(request, with_reset=fault.kind == "reset")
                return web.Response()


def _answer(refusal: Refusal) -> web.Response:
    return web.json_response(refusal.body(), status=refusal.code)


def _html_error(status: int) -> web.Response:
    title = {500: "500 Internal Server Error", 502: "502 Bad Gateway"}[status]
    return web.Response(status=status, text=HTML_ERROR.format(title), content_type="text/html")


def _cut(request: web.Request, *, with_reset: bool) -> None:
    """Ends the connection without an answer: by RST, or quietly by FIN."""
    transport = request.transport
    if transport is None:
        return
    if with_reset:
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
    else:
        transport.close()


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((HOST, port))
    return bound


async def _serve(app: web.Application, listener: socket.socket) -> web.AppRunner:
    # cancellation, so that a hanging call ends when its client leaves
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
