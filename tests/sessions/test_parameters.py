"""`:name` as PostgreSQL's `$1`: what is a parameter, and what only looks like one."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.database.parameters import in_order, numbered
from tests import postgres


@pytest.mark.parametrize(
    ("sql", "expected", "names"),
    [
        ("SELECT 1", "SELECT 1", ()),
        ("WHERE a = :a AND b = :b OR c = :a", "WHERE a = $1 AND b = $2 OR c = $1", ("a", "b")),
        ("VALUES (:id,:id2)", "VALUES ($1,$2)", ("id", "id2")),
        ("x = :now-:then", "x = $1-$2", ("now", "then")),
        ("SELECT ':no', 'it''s :no', :yes", "SELECT ':no', 'it''s :no', $1", ("yes",)),
        ("SELECT 'a' || :x || ':b'", "SELECT 'a' || $1 || ':b'", ("x",)),
        ('SELECT ":no" FROM t WHERE ":""no" = :yes', 'SELECT ":no" FROM t WHERE ":""no" = $1', ("yes",)),
        ("SELECT :x::text, '{}'::jsonb", "SELECT $1::text, '{}'::jsonb", ("x",)),
        ("-- :no\nSELECT :yes -- it's :no", "-- :no\nSELECT $1 -- it's :no", ("yes",)),
        ("/* :no ' */ SELECT :yes", "/* :no ' */ SELECT $1", ("yes",)),
        ("SELECT $$ :no $$, $f$ ' :no $f$, :yes", "SELECT $$ :no $$, $f$ ' :no $f$, $1", ("yes",)),
        (r"SELECT E'\' :no', e'\\', :yes", r"SELECT E'\' :no', e'\\', $1", ("yes",)),
        (r"SELECT '\', :yes, ' :no'", r"SELECT '\', $1, ' :no'", ("yes",)),
        (r"SELECT note'\', :yes", r"SELECT note'\', $1", ("yes",)),
        ("LIKE '100%' AND a % 2 = :x", "LIKE '100%' AND a % 2 = $1", ("x",)),
        ("a[1:2], a := 1, '12:30'", "a[1:2], a := 1, '12:30'", ()),
        ("", "", ()),
    ],
)
def test_what_is_a_parameter(sql, expected, names):
    """Strings, quoted names, comments, casts and slices are left alone; a name used twice has one number."""
    assert numbered(sql) == (expected, names)


def test_a_parameter_that_was_not_given_is_named():
    """A forgotten parameter is our own mistake, and the error says which; one too many does not matter."""
    _, names = numbered("SELECT :a, :b")
    assert in_order(names, {"b": 2, "a": 1, "c": 3}) == [1, 2]
    with pytest.raises(LookupError, match=":b"):
        in_order(names, {"a": 1})


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["%", "$1", "::", ":", "''", '"', "--", "/*", "*/", "\\", "e", "E", "x", " ", "$$", "\n", ":p"]
        ),
        st.sampled_from("äß漢🙂"),
    ),
    max_size=8,
).map("".join)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


EXPRESSION = st.one_of(
    PIECES.map(_quoted),
    PIECES.map(lambda text: "/*" + text.replace("*/", "").replace("/*", "") + " */ 'after'"),
    PIECES.map(lambda text: "--" + text.replace("\n", "") + "\n 'after'"),
    st.sampled_from(
        ["CAST(:p AS TEXT)", "CAST(:long_name AS TEXT)", "CAST(:p AS TEXT)||CAST(:q AS TEXT)", "'x'||:q"]
    ),
)


@given(
    expressions=st.lists(EXPRESSION, min_size=1, max_size=5),
    values=st.fixed_dictionaries({"p": PIECES, "q": PIECES, "long_name": PIECES}),
)
def test_both_databases_read_the_same_statement(expressions, values):
    """Whatever stands in strings, comments and values: PostgreSQL answers the translation as SQLite does the original."""
    sql = "SELECT " + ", ".join(f"{expression} AS c{number}" for number, expression in enumerate(expressions))
    with sqlite3.connect(":memory:") as connection:
        expected = connection.execute(sql, values).fetchone()
    connection.close()
    with postgres.open_transaction() as tx:
        row = tx.row(sql, values)
    assert tuple(row.values()) == expected
