"""PostgreSQL's own promises: it heals, it does not acknowledge what is not durable, and it says clearly what is wrong."""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import psycopg
import pytest

from sessions import inbox, lane
from sessions.database.base import Transaction
from sessions.database.postgres import PostgresDatabase
from sessions.database.postgres_connections import Limits
from sessions.database.postgres_statements import Statements
from sessions.errors import LostRace, NothingStored, StoreCorrupt, StoreError, StoreUnavailable
from tests import postgres
from tests.fakes.severing import SeveringRelay
from tests.process.postgres_kill import kill_cycles
from tests.sessions.records import ACCOUNT, arrive, claimed, count, incoming
from tests.sessions.stores import held_up

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.fresh_database() as url:
        yield url


@contextlib.asynccontextmanager
async def opened(url: str, **how):
    database = await PostgresDatabase.open(url, **how)
    try:
        yield database
    finally:
        await database.close()


def put(tx: Transaction, name: str, value: str = "x") -> None:
    inbox.set_cursor(tx, ACCOUNT, name, value, 0)


def slow(tx: Transaction) -> None:
    put(tx, "slow")


def names(tx: Transaction) -> set[str]:
    return {row["name"] for row in tx.rows("SELECT name FROM cursors")}


async def until_stored(database: PostgresDatabase, work) -> None:
    """What callers do: say it again until the store is back."""
    async with asyncio.timeout(30):
        while True:
            try:
                await database.write(work)
            except StoreUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


# It heals


async def test_a_server_that_goes_and_comes_back(tmp_path):
    """While the server is down everything raises StoreUnavailable at once; when it is back the same object goes on."""
    server = postgres.Server.make()
    try:
        async with opened(server.url) as database:
            await database.write(lambda tx: put(tx, "before"))
            server.kill()
            for _ in range(3):
                with pytest.raises(StoreUnavailable) as refusal:
                    await asyncio.wait_for(database.write(lambda tx: put(tx, "meanwhile")), 10)
                assert refusal.value.hint
                with pytest.raises(StoreUnavailable):
                    await asyncio.wait_for(database.read(names), 10)
            server.start()
            await database.write(lambda tx: put(tx, "after"))
            assert await database.read(names) == {"before", "after"}
    finally:
        server.remove()


async def test_many_writes_while_the_server_is_down_do_not_wait_for_one_another(tmp_path):
    """A hundred queued writes hear of the loss together, not each after a connection attempt of its own."""
    server = postgres.Server.make()
    try:
        async with opened(server.url) as database:
            server.kill()
            results = await asyncio.wait_for(
                asyncio.gather(
                    *(database.write(lambda tx, n=n: put(tx, str(n))) for n in range(100)),
                    return_exceptions=True,
                ),
                20,
            )
            assert {type(result) for result in results} == {StoreUnavailable}
    finally:
        server.remove()


async def test_connections_that_died_while_idle_are_not_noticed(url):
    """A server that was restarted in a quiet hour: the next write and read work at the first try."""
    async with opened(url, writers=2, readers=2) as database:
        await asyncio.gather(*(database.write(lambda tx, n=n: put(tx, str(n)), key=str(n)) for n in range(2)))
        await asyncio.gather(*(database.read(names) for _ in range(4)))
        for way in ("write", "read"):
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await getattr(database, way)(names)


async def test_a_connection_lost_during_work_is_not_noticed(url):
    """The work runs once more on another connection, and its effect is there once."""
    async with opened(url) as database:
        tries = []

        def work(tx: Transaction) -> None:
            pid = tx.row("SELECT pg_backend_pid() AS pid")["pid"]
            inbox.quarantine(tx, ACCOUNT, b"x", "y", 0)
            if not tries:
                with psycopg.connect(url, autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            tries.append(pid)
            tx.row("SELECT 1 AS x")

        await database.write(work)
        assert len(tries) == 2
        assert await database.read(lambda tx: count(tx, "quarantine")) == 1


# It does not acknowledge what is not durable


@pytest.fixture
def relay(url) -> Iterator[tuple[SeveringRelay, str]]:
    port = psycopg.conninfo.conninfo_to_dict(url).get("port") or "5432"
    with SeveringRelay(int(port)) as relay:
        yield relay, url.replace(f":{port}/", f":{relay.port}/")


@pytest.mark.parametrize(("moment", "is_stored"), [("before", False), ("after", True)])
async def test_a_commit_whose_outcome_nobody_heard(relay, url, moment, is_stored):
    """Cut off during COMMIT it says that it may be stored; said again, the message is there exactly once."""
    cutting, through = relay
    async with opened(through, writers=1) as database:
        message = incoming()

        def take_in(tx: Transaction) -> str:
            if inbox.is_known(tx, message):
                return "duplicate"
            arrive(tx, message)
            return "accepted"

        cutting.cut_at(b"COMMIT", moment)
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await database.write(take_in)
        assert cutting.cuts == 1
        assert await database.write(take_in) == ("duplicate" if is_stored else "accepted")
        assert await database.read(lambda tx: [count(tx, t) for t in ("inbox", "turns", "messages")]) == [
            1,
            1,
            1,
        ]


async def test_the_outcome_of_a_shared_commit_is_unknown_to_all(relay):
    """Everybody whose operation was in the lost commit hears so; nobody is told that all is well."""
    cutting, through = relay
    async with opened(through, writers=1) as database:
        entered, may_go = threading.Event(), threading.Event()

        def slow(tx: Transaction) -> None:
            entered.set()
            may_go.wait(10)

        first = asyncio.create_task(database.write(slow))
        await asyncio.to_thread(entered.wait, 10)
        rest = [asyncio.create_task(database.write(lambda tx, n=n: put(tx, str(n)))) for n in range(10)]
        await asyncio.sleep(0.05)
        database.after_commit = lambda number: cutting.cut_at(b"COMMIT", "after")
        may_go.set()
        await first
        results = await asyncio.gather(*rest, return_exceptions=True)
        database.after_commit = None
        assert {type(result) for result in results} == {StoreUnavailable}
        assert all("may or may not" in str(result) for result in results)


async def test_a_network_that_falls_silent(relay):
    """No answer and no end: the write gives up by itself, and works when the network is back."""
    cutting, through = relay
    async with opened(through, limits=Limits(answer_s=2, connect_s=2)) as database:
        cutting.fall_silent()
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(database.write(lambda tx: put(tx, "lost")), 40)
        cutting.recover()
        await until_stored(database, lambda tx: put(tx, "after"))


async def test_a_hidden_error_is_not_acknowledged(url):
    """Work that swallows a statement's error would be rolled back silently by COMMIT; it gets an error instead."""

    def work(tx: Transaction) -> str:
        put(tx, "lost")
        with contextlib.suppress(psycopg.Error):
            tx.execute("UPDATE no_such_table SET x = 1")
        return "all is well"

    async with opened(url) as database:
        results = await asyncio.gather(
            database.write(work), database.write(lambda tx: put(tx, "kept")), return_exceptions=True
        )
        assert isinstance(results[0], RuntimeError)
        with pytest.raises(RuntimeError, match="not reported"):
            await database.write(work)
        assert await database.read(names) == {"kept"}


async def test_a_role_that_does_not_wait_for_the_disk_does_here(url):
    """synchronous_commit = off in the role's or the database's settings does not hold for us."""
    with psycopg.connect(url, autocommit=True) as other:
        name = psycopg.sql.Identifier(other.info.dbname)
        other.execute(psycopg.sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
        try:
            async with opened(url) as database:
                row = await database.read(
                    lambda tx: tx.row("SELECT current_setting('synchronous_commit') AS is")
                )
                assert row == {"is": "on"}
        finally:
            other.execute(psycopg.sql.SQL("ALTER DATABASE {} RESET synchronous_commit").format(name))


async def test_kill_9_of_the_server_under_load():
    """Five times: nothing acknowledged is lost, nothing is there twice, and work goes on each time."""
    report = await kill_cycles(5)
    assert report.acknowledged > 50
    assert report.lost == 0
    assert report.doubled == 0
    assert report.misplaced == 0


# Other nodes


async def test_what_waits_is_committed_together(url):
    """Whatever their keys, writes that came during a commit share the next one."""
    async with opened(url) as database:
        before = database.commits
        async with held_up(database, slow):
            behind = [asyncio.create_task(database.write(names, key=key)) for key in "abcd"]
        assert [await one for one in behind] == [{"slow"}] * 4
        assert database.commits == before + 2


@contextlib.contextmanager
def locked(url: str, name: str) -> Iterator[psycopg.Connection]:
    """While another node has locked that row."""
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM cursors WHERE name = %s FOR UPDATE", [name])
        yield other


@pytest.mark.parametrize("beside", [0, 5], ids=["alone", "in a batch"])
async def test_whoever_waits_for_another_node_waits_without_the_others(url, beside):
    """A row that somebody keeps locked holds up the writes of one key, in their order; all others go on."""
    async with opened(url) as database:
        await database.write(lambda tx: [put(tx, name, "") for name in ("a", "b")])

        def add(letter: str):
            def work(tx: Transaction) -> None:
                (row,) = tx.rows("SELECT value FROM cursors WHERE name = 'a' FOR UPDATE")
                put(tx, "a", row["value"] + letter)

            return database.write(work, key="a", may_mix=True)

        with locked(url, "a") as other:
            async with held_up(database, slow):  # so that the first of them share a transaction
                first = [asyncio.create_task(add("x"))]
                first += [
                    asyncio.create_task(
                        database.write(lambda tx, n=n: put(tx, f"b{n}"), key=f"b{n}", may_mix=True)
                    )
                    for n in range(beside)
                ]
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)  # they have begun to wait
            later = [asyncio.create_task(add("y"))]
            await asyncio.sleep(0.12)  # the first has left the line
            later.append(asyncio.create_task(add("z")))
            async with asyncio.timeout(5):
                await asyncio.gather(*first[1:])
                for number in range(10):
                    await database.write(lambda tx, n=number: put(tx, "b", str(n)), key="b")
                later.append(asyncio.create_task(add("w")))
                assert await database.write(names) >= {"a", "b", "slow"}  # without a key
            await asyncio.sleep(0.3)
            assert not any(one.done() for one in [first[0], *later])
            other.rollback()
        await asyncio.gather(*first, *later)
        (row,) = await database.read(lambda tx: tx.rows("SELECT value FROM cursors WHERE name = 'a'"))
        assert row["value"] == "xyzw"
        assert database._line.is_empty


# Works that share a transaction


def ways_of(monkeypatch) -> list[int]:
    """How many statements each way to the server took, from now on."""
    ways: list[int] = []
    run_together, run = Statements.run_together, Statements.run

    def counted_together(self, statements):
        ways.append(len(statements))
        return run_together(self, statements)

    def counted(self, sql, values=()):
        ways.append(1)
        return run(self, sql, values)

    monkeypatch.setattr(Statements, "run_together", counted_together)
    monkeypatch.setattr(Statements, "run", counted)
    return ways


def steps(name: str, count: int):
    """Work that needs each answer before its next statement."""

    def work(tx: Transaction) -> list[int]:
        seen = []
        for number in range(count):
            put(tx, f"{name}{number}")
            row = tx.row("SELECT COUNT(*) AS n FROM cursors WHERE name LIKE :name", {"name": f"{name}%"})
            seen.append(row["n"])
        return seen

    return work


async def test_statements_of_different_keys_travel_together(url, monkeypatch):
    """Twenty works of three steps take the ways of one; each sees its own steps, done."""
    async with opened(url) as database:
        ways = ways_of(monkeypatch)
        async with held_up(database, slow):
            ways.clear()
            works = [
                asyncio.create_task(database.write(steps(f"{chr(97 + n)}-", 3), key=str(n), may_mix=True))
                for n in range(20)
            ]
            await asyncio.sleep(0)
        assert [await work for work in works] == [[1, 2, 3]] * 20
        assert max(ways) >= 20
        assert len(ways) < 12


async def test_works_of_one_key_do_not_see_each_other_half_done(url):
    """Side by side with others, those of a key still come one after the other, and what has no key comes after all of them."""
    async with opened(url) as database:
        async with held_up(database, slow):
            works = [
                asyncio.create_task(database.write(steps("all", 2), key="a", may_mix=True)),
                asyncio.create_task(database.write(names)),
                asyncio.create_task(database.write(steps("b", 3), key="b", may_mix=True)),
                asyncio.create_task(database.write(steps("all", 3), key="a", may_mix=True)),
            ]
            await asyncio.sleep(0)
        first, last, beside, second = [await work for work in works]
        assert (first, beside, second) == ([1, 2], [1, 2, 3], [2, 2, 3])
        assert last == {"slow", "all0", "all1", "all2", "b0", "b1", "b2"}


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_work_that_fails_among_others_undoes_itself_alone(url, at):
    """Wherever it has got to: the others are done, each once, and whatever they had begun is ended in order."""
    ended = []

    def failing(tx: Transaction) -> None:
        steps("failed", at)(tx)
        raise KeyError("mine")

    def careful(tx: Transaction) -> list[int]:
        try:
            return steps("kept", 5)(tx)
        finally:
            ended.append(1)

    async with opened(url) as database:
        async with held_up(database, slow):
            kept = asyncio.create_task(database.write(careful, key="a", may_mix=True))
            failed = asyncio.create_task(database.write(failing, key="b", may_mix=True))
            await asyncio.sleep(0)
        assert await kept == [1, 2, 3, 4, 5]
        with pytest.raises(KeyError, match="mine"):
            await failed
        assert await database.read(names) == {"slow", *(f"kept{number}" for number in range(5))}
        assert len(ended) == 2  # once with the other, once without


async def test_the_locks_of_a_frozen_node_end(url):
    """A node that stops in the middle of a transaction loses its locks; the others wait for that and go on."""
    async with opened(url) as database:
        await database.write(lambda tx: put(tx, "row"))
        limits = Limits(idle_transaction_s=1)
        async with opened(url, limits=limits) as frozen:
            thawed = threading.Event()

            def stop(tx: Transaction) -> None:
                put(tx, "row", "never")
                thawed.wait(20)
                tx.row("SELECT 1 AS x")

            entered = asyncio.create_task(frozen.write(stop))
            await asyncio.sleep(0.2)
            await asyncio.wait_for(database.write(lambda tx: put(tx, "row", "new")), 15)
            assert await database.read(lambda tx: inbox.cursor(tx, ACCOUNT, "row")) == "new"
            thawed.set()
            await entered  # its second try finds the row free
        assert await database.read(lambda tx: inbox.cursor(tx, ACCOUNT, "row")) == "never"


async def test_a_row_that_stays_locked_is_reported(url):
    """Waiting for another node's lock has an end, with a reason; later it works."""
    async with opened(url, limits=Limits(lock_s=0.3)) as database:
        await database.write(lambda tx: put(tx, "row"))
        with psycopg.connect(url) as other:
            other.execute("UPDATE cursors SET value = 'locked'")
            with pytest.raises(StoreUnavailable, match="locked") as refusal:
                await database.write(lambda tx: put(tx, "row", "new"), key="row")
            assert refusal.value.hint
            other.rollback()
        await database.write(lambda tx: put(tx, "row", "new"), key="row")
        assert database._line.is_empty


async def test_a_race_that_is_lost_again_and_again_ends(url):
    """Second tries are bounded; the error comes out in the end, as what it is."""
    async with opened(url) as database:
        tries = []

        def work(tx: Transaction) -> None:
            tries.append(1)
            raise LostRace("again")

        with pytest.raises(LostRace):
            await database.write(work)
        assert 3 <= len(tries) <= 10


async def test_a_schema_that_another_node_has_changed(url):
    """Statements that were prepared before a column came go on working, in reads and in writes."""
    async with opened(url, writers=1, readers=1) as database:
        try:
            for _ in range(8):  # often enough to be prepared
                await database.write(lambda tx: tx.rows("SELECT * FROM holds"))
                await database.read(lambda tx: tx.rows("SELECT * FROM holds"))
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("ALTER TABLE holds ADD COLUMN added INTEGER")
            await database.write(lambda tx: tx.rows("SELECT * FROM holds"))
            await database.read(lambda tx: tx.rows("SELECT * FROM holds"))
        finally:
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("ALTER TABLE holds DROP COLUMN IF EXISTS added")


# What is stored, and where


@pytest.mark.parametrize("beside", [0, 3], ids=["alone", "in a batch"])
async def test_a_statement_that_the_server_has_forgotten(url, beside):
    """A statement is taken for prepared that the server does not know any more: it is said again, and nobody notices."""
    async with opened(url, writers=1) as database:
        tries: list[int] = []

        def work(tx: Transaction) -> None:
            for _ in range(8):  # so often that it is prepared
                tx.row("SELECT CAST(:one AS integer) AS x", {"one": 1})
            tries.append(1)
            if len(tries) < 3:
                tx.execute("DEALLOCATE ALL")  # behind our back
            assert tx.row("SELECT CAST(:one AS integer) AS x", {"one": 1})["x"] == 1
            put(tx, "kept")

        others = [database.write(lambda tx, n=n: put(tx, str(n))) for n in range(beside)]
        await asyncio.gather(database.write(work), *others)
        assert len(tries) == 3


@pytest.mark.parametrize("programs", postgres.programs(), ids=lambda path: str(path).split("/")[-2])
async def test_every_server_of_this_machine(programs):
    """From an empty database to an answered turn, on each version that is at hand."""
    server = postgres.Server.make(programs_at=programs)
    try:
        async with opened(server.url) as database:
            queued = await database.write(arrive)
            claim = await database.write(lambda tx: claimed(tx, queued.session_id))
            await database.write(lambda tx: lane.finish(tx, claim, "completed", 0, answer="hello"))
            assert await database.read(lambda tx: count(tx, "messages")) == 2
    finally:
        server.remove()


@pytest.mark.parametrize("schema", ["public", "palaver"])
async def test_pg_dump_and_pg_restore(schema, tmp_path):
    """The server's own tools bring everything back, words for the search with it: they restore with a search path that is empty."""
    [programs, *_] = [folder for folder in postgres.programs() if (folder / "pg_dump").exists()] or [None]
    if programs is None:
        pytest.skip("no pg_dump on this machine")
    server = postgres.Server.make(programs_at=programs)
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.execute("CREATE DATABASE restored TEMPLATE template0 ENCODING 'UTF8'")
        path = f"options=-csearch_path%3D{schema}"
        async with opened(f"{server.url}?{path}") as database:
            queued = await database.write(lambda tx: arrive(tx, incoming("where is the harbour?")))
            claim = await database.write(lambda tx: claimed(tx, queued.session_id))
            await database.write(lambda tx: lane.finish(tx, claim, "completed", 0, answer="at the sea"))
        restored = server.url.removesuffix("postgres") + "restored"
        for command in (
            [programs / "pg_dump", "-Fc", "-f", tmp_path / "dump", server.url],
            [programs / "pg_restore", "--exit-on-error", "-d", restored, tmp_path / "dump"],
        ):
            await asyncio.to_thread(subprocess.run, command, check=True)
        async with opened(f"{restored}?{path}") as database:
            found = await database.read(
                lambda tx: tx.rows(
                    "SELECT content FROM messages WHERE words @@ to_tsquery('simple', 'harbour')"
                )
            )
            assert [row["content"] for row in found] == ["where is the harbour?"]
            assert await database.read(lambda tx: count(tx, "messages")) == 2
            assert await database.write(arrive)
    finally:
        server.remove()


async def test_numbers_and_truth_are_as_on_sqlite(url):
    """Sums are integers, averages are floats, truth is 1 and 0, and True is stored as 1."""
    async with opened(url) as database:
        row = await database.read(
            lambda tx: tx.row(
                "SELECT SUM(n) AS total, AVG(n) AS mean, COUNT(*) = 2 AS is_two, n IS NULL AS is_null, :yes AS yes"
                " FROM (SELECT 1 AS n UNION ALL SELECT 2) AS numbers GROUP BY n IS NULL, :yes",
                {"yes": True},
            )
        )
        assert row == {"total": 3, "mean": 1.5, "is_two": 1, "is_null": 0, "yes": 1}
        assert {type(value) for value in row.values()} == {int, float}


async def test_tables_of_another_program_are_refused():
    """A database that somebody else uses is left as it is."""
    with postgres.bare_database() as url:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("CREATE TABLE sessions (id INTEGER)")
        with pytest.raises(StoreCorrupt, match="another program") as refusal:
            await PostgresDatabase.open(url)
        assert "database of its own" in refusal.value.hint
        with psycopg.connect(url) as other:
            assert other.execute("SELECT COUNT(*) FROM pg_class WHERE relname = 'turns'").fetchone() == (0,)


async def test_a_schema_of_its_own_in_a_shared_database():
    """Where the address names a schema, Palaver lives there, beside the tables of others."""
    with postgres.bare_database() as url:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("CREATE TABLE sessions (id INTEGER)")
            other.execute("CREATE SCHEMA palaver")
        async with opened(f"{url}?options=-csearch_path%3Dpalaver") as database:
            await database.write(arrive)
            assert await database.read(lambda tx: count(tx, "palaver.turns")) == 1


async def test_a_database_that_cannot_hold_every_character_is_refused():
    """Found out at the start, not with the first emoji."""
    with postgres.bare_database() as url, psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "CREATE DATABASE palaver_latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        try:
            with pytest.raises(StoreUnavailable, match="every character") as refusal:
                await PostgresDatabase.open(postgres.with_database(url, "palaver_latin"))
            assert "UTF8" in refusal.value.hint
        finally:
            other.execute("DROP DATABASE palaver_latin")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda url: postgres.with_database(url, "no_such_database"), "no_such_database"),
        (lambda url: "postgresql://ada:s3cret@127.0.0.1:1/palaver", "127.0.0.1:1"),
        (lambda url: "postgresql://ada:s3cret%zz@127.0.0.1/palaver", "not an address"),
        (lambda url: "postgresql://ada:s3cret@127.0.0.1:port/palaver", "cannot connect"),
    ],
    ids=["unknown-database", "nobody-listens", "no-address", "no-port"],
)
async def test_an_address_that_does_not_work_is_explained(url, change, expected):
    """The reason names the place and what to look at, and never the password."""
    with pytest.raises(StoreUnavailable, match=expected) as refusal:
        await PostgresDatabase.open(change(url))
    assert refusal.value.hint
    error: BaseException | None = refusal.value
    while error is not None:
        assert "s3cret" not in str(error)
        error = error.__cause__


async def test_a_role_without_rights_is_told_so(url):
    """A role that may not create tables gets a reason at the start."""
    with postgres.bare_database() as bare, psycopg.connect(bare, autocommit=True) as other:
        other.execute("CREATE ROLE palaver_guest LOGIN")
        other.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        try:
            with pytest.raises(StoreUnavailable, match="refuses") as refusal:
                await PostgresDatabase.open(bare.replace("//postgres@", "//palaver_guest@"))
            assert "role" in refusal.value.hint
        finally:
            other.execute("DROP OWNED BY palaver_guest")
            other.execute("DROP ROLE palaver_guest")


async def test_beside_the_daemons(url):
    """A command may open beside them, but does not migrate: without a schema it says so."""
    async with opened(url) as database:
        await database.write(lambda tx: put(tx, "x"))
        beside = await PostgresDatabase.open_beside(url)
        assert await beside.read(names) == {"x"}
        await beside.close()
    with postgres.bare_database() as bare, pytest.raises(NothingStored, match="nothing of Palaver yet"):
        await PostgresDatabase.open_beside(bare)


async def test_a_full_or_broken_disk_is_told_apart():
    """What the server reports about itself has a class: unavailable, damaged, or our own mistake."""
    from sessions.database.postgres_errors import translated

    for state, expected in {
        "53100": StoreUnavailable,
        "53300": StoreUnavailable,
        "57014": StoreUnavailable,
        "55P03": StoreUnavailable,
        "25006": StoreUnavailable,
        "57P01": StoreUnavailable,
        "08006": StoreUnavailable,
        "58030": StoreUnavailable,
        "XX001": StoreCorrupt,
        "XX002": StoreCorrupt,
    }.items():
        found = translated(psycopg.errors.lookup(state)("reason"), "here")
        assert isinstance(found, expected), state
        assert isinstance(found, StoreError)
        assert found.hint
    for state in ("42601", "23502", "22003"):
        error = psycopg.errors.lookup(state)("reason")
        assert translated(error, "here") is error


async def test_close_ends_every_connection(url):
    """After `close` the server has no connection of ours left."""
    database = await PostgresDatabase.open(url)
    await asyncio.gather(*(database.read(names) for _ in range(8)))
    await database.write(lambda tx: put(tx, "x"))
    await database.close()
    with psycopg.connect(url) as other:
        async with asyncio.timeout(10):
            while other.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'palaver'"
            ).fetchone():
                await asyncio.sleep(0.02)
                other.rollback()


async def test_a_frozen_server_does_not_freeze_the_daemon(url):
    """While the server does not answer at all the event loop goes on; when it goes on, so does the write."""
    server = postgres.Server.make()
    try:
        async with opened(server.url) as database:
            pid = (await database.read(lambda tx: tx.row("SELECT pg_backend_pid() AS pid")))["pid"]
            os.kill(pid, signal.SIGSTOP)
            try:
                write = asyncio.create_task(database.write(lambda tx: put(tx, "x")))
                await asyncio.sleep(0.3)
            finally:
                os.kill(pid, signal.SIGCONT)
            await asyncio.wait_for(write, 20)
    finally:
        server.remove()


def test_plain_letters_are_folded_as_all_others_are():
    """The quick way for a text of plain letters gives what the long table gives: words are found whatever stands beside them."""
    texts = ["".join(map(chr, range(1, 128))), "An E-Mail to A.B@Example.COM, [v1.2]!", "", "tab\tand\nline"]
    with postgres.open_transaction() as tx:
        for text in texts:
            row = tx.row(
                "SELECT palaver_fold(:text) AS quick, palaver_fold(:text || 'É') AS long", {"text": text}
            )
            assert row is not None
            assert row["long"] == row["quick"] + "e"


async def test_others_are_counted_and_not_locked_out():
    """A second node is seen, whatever its address or a pooler calls it; removed rows' space is given back beside it without a
    lock that it would have to wait for.
    """
    with postgres.fresh_database() as url:
        database = await PostgresDatabase.open(f"{url}?application_name=node-1")
        await database.write(lambda tx: tx.rows("SELECT 1 AS one"))
        await database.read(lambda tx: tx.rows("SELECT 1 AS one"))
        assert await database.others() == 0
        beside = await PostgresDatabase.open_beside(f"{url}?application_name=node-2")
        assert await database.others() > 0
        await beside.close()
        while await database.others():  # the server takes a moment to notice
            await asyncio.sleep(0.01)
        assert await database.wipe(whole=True)
        with postgres.connected(url) as other:
            other.execute("SET application_name = 'palaver - 10.0.0.2:4711'")
            other.execute("BEGIN")
            other.execute("SELECT COUNT(*) FROM messages")  # holds a lock until the transaction ends
            assert await database.others() == 1
            async with asyncio.timeout(5):
                assert await database.wipe(whole=True)
            other.execute("ROLLBACK")
        await database.close()
