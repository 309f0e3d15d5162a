"""Commands for the data as a whole, on each kind of database: export and import, verify, people, summaries made anew.

Files, pipes and what a kill leaves are in `test_cli_data.py`, a server's moves, backups and keys in `test_moving_cli.py`.
"""

import json

import pytest

from config.settings import Settings
from sessions import lane, summaries
from tests.bot.console import Console
from tests.sessions.conversations import talk
from tests.sessions.records import NOW, arrive, claimed, incoming


@pytest.fixture
def full(console):
    """A shell on a database in which three people have talked."""
    console.change(lambda tx: talk(tx, seed=1, turns=30))
    return console


@pytest.fixture
def other(place, tmp_path):
    """A shell on a second, empty database of the same kind."""
    folder = tmp_path / "other"
    folder.mkdir()
    return Console(folder, place("other"))


def test_what_is_exported_comes_in_elsewhere(full, other, tmp_path):
    """A second database takes an export whole and exports the same bytes; a second time it changes nothing."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert full.beside_a_daemon("sessions", "export", "-o", str(first))[0] == 0
    code, told, _ = other.run("sessions", "import", str(first), "--json")
    done = json.loads(told)
    assert (code, done["skipped"]) == (0, 0)
    assert done["sessions"] > 3 and done["persons"] == 3
    assert other.run("sessions", "export", "-o", str(second))[0] == 0
    assert second.read_bytes() == first.read_bytes()
    again = json.loads(other.run("sessions", "import", str(first), "--json")[1])
    assert (again["sessions"], again["messages"], again["skipped"]) == (0, 0, done["sessions"])
    assert other.run("verify")[0] == 0


@pytest.mark.parametrize(("format", "head"), [("markdown", "# "), ("csv", "id,platform,")])
def test_an_export_of_one_person_is_readable(full, tmp_path, format, head):
    """For people and for tables, with that person's own sessions and nobody else's."""
    file = tmp_path / "out"
    assert (
        full.run("sessions", "export", "--person", "Name of ada", "--format", format, "-o", str(file))[0] == 0
    )
    text = file.read_text()
    assert text.startswith(head)
    assert "of bob" not in text


def test_verify_names_what_does_not_hold(full):
    """Sound beside a daemon; a count that is wrong is told with exit code 69, in words and as JSON."""
    code, told, _ = full.beside_a_daemon("verify")
    assert (code, "BAD" in told) == (0, False)
    full.change(lambda tx: tx.execute("UPDATE sessions SET message_count = 99"))
    code, told, said = full.run("verify")
    assert code == 69
    assert any(line.startswith("BAD  ") and "count of messages" in line for line in told.splitlines())
    assert "damaged" in said
    assert json.loads(full.run("verify", "--json")[1])["is_sound"] is False


def test_people_are_listed_and_forgotten(full, tmp_path):
    """Each with what they have; who is forgotten is in no list, search or export afterwards, and the rest holds."""
    listed = json.loads(full.beside_a_daemon("people", "list", "--json")[1])
    assert {one["display_name"] for one in listed} == {"Name of ada", "Name of bob", "Name of cleo"}
    (bob,) = json.loads(full.run("people", "list", "BOB", "--json")[1])
    code, told, _ = full.run("people", "erase", bob["id"], "--yes", "--json")
    done = json.loads(told)
    assert (code, done["person"]) == (0, bob["id"])
    assert done["removed"]["messages"] > 0
    assert full.run("people", "list", "bob")[1] == "Nobody.\n"
    assert full.run("people", "erase", bob["id"], "--yes")[0] == 1
    assert full.run("sessions", "export", "-o", str(tmp_path / "left"))[0] == 0
    assert "of bob" not in (tmp_path / "left").read_text()
    assert full.run("search", "bob")[0] == 1
    assert full.run("verify")[0] == 0


def test_summaries_are_made_anew(console):
    """Of all sessions that have some, or of one; the new version takes the place of the old, and who has none is named."""

    def make(tx):
        for number in range(12):
            queued = arrive(tx, incoming(f"I live in Porto, street {number}"), now=NOW + number)
            lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW + number, answer="gladly")
        plan = summaries.plan(tx, queued.session_id, Settings())
        made = summaries.Made(1, 1, 3, "- Ada: I live in Lisbon", 8, "digest")
        assert summaries.store(tx, plan, [made], [], NOW)
        return queued.session_id

    session_id = console.change(make)
    code, told, _ = console.run("sessions", "resummarise", "--all", "--json")
    assert (code, json.loads(told)) == (0, {session_id: 1})
    code, told, _ = console.run("sessions", "resummarise", session_id)
    assert (code, told) == (0, "1 sessions, 1 summaries.\n")
    rows = console.change(lambda tx: tx.rows("SELECT content, replaced_by FROM summaries ORDER BY version"))
    assert [row["replaced_by"] for row in rows] == [2, 3, None]
    assert "Porto" in rows[-1]["content"]
    code, _, said = console.run("sessions", "resummarise", "nobody")
    assert (code, "no summaries in NOBODY" in said) == (1, True)
