"""Hearing by webhook: Telegram's calls over real HTTP, their secret, and the watch over the registration."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from adapters.base import IntakeClosed
from adapters.errors import StartError
from adapters.telegram.webhook import SECRET_HEADER, public_url
from tests.adapters.recording import RecordingIntake
from tests.adapters.telegram.world import ACCOUNT, make_adapter, running, until
from tests.fakes.telegram import FakeTelegram

SECRET = "s3cret_of-the-test"


@pytest.fixture
async def telegram():
    async with FakeTelegram(webhook_retry_s=0.05) as telegram:
        yield telegram


@pytest.fixture
def ada(telegram):
    return telegram.user("Ada", username="ada")


@pytest.fixture
def chat(telegram, ada):
    return telegram.private_chat(ada)


class Site:
    """The daemon's HTTP server, as far as an adapter's routes need one."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.answers = []

    @asynccontextmanager
    async def serving(self, adapter):
        async def handle(request: web.Request) -> web.Response:
            headers = {name.lower(): value for name, value in request.headers.items()}
            answer = await route.handle(headers, dict(request.query), await request.read())
            self.answers.append(answer)
            further = {} if answer.retry_after_s is None else {"Retry-After": str(answer.retry_after_s)}
            return web.Response(status=answer.status, body=answer.body, headers=further)

        (route,) = adapter.routes
        app = web.Application()
        app.router.add_route(route.method, route.path, handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        await web.SockSite(runner, self.listener).start()
        try:
            yield route
        finally:
            await runner.cleanup()


@asynccontextmanager
async def hooked(telegram, intake=None, **settings):
    """An adapter in webhook mode, served and running."""
    site = Site()
    adapter = make_adapter(telegram, webhook_url=site.url, **settings)
    async with site.serving(adapter) as route, running(adapter, intake) as heard:
        yield site, adapter, route, heard


async def call(site, route, body, secret=SECRET):
    headers = {} if secret is None else {SECRET_HEADER: secret}
    async with (
        aiohttp.ClientSession() as session,
        session.post(site.url + route.path, data=body, headers=headers) as response,
    ):
        return response


def test_polling_has_no_route():
    """Without webhook_url nothing is served."""
    assert make_adapter(FakeTelegram()).routes == ()


async def test_messages_come_in_order_over_the_webhook(telegram, ada, chat):
    """What people write is delivered in order and taken off Telegram's list only then."""
    async with hooked(telegram) as (site, adapter, route, intake):
        assert route.path == "/webhooks/main"
        for number in range(10):
            telegram.say(ada, chat, f"message {number}")
        await intake.wait_for(10)
        await telegram.wait_until_confirmed()
        assert adapter.health().state == "hearing"
        webhook = telegram.world.webhook
        assert webhook.max_connections == 1
        assert webhook.url == site.url + "/webhooks/main"
        assert telegram.world.allowed_updates == ["message", "edited_message", "callback_query"]
    assert intake.texts == [f"message {number}" for number in range(10)]
    assert intake.duplicates == []
    assert telegram.calls("getUpdates") == []


async def test_the_secret_is_made_once_and_kept(telegram):
    """Without a configured secret one is made at the first start and used at every later one."""
    intake = RecordingIntake()
    secrets = []
    for _ in range(2):
        async with hooked(telegram, intake):
            secrets.append(telegram.world.webhook.secret_token)
    assert secrets[0] == secrets[1] == intake.cursors[ACCOUNT, "webhook_secret"]
    assert len(secrets[0]) >= 32


async def test_a_configured_secret_and_path_are_used(telegram, ada, chat):
    """webhook_secret and webhook_path of the settings are what Telegram is told."""
    async with hooked(telegram, webhook_secret=SECRET, webhook_path="telegram/in") as (
        site,
        _,
        route,
        intake,
    ):
        telegram.say(ada, chat, "hi")
        await intake.wait_for(1)
        assert telegram.world.webhook.secret_token == SECRET
        assert (route.path, telegram.world.webhook.url) == ("/telegram/in", site.url + "/telegram/in")
        assert (ACCOUNT, "webhook_secret") not in intake.cursors


@pytest.mark.parametrize(
    ("secret", "status"), [(None, 401), ("wrong", 403), ("", 403), (SECRET + "x", 403), ("\xe9" * 8, 403)]
)
async def test_a_forged_call_is_refused(telegram, secret, status):
    """A call without the right secret reaches nobody, whatever it says."""
    async with hooked(telegram, webhook_secret=SECRET) as (_, _, route, intake):
        headers = {} if secret is None else {SECRET_HEADER: secret}
        body = json.dumps({"update_id": 1, "message": {}}).encode()
        answer = await route.handle(headers, {}, body)
        assert answer.status == status
        assert (intake.messages, intake.quarantined) == ([], [])


async def test_a_body_that_is_no_json_is_kept_and_answered(telegram):
    """Telegram would send a malformed body for ever, so it is quarantined and answered 200."""
    bodies = [b"not json", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b'{"update_id": 1, "message": {}}']
    async with hooked(telegram, webhook_secret=SECRET) as (site, _, route, intake):
        for body in bodies:
            assert (await call(site, route, body)).status == 200
    assert len(intake.quarantined) == len(bodies)
    assert [raw for _, raw, _ in intake.quarantined][:3] == bodies[:3]


async def test_a_closed_intake_is_answered_503(telegram, ada, chat):
    """While nothing can be stored Telegram is told to come again, and the message arrives afterwards, once."""
    async with hooked(telegram) as (site, _, _, intake):
        await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)
        intake.close(retry_after_s=7)
        telegram.say(ada, chat, "first")
        telegram.say(ada, chat, "second")
        await until(lambda: len(site.answers) >= 2)
        assert {answer.status for answer in site.answers} == {503}
        assert site.answers[0].retry_after_s == 7
        intake.open()
        await intake.wait_for(2)
        await telegram.wait_until_confirmed()
    assert intake.texts == ["first", "second"]


@pytest.mark.parametrize("error", [RuntimeError("bug"), IntakeClosed("full")])
async def test_200_means_taken_in(telegram, ada, chat, error):
    """Any failure of the intake is a 503: nothing is confirmed that is not durable."""
    async with hooked(telegram) as (site, _, _, intake):
        await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)
        intake.fail_next(error)
        telegram.say(ada, chat, "hi")
        await intake.wait_for(1)
        await telegram.wait_until_confirmed()
    assert [answer.status for answer in site.answers] == [503, 200]


async def test_200_waits_for_the_intake(telegram, ada, chat):
    """While `deliver` is under way Telegram has no answer, and a second call waits behind it."""
    async with hooked(telegram, webhook_secret=SECRET) as (site, _, route, intake):
        await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)
        intake.hold()
        telegram.say(ada, chat, "held")
        poison = asyncio.create_task(call(site, route, b"poison"))
        await asyncio.sleep(0.2)
        assert site.answers == []
        intake.release()
        await intake.wait_for(1)
        assert (await poison).status == 200


class SlowAtFirst(RecordingIntake):
    """Its first delivery takes longer than the second."""

    async def deliver(self, message):
        await asyncio.sleep(0.2 if message.text == "first" else 0)
        return await super().deliver(message)


async def test_calls_at_the_same_time_are_taken_in_order(telegram):
    """Should Telegram open two connections after all, the later call does not overtake the earlier one."""
    async with hooked(telegram, SlowAtFirst(), webhook_secret=SECRET) as (_, _, route, intake):
        calls = [
            route.handle({SECRET_HEADER: SECRET}, {}, json.dumps(update(number, text)).encode())
            for number, text in enumerate(("first", "second"), start=1)
        ]
        assert [answer.status for answer in await asyncio.gather(*calls)] == [200, 200]
    assert intake.texts == ["first", "second"]


def update(number, text):
    sender = {"id": 7, "is_bot": False, "first_name": "Ada"}
    chat = {"id": 7, "type": "private"}
    message = {"message_id": number, "date": 1, "chat": chat, "from": sender, "text": text}
    return {"update_id": number, "message": message}


async def test_before_and_after_the_run_nothing_is_taken(telegram):
    """A route that outlives `run` refuses, so that Telegram keeps what it has."""
    adapter = make_adapter(telegram, webhook_url="https://bot.example.org", webhook_secret=SECRET)
    (route,) = adapter.routes
    headers = {SECRET_HEADER: SECRET}
    assert (await route.handle(headers, {}, b"{}")).status == 503
    intake = RecordingIntake()
    async with running(adapter, intake):
        pass
    answer = await route.handle(headers, {}, b"{}")
    assert answer.status == 503
    assert answer.retry_after_s
    assert intake.quarantined == []


async def test_a_webhook_that_vanished_is_set_again(telegram, ada, chat):
    """If somebody deletes the registration, the next check restores it."""
    with capture_logs() as logs:
        async with hooked(telegram) as (_, adapter, _, intake):
            await adapter._bot.delete_webhook()
            telegram.say(ada, chat, "meanwhile")
            await intake.wait_for(1)
    assert [entry for entry in logs if entry["event"] == "adapter.webhook_lost"]


async def test_deliveries_that_fail_show_in_health(telegram, ada, chat):
    """When Telegram reports that it cannot reach us, health says so with its words; and again when it can."""
    site = Site()
    adapter = make_adapter(telegram, webhook_url=site.url)
    async with running(adapter) as intake:
        telegram.say(ada, chat, "nobody listens")
        await until(lambda: adapter.health().state == "retrying")
        assert "Telegram cannot deliver" in adapter.health().detail
        async with site.serving(adapter):
            await intake.wait_for(1)
            await until(lambda: adapter.health().state == "hearing")


async def test_another_secret_at_telegram_is_replaced(telegram, ada, chat):
    """A registration with a secret that is not ours is set again, and the messages refused meanwhile arrive."""
    async with hooked(telegram) as (site, adapter, route, intake):
        await adapter._bot.set_webhook(site.url + route.path, secret_token="somebody_elses")
        telegram.say(ada, chat, "hi")
        await until(lambda: bool(site.answers))
        assert site.answers[0].status == 403
        await intake.wait_for(1)


async def test_a_start_in_an_outage_takes_calls_as_soon_as_it_may(telegram, ada, chat):
    """With the name known from an earlier start, calls are taken in while the API itself cannot be reached."""
    intake = RecordingIntake()
    async with hooked(telegram, intake, webhook_secret=SECRET):
        await intake.wait_until(lambda: (ACCOUNT, "identity") in intake.cursors)
    await telegram.outage("refuse")
    adapter = make_adapter(telegram, webhook_url="https://bot.example.org", webhook_secret=SECRET)
    (route,) = adapter.routes
    async with running(adapter, intake, hearing=False):
        await until(lambda: adapter.health().state == "retrying")
        answer = await route.handle({SECRET_HEADER: SECRET}, {}, json.dumps(update(1, "hi")).encode())
        assert answer.status == 200
    assert intake.texts == ["hi"]


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("https://bot.example.org", "https://bot.example.org/webhooks/main"),
        ("https://bot.example.org/", "https://bot.example.org/webhooks/main"),
        ("https://example.org/through/a/proxy", "https://example.org/through/a/proxy"),
    ],
)
def test_the_public_address(setting, url):
    """The path is added to a bare address; an address with a path of its own is taken as it is."""
    assert public_url(setting, "/webhooks/main") == url


@pytest.mark.parametrize("secret", ["has space", "ümlaut", "x" * 257])
def test_a_secret_that_telegram_does_not_take(secret):
    """Such a secret is an error at the start, with what to do."""
    with pytest.raises(StartError) as caught:
        make_adapter(FakeTelegram(), webhook_url="https://e.org", webhook_secret=secret)
    assert caught.value.hint
