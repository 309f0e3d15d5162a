"""`palaver sessions …` as an operator types it: what is printed, what is changed, and with which exit code it ends."""

import asyncio
import json
import re
import time

import pytest

from config.settings import Settings
from sessions import contents, lane, lifecycle, summaries, tokens
from sessions.scope import OperatorScope
from tests.bot.console import Console
from tests.sessions.records import DAY, arrive, claimed, incoming, resolved
from tests.sessions.stores import open_place

EVERYTHING = OperatorScope()
NOW = 1_700_000_000_000
"""Long ago, so that what is not kept alive is due."""


class Terminal(Console):
    """`palaver sessions …`."""

    def run(self, *words: str) -> tuple[int, str, str]:
        return super().run("sessions", *words)


def _talk(tx, text="a trip to Rome", at=NOW, **changes):
    queued = arrive(tx, incoming(text, **changes), now=at)
    lane.finish(tx, claimed(tx, queued.session_id, at), "completed", at + 5, answer="gladly")
    return queued.session_id


@pytest.fixture
def terminal(console, tmp_path):
    return Terminal(tmp_path, console.url)


def test_a_session_is_shown_with_what_it_holds(terminal):
    """Title, status, contents and history in words; everything, and what was said, as JSON; by the end of its id too."""

    def make(tx):
        session_id = _talk(tx)
        contents.add_link(tx, session_id, "integration", "gmail", NOW)
        contents.set_current_task(tx, session_id, "book a table", NOW)
        lifecycle.pause(tx, lifecycle.find(tx, session_id, EVERYTHING), NOW + 60_000)
        return session_id

    session_id = terminal.change(make)
    code, shown, _ = terminal.run("show", session_id)
    assert code == 0
    for line in (
        r"title +a trip to Rome \(of its own\)",
        r"status +paused",
        r"task +book a table",
        r"integrations +gmail",
        r"then +2023-11-14 22:14:20 UTC  paused \(requested, by daemon\)",
    ):
        assert re.search(line, shown), line
    assert "gladly" not in shown
    code, shown, _ = terminal.run("show", session_id[-6:].lower(), "--json")
    facts = json.loads(shown)
    assert (facts["id"], facts["title"], facts["is_title_given"]) == (session_id, "a trip to Rome", False)
    assert facts["exchanges"][0]["answer"] == "gladly"


@pytest.mark.parametrize("word", ["nothing", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "G5FAVX", ""])
@pytest.mark.parametrize("command", ["show", "end", "resume"])
def test_an_unknown_session_is_said_so(terminal, command, word):
    """Exit 1, with what to do."""
    terminal.change(_talk)
    code, shown, error = terminal.run(command, word)
    assert (code, shown) == (1, "")
    assert f"there is no session {word}" in error
    assert "palaver sessions list" in error


def test_a_session_goes_through_its_life_by_command(terminal):
    """Each command takes its step, says where the session stands, and is noted as the operator's."""
    session_id = terminal.change(_talk)
    for command, status in [
        ("pause", "paused"),
        ("resume", "active"),
        ("end", "ended (completed)"),
        ("archive", "archived (completed)"),
        ("resume", "active"),
        ("archive", "archived (completed)"),
        ("delete", "ended (deleted)"),
        ("resume", "active"),
    ]:
        code, shown, error = terminal.run(command, session_id)
        assert (code, error) == (0, ""), (command, error)
        assert shown == f"{session_id} is {status} now.\n"
    events = terminal.change(lambda tx: lifecycle.events(tx, session_id, EVERYTHING))
    assert {event.made_by for event in events} == {"operator"}
    assert len(events) == 9, "archiving a live session is two steps"


def test_a_step_that_there_is_not_is_refused(terminal):
    """Exit 2, with the reason; nothing has changed."""
    session_id = terminal.change(_talk)
    terminal.run("end", session_id)
    code, _, error = terminal.run("pause", session_id)
    assert code == 2
    assert "a session that is ended cannot be paused" in error
    assert terminal.change(lambda tx: lifecycle.find(tx, session_id, EVERYTHING)).status == "ended"


def test_the_clean_up_says_what_is_due_and_does_it(terminal):
    """--dry-run changes nothing and gives the same counts as the clean-up itself; afterwards nothing is due."""

    def make(tx):
        _talk(tx)
        busy = _talk(tx, user_id="u2")
        contents.set_current_task(tx, busy, "book a table", NOW)
        old, _, _ = resolved(tx, incoming(user_id="u3"), now=NOW - 40 * DAY)
        lifecycle.end(tx, old, "reset", NOW - 39 * DAY)

    terminal.change(make)
    expected = "1 expired, 1 abandoned, 1 deleted"
    assert terminal.run("cleanup", "--dry-run")[:2] == (0, f"Due: {expected}.\n")
    assert terminal.run("cleanup", "--dry-run")[:2] == (0, f"Due: {expected}.\n")
    assert terminal.run("cleanup")[:2] == (0, f"Done: {expected}.\n")
    _, shown, _ = terminal.run("cleanup", "--dry-run", "--json")
    assert json.loads(shown) == dict.fromkeys(
        ["expired", "abandoned", "archived", "deleted", "removed", "messages"], 0
    )
    statuses = terminal.change(lambda tx: tx.rows("SELECT end_reason FROM sessions ORDER BY end_reason"))
    assert [row["end_reason"] for row in statuses] == ["abandoned", "deleted", "expired"]


def test_the_clean_up_removes_old_messages_as_well(terminal):
    """By the rules of the settings, as the daemon's does; --dry-run counts them and leaves them."""
    with terminal.config.open("a", encoding="utf-8") as file:
        file.write('[sessions]\nkeep_messages = "30d"\nexpire_after = "1000d"\n')
    now = int(time.time() * 1000)

    def make(tx):
        for days in (40, 35, 1):
            at = now - days * DAY
            queued = arrive(
                tx, incoming(f"{days} days ago", message_id=f"d{days}"), now=at, expire_after_ms=2**50
            )
            lane.finish(tx, claimed(tx, queued.session_id, at), "completed", at, answer="yes")

    terminal.change(make)
    assert terminal.run("cleanup", "--dry-run")[1] == "Due: 4 old messages.\n"
    assert terminal.run("cleanup")[1] == "Done: 4 old messages.\n"
    left = terminal.change(lambda tx: tx.rows("SELECT content FROM messages ORDER BY position, part"))
    assert [row["content"] for row in left] == ["1 days ago", "yes"]


def test_what_became_of_a_session_is_told_as_json(terminal):
    """Every step has --json with where the session stands now."""
    session_id = terminal.change(_talk)
    for command, status, reason in (
        ("pause", "paused", None),
        ("resume", "active", None),
        ("end", "ended", "completed"),
        ("archive", "archived", "completed"),
        ("delete", "ended", "deleted"),
    ):
        code, shown, _ = terminal.run(command, session_id, "--json")
        told = json.loads(shown)
        assert (code, told["id"]) == (0, session_id)
        assert told["status"] == status or command == "delete"
        assert told["end_reason"] == reason


@pytest.mark.parametrize(
    "command", [("end",), ("archive",), ("delete",), ("resume",), ("pause",), ("cleanup",)]
)
def test_a_daemon_is_not_disturbed(terminal, command):
    """Where it owns the file, commands that write end with 69 and say what to do; those that read work beside it."""

    async def run():
        database = await open_place(terminal.url)
        try:
            session_id = await database.write(_talk)
            words = [*command, session_id] if command != ("cleanup",) else [*command]
            refused = await asyncio.to_thread(terminal.run, *words)
            shown = await asyncio.to_thread(terminal.run, "show", session_id)
            due = await asyncio.to_thread(terminal.run, "cleanup", "--dry-run")
            return refused, shown, due
        finally:
            await database.close()

    (code, shown, error), read, due = asyncio.run(run())
    assert read[0] == due[0] == 0
    if (
        not terminal.is_sqlite
    ):  # a server's database is nobody's alone; a live session that goes on is no step
        assert code == (2 if command == ("resume",) else 0), error
        return
    assert (code, shown) == (69, "")
    assert "belongs to another running Palaver" in error
    assert "Stop that one first" in error


def test_the_list_takes_a_status(terminal):
    """Other systems' words work too, and a wrong one is refused with those there are."""
    terminal.change(_talk)
    assert "active" in terminal.run("list", "--status", "is_active")[1]
    assert terminal.run("list", "--status", "ended")[1] == "There are no sessions.\n"
    code, _, error = terminal.run("list", "--status", "gone")
    assert code == 2
    assert "'gone' is no status" in error


def test_a_session_is_given_values_of_its_own(terminal):
    """Title, description, window and idle time are set, shown, and taken away again; nonsense changes nothing."""
    session_id = terminal.change(_talk)
    given = ("--title", " Rome ", "--description", "in May", "--tokens", "900", "--expire-after", "12h")
    assert terminal.run("set", session_id, *given)[0] == 0
    shown = terminal.run("show", session_id)[1]
    for line in (
        r"title +Rome\n",
        r"description +in May",
        r"window +900 tokens of its own",
        r"ends after +12h idle",
    ):
        assert re.search(line, shown), line
    for words, sentence in (
        (("--tokens", "200", "--title", "Oslo"), "holds no conversation"),
        (("--tokens", "many"), "no number of tokens"),
        (("--expire-after", "soon"), "no time"),
        ((), "give --title"),
    ):
        code, _, error = terminal.run("set", session_id, *words)
        assert code == 2
        assert sentence in error
    assert terminal.run("show", session_id)[1] == shown
    assert terminal.run("set", session_id[-8:], "--expire-after", "never")[0] == 0
    assert re.search(r"ends after +never", terminal.run("show", session_id)[1])
    nothing = ("--title", "", "--description", "", "--tokens", "default", "--expire-after", "default")
    assert terminal.run("set", session_id, *nothing)[0] == 0
    shown = terminal.run("show", session_id)[1]
    assert re.search(r"title +a trip to Rome \(of its own\)", shown)
    assert not re.search(r"window|ends after|description", shown)
    assert terminal.run("set", "nothing", "--tokens", "900")[0] == 1


def test_what_the_model_would_see_is_shown_by_its_parts(terminal):
    """Figures on the screen, texts in the JSON; no more messages than asked for; an unknown session is said so."""

    def make(tx):
        session_id = _talk(tx, "I live in Porto")
        for number in range(12):
            _talk(tx, f"and what about {number}?", at=NOW + 10 + number)
        plan = summaries.plan(tx, session_id, Settings())
        made = summaries.Made(1, 1, 3, "- Ada: I live in Porto", 8, "digest")
        assert summaries.store(tx, plan, [made], [], NOW)
        return session_id

    session_id = terminal.change(make)
    code, shown, _ = terminal.run("context", session_id)
    assert code == 0
    assert re.search(r"summaries +\d+ tokens, of turns 1-3 by digest", shown)
    assert re.search(r"messages +\d+ tokens in 20", shown)
    assert "Porto" not in shown
    told = json.loads(terminal.run("context", session_id, "--messages", "4", "--json")[1])
    assert "I live in Porto" in told["notes"]
    assert [one["content"] for one in told["messages"]] == [
        "and what about 10?",
        "gladly",
        "and what about 11?",
        "gladly",
    ]
    assert [one["tokens"] for one in told["messages"]] == tokens.count_each(
        [one["content"] for one in told["messages"]]
    )
    counted = told["tokens"]
    assert counted["total"] == counted["instructions"] + counted["summaries"] + counted["messages"]
    assert told["limit"] == 4000
    assert terminal.run("context", "nothing")[0] == 1


def test_sessions_of_one_person_are_listed(terminal):
    """By platform and user or the platform's id alone; that somebody is unknown is said."""
    mine = terminal.change(_talk)
    theirs = terminal.change(lambda tx: _talk(tx, user_id="user-2", channel="2"))
    for person, ids in (("telegram:user-1", [mine]), ("telegram:user-2", [theirs]), ("user-2", [theirs])):
        code, shown, _ = terminal.run("list", "--person", person, "--json")
        assert (code, [one["id"] for one in json.loads(shown)]) == (0, ids)
    code, shown, error = terminal.run("list", "--person", "nobody")
    assert (code, shown) == (1, "")
    assert error.startswith("palaver: sessions list: nobody is known as nobody.")
