"""The composition root: what starts, what a fault takes down, and how it all ends."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from structlog.testing import capture_logs

from adapters.memory import MemoryAdapter
from bot.agents.llm import loading
from bot.app import TERMINAL, App, accounts_of, check, make_agent, serve
from bot.catalogue import CatalogueError
from bot.stores import open_database, open_leases, sqlite_path
from bot.web.app import PortTaken
from config.errors import ConfigError
from config.names import AccountId
from config.settings import AccountSettings, Settings
from sessions import inbox, quarantine, statistics, tokens
from sessions.scope import OperatorScope
from sessions.statistics import Subject

ACCOUNT = AccountId("memory.main")
OTHER = AccountId("memory.other")


@pytest.fixture
def url(place):
    """The address of an empty database, of each kind."""
    return place("palaver")


def make_settings(url, **sections):
    return Settings.model_validate(
        {
            "database_url": url if isinstance(url, str) else f"sqlite://{url}/palaver.db",
            "accounts": {"main": {"platform": "memory"}, "other": {"platform": "memory"}},
            "agent": {"kind": "scripted"},
            "http": {"port": 0},
            "shutdown_after_s": 2,
            **sections,
        }
    )


@asynccontextmanager
async def daemon(url, *, prepare=lambda app: None, **sections):
    settings = make_settings(url, **sections)
    app = App(
        settings,
        await open_database(settings),
        accounts_of(settings),
        lease_database=await open_leases(settings),
        adapter_restart_s=0.1,
    )
    prepare(app)
    try:
        await app.start()
        yield app
    finally:
        await app.close()


async def ready(app):
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{app.web.port}/readyz") as answer,
    ):
        return answer.status, await answer.json()


async def until(holds, timeout_s=5):
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.01)


async def test_start_answer_stop(url):
    """A daemon starts, is ready, answers on every account, and lets go of port and file when it stops."""
    with capture_logs() as logs:
        async with daemon(url) as app:
            assert await app.adapters[ACCOUNT].ask("hello") == ["echo: hello"]
            assert await app.adapters[OTHER].ask("hello") == ["echo: hello"]
            status, details = await ready(app)
            assert (status, details["status"]) == (200, "ready")
            port = app.web.port
    events = [entry["event"] for entry in logs]
    assert (
        events.index("http.started")
        < events.index("daemon.started")
        < events.index("gateway.message_received")
    )
    assert events[-1] == "daemon.stopped"
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    async with daemon(url) as again:
        assert again.database is not app.database


async def test_the_vocabulary_is_read_before_anybody_waits(tmp_path, monkeypatch):
    """Reading it holds the interpreter, so it is there before the port is open, recovery runs and an account hears."""
    read_when = []

    async with AsyncExitStack() as stack:
        settings = make_settings(tmp_path)
        app = App(settings, await open_database(settings), accounts_of(settings))
        stack.push_async_callback(app.close)

        def is_exact():
            read_when.append((app.web.port, [one.health().state for one in app.adapters.values()]))
            return True

        monkeypatch.setattr(tokens, "is_exact", is_exact)
        before = app.web.port
        await app.start()
        assert app.web.port != before
    assert read_when == [(before, ["starting", "starting"])]


async def test_each_account_answers_for_itself(url):
    """Two accounts of one platform are two bots: a person's conversations with them do not mix."""
    async with daemon(url) as app:
        await app.adapters[ACCOUNT].ask("hello")
        assert "nothing to show" in (await app.adapters[OTHER].ask("/history"))[0]


async def test_the_statistics_know_how_often_the_cache_helped(url):
    """What the memory of hot sessions did stands in the statistics, whenever it was written down and at the end."""
    async with daemon(url) as app:
        for number in range(8):
            await app.adapters[ACCOUNT].ask(f"hello {number}")
            if number == 3:
                await app.upkeep.count_cache()
                await app.upkeep.count_cache()
    database = await open_database(make_settings(url))
    try:
        read = await database.read(
            lambda tx: statistics.read(tx, OperatorScope(), Subject(), int(time.time() * 1000))
        )
    finally:
        await database.close()
    assert read.cache_hit_rate == 7 / 8


async def test_a_fault_takes_down_one_adapter_and_it_comes_back(url):
    """An adapter that raises is started again after a pause; the others hear all the while; /readyz says degraded."""
    tries = []

    class Stumbling(MemoryAdapter):
        async def run(self, intake):
            tries.append(1)
            if len(tries) < 3:
                await asyncio.sleep(0.05)
                raise RuntimeError("a mistake")
            await super().run(intake)

    def prepare(app):
        app.adapters[OTHER] = Stumbling(OTHER, AccountSettings(platform="memory"), lambda _: ())

    with capture_logs() as logs:
        async with daemon(url, prepare=prepare) as app:
            assert await app.adapters[ACCOUNT].ask("one") == ["echo: one"]

            async def is_degraded():
                return (await ready(app))[1]["status"] == "degraded"

            await until(is_degraded)
            assert await app.adapters[ACCOUNT].ask("two") == ["echo: two"]

            async def is_ready():
                return (await ready(app))[1]["status"] == "ready"

            await until(is_ready)
            assert (await app.adapters[OTHER].say("three")).outcome == "accepted"
    failures = [entry for entry in logs if entry["event"] == "adapter.failed"]
    assert [entry["account"] for entry in failures] == [OTHER, OTHER]


async def test_a_restart_takes_up_what_was_left(url):
    """A turn that was cut off at the end is answered by the next daemon."""
    async with daemon(url, shutdown_after_s=0.1) as app:
        await app.adapters[ACCOUNT].say("delay=1 late")
        room = app.adapters[ACCOUNT].room

    def prepare(app):
        app.adapters[ACCOUNT]._wire = app.adapters[ACCOUNT]._room = room

    async with daemon(url, prepare=prepare) as app:
        assert (await app.adapters[ACCOUNT].wait_for_reply()).text == "echo: late"


async def test_the_end_lets_running_turns_finish(url):
    """Within its time a running turn is finished and its reply sent before the daemon is gone; nothing new is begun."""
    with capture_logs() as logs:
        async with daemon(url) as app:
            await app.adapters[ACCOUNT].say("delay=0.4 almost")
    assert app.adapters[ACCOUNT].messages() == ["echo: almost"]
    stopped = next(entry for entry in logs if entry["event"] == "daemon.stopped")
    assert (stopped["turns_cut_off"], stopped["channels_unsent"]) == (0, 0)


async def test_wait_ends_when_every_input_has_ended(url):
    """When all adapters are through with their input the daemon is done; while one still hears it is not."""
    gates = {ACCOUNT: asyncio.Event(), OTHER: asyncio.Event()}

    class Ending(MemoryAdapter):
        async def run(self, intake):
            await gates[self.account].wait()

    def prepare(app):
        for account in gates:
            app.adapters[account] = Ending(account, AccountSettings(platform="memory"), lambda _: ())

    async with daemon(url, prepare=prepare) as app:
        waiting = asyncio.create_task(app.wait())
        gates[ACCOUNT].set()
        await asyncio.sleep(0.05)
        assert not waiting.done()
        gates[OTHER].set()
        await asyncio.wait_for(waiting, 2)


async def test_wait_ends_when_somebody_stops_it(url):
    """`stop` ends the wait at once."""
    async with daemon(url) as app:
        waiting = asyncio.create_task(app.wait())
        await asyncio.sleep(0.02)
        app.stop()
        await asyncio.wait_for(waiting, 2)


async def test_parts_that_end_badly_keep_nobody_from_their_end(url):
    """An adapter or agent that fails while closing is told of; the port, the other parts and the store are let go of."""

    class Clinging(MemoryAdapter):
        async def close(self):
            raise RuntimeError("will not let go")

    def prepare(app):
        app.adapters[OTHER] = Clinging(OTHER, AccountSettings(platform="memory"), lambda _: ())

        async def fail():
            raise OSError("nor will I")

        app._agents[None].close = fail

    with capture_logs() as logs:
        async with daemon(url, prepare=prepare) as app:
            port = app.web.port
    assert [entry["part"] for entry in logs if entry["event"] == "daemon.close_failed"] == [
        OTHER,
        "agent scripted",
    ]
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    async with daemon(url):
        pass


async def test_serve_closes_everything_when_the_start_fails(tmp_path):
    """If the port is taken, `serve` says so and the store is free again."""
    async with daemon(tmp_path / "first") as app:
        settings = make_settings(tmp_path / "second", http={"port": app.web.port})
        with pytest.raises(PortTaken):
            await serve(settings, accounts_of(settings))
    database = await open_database(settings)
    await database.close()


async def test_serve_closes_the_store_when_nothing_can_be_made(tmp_path):
    """If a part cannot be made, the store is let go of before anybody is told."""
    settings = make_settings(tmp_path, agent={"kind": "scripted", "tools": ["clok"]})
    with pytest.raises(ConfigError, match=r"agent\.tools: there is no tool 'clok'\. There are clock"):
        await serve(settings, accounts_of(settings))
    database = await open_database(settings)
    await database.close()


async def test_the_clean_up_goes_on(url):
    """Idle sessions expire in the background, again and again, also after a round that failed."""
    sections = {
        "sessions": {
            "cleanup_interval": "50ms",
            "expire_after": "1ms",
            "archive_after": "1ms",
            "delete_after": 0,
        }
    }
    async with daemon(url, **sections) as app:
        for text in ("one", "two"):
            await app.adapters[ACCOUNT].ask(text)

            async def is_gone():
                left = "SELECT 1 AS x FROM sessions WHERE end_reason IS NULL OR end_reason <> 'deleted'"
                return not await app.database.read(lambda tx: tx.rows(left))

            await until(is_gone)


async def test_the_clean_up_removes_old_quarantined_updates(url):
    """What nobody could read is gone after a month, what came since stays."""
    async with daemon(url, sessions={"cleanup_interval": "30ms"}) as app:
        for age_ms in (quarantine.KEPT_MS + 1000, 1000):
            await app.database.write(
                lambda tx, at=time.time() * 1000 - age_ms: inbox.quarantine(tx, ACCOUNT, b"?", "x", int(at))
            )

        async def is_one_left():
            return len(await app.database.read(quarantine.latest)) == 1

        await until(is_one_left)
        await asyncio.sleep(0.1)
        assert await is_one_left()


async def test_never_deleting_keeps_the_sessions(url):
    """delete_after = "never" archives and keeps."""
    sections = {
        "sessions": {
            "cleanup_interval": "30ms",
            "expire_after": "1ms",
            "archive_after": "1ms",
            "delete_after": "never",
        }
    }
    async with daemon(url, **sections) as app:
        await app.adapters[ACCOUNT].ask("one")

        async def is_archived():
            rows = await app.database.read(lambda tx: tx.rows("SELECT status FROM sessions"))
            return [row["status"] for row in rows] == ["archived"]

        await until(is_archived)
        await asyncio.sleep(0.2)
        assert await is_archived()


# what is made of the settings


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/palaver.db", "/var/lib/palaver.db"),
        ("sqlite:/var/lib/palaver.db", "/var/lib/palaver.db"),
        ("sqlite:///var/my%20data/p.db", "/var/my data/p.db"),
        ("sqlite:////var/lib/palaver.db", "/var/lib/palaver.db"),
    ],
)
def test_sqlite_path(url, path):
    """A URL names a file, absolute or relative, spaces spelt as they are in URLs."""
    assert str(sqlite_path(url)) == path


def test_a_relative_path_and_a_home(tmp_path, monkeypatch):
    """A relative URL is a file in the working directory, ~ the home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert sqlite_path("sqlite:chat.db") == tmp_path / "chat.db"
    assert sqlite_path("sqlite:~/chat.db") == tmp_path / "home" / "chat.db"


def test_accounts(tmp_path):
    """Disabled accounts are left out; with none there is the terminal; `chat` takes only terminals."""
    assert list(accounts_of(Settings())) == [TERMINAL]
    settings = make_settings(
        tmp_path, accounts={"a": {"platform": "memory"}, "b": {"platform": "memory", "enabled": False}}
    )
    assert list(accounts_of(settings)) == ["memory.a"]
    assert list(accounts_of(settings, only_terminal=True)) == [TERMINAL]


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"agent": {"tools": ["no_such"]}}, "agent.tools"),
        ({"personas": {"p": {"tools": ["no_such"]}}}, "personas.p.tools"),
    ],
)
def test_unknown_tools_are_mistakes(tmp_path, sections, named):
    """A misspelt tool is refused with its place instead of left out silently."""
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        check(make_settings(tmp_path, **sections))


def test_check_looks_at_texts_and_platforms(tmp_path):
    """A broken file of texts, and a platform that cannot be had, are said before anything starts."""
    with pytest.raises(CatalogueError):
        check(make_settings(tmp_path, texts=tmp_path / "nowhere"))
    check(make_settings(tmp_path))


def test_a_model_that_cannot_be_had_is_a_mistake_of_the_configuration(tmp_path, monkeypatch):
    """An llm agent without a key is refused at the start with the setting's name."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = make_settings(tmp_path, agent={"kind": "llm", "model": "openai:gpt-x"})
    with pytest.raises(ConfigError, match=r"agent\.api_key"):
        make_agent(settings, None)


async def test_a_start_does_not_wait_for_the_model_libraries(tmp_path, monkeypatch):
    """They are loaded beside a daemon that is ready already, and a stop meanwhile does not wait for them."""
    released = threading.Event()
    asked = []

    def slow(api):
        asked.append(api)
        released.wait(20)

    monkeypatch.setattr(loading, "_import", slow)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    try:
        async with daemon(tmp_path, agent={"kind": "llm", "model": "openai:gpt-a"}) as app:
            await until(lambda: _is_ready(app))
            assert asked == ["responses"]
            assert app.agent_name() == "openai:gpt-a"
        assert not released.is_set()
    finally:
        released.set()


async def test_libraries_that_cannot_be_loaded_are_logged_once(tmp_path, monkeypatch):
    """A broken installation does not end the daemon; it is in the log at the start."""

    def broken(_api):
        raise ModuleNotFoundError("No module named 'pydantic_ai'")

    monkeypatch.setattr(loading, "_import", broken)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    with capture_logs() as logs:
        async with daemon(tmp_path, agent={"kind": "llm", "model": "openai:gpt-a"}) as app:
            await until(lambda: _is_ready(app))
            assert "could not" not in (await app.adapters[ACCOUNT].ask("/whoami"))[0]
    assert [entry["event"] for entry in logs].count("agent.loading_failed") == 1


async def _is_ready(app):
    return (await ready(app))[0] == 200


def test_a_personas_model_takes_the_place_of_the_general_one(tmp_path, monkeypatch):
    """A persona with a model of its own answers with that."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    settings = make_settings(
        tmp_path,
        agent={"kind": "llm", "model": "openai:gpt-a"},
        personas={"p": {"model": "openai:gpt-b"}, "q": {"instructions": "x"}},
    )
    assert [make_agent(settings, persona).name for persona in (None, "p", "q", "gone")] == [
        "openai:gpt-a",
        "openai:gpt-b",
        "openai:gpt-a",
        "openai:gpt-a",
    ]


async def test_roles_are_for_several_nodes(tmp_path):
    """On SQLite a role that is left out would be nobody's: refused with what to do; on PostgreSQL it is another node's."""
    with pytest.raises(ConfigError, match="on SQLite there is no other node"):
        check(make_settings(tmp_path, node={"roles": ["intake", "web"]}))
    check(make_settings(tmp_path, node={"roles": ["intake"]}, database_url="postgresql://db/palaver"))
    with pytest.raises(ValueError, match="roles"):
        make_settings(tmp_path, node={"roles": ["sing"]})
    settings = make_settings(tmp_path, node={"roles": ["intake", "web"]})
    with pytest.raises(ConfigError, match="on SQLite there is no other node"):
        await serve(settings, accounts_of(settings))
    assert list(tmp_path.iterdir()) == [], "no database is made for nothing"
