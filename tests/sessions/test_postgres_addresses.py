"""What an operator is told of a `database_url` that leads to nothing that can be used: the reason in plain words, and what to do."""

import asyncio

import psycopg
import pytest

from sessions.database import moving
from sessions.database.postgres import PostgresDatabase
from sessions.database.postgres_errors import unreachable
from sessions.errors import NothingStored, StoreUnavailable
from tests import postgres
from tests.fakes.pooling import Pooler
from tests.fakes.severing import SeveringRelay
from tests.sessions.records import arrive, count

pytestmark = pytest.mark.timeout(120)


async def refusal(url, *, beside=False):
    opening = PostgresDatabase.open_beside if beside else PostgresDatabase.open
    with pytest.raises(StoreUnavailable) as raised:
        await opening(url)
    return raised.value


def by_way_of(port, url):
    """The same database over another port of this machine."""
    return url.replace(f":{psycopg.conninfo.conninfo_to_dict(url)['port']}/", f":{port}/")


@pytest.fixture
def url():
    with postgres.bare_database() as found:
        yield found


@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        (lambda url: by_way_of(1, url), r"on 127\.0\.0\.1:1: .*refused", "host and port"),
        (lambda url: url.replace("127.0.0.1", "nowhere.invalid"), "resolve", "host and port"),
        (lambda url: postgres.with_database(url, "nowhere"), '"nowhere" does not exist', "CREATE DATABASE"),
        (lambda url: url.replace("//postgres@", "//nobody@"), '"nobody" does not exist', "user and password"),
        (lambda url: f"{url}?sslmode=require", "SSL", "sslmode"),
        (lambda url: f"{url}?options=-csearch_path%3Dnowhere", "no schema", "CREATE SCHEMA"),
    ],
    ids=["no-server", "no-host", "no-database", "no-role", "no-tls", "no-schema"],
)
async def test_each_mistake_in_an_address_has_its_own_hint(url, change, reason, hint):
    """Whatever of the address is wrong is what the operator is told to look at, once, without the library's wrapping."""
    for beside in (False, True):
        told = await refusal(change(url), beside=beside)
        assert " ".join(told.reason.split()) == told.reason
        assert "connection failed" not in told.reason
        assert "connection to server" not in told.reason
        with pytest.raises(StoreUnavailable, match=reason):
            raise told
        assert hint in told.hint


def test_a_refused_password_is_said_plainly():
    """libpq gives no code for it, only words; what is added by the libraries around them is left out."""
    told = unreachable(
        psycopg.OperationalError(
            'connection failed: connection to server at "::1", port 5432 failed: '
            'FATAL:  password authentication failed for user "palaver"\nconnection to server …'
        ),
        "PostgreSQL database 'palaver' on ::1:5432",
    )
    assert told.reason == (
        "cannot connect to PostgreSQL database 'palaver' on ::1:5432:"
        ' password authentication failed for user "palaver"'
    )
    assert "user and password" in told.hint


async def test_of_several_servers_each_reason_is_told(url):
    """Of an address with two hosts both are named, each with what it says."""
    port = psycopg.conninfo.conninfo_to_dict(url)["port"]
    with psycopg.connect(url, autocommit=True) as other:
        name = other.info.dbname
        other.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    two = url.replace(f"127.0.0.1:{port}", f"127.0.0.1:1,127.0.0.1:{port}")
    told = await refusal(f"{two}?target_session_attrs=read-write")
    assert f"on 127.0.0.1:1, 127.0.0.1:{port}: 127.0.0.1:1: " in told.reason
    assert f"127.0.0.1:{port}: session is read-only" in told.reason
    assert "refused" in told.reason


@pytest.mark.parametrize(
    ("setting", "reason", "hint"),
    [
        ("CONNECTION LIMIT 0", "too many connections", "max_connections"),
        ("ALLOW_CONNECTIONS false", "not currently accepting connections", "server's log"),
    ],
)
async def test_a_server_that_lets_nobody_in_is_told(url, setting, reason, hint):
    """No place left, or closed: neither is a mistake in the address, and nobody is sent to look there."""
    with psycopg.connect(postgres.server_url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE palaver_visitor LOGIN")
        try:
            name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
            admin.execute(f'ALTER DATABASE "{name}" {setting}')
            told = await refusal(url.replace("//postgres@", "//palaver_visitor@"))
        finally:
            admin.execute("DROP ROLE palaver_visitor")
    assert reason in told.reason
    assert hint in told.hint


async def test_a_server_that_is_too_old_is_refused(url):
    """Said at the start with its version and the one that is needed, not by a statement that it does not understand."""
    with psycopg.connect(url) as other:
        major = other.info.server_version // 10_000
    with SeveringRelay(int(psycopg.conninfo.conninfo_to_dict(url)["port"])) as relay:
        relay.answer_instead(b"server_version\0%d" % major, b"server_version\x0013")
        told = await refusal(by_way_of(relay.port, url))
    assert told.reason.endswith("runs PostgreSQL 13")
    assert "14 or newer" in told.hint


async def test_a_role_that_may_not_begin_is_told_before_the_start(url):
    """Whoever looks at an empty database, as doctor does, says whether the first start will get through."""
    with psycopg.connect(url, autocommit=True) as other:
        name = other.info.dbname
        other.execute("CREATE ROLE palaver_guest LOGIN")
        other.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        guest = url.replace("//postgres@", "//palaver_guest@")
        try:
            assert "no tables" in (await refusal(guest, beside=True)).reason
            other.execute("GRANT CREATE ON SCHEMA public TO palaver_guest")
            told = await refusal(guest, beside=True)
            assert "no schemas" in told.reason
            assert "OWNER TO palaver_guest" in told.hint
            other.execute(f'GRANT CREATE ON DATABASE "{name}" TO palaver_guest')
            with pytest.raises(NothingStored):
                await PostgresDatabase.open_beside(guest)
            await (await PostgresDatabase.open(guest)).close()
        finally:
            other.execute("DROP OWNED BY palaver_guest")
            other.execute("DROP ROLE palaver_guest")


async def test_a_pooler_that_hands_connections_round_is_refused(url):
    """Transaction pooling breaks prepared statements, time-outs and hints one after the other: it is refused at once."""
    with Pooler(int(psycopg.conninfo.conninfo_to_dict(url)["port"]), is_handing_round=True) as pooler:
        for beside in (False, True):
            told = await refusal(by_way_of(pooler.port, url), beside=beside)
            assert "hands its connections round" in told.reason
            assert "pool_mode = session" in told.hint


async def test_a_pooler_that_keeps_connections_apart_is_none_of_our_business():
    """With session pooling all works; its connections are ours, and nobody is taken for another node."""
    with (
        postgres.fresh_database() as url,
        Pooler(int(psycopg.conninfo.conninfo_to_dict(url)["port"]), is_handing_round=False) as pooler,
    ):
        database = await PostgresDatabase.open(by_way_of(pooler.port, url))
        try:
            reads = [database.read(lambda tx: tx.row("SELECT pg_sleep(0.05)")) for _ in range(3)]
            await asyncio.gather(database.write(lambda tx: tx.row("SELECT 1 AS one")), *reads)
            assert await database.others() == 0
            with postgres.connected(url) as other:
                other.execute("SET application_name = 'palaver'")
                assert await database.others() == 1
        finally:
            await database.close()


async def test_somebody_from_whom_row_security_hides_everything_is_refused(url, tmp_path):
    """A user with every right who owns nothing would see an empty database: no start, and above all no empty backup."""
    database = await PostgresDatabase.open(url)
    await database.write(arrive)
    await database.close()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("CREATE ROLE palaver_guest LOGIN")
        guest = url.replace("//postgres@", "//palaver_guest@")
        try:
            for schema in ("public", "pgmq"):
                other.execute(f"GRANT ALL ON SCHEMA {schema} TO palaver_guest")
                other.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO palaver_guest")
            told = [await refusal(guest), await refusal(guest, beside=True)]
            with pytest.raises(StoreUnavailable) as raised:
                await asyncio.to_thread(moving.to_file, guest, tmp_path / "copy.db", is_backup=True)
            for each in (*told, raised.value):
                assert "hides the rows of postgres from palaver_guest" in each.reason
                assert "Connect as postgres" in each.hint
            assert list(tmp_path.iterdir()) == []
            other.execute("ALTER ROLE palaver_guest BYPASSRLS")
            beside = await PostgresDatabase.open_beside(guest)
            assert await beside.read(lambda tx: count(tx, "turns")) == 1
            await beside.close()
        finally:
            other.execute("DROP OWNED BY palaver_guest")
            other.execute("DROP ROLE palaver_guest")
