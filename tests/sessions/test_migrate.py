"""The numbered files of `migrations/`: read in order, run once, refused from the future, the same for both databases."""

import re

import pytest

from sessions.database import migrate
from sessions.database.base import COLUMN_TYPES
from sessions.database.migrate import Migration
from sessions.errors import SchemaTooNew


def test_the_files_are_numbered_without_a_gap():
    """Versions are 1, 2, 3 …, and each file holds statements."""
    found = migrate.migrations()
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    for migration in found:
        parts = [migration.sql, *migration.dialect_sql.values()]
        assert all(migrate.statements(part) for part in parts if part) and any(parts)


@pytest.mark.parametrize(
    "names", [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"]]
)
def test_a_gap_or_a_number_used_twice_is_refused(tmp_path, monkeypatch, names):
    """A merge that went wrong stops the start instead of skipping a migration."""
    (tmp_path / "migrations").mkdir()
    for name in names:
        (tmp_path / "migrations" / name).write_text("SELECT 1;")
    monkeypatch.setattr(migrate.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="gap"):
        migrate.migrations.__wrapped__()


def test_only_files_named_like_migrations_are_read(tmp_path, monkeypatch):
    """Editors' copies and notes beside the files are not run."""
    (tmp_path / "migrations").mkdir()
    for name in ("0001_first.sql", "0001_first.sql~", "README", "1_short.sql", "0001_UPPER.sql"):
        (tmp_path / "migrations" / name).write_text("SELECT 1;")
    monkeypatch.setattr(migrate.resources, "files", lambda package: tmp_path)
    assert migrate.migrations.__wrapped__() == (Migration(1, "first", "SELECT 1;"),)


def test_what_is_pending_is_what_was_not_run(tx, monkeypatch):
    """After all have run nothing is pending; a new one alone is."""
    assert migrate.current_version(tx) == len(migrate.migrations())
    assert list(migrate.pending(tx)) == []
    more = Migration(len(migrate.migrations()) + 1, "more", "CREATE TABLE more (id $SERIAL, raw $BYTES)")
    known = (*migrate.migrations(), more)
    monkeypatch.setattr(migrate, "migrations", lambda: known)
    assert list(migrate.pending(tx)) == [more]
    migrate.apply(tx, more, 5)
    assert list(migrate.pending(tx)) == []
    row = tx.row("SELECT * FROM schema_version ORDER BY version DESC LIMIT 1")
    assert (row["version"], row["name"], row["applied_at"]) == (more.version, "more", 5)


def test_a_schema_from_the_future_is_refused_with_both_versions(tx, monkeypatch):
    """Rows of a version that this code does not know: SchemaTooNew, with what to do."""
    known = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: known[:-1])
    with pytest.raises(SchemaTooNew, match=f"version {len(known)}.*up to {len(known) - 1}") as refusal:
        migrate.pending(tx)
    assert ("snapshot" if tx.dialect == "sqlite" else "backup") in refusal.value.hint


def test_scripts_are_cut_into_statements():
    """Comments go, also those that hold a semicolon; empty pieces go."""
    script = "-- one; two\nCREATE TABLE a (x TEXT); -- three;\n\n;CREATE TABLE b (y TEXT)  ;\n-- end"
    assert migrate.statements(script) == ["CREATE TABLE a (x TEXT)", "CREATE TABLE b (y TEXT)"]


def test_placeholders_are_those_that_both_databases_know():
    """`$SERIAL` and its like stand for a type on each database, or the file would not run there."""
    for migration in migrate.migrations():
        for placeholders in COLUMN_TYPES.values():
            assert set(re.findall(r"\$[A-Z]+\b", migration.sql)) <= set(placeholders)


def test_a_migration_may_have_a_part_for_each_database(tmp_path, monkeypatch):
    """`NNNN_name.sql`, then `NNNN_name.<dialect>.sql`; either may be missing, and all have one number and name."""
    (tmp_path / "migrations").mkdir()
    for name in (
        "0001_a.sql",
        "0002_b.sql",
        "0002_b.sqlite.sql",
        "0002_b.postgresql.sql",
        "0003_c.sqlite.sql",
        "0003_c.mysql.sql",
    ):
        (tmp_path / "migrations" / name).write_text(f"SELECT '{name}'")
    monkeypatch.setattr(migrate.resources, "files", lambda package: tmp_path)
    first, second, third = migrate.migrations.__wrapped__()
    assert (first.sql, first.dialect_sql) == ("SELECT '0001_a.sql'", {})
    assert set(second.dialect_sql) == {"sqlite", "postgresql"}
    assert (third.sql, third.dialect_sql) == ("", {"sqlite": "SELECT '0003_c.sqlite.sql'"})


def test_only_the_part_of_the_own_database_runs(tx):
    """The common part first, then the dialect's; the other dialect's is left alone."""
    other = "postgresql" if tx.dialect == "sqlite" else "sqlite"
    parts = {tx.dialect: "INSERT INTO parts VALUES ('own')", other: "this is no SQL"}
    migrate.apply(tx, Migration(900, "parts", "CREATE TABLE parts (name TEXT)", parts), 0)
    assert [row["name"] for row in tx.rows("SELECT name FROM parts")] == ["own"]


def test_triggers_and_function_bodies_stay_whole():
    """Semicolons between BEGIN and END of a trigger (CASE inside), in $$ bodies, strings, names and comments cut nothing."""
    trigger = "CREATE TRIGGER t AFTER UPDATE ON a BEGIN UPDATE a SET x = CASE WHEN 1 THEN ';' END; DELETE FROM b; END"
    function = "CREATE FUNCTION f() RETURNS TRIGGER AS $$ BEGIN IF x THEN y; END IF; RETURN NULL; END $$"
    tagged = "CREATE FUNCTION g() RETURNS TEXT AS $body$ SELECT '$$;' $body$"
    quoted = """SELECT 'it''s; --no comment' AS "a;b" """.strip()
    script = f"{trigger};\n/* ; */ {function};{tagged};\n{quoted}; -- end;\nSELECT 1"
    assert migrate.statements(script) == [trigger, function, tagged, quoted, "SELECT 1"]
