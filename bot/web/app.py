"""The HTTP server inside the daemon's own loop: health, metrics and the webhook routes that adapters ask for.

Owns routes, body limits and the server's start and stop. uvicorn would take SIGINT and SIGTERM for itself; the daemon keeps them.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from adapters.base import WebhookRoute
from bot.health import HealthCheck
from bot.telemetry import Telemetry
from config.settings import HttpSettings

log = structlog.get_logger()


class BodyTooLarge(Exception):
    """The request's body is over the limit."""


class PortTaken(Exception):
    """The address cannot be listened on; `hint` says what to do."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]  # words that Python adds
        super().__init__(f"cannot listen on {host}:{port}: {reason}")
        match error.errno:
            case errno.EADDRINUSE:
                self.hint = "Another program has it: set http.port (PALAVER_HTTP__PORT) to a free one, or http.enabled to false."
            case errno.EACCES:
                self.hint = (
                    "Ports below 1024 are for root: set http.port (PALAVER_HTTP__PORT) to a higher one."
                )
            case _:
                self.hint = "Set http.host (PALAVER_HTTP__HOST) to an address of this machine: 127.0.0.1, or 0.0.0.0 for all."


def build(
    health: HealthCheck, telemetry: Telemetry, routes: Sequence[WebhookRoute], *, max_body_bytes: int
) -> Starlette:
    """The web application."""

    async def healthz(_request: Request) -> Response:
        # That this answers is the proof: it runs in the daemon's loop. The name tells `palaver doctor` whose port it is.
        return JSONResponse({"status": "ok", "name": "palaver"})

    async def readyz(_request: Request) -> Response:
        report = await health.report()
        return JSONResponse(dict(report.details), status_code=200 if report.is_ready else 503)

    async def metrics(_request: Request) -> Response:
        return Response(telemetry.exposition(), media_type=telemetry.content_type)

    return Starlette(
        routes=[
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            *(_webhook(route, max_body_bytes) for route in routes),
        ]
    )


def _webhook(route: WebhookRoute, max_body_bytes: int) -> Route:
    async def serve(request: Request) -> Response:
        try:
            body = await read_body(request, max_body_bytes)
        except BodyTooLarge:
            return PlainTextResponse(f"The body is larger than {max_body_bytes} bytes.", status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)
        answer = await route.handle(dict(request.headers), dict(request.query_params), body)
        headers = (
            {} if answer.retry_after_s is None else {"retry-after": str(max(1, round(answer.retry_after_s)))}
        )
        return Response(answer.body, answer.status, headers, media_type=answer.content_type)

    return Route(route.path, serve, methods=[route.method])


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises: BodyTooLarge as soon as it is known to be, without reading the rest."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise BodyTooLarge
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise BodyTooLarge
    return bytes(body)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """Serves the application until told to stop."""

    def __init__(self, application: Starlette, settings: HttpSettings) -> None:
        self._settings = settings
        self._server = _Server(
            uvicorn.Config(
                application,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    async def start(self) -> None:
        """Raises: PortTaken with a sentence when the address cannot be had."""
        host, port = self._settings.host, self._settings.port
        try:
            self._socket = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
            )
        except OSError as error:
            raise PortTaken(host, port, error) from error
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        log.info("http.started", host=host, port=self.port)

    async def stop(self) -> None:
        if self._task is not None:
            self._server.should_exit = True
            await self._task
        if self._socket is not None:
            self._socket.close()
