"""The HTTP server: health, metrics, webhook routes and body limits, over a real socket."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest

from adapters.base import Health, WebhookResponse, WebhookRoute
from adapters.memory import MemoryAdapter
from bot.health import HealthCheck
from bot.telemetry import Telemetry
from bot.web.app import PortTaken, WebServer, build
from config.names import AccountId
from config.settings import HttpSettings
from sessions.database.sqlite import SqliteDatabase
from tests.sessions.stores import lay_sqlite

LIMIT = 1000


class Heard(MemoryAdapter):
    def health(self):
        return Health("hearing", 1e12)


@pytest.fixture
async def database(tmp_path):
    database = await SqliteDatabase.open(lay_sqlite(tmp_path / "web.db"))
    yield database
    await database.close()


@asynccontextmanager
async def serving(database, routes=(), *, adapters=None, telemetry=None):
    health = HealthCheck(
        database, adapters if adapters is not None else {AccountId("memory.test"): Heard.alone()}
    )
    application = build(health, telemetry or Telemetry(), routes, max_body_bytes=LIMIT)
    server = WebServer(application, HttpSettings(port=0))
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
            yield client, health
    finally:
        await server.stop()


class Hook:
    """A webhook as an adapter asks for it."""

    def __init__(self, answer=WebhookResponse(200, b"taken")):
        self.calls = []
        self.answer = answer

    async def handle(self, headers, query, body):
        self.calls.append((headers, query, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @property
    def route(self):
        return WebhookRoute("/webhooks/main", "POST", self.handle)


async def test_healthz(database):
    """/healthz answers from the daemon's own loop."""
    async with serving(database) as (client, _), client.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok", "name": "palaver"})


async def test_readyz_while_ready_and_while_stopping(database):
    """/readyz is 200 with the details while ready, 503 with the reason while not."""
    async with serving(database) as (client, health):
        async with client.get("/readyz") as answer:
            details = await answer.json()
            assert (answer.status, details["status"]) == (200, "ready")
            assert details["accounts"]["memory.test"]["state"] == "hearing"
        health.is_stopping = True
        async with client.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["status"]) == (503, "stopping")


async def test_readyz_without_anybody_who_hears(database):
    """An adapter that has not heard anything yet makes it 503."""
    adapters = {AccountId("memory.test"): MemoryAdapter.alone()}
    async with serving(database, adapters=adapters) as (client, _), client.get("/readyz") as answer:
        assert (answer.status, (await answer.json())["status"]) == (503, "not ready")


async def test_metrics(database):
    """/metrics speaks Prometheus: what was counted, timed and is watched."""
    telemetry = Telemetry()
    telemetry.count_message("memory.main", "accepted")
    telemetry.count_chunk("memory.main", "sent")
    telemetry.observe_turn("completed", 0.2)
    telemetry.watch("turns_running", "Turns running now.", lambda: 3)
    async with serving(database, telemetry=telemetry) as (client, _), client.get("/metrics") as answer:
        text = await answer.text()
        assert answer.content_type == "text/plain"
    for line in (
        'palaver_messages_total{account="memory.main",outcome="accepted"} 1.0',
        'palaver_chunks_total{account="memory.main",outcome="sent"} 1.0',
        'palaver_turn_seconds_count{status="completed"} 1.0',
        "palaver_turns_running 3.0",
    ):
        assert line in text


async def test_other_paths_and_methods(database):
    """What is not there is 404, the wrong method 405; nothing is written from outside."""
    async with serving(database, [Hook().route]) as (client, _):
        for method, path, status in (
            ("GET", "/", 404),
            ("GET", "/webhooks/other", 404),
            ("POST", "/healthz", 405),
            ("GET", "/webhooks/main", 405),
        ):
            async with client.request(method, path) as answer:
                assert answer.status == status


async def test_a_webhook_goes_to_its_adapter(database):
    """The adapter gets lower-case headers, the query and the whole body, and its answer is given unchanged."""
    hook = Hook(WebhookResponse(202, b'{"ok":1}', "application/json"))
    async with (
        serving(database, [hook.route]) as (client, _),
        client.post("/webhooks/main?a=1", data=b"x" * LIMIT, headers={"X-Secret": "s"}) as answer,
    ):
        assert (answer.status, answer.content_type) == (202, "application/json")
        assert await answer.read() == b'{"ok":1}'
    headers, query, body = hook.calls[0]
    assert (headers["x-secret"], query, body) == ("s", {"a": "1"}, b"x" * LIMIT)


async def test_a_webhook_that_asks_for_later(database):
    """An answer with a wait carries Retry-After, a whole number of seconds and at least one."""
    hook = Hook(WebhookResponse(503, retry_after_s=0.2))
    async with serving(database, [hook.route]) as (client, _), client.post("/webhooks/main") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_body_that_says_it_is_too_large(database):
    """A body announced as too large is refused without being read, and never reaches the adapter."""
    hook = Hook()
    async with (
        serving(database, [hook.route]) as (client, _),
        client.post("/webhooks/main", data=b"x" * (LIMIT + 1)) as answer,
    ):
        assert answer.status == 413
        assert str(LIMIT) in await answer.text()
    assert hook.calls == []


async def test_a_body_that_turns_out_too_large(database):
    """A body without an announced length is cut off at the limit."""
    hook = Hook()

    async def stream():
        for _ in range(30):
            yield b"x" * 100

    async with (
        serving(database, [hook.route]) as (client, _),
        client.post("/webhooks/main", data=stream()) as answer,
    ):
        assert answer.status == 413
    assert hook.calls == []


async def test_a_length_that_is_none(database):
    """A nonsensical length is the server's to refuse; nothing reaches the adapter and the server goes on."""
    hook = Hook()
    async with serving(database, [hook.route]) as (client, _):
        port = client._base_url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /webhooks/main HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n")
        assert b"400" in await reader.readline()
        writer.close()
        async with client.get("/healthz") as answer:
            assert answer.status == 200
    assert hook.calls == []


async def test_a_webhook_that_breaks_costs_its_own_request(database):
    """A fault in an adapter's handler is a 500 to the platform, which will come again; the server goes on."""
    async with serving(database, [Hook(KeyError("inside")).route]) as (client, _):
        async with client.post("/webhooks/main", data=b"{}") as answer:
            assert answer.status == 500
            assert "inside" not in await answer.text()
        async with client.get("/healthz") as answer:
            assert answer.status == 200


async def test_a_taken_port_is_said_plainly(database):
    """Two servers cannot have one port: the second says which."""
    async with serving(database) as (client, _):
        port = client._base_url.port
        second = WebServer(
            build(HealthCheck(database, {}), Telemetry(), (), max_body_bytes=1), HttpSettings(port=port)
        )
        with pytest.raises(
            PortTaken, match=f"cannot listen on 127.0.0.1:{port}: Address already in use$"
        ) as told:
            await second.start()
        assert "http.port" in told.value.hint


@pytest.mark.parametrize("host", ["203.0.113.7", "nowhere.invalid"])
async def test_a_host_that_cannot_be_listened_on(database, host):
    """An address that is not this machine's is the same kind of mistake."""
    server = WebServer(
        build(HealthCheck(database, {}), Telemetry(), (), max_body_bytes=1),
        HttpSettings(host=host, port=0),
    )
    with pytest.raises(PortTaken, match=f"cannot listen on {host}:0: [^(]+$") as told:
        await server.start()
    assert "http.host" in told.value.hint


async def test_stopping_ends_open_connections(database):
    """A client that keeps its connection open does not hold up the end."""
    health = HealthCheck(database, {})
    server = WebServer(build(health, Telemetry(), (), max_body_bytes=1), HttpSettings(port=0))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await reader.readline()
    async with asyncio.timeout(8):
        await server.stop()
    writer.close()
