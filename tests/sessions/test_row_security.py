"""PostgreSQL filters by itself what is read on somebody's behalf: a filter that was forgotten in our SQL leaks nothing."""

import ast
import importlib
import inspect
import pkgutil
import random
from collections import Counter

import psycopg
import pytest
from structlog.testing import capture_logs

import sessions
from config.names import AccountId, ChannelId, PersonId, SessionId
from sessions import contents, history, lifecycle, search, semantic, statistics
from sessions.database import postgres_scopes
from sessions.database.postgres import PostgresDatabase
from sessions.database.postgres_connections import Connections, Limits
from sessions.database.postgres_transaction import PostgresTransaction
from sessions.scope import ChannelScope, OperatorScope, PersonScope, SessionOnly, within
from sessions.transfer import exporting
from tests import postgres
from tests.sessions.records import NOW, incoming
from tests.sessions.records import resolved as resolve
from tests.sessions.test_isolation import SCOPES, WAYS, anybody, may_see, populate

READERS = (history, search, lifecycle, contents, semantic, statistics, exporting)
READS = 1_000


def forget_the_filters(monkeypatch) -> None:
    """As if somebody had left the scope's condition out of every query."""
    for module in READERS:
        for name in ("condition", "_permission"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_: ("(1 = 1)", {}))


def shows_foreign_sums(tx, asked, scope) -> bool:
    """Whether statistics count what is not the asker's. Whoever asks for all may be given their own, without the filter."""
    mine = 0
    if isinstance(scope, PersonScope):
        own = statistics.Subject("person", scope.person_id)
        mine = statistics.read(tx, OperatorScope(), own, NOW).messages
    session = statistics.read(tx, scope, statistics.Subject("session", asked.id), NOW)
    person = statistics.read(tx, scope, statistics.Subject("person", asked.person_id or "nobody"), NOW)
    every = statistics.read(tx, scope, statistics.Subject(), NOW)
    return (
        (session.messages > 0 and not may_see(scope, asked))
        or (person.messages > 0 and scope != PersonScope(asked.person_id))
        or every.messages > mine
    )


def foreign_rows(tx, reads: int) -> Counter[str]:
    """Which of many random reads by wrong people showed what is not theirs, and how often."""
    world = populate(tx)
    assert {session.scope for session in world.sessions} == set(SCOPES)
    by_id = {session.id: session for session in world.sessions}
    chance = random.Random(9)
    ways = [(name, way) for name, all_of_it in WAYS.items() for way in all_of_it]
    leaks: Counter[str] = Counter()
    for _ in range(reads):
        scope, asked = anybody(world.sessions, chance), chance.choice(world.sessions)
        name, way = chance.choice(ways)
        if name == "statistics.read":
            leaks[name] += shows_foreign_sums(tx, asked, scope)
        else:
            shown = way(tx, world, asked, scope)
            leaks[name] += any(not may_see(scope, by_id[session_id]) for session_id in shown)
    return +leaks


def test_without_any_filter_in_the_sql_nothing_leaks(monkeypatch):
    """Every scoped read with its condition left out still shows nobody another's rows."""
    forget_the_filters(monkeypatch)
    with postgres.open_transaction() as tx:
        assert foreign_rows(tx, READS) == {}


def test_the_same_without_row_security_leaks(monkeypatch):
    """The test above can fail: as the tables' owner the same reads show a great deal."""
    forget_the_filters(monkeypatch)
    with postgres.open_transaction() as tx:
        tx._reader = None
        leaks = foreign_rows(tx, 1_000)
        assert set(leaks) == set(WAYS)


def test_a_bare_select_shows_only_the_scope():
    """SELECT * without any condition: each table shows a person their own rows, and nothing to nobody."""
    with postgres.open_transaction() as tx:
        made = populate(tx).sessions
        me = PersonScope(made[0].person_id)
        mine = {session.id for session in made if may_see(me, session)}
        nobody = (
            PersonScope(PersonId("")),
            SessionOnly(SessionId("")),
            ChannelScope(AccountId(""), ChannelId("")),
        )
        for table in postgres_scopes.TABLES:
            seen = within(tx, me).rows(f"SELECT * FROM {table}")
            if table in ("sessions", "messages", "turns", "session_variables", "statistics_changes"):
                assert 0 < len(seen) < len(tx.rows(f"SELECT * FROM {table}"))
            for row in seen:
                owner = row.get("session_id", row.get("id") if table == "sessions" else None)
                assert owner is None or owner in mine
                assert table != "statistics_changes" or row["person_id"] == me.person_id
            for scope in nobody:
                assert within(tx, scope).rows(f"SELECT * FROM {table}") == [], table


def test_channels_and_threads_are_told_apart():
    """No thread, a thread without a name and one with are three places to the server as well."""
    with postgres.open_transaction() as tx:
        for thread in (None, "", "7"):
            resolve(tx, incoming(thread=thread, channel_kind="group"), scope="channel")
        account, channel = incoming().account, incoming().channel
        for thread in (None, "", "7"):
            rows = within(tx, ChannelScope(account, channel, thread)).rows("SELECT thread FROM sessions")
            assert [row["thread"] for row in rows] == [thread]
        assert within(tx, ChannelScope(account, channel, "=7")).rows("SELECT thread FROM sessions") == []


def test_reading_for_somebody_changes_nothing_and_ends_with_the_statement():
    """A change is refused, a failed statement does not leave its role behind, and the daemon's own work goes on in between."""
    with postgres.open_transaction() as tx:
        made = populate(tx).sessions
        before = len(tx.rows("SELECT id FROM sessions"))
        theirs = within(tx, SessionOnly(made[0].id))
        for sql in (
            "DELETE FROM messages",
            "SELECT display_name FROM persons",
            "SELECT raw FROM quarantine",
            "SELECT 1/0",
        ):
            tx.execute("SAVEPOINT here")
            with pytest.raises(psycopg.Error):
                theirs.rows(sql)
            tx.execute("ROLLBACK TO SAVEPOINT here")
            assert len(tx.rows("SELECT id FROM sessions")) == before
        with pytest.raises(LookupError):
            theirs.rows("SELECT :nobody")
        theirs.rows("SELECT id FROM sessions")
        assert len(tx.rows("SELECT id FROM sessions")) == before
        assert within(tx, OperatorScope()) is tx


def test_every_table_is_decided_on():
    """A table is read on somebody's behalf by a policy, is closed to all but the owner, or holds nothing of people's."""
    not_personal = {
        "schema_version", "seals", "channels", "cursors", "holds", "cache_counts", "statistics_buckets",
        "leases",
    }  # fmt: skip
    with postgres.open_transaction() as tx:
        rows = tx.rows(
            "SELECT c.relname AS name, c.relrowsecurity AS is_held, EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid)"
            " AS has_policy FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
        )
    policies = {row["name"] for row in rows if row["has_policy"]}
    closed = {row["name"] for row in rows if row["is_held"] and not row["has_policy"]}
    assert policies == set(postgres_scopes.TABLES)
    assert {"persons", "identities", "inbox", "outbox", "quarantine", "questions"} <= closed
    undecided = {row["name"] for row in rows} - policies - closed - not_personal
    assert undecided == set(), "give it a policy, close it, or say here that it holds nothing of people's"


def narrowing_functions() -> dict[str, bool]:
    """Functions of `sessions` that take a scope and ask the database themselves: do they begin by narrowing?"""
    found = {}
    for info in pkgutil.walk_packages(sessions.__path__, "sessions."):
        if info.ispkg:
            continue
        tree = ast.parse(inspect.getsource(importlib.import_module(info.name)))
        for node in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
            names = {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}
            if {"tx", "scope"} <= names and any(
                isinstance(part, ast.Call) and ast.unparse(part.func) in ("tx.row", "tx.rows")
                for part in ast.walk(node)
            ):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                found[f"{info.name}.{node.name}"] = ast.unparse(body[0]) == "tx = within(tx, scope)"
    return found


def test_every_read_with_a_scope_begins_by_narrowing():
    """A new function that takes a scope reads through it from its first line."""
    found = narrowing_functions()
    assert found["sessions.lifecycle.find"] and len(found) > 12
    exempt = {
        "sessions.lifecycle.resolve",
        "sessions.search._by_words_sqlite",
    }  # a SessionScope; SQLite alone
    assert {name for name, narrows in found.items() if not narrows} - exempt == set()


# the role


def as_user(url: str, user: str) -> str:
    return url.replace("//postgres@", f"//{user}@")


@pytest.fixture
def plain_owner():
    """A database whose owner may not make roles, as on many managed servers."""
    with postgres.bare_database() as url:
        if "//postgres@127.0.0.1" not in url:
            pytest.skip("the server is somebody else's: no users are made there")
        name = url.rpartition("/")[2]
        owner = f"{name}_owner"
        postgres._administer(f'CREATE ROLE "{owner}" LOGIN', f'ALTER DATABASE "{name}" OWNER TO "{owner}"')
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'ALTER SCHEMA public OWNER TO "{owner}"'.encode())
        try:
            yield as_user(url, owner), owner
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f'REASSIGN OWNED BY "{owner}" TO postgres'.encode())
                connection.execute(f'DROP OWNED BY "{owner}"'.encode())
            postgres._administer(f'DROP ROLE "{owner}"')


async def test_a_server_that_refuses_a_role_is_told_of_and_works(plain_owner):
    """Without the right to make a role the daemon runs, filters in SQL alone, and says so."""
    url, _ = plain_owner
    with capture_logs() as logs:
        database = await PostgresDatabase.open(url)
    try:
        assert not database.row_security.is_on
        [entry] = [entry for entry in logs if entry["event"] == "store.row_security_missing"]
        assert "permission denied" in entry["reason"]
        made = await database.write(lambda tx: populate(tx).sessions[0])
        assert await database.read(lambda tx: lifecycle.find(tx, made.id, OperatorScope()).id) == made.id
    finally:
        await database.close()


async def test_a_prepared_role_is_used(plain_owner):
    """Whoever runs the server makes the role and grants it; its name in the settings turns row security on."""
    url, owner = plain_owner
    role = f"{owner}_prepared"
    postgres._administer(f'CREATE ROLE "{role}" NOLOGIN', f'GRANT "{role}" TO "{owner}"')
    try:
        database = await PostgresDatabase.open(url, reader_role=role)
        beside = await PostgresDatabase.open_beside(url, reader_role=role)
        try:
            assert database.row_security.role == beside.row_security.role == role
            made = await database.write(lambda tx: populate(tx).sessions)
            scope = SessionOnly(made[0].id)
            rows = await beside.read(lambda tx: within(tx, scope).rows("SELECT id FROM sessions"))
            assert [row["id"] for row in rows] == [made[0].id]
        finally:
            await beside.close()
            await database.close()
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{role}"'.encode())
            connection.execute(f'REVOKE ALL ON SCHEMA public FROM "{role}"'.encode())
        postgres._administer(f'DROP ROLE "{role}"')


async def test_a_role_that_is_not_there_or_sees_everything_is_no_row_security():
    """A name without a role, and one that the server does not hold to the policies, are told as what they are."""
    with postgres.fresh_database() as url:
        for role, reason in (("nobody_made_this", "there is no role"), ("postgres", "superuser")):
            with capture_logs():
                database = await PostgresDatabase.open(url, reader_role=role)
            await database.close()
            assert not database.row_security.is_on
            assert reason in database.row_security.reason


async def test_a_role_for_another_purpose_sees_no_row():
    """Somebody who was granted SELECT, for reports say, sees nothing of what people said."""
    with postgres.fresh_database() as url:
        database = await PostgresDatabase.open(url)
        await database.write(populate)
        await database.close()
        connections = Connections(url, Limits())
        try:
            with connections.lent() as connection:
                role = f"reports_{url.rpartition('_')[2]}"
                connection.execute("BEGIN")
                connection.execute(f"CREATE ROLE {role} NOLOGIN")
                connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
                connection.execute(f"SET LOCAL ROLE {role}")
                tx = PostgresTransaction(connection.statements)
                for table in (*postgres_scopes.TABLES, "persons", "identities", "inbox", "outbox"):
                    assert tx.rows(f"SELECT * FROM {table}") == [], table
                connection.execute("ROLLBACK")
        finally:
            connections.close()


def test_a_channel_sees_no_sums_of_people():
    """The sums of a person are read by that person alone, whatever the query asks."""
    with postgres.open_transaction() as tx:
        made = populate(tx).sessions
        while statistics.fold(tx, 5000):
            pass
        person = next(session.person_id for session in made if session.person_id)
        sql = "SELECT DISTINCT subject, dimension FROM statistics_totals"
        assert within(tx, PersonScope(person)).rows(sql) == [{"subject": person, "dimension": "person"}]
        assert within(tx, ChannelScope(made[0].account, made[0].channel)).rows(sql) == []
        assert statistics.read(tx, PersonScope(person), statistics.Subject("person", person), NOW).messages
