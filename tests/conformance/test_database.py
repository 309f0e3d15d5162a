"""What every implementation of the `Database` port promises, shown on each of them alike."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from config.names import AccountId, PersonId
from sessions import inbox
from sessions.database import migrate
from sessions.database.base import Database, Transaction
from sessions.errors import SchemaTooNew, StoreError, StoreUnavailable
from sessions.scope import PersonScope, within
from tests.sessions.stores import DATABASES, Opener

ACCOUNT = AccountId("telegram.main")


@pytest.fixture(params=list(DATABASES))
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    async with DATABASES[request.param](tmp_path) as opener:
        yield opener


@pytest.fixture
async def database(opener: Opener) -> AsyncIterator[Database]:
    database = await opener()
    yield database
    await database.close()


def put(tx: Transaction, name: str, value: str = "x", at: int = 0) -> None:
    inbox.set_cursor(tx, ACCOUNT, name, value, at)


def got(tx: Transaction, name: str) -> str | None:
    return inbox.cursor(tx, ACCOUNT, name)


def names(tx: Transaction) -> set[str]:
    return {row["name"] for row in tx.rows("SELECT name FROM cursors")}


async def test_what_write_returned_is_read_by_everybody_at_once(database):
    """When `write` has returned, its result is the work's and each later read sees the effect."""

    def work(tx: Transaction) -> str:
        put(tx, "offset", "17")
        return "result"

    assert await database.write(work) == "result"
    seen = await asyncio.gather(*(database.read(lambda tx: got(tx, "offset")) for _ in range(10)))
    assert set(seen) == {"17"}


async def test_a_failing_operation_undoes_only_itself(database):
    """Of operations that share a commit, one that raises leaves nothing behind and takes nobody with it."""

    def work(number: int, tx: Transaction) -> None:
        put(tx, f"first-{number}")
        if number % 7 == 0:
            raise LookupError(number)
        put(tx, f"second-{number}")

    before = database.commits
    results = await asyncio.gather(
        *(database.write(lambda tx, n=n: work(n, tx)) for n in range(50)), return_exceptions=True
    )
    assert database.commits - before < 25, "they were to share commits, or this shows nothing"
    kept = {n for n in range(50) if n % 7}
    assert {n for n, result in enumerate(results) if result is None} == kept
    assert {repr(result) for n, result in enumerate(results) if n not in kept} == {
        f"LookupError({n})" for n in range(0, 50, 7)
    }
    assert await database.read(names) == {f"{part}-{n}" for n in kept for part in ("first", "second")}


async def test_a_failing_statement_undoes_only_its_operation(database):
    """The same where the database refuses the statement itself (a broken constraint, a mistake in SQL)."""

    def broken(tx: Transaction) -> None:
        put(tx, "before the mistake")
        tx.execute(
            "INSERT INTO cursors (account, name) VALUES (:account, :name)", {"account": "a", "name": "b"}
        )

    results = await asyncio.gather(
        database.write(lambda tx: put(tx, "left neighbour")),
        database.write(broken),
        database.write(lambda tx: tx.execute("UPDATE no_such_table SET x = 1")),
        database.write(lambda tx: put(tx, "right neighbour")),
        return_exceptions=True,
    )
    assert [isinstance(result, Exception) for result in results] == [False, True, True, False]
    assert not any(isinstance(result, StoreError) for result in results), "our mistake, not the store's state"
    assert await database.read(names) == {"left neighbour", "right neighbour"}


async def test_operations_run_in_the_order_in_which_they_were_asked_for(database):
    """Operations take effect in the order of the calls, over many commits."""
    calls = []
    for number in range(300):
        calls.append(
            asyncio.create_task(
                database.write(lambda tx, n=number: inbox.quarantine(tx, ACCOUNT, b"", str(n), 0))
            )
        )
        if number % 50 == 0:
            await asyncio.sleep(0)
    ids = await asyncio.gather(*calls)
    assert ids == sorted(ids)
    rows = await database.read(lambda tx: tx.rows("SELECT reason FROM quarantine ORDER BY id"))
    assert [row["reason"] for row in rows] == [str(number) for number in range(300)]


async def test_an_operation_sees_its_own_and_all_earlier_effects(database):
    """Work reads what it wrote itself, and what operations before it wrote, committed or not."""

    def read_own(tx: Transaction) -> str | None:
        put(tx, "own", "1")
        return got(tx, "own")

    first, second, own = await asyncio.gather(
        database.write(lambda tx: put(tx, "earlier", "2")),
        database.write(lambda tx: got(tx, "earlier")),
        database.write(read_own),
    )
    assert (first, second, own) == (None, "2", "1")


async def test_reads_see_only_what_is_committed(database):
    """While a write is under way, reads go on and see the state before it."""
    await database.write(lambda tx: put(tx, "state", "before"))
    written, seen = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        put(tx, "state", "after")
        written.set()
        assert seen.wait(20)

    write = asyncio.create_task(database.write(work))
    try:
        assert await asyncio.to_thread(written.wait, 20)
        assert await database.read(lambda tx: got(tx, "state")) == "before"
    finally:
        seen.set()
    await write
    assert await database.read(lambda tx: got(tx, "state")) == "after"


async def test_a_read_sees_one_state_however_long_it_takes(database):
    """A commit in the middle of a read is not seen by it: several selects of one read fit together."""
    await database.write(lambda tx: put(tx, "state", "before"))
    begun, changed = threading.Event(), threading.Event()

    def work(tx: Transaction) -> tuple[str | None, str | None]:
        first = got(tx, "state")
        begun.set()
        assert changed.wait(20)
        return first, got(tx, "state")

    read = asyncio.create_task(database.read(work))
    try:
        assert await asyncio.to_thread(begun.wait, 20)
        await database.write(lambda tx: put(tx, "state", "after"))
    finally:
        changed.set()
    assert await read == ("before", "before")


async def test_reads_refuse_changes(database):
    """A read that tries to change something raises and changes nothing."""
    with pytest.raises(StoreError):
        await database.read(lambda tx: put(tx, "sneaked in"))
    assert await database.read(names) == set()
    await database.write(lambda tx: put(tx, "still works"))


async def test_nothing_is_lost_or_applied_twice_under_many_writers(database):
    """200 writers read, change and write one number and add a row each: all are there, each once."""

    def work(number: int, tx: Transaction) -> int:
        value = int(got(tx, "sum") or 0) + 1
        put(tx, "sum", str(value))
        tx.execute(
            "INSERT INTO cursors (account, name, value, updated_at) VALUES ('sum', :name, :value, 0)",
            {"name": str(number), "value": str(value)},
        )
        return value

    results = await asyncio.gather(*(database.write(lambda tx, n=n: work(n, tx)) for n in range(200)))
    assert sorted(results) == list(range(1, 201))
    assert await database.read(lambda tx: got(tx, "sum")) == "200"
    rows = await database.read(lambda tx: tx.rows("SELECT value FROM cursors WHERE account = 'sum'"))
    assert sorted(int(row["value"]) for row in rows) == list(range(1, 201))


async def test_a_cancelled_callers_effect_stands_or_not_but_never_half(database):
    """Whoever stops waiting for a write leaves either all of it or nothing, and disturbs nobody."""

    def work(number: int, tx: Transaction) -> None:
        put(tx, f"first-{number}")
        put(tx, f"second-{number}")

    calls = [asyncio.create_task(database.write(lambda tx, n=n: work(n, tx))) for n in range(60)]
    for turn, call in enumerate(calls[::2]):
        call.cancel()
        if turn % 5 == 0:
            await asyncio.sleep(0.001)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert any(isinstance(result, asyncio.CancelledError) for result in results), (
        "nobody was cancelled in time"
    )
    await database.write(lambda tx: put(tx, "after"))
    found = await database.read(names)
    for number, result in enumerate(results):
        halves = {f"first-{number}", f"second-{number}"} & found
        assert len(halves) in (0, 2)
        assert result is not None or len(halves) == 2


async def test_a_cancelled_read_disturbs_nobody(database):
    """Reads whose callers stopped waiting give their place back."""
    held = threading.Event()
    calls = [asyncio.create_task(database.read(lambda tx: held.wait(20))) for _ in range(10)]
    await asyncio.sleep(0.02)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    held.set()
    assert await asyncio.gather(*(database.read(names) for _ in range(10))) == [set()] * 10


class OwnError(Exception):
    """An error that only this test knows."""


@pytest.mark.parametrize("error", [OwnError("x"), KeyError("x"), asyncio.CancelledError()])
@pytest.mark.parametrize("way", ["read", "write"])
async def test_errors_of_work_keep_their_type(database, error, way):
    """Whatever work raises comes out as it is, of the class it is, and the store goes on."""

    def work(tx: Transaction) -> None:
        raise error

    with pytest.raises(type(error)):
        await asyncio.wait_for(getattr(database, way)(work), 10)
    await database.write(lambda tx: put(tx, "after"))
    assert await database.read(names) == {"after"}


@pytest.mark.parametrize("way", ["read", "write"])
async def test_work_that_ends_with_stop_iteration_gets_an_error_too(database, way):
    """StopIteration cannot pass through a future; it becomes RuntimeError, as in a generator, and nobody hangs."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(getattr(database, way)(lambda tx: next(iter(()))), 10)
    results = await asyncio.wait_for(asyncio.gather(*(database.read(names) for _ in range(5))), 10)
    assert results == [set()] * 5
    await asyncio.wait_for(database.write(lambda tx: put(tx, "after")), 10)


async def test_close_finishes_what_is_queued(opener):
    """Writes that were asked for before `close` are on disk when it returns, and their callers know."""
    database = await opener()
    calls = [asyncio.create_task(database.write(lambda tx, n=n: put(tx, str(n)))) for n in range(50)]
    reads = [asyncio.create_task(database.read(names)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.gather(database.close(), database.close())
    assert all(call.done() for call in calls)
    assert await asyncio.gather(*calls) == [None] * 50
    for read in reads:
        with contextlib.suppress(StoreUnavailable):
            await asyncio.wait_for(read, 10)
    again = await opener()
    assert await again.read(names) == {str(number) for number in range(50)}


async def test_a_closed_database_refuses_clearly(database):
    """After `close` (which may be called again) both ways raise StoreUnavailable."""
    await database.close()
    await database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.write(lambda tx: put(tx, "late"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.read(names)


async def test_free_space_is_known_or_said_to_be_unknown(database):
    """`free_bytes` is a number of bytes, or None."""
    free = database.free_bytes()
    assert free is None or free > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "ÄÖ 漢字 עברית",
        "👩‍👩‍👧‍👦 \U0010ffff",
        "'; DROP TABLE cursors; --",
        ":name $1 %s ? {}",
        "\\ \n\t\r\x7f",
    ],
)
async def test_text_comes_back_as_it_was(database, text):
    """Every character that text can hold survives, whatever it would mean in SQL."""
    await database.write(lambda tx: put(tx, "text", text))
    assert await database.read(lambda tx: got(tx, "text")) == text


@pytest.mark.parametrize("text", ["a\0b", "\0", "a\ud800b", "\udfff"])
async def test_text_that_cannot_be_stored_is_stored_as_well_as_it_can(database, text):
    """A NUL or half a surrogate pair fails nothing: it comes back as itself or as U+FFFD, the rest is whole."""
    await database.write(lambda tx: put(tx, "text", text))
    replaced = "".join(
        "\ufffd" if character == "\0" or "\ud800" <= character <= "\udfff" else character
        for character in text
    )
    assert await database.read(lambda tx: got(tx, "text")) in (text, replaced)


async def test_two_halves_of_a_character_become_the_character(database):
    """A surrogate pair that arrived as two characters (streams cut them) is stored as the one it means."""
    await database.write(lambda tx: put(tx, "text", "\ud83d\ude00"))
    assert await database.read(lambda tx: got(tx, "text")) == "😀"


async def test_large_values_come_back_whole(database):
    """Megabytes of text and of bytes are stored as they are."""
    text, raw = "ß漢" * 1_000_000, bytes(range(256)) * 3_000
    number = await database.write(lambda tx: inbox.quarantine(tx, ACCOUNT, raw, "", 0))
    await database.write(lambda tx: put(tx, "large", text))
    assert await database.read(lambda tx: got(tx, "large")) == text
    row = await database.read(lambda tx: tx.row("SELECT raw FROM quarantine WHERE id = :id", {"id": number}))
    assert bytes(row["raw"]) == raw


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)])
async def test_integers_have_64_bits(database, number):
    """BIGINT columns hold every integer of 64 bits exactly."""
    await database.write(lambda tx: put(tx, "n", at=number))
    row = await database.read(
        lambda tx: tx.row("SELECT updated_at FROM cursors WHERE updated_at = :n", {"n": number})
    )
    assert row is not None and row["updated_at"] == number


async def test_counts_upserts_and_returning(database):
    """`execute` counts changed rows; upserts and RETURNING work; a parameter may be used twice; `row` gives None for none."""

    def work(tx: Transaction) -> None:
        for name in "abc":
            put(tx, name)
        put(tx, "a", "second", 7)
        assert got(tx, "a") == "second"
        assert (
            tx.execute("UPDATE cursors SET updated_at = updated_at + :n WHERE updated_at < :n", {"n": 5}) == 2
        )
        assert tx.execute("DELETE FROM cursors WHERE name = :name", {"name": "nobody"}) == 0
        returned = tx.rows(
            "UPDATE cursors SET value = 'new' WHERE name <> :name RETURNING name, value", {"name": "a"}
        )
        assert sorted((row["name"], row["value"]) for row in returned) == [("b", "new"), ("c", "new")]
        assert tx.row("SELECT name FROM cursors WHERE name = :name", {"name": "nobody"}) is None
        assert tx.rows("SELECT name FROM cursors WHERE name = :name", {"name": "nobody"}) == []

    await database.write(work)
    assert await database.read(names) == {"a", "b", "c"}


async def test_an_upsert_that_does_nothing_counts_nothing(database):
    """ON CONFLICT DO NOTHING reports 0 rows, which is how a repeated step is noticed."""
    sql = "INSERT INTO holds (account, channel, until) VALUES ('a', '', 1) ON CONFLICT (account, channel) DO NOTHING"
    assert await database.write(lambda tx: (tx.execute(sql), tx.execute(sql))) == (1, 0)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
async def test_many_rows_come_in_whole_whatever_their_number(database, count):
    """Rows inserted together are all there, each with its own values, and what is there already stays as it is."""

    def work(tx: Transaction) -> None:
        put(tx, "offset-3", "before")
        tx.insert_many(
            "cursors (account, name, value, updated_at)",
            "(:account, :name, COALESCE((SELECT value || :value FROM cursors WHERE name = :name), :value), 0)",
            [value for number in range(count) for value in (ACCOUNT, f"offset-{number}", f"value {number}")],
            "ON CONFLICT (account, name) DO NOTHING",
        )

    await database.write(work)
    found = await database.read(lambda tx: tx.rows("SELECT name, value FROM cursors"))
    expected = {f"offset-{number}": f"value {number}" for number in range(count)} | {"offset-3": "before"}
    assert {row["name"]: row["value"] for row in found} == expected


async def test_statements_that_go_together_each_give_their_own(database):
    """Counts and rows are those of each statement in turn; a failure among them undoes all, and what follows works as before."""
    insert = "INSERT INTO cursors (account, name, value, updated_at) VALUES (:account, :name, '1', 0) RETURNING name"
    find = "SELECT name FROM cursors WHERE account = :account ORDER BY name"

    def work(tx: Transaction, *names: str) -> list[Any]:
        ran = tx.together(
            [
                *((insert, {"account": ACCOUNT, "name": name}) for name in names),
                (find, {"account": ACCOUNT}),
                ("UPDATE cursors SET updated_at = 1 WHERE name = :name", {"name": "a"}),
            ]
        )
        return [([row["name"] for row in one.rows], one.count) for one in (ran[0], ran[-2], ran[-1])]

    found = await database.write(lambda tx: work(tx, "a", "b"))
    assert [found[0][0], found[1][0], found[2]] == [["a"], ["a", "b"], ([], 1)]
    for number in range(12):
        with pytest.raises(Exception, match=r"(?i)unique"):
            await database.write(lambda tx: work(tx, f"x{number}", "a"))  # noqa: B023 - awaited in the loop
        await database.write(lambda tx: work(tx, f"y{number}"))  # noqa: B023 - as above
    rows = await database.read(lambda tx: tx.rows(find, {"account": ACCOUNT}))
    assert len(rows) == 14


def defer(tx: Transaction, name: str, value: str = "x") -> None:
    """As `put`, but nothing is asked of it, and a name that is there already is an error."""
    tx.defer(
        "INSERT INTO cursors (account, name, value, updated_at) VALUES (:account, :name, :value, 0)",
        {"account": ACCOUNT, "name": name, "value": value},
    )


async def test_what_is_deferred_is_there_for_what_comes_after_it(database):
    """A statement of which nothing is asked takes effect in its place, also before rows are read on somebody's behalf."""

    def work(tx: Transaction) -> list[str | None]:
        defer(tx, "a", "1")
        seen = [got(tx, "a")]
        defer(tx, "b", "2")
        tx.execute("UPDATE cursors SET value = value || '!'")
        defer(tx, "c", "3")
        own = within(tx, PersonScope(PersonId("nobody")))
        assert own.rows("SELECT id FROM sessions") == []
        defer(tx, "d", "4")
        return [*seen, got(tx, "a"), got(tx, "b"), got(tx, "c")]

    assert await database.write(work) == ["1", "1!", "2!", "3"]
    assert await database.read(lambda tx: got(tx, "d")) == "4"


async def test_what_is_deferred_fails_with_its_work_alone(database):
    """Its error is raised by the work it belongs to, whose effects are undone; those beside it stand."""
    await database.write(lambda tx: put(tx, "taken", "first"))

    def failing(tx: Transaction) -> None:
        put(tx, "undone", "x")
        defer(tx, "taken")

    done = await asyncio.gather(
        database.write(lambda tx: defer(tx, "before")),
        database.write(failing),
        database.write(lambda tx: defer(tx, "after")),
        return_exceptions=True,
    )
    assert [done[0], done[2]] == [None, None]
    assert "unique" in str(done[1]).lower()
    for name, value in {"before": "x", "after": "x", "undone": None, "taken": "first"}.items():
        assert await database.read(lambda tx: got(tx, name)) == value  # noqa: B023 - awaited in the loop


async def test_work_that_fails_takes_what_it_deferred_along(database):
    """Nothing that a failed operation put off is done by the one behind it."""

    def failing(tx: Transaction) -> None:
        defer(tx, "never")
        raise ValueError("no")

    done = await asyncio.gather(
        database.write(failing), database.write(lambda tx: put(tx, "beside", "1")), return_exceptions=True
    )
    assert isinstance(done[0], ValueError)
    assert await database.read(lambda tx: (got(tx, "never"), got(tx, "beside"))) == (None, "1")


async def test_it_works_again_after_reopening(opener):
    """Closed and opened again: the rows are there, and migrations do not run a second time."""
    database = await opener()
    await database.write(lambda tx: put(tx, "kept", "1"))
    ran = await database.read(lambda tx: tx.rows("SELECT * FROM schema_version ORDER BY version"))
    await database.close()
    again = await opener()
    assert await again.read(lambda tx: got(tx, "kept")) == "1"
    assert await again.read(lambda tx: tx.rows("SELECT * FROM schema_version ORDER BY version")) == ran
    assert [row["version"] for row in ran] == [migration.version for migration in migrate.migrations()]
    await again.write(lambda tx: put(tx, "kept", "2"))


async def test_a_newer_schema_is_refused_and_left_alone(opener):
    """A database that a newer Palaver wrote is not opened; the reason names both versions."""
    newer = len(migrate.migrations()) + 1
    database = await opener()
    await database.write(
        lambda tx: tx.execute(
            "INSERT INTO schema_version (version, name, applied_at) VALUES (:version, 'future', 0)",
            {"version": newer},
        )
    )
    await database.close()
    for _ in range(2):  # the refusal lets go of the store, so that it is the same the second time
        with pytest.raises(SchemaTooNew, match=str(newer)) as refusal:
            await opener()
        assert refusal.value.hint


async def test_writes_share_commits(database):
    """100 writes asked for at the same time need a handful of commits, not a hundred."""
    await database.write(lambda tx: put(tx, "warm"))
    before = database.commits
    await asyncio.gather(*(database.write(lambda tx, n=n: put(tx, str(n))) for n in range(100)))
    assert 1 <= database.commits - before <= 10
    assert len(await database.read(names)) == 101
