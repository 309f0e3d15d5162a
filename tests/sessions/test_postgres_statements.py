"""Statements on a connection: prepared once, sent together, and never taken for prepared when they are not."""

import math

import psycopg
import pytest
from psycopg import errors

from sessions.database import postgres_statements
from sessions.database.postgres_connections import Connections, Limits
from tests import postgres


@pytest.fixture
def connection():
    with postgres.fresh_database() as url:
        connections = Connections(url, Limits())
        try:
            with connections.lent() as lent:
                yield lent
        finally:
            connections.close()


def known(connection) -> list[str]:
    """What the server has prepared."""
    return [
        row["statement"]
        for row in connection.execute("SELECT statement FROM pg_prepared_statements ORDER BY 1").fetchall()
    ]


def value(connection, sql: str, *values):
    (row,) = connection.statements.run(f"SELECT {sql} AS value", values).rows
    return row["value"]


def test_a_statement_is_prepared_once_for_each_choice_of_types(connection):
    """The server holds one for text and one for NULL, however often they are run."""
    sql = "SELECT COALESCE($1, 'nothing') AS said"
    for said in ("one", "two", None, "three", None):
        assert connection.statements.run(sql, [said]).rows == [{"said": said or "nothing"}]
    assert known(connection) == [sql, sql]


@pytest.mark.parametrize(
    ("type_name", "sent", "given"),
    [
        ("text", "a ' b \\ \N{GRINNING FACE}", "a ' b \\ \N{GRINNING FACE}"),
        ("text", "nul \0, half \ud83d", "nul \ufffd, half \ufffd"),
        ("text", None, None),
        ("bigint", 2**63 - 1, 2**63 - 1),
        ("bigint", -(2**63), -(2**63)),
        ("bigint", True, 1),
        ("double precision", 0.1, 0.1),
        ("double precision", -math.inf, -math.inf),
        ("bytea", b"\0\x01'\\\xff", b"\0\x01'\\\xff"),
        ("text[]", ["a,b", '"', "\0"], ["a,b", '"', "\ufffd"]),
        ("bigint[]", [1, 2**40], [1, 2**40]),
        ("numeric", 3, 3),
        ("numeric", 2.5, 2.5),
    ],
)
def test_values_come_back(connection, type_name, sent, given):
    """What is sent as a type comes back as the same value, as far as the server can hold it."""
    assert value(connection, f"CAST($1 AS {type_name})", sent) == given


def test_what_is_not_a_number_comes_back(connection):
    """Not a number stays that."""
    assert math.isnan(value(connection, "CAST($1 AS double precision)", math.nan))


def test_a_statement_without_rows_gives_its_count(connection):
    """Rows changed are counted, with and without RETURNING."""
    run = connection.statements.run
    run("CREATE TEMPORARY TABLE things (id BIGINT)")
    assert run("INSERT INTO things SELECT generate_series(1, 5)").count == 5
    assert run("UPDATE things SET id = id + 10 WHERE id > $1", [3]).count == 2
    ran = run("DELETE FROM things WHERE id > $1 RETURNING id", [10])
    assert (ran.count, sorted(row["id"] for row in ran.rows)) == (2, [14, 15])


def test_statements_sent_together_give_each_its_own(connection):
    """Answers stand in the order of the statements."""
    ran = connection.statements.run_together(
        [("SELECT $1 AS a", ["x"]), ("SELECT CAST($1 AS bigint) AS b", [7]), ("SELECT $1 AS a", ["y"])]
    )
    assert [one.rows for one in ran] == [[{"a": "x"}], [{"b": 7}], [{"a": "y"}]]


def test_nothing_sent_together_is_nothing(connection):
    """An empty list is no error."""
    assert connection.statements.run_together([]) == []


def test_after_a_failure_nothing_of_the_rest_is_taken_for_prepared(connection):
    """The first error is told, what came before it is known, and all of it works once the cause is gone."""
    together = [
        ("SELECT 1 AS before", []),
        ("SELECT 1 / CAST($1 AS bigint) AS failed", [0]),
        ("SELECT 2 AS after", []),
    ]
    with pytest.raises(errors.DivisionByZero):
        connection.statements.run_together(together)
    assert "SELECT 2 AS after" not in known(connection)
    for _ in range(2):
        assert connection.statements.run("SELECT 2 AS after").rows == [{"after": 2}]
    again = [together[0], (together[1][0], [1]), together[2]]
    assert [one.rows[0] for one in connection.statements.run_together(again)] == [
        {"before": 1},
        {"failed": 1},
        {"after": 2},
    ]


def test_what_the_server_refuses_to_prepare_is_an_error_each_time(connection):
    """A statement with a mistake never counts as prepared, and costs no connection."""
    for _ in range(2):
        with pytest.raises(errors.UndefinedTable):
            connection.statements.run("SELECT * FROM nowhere")
    assert not connection.closed


def test_more_statements_than_are_kept(connection, monkeypatch):
    """What the server keeps prepared is bounded, and what fell out works again."""
    monkeypatch.setattr(postgres_statements, "MOST_PREPARED", 4)
    for number in [*range(10), *range(10)]:
        assert value(connection, str(number)) == number
    assert len(known(connection)) <= 4


def test_more_than_go_together_at_once(connection, monkeypatch):
    """A long list goes in several parts, unseen."""
    monkeypatch.setattr(postgres_statements, "MOST_TOGETHER", 3)
    ran = connection.statements.run_together([("SELECT CAST($1 AS bigint) AS n", [n]) for n in range(10)])
    assert [one.rows[0]["n"] for one in ran] == list(range(10))


def test_more_than_fits_into_the_socket(connection):
    """Neither side waits for the other: both have more to say than the operating system holds."""
    text = "x" * 100_000
    ran = connection.statements.run_together([("SELECT $1 AS said", [text])] * 200)
    assert all(one.rows == [{"said": text}] for one in ran)


def test_a_connection_that_ends_in_the_middle_is_an_error_and_closed(connection):
    """The server's end is told as such, and the connection is of no use afterwards."""
    killing = "SELECT pg_terminate_backend(pg_backend_pid()) AS x"
    with pytest.raises(psycopg.OperationalError):
        connection.statements.run_together([("SELECT 1 AS x", []), (killing, []), ("SELECT 2 AS x", [])])
    assert connection.closed
    with pytest.raises(psycopg.OperationalError):
        connection.statements.run("SELECT 1 AS x")


def test_a_single_statement_whose_connection_ends(connection):
    """The same for a statement on its own."""
    sleeping = "SELECT pg_sleep(CAST($1 AS bigint)) AS x"
    connection.statements.run(sleeping, [0])
    pid = connection.info.backend_pid
    with postgres.connected(connection.info.dsn) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(psycopg.OperationalError):
        connection.statements.run(sleeping, [0])
    assert connection.closed
