"""The composition on PostgreSQL: what the URL's scheme opens, a daemon that runs whole on it, and what people are told of it."""

import contextlib

import psycopg
import pytest
from structlog.testing import capture_logs

from bot import doctor, shell, story
from bot.app import App, accounts_of
from bot.stores import open_beside, open_database, sqlite_path
from config import report
from config.names import AccountId
from config.settings import Settings
from config.sources import Loaded
from sessions import history
from sessions.errors import StoreUnavailable
from tests import postgres
from tests.sessions.records import arrive

ACCOUNT = AccountId("memory.main")
SECRET = "s3cr3t-enough-to-hide"


@pytest.fixture
def url():
    postgres.skip_without_server()
    with postgres.fresh_database() as found:
        yield found


def settings_for(url, **sections):
    return Settings.model_validate(
        {
            "database_url": url,
            "accounts": {"main": {"platform": "memory"}},
            "agent": {"kind": "scripted"},
            "http": {"port": 0},
            "shutdown_after_s": 2,
            **sections,
        }
    )


async def test_a_daemon_runs_whole_on_postgresql(url):
    """One setting names the server; a message is taken in, answered, delivered, and seen by a command beside the daemon."""
    settings = settings_for(url)
    database = await open_database(settings)
    assert database.dialect == "postgresql"
    app = App(settings, database, accounts_of(settings))
    try:
        await app.start()
        reply = await app.adapters[ACCOUNT].ask("hello there")
        assert "hello there" in str(reply)
        beside = await open_beside(settings)
        try:
            rows = await beside.read(lambda tx: tx.rows("SELECT id, status FROM turns"))
            (trace,) = await beside.read(
                lambda tx: [history.trace(tx, row) for row in history.find_inbox(tx, [rows[0]["id"]])]
            )
        finally:
            await beside.close()
        assert [row["status"] for row in rows] == ["completed"]
        assert f"on node {app.node.name}" in story.tell(trace), "palaver why names the node"
    finally:
        await app.close()


async def test_where_no_turns_run_ids_begin_at_the_present_too(url):
    """A node that only takes in does not give the messages of a new database numbers that one before it may have used."""
    settings = settings_for(url, node={"roles": ["intake"]})
    app = App(settings, await open_database(settings), accounts_of(settings))
    try:
        await app.start()
        receipt = await app.adapters[ACCOUNT].say("hello there")
        assert receipt.outcome == "accepted"
        (row,) = await app.database.read(lambda tx: tx.rows("SELECT id FROM inbox"))
    finally:
        await app.close()
    assert row["id"] > 1_700_000_000_000


async def test_sizes_and_times_are_the_settings(url):
    """Pool sizes and time-outs of the store reach the server's connections."""
    settings = settings_for(
        url, store={"writers": 1, "readers": 1, "statement_timeout_s": 3, "lock_timeout_s": 2}
    )
    database = await open_database(settings)
    try:
        shown = await database.read(
            lambda tx: tx.row(
                "SELECT current_setting('statement_timeout') AS statement, current_setting('lock_timeout') AS lock,"
                " current_setting('idle_in_transaction_session_timeout') AS idle"
            )
        )
    finally:
        await database.close()
    assert (shown["statement"], shown["lock"]) == ("3s", "2s")
    assert shown["idle"] == "5s", (
        "a frozen node's locks end before the next node gives up on its lease of ten"
    )


async def test_what_follows_the_question_mark_reaches_the_client(url):
    """TLS and other parameters pass through: a server without TLS is refused when TLS is required."""
    with pytest.raises(StoreUnavailable, match="SSL"):
        await open_database(settings_for(f"{url}?sslmode=require"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: postgres.with_database(url, "nowhere"), '"nowhere" does not exist'),
        (lambda _url: "postgresql://palaver@127.0.0.1:1/palaver", "refused"),
        (lambda url: f"{url}?sslmoed=require", "not an address"),
    ],
)
async def test_what_is_wrong_with_an_address_is_said(url, change, told):
    """An unknown database, nobody listening and a misspelt parameter are each told, with what to do."""
    with pytest.raises(StoreUnavailable, match=told) as raised:
        await open_database(settings_for(change(url)))
    assert raised.value.hint


def test_the_password_is_shown_nowhere():
    """check-config and the welcome of a chat show where the database is, without its password."""
    settings = settings_for(f"postgresql://palaver:{SECRET}@127.0.0.1:1/palaver?sslpassword={SECRET}")
    loaded = Loaded(settings, {}, None)
    for text in (
        report.text(loaded),
        report.as_json(loaded),
        shell.database_place(settings.database_url),
    ):
        assert SECRET not in text
        assert "127.0.0.1:1" in text


async def test_an_error_does_not_repeat_the_password():
    """Neither a server that is not there nor an address that is none prints what was given."""
    for url in (
        f"postgresql://palaver:{SECRET}@127.0.0.1:1/palaver",
        f"postgresql://palaver:{SECRET}@[::1/x",
    ):
        with pytest.raises(StoreUnavailable) as raised:
            await open_database(settings_for(url))
        assert SECRET not in raised.value.reason + raised.value.hint


def test_commands_for_files_say_so():
    """What works on a file only refuses a server's address."""
    with pytest.raises(StoreUnavailable, match="not in a file"):
        sqlite_path("postgresql://db/palaver")


async def test_doctor_looks_at_the_server(url):
    """palaver doctor says which server it is, that it is in use with today's schema, and what is wrong with it otherwise."""
    loaded = Loaded(settings_for(url), {}, None)
    found = {finding.subject: finding for finding in await doctor.examine(loaded)}
    assert "PostgreSQL" in found["database"].text
    # The tests' own server does without fsync, which is worth a word.
    assert found["database"].is_good or "fsync" in found["database"].hint
    loaded = Loaded(settings_for("postgresql://palaver@127.0.0.1:1/palaver"), {}, None)
    found = {finding.subject: finding for finding in await doctor.examine(loaded)}
    assert not found["database"].is_good
    assert "database_url" in found["database"].hint


async def test_doctor_finds_a_server_that_can_only_be_read(url):
    """A database that answers every question but takes nothing is bad, and what makes it so is named."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with postgres.connected(url) as admin:
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        try:
            findings = await doctor.examine(Loaded(settings_for(url), {}, None))
        finally:
            admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    (found,) = (finding for finding in findings if finding.subject == "database")
    assert not found.is_good
    assert "read-only" in found.text
    assert "default_transaction_read_only" in found.hint


async def of_the_fleet(settings):
    """What doctor says of nodes, of the queue, and of what is nobody's."""
    return [
        (finding.is_good, finding.subject, finding.text)
        for finding in await doctor.examine(Loaded(settings, {}, None))
        if finding.subject in ("node", "queue") or finding.text.startswith("no node")
    ]


@contextlib.asynccontextmanager
async def node(settings):
    app = App(settings, await open_database(settings), accounts_of(settings))
    try:
        await app.start()
        yield app.node.name
    finally:
        await app.close()


async def test_doctor_tells_who_is_there_and_what_each_does(url):
    """With two nodes: who has the account, who cleans up, who waits. Without any, nothing is amiss either."""
    settings = settings_for(url)
    nothing = (True, "queue", "no turn waits; 0 running; 0 replies to be sent")
    assert await of_the_fleet(settings) == [
        (True, "node", "none works on this database just now"),
        nothing,
    ]
    one, two = (settings_for(url, node={"name": name}) for name in ("one", "two"))
    async with node(one) as first, node(two) as second:
        assert await of_the_fleet(settings) == [
            (True, "node", f"{first}: hears memory.main; sends for memory.main; runs turns; cleans up"),
            (True, "node", f"{second}: runs turns"),
            nothing,
        ]


async def test_doctor_finds_what_is_nobodys(url):
    """Where no node has a role, that is bad, and the turn that waits for it is counted."""
    settings = settings_for(url, node={"name": "one", "roles": ["web"]})
    database = await open_database(settings)
    await database.write(arrive)
    await database.close()
    with capture_logs() as logs:
        async with node(settings) as name:
            told = await of_the_fleet(settings)
    (idle,) = (line for line in logs if line["event"] == "daemon.role_idle")
    assert idle["serves"] == "/healthz, /readyz and /metrics"
    assert told[0] == (True, "node", f"{name}: has no duty just now")
    assert told[1][2].startswith("1 turn waiting, the first for ")
    assert told[2:] == [
        (False, "memory.main", "no node hears it"),
        (False, "memory.main", "no node sends for it"),
        (False, "queue", "no node runs turns"),
    ]


async def test_an_empty_database_is_no_trouble():
    """A database that was just made is well, is called empty rather than old, and nothing is made in it by looking."""
    postgres.skip_without_server()
    with postgres.bare_database() as bare:
        loaded = Loaded(settings_for(bare), {}, None)
        for _ in range(2):
            found = {finding.subject: finding for finding in await doctor.examine(loaded)}
            assert found["database"].is_good
            assert "nothing of Palaver yet" in found["database"].text
            assert "first start" in found["database"].hint
