"""`palaver audit`: what was done to people, by whom, without a word of theirs; and that a mistyped database is not made."""

import json

from tests import postgres
from tests.bot.console import Console
from tests.bot.test_roles_cli import ada


def test_what_was_done_to_a_person_is_listed_beside_a_daemon(console):
    """Blocked, unblocked and forgotten: each has its line, the latest first, with counts and without the name."""
    person = console.change(ada)
    assert console.run("audit") == (0, "Nothing.\n", "")
    console.run("people", "block", "Ada")
    console.run("people", "unblock", "Ada")
    assert console.run("people", "erase", "Ada", "--yes")[0] == 0
    code, told, _ = console.beside_a_daemon("audit")
    lines = told.splitlines()
    assert code == 0
    assert ["person erased" in lines[0], "role member" in lines[1], "role blocked" in lines[2]] == [True] * 3
    assert all("by operator" in line and person.id in line for line in lines)
    assert "1 identity" in lines[0]
    assert "Ada" not in told
    entries = json.loads(console.run("audit", "--json", "--limit", "1")[1])
    assert [(one["action"], one["actor"], one["subject"]) for one in entries] == [
        ("person_erased", "operator", person.id)
    ]
    assert entries[0]["counts"]["identities"] == 1
    assert console.run("audit", "--person", "SOMEBODY-ELSE")[1] == "Nothing.\n"
    assert len(console.run("audit", "--person", person.id)[1].splitlines()) == 3


CHANGES = [
    ("sessions", "end", "ABCDEF"),
    ("sessions", "set", "ABCDEF", "--title", "x"),
    ("sessions", "cleanup"),
    ("sessions", "resummarise", "ABCDEF"),
    ("people", "block", "Ada"),
    ("people", "erase", "Ada", "--yes"),
    ("quarantine", "drop", "1"),
]


def test_changing_makes_no_file(tmp_path, bare_environment):
    """A command that changes something says that there is no database where the settings look, and makes none."""
    console = Console(tmp_path, f"sqlite://{tmp_path}/palaver.db")
    before = sorted(tmp_path.iterdir())
    for words in CHANGES:
        code, _, said = console.run(*words)
        assert code == 69
        assert said.startswith(f"palaver: database: there is no database at {tmp_path}/palaver.db yet")
    assert sorted(tmp_path.iterdir()) == before


def test_changing_makes_no_tables(tmp_path, bare_environment):
    """Nor does it make Palaver's tables in a server's database that happens to be there and empty."""
    with postgres.bare_database() as url:
        console = Console(tmp_path, url)
        for words in CHANGES:
            code, _, said = console.run(*words)
            assert (code, "holds nothing of Palaver yet" in said) == (69, True), (words, said)
        with postgres.connected(url) as connection:
            made = connection.execute(
                "SELECT COUNT(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            ).fetchone()
    assert made == (0,)
