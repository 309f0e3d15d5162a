"""`palaver search` and `palaver stats` as an operator types them: what is printed, and with which exit code it ends."""

import json

import pytest

from bot import reports
from sessions import lane
from sessions.models import ErrorRecord
from sessions.search import SearchPage
from sessions.statistics import Statistics, Subject
from tests.sessions.records import arrive, claimed, incoming

NOW = 1_700_000_000_000


@pytest.fixture
def palaver(console):
    """The commands, over a database with two people's talk in it."""

    def talk(tx):
        first = arrive(tx, incoming("Red äpples please"), now=NOW).session_id
        lane.finish(
            tx, claimed(tx, first, NOW), "completed", NOW + 1400, answer="no apples left", input_tokens=1200
        )
        second = arrive(
            tx,
            incoming("apples", user_id="user-2", platform="discord", account="discord.main"),
            now=NOW + 86_400_000,
            persona="poet",
        ).session_id
        error = ErrorRecord("K7Q2MN", "timeout", "", None)
        lane.finish(tx, claimed(tx, second, NOW + 86_400_000), "timeout", NOW + 86_460_000, error=error)
        return first

    console.first = console.change(talk)
    return console


def test_search_prints_where_and_what(palaver):
    """Two lines a hit: when, who, account, channel, session; then the words in their place, marked."""
    code, out, _ = palaver.run("search", "red", "apples")
    assert code == 0
    assert out.splitlines() == [
        f"2023-11-14 22:13  Ada on telegram.main in chat-1, session {palaver.first}",
        "    [Red] [äpples] please",
        "1 message found.",
    ]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["apples"], 3),
        (["apples -left"], 2),
        (['"apples left"'], 1),
        (["appl*"], 3),
        (["apples", "--platform", "discord"], 1),
        (["apples", "--account", "telegram.main"], 2),
        (["apples", "--person", "telegram:user-1"], 2),
        (["apples", "--person", "discord:user-2"], 1),
        (["apples", "--role", "assistant"], 1),
        (["apples", "--role", "bot"], 1),
        (["apples", "--since", "2023-11-15"], 1),
        (["apples", "--until", "2023-11-15T00:00"], 2),
        (["apples", "--since", "2023-11-14T23:13:20+01:00"], 3),
        (["apples", "--since", "7d"], 0),
        (["apples", "--limit", "1"], 3),
    ],
)
def test_search_takes_words_and_filters(palaver, words, number):
    """Each option leaves out what is not meant; `total` counts all pages; nothing found ends with 1."""
    code, out, _ = palaver.run("search", *words, "--json")
    assert (code, json.loads(out)["total"]) == (0 if number else 1, number)


def test_search_by_session(palaver):
    """--session looks in one session only; the JSON names session, place and excerpt of each hit."""
    code, out, _ = palaver.run("search", "apples", "--session", palaver.first, "--json")
    hits = json.loads(out)["hits"]
    assert code == 0
    assert {hit["session"] for hit in hits} == {palaver.first}
    assert {(hit["role"], hit["excerpt"]) for hit in hits} == {
        ("user", "Red äpples please"),
        ("assistant", "no apples left"),
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "x", "--role", "king"], "'king' is no role"),
        (["search", "x", "--since", "yesterday"], "'yesterday' is no time"),
        (["stats", "--person", "a", "--session", "b"], "give one of"),
    ],
)
def test_what_is_wrong_is_said(palaver, words, said):
    """A mistake ends with 2 and names what was typed."""
    code, _, error = palaver.run(*words)
    assert code == 2
    assert said in error


def test_stats_of_everything(palaver):
    """Every line of the report, from the numbers of two short sessions."""
    code, out, _ = palaver.run("stats")
    assert code == 0
    lines = {line[:16].strip(): line[16:] for line in out.splitlines()}
    assert lines["sessions"] == "2: active 2"
    assert lines["on platforms"] == "2: discord 1, telegram 1"
    assert lines["turns"] == "2: completed 1, timeout 1"
    assert lines["messages"] == "3"
    assert lines["tokens"] == "1,200 in, 0 out"
    assert lines["errors"] == "1: timeout 1"
    assert lines["success"] == "50.0% of the turns that ended"
    assert lines["response time"] == "p50 1.4 s, p95 1.1 min, p99 1.1 min, mean 32 s"
    assert lines["a session has"] == "1.5 messages in 31 s on average"
    assert lines["last 24 hours"] == "0 messages"


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--platform", "telegram"], 2),
        (["--persona", "poet"], 1),
        (["--persona", ""], 2),
        (["--person", "discord:user-2"], 1),
    ],
)
def test_stats_of_one(palaver, words, messages):
    """--json has every number of the subject alone."""
    code, out, _ = palaver.run("stats", *words, "--json")
    read = json.loads(out)
    assert (code, read["messages"]) == (0, messages)
    assert set(read) == set(Statistics.__dataclass_fields__)


def test_stats_of_a_session(palaver):
    """--session takes a session's id."""
    read = json.loads(palaver.run("stats", "--session", palaver.first, "--json")[1])
    assert (read["messages"], read["turns"], read["response"]["p50_ms"]) == (2, {"completed": 1}, 1429)


@pytest.mark.parametrize("command", ["search", "stats"])
def test_whom_nobody_knows_is_said(palaver, command):
    """A person or session that is not there gets a sentence, not a count of nothing that could be believed."""
    words = ["apples"] if command == "search" else []
    for option, told in (
        (["--person", "nobody"], "nobody is known as nobody."),
        (["--person", "telegram:9"], "nobody is known as telegram:9."),
        (["--session", "01ABC"], "there is no session 01ABC."),
    ):
        code, out, error = palaver.run(command, *words, *option)
        assert (code, out) == (1, "")
        assert f"palaver: {command}: {told}" in error


def test_sparklines_show_proportions():
    """The greatest is the highest bar, anything at all is a bar, nothing is a dot."""
    assert reports.sparkline([0, 1, 50, 100]) == "·▁▄█"
    assert reports.sparkline([0, 0]) == "··"
    assert reports.sparkline([]) == ""
    assert reports.sparkline([7]) == "█"


def test_sparklines_are_for_terminals():
    """With a terminal the timeline has bars, without it only sums."""
    read = Statistics(Subject(), messages_by_hour=[*[0] * 23, 1], messages_by_day=[0] * 14)
    assert "·" * 23 + "█  1 messages" in reports.statistics_text(read, with_sparklines=True)
    assert "█" not in reports.statistics_text(read, with_sparklines=False)


def test_what_a_search_could_not_do_is_said():
    """Sealed messages, messages not indexed yet, words taken as beginnings, and more hits than are ranked."""
    text = reports.search_text(SearchPage((), 1, 500, is_cut=True, is_widened=True, sealed=3, unread=9))
    assert text.splitlines() == [
        "more than 499 messages found.",
        "No message has these very words; these have words that begin so.",
        "3 sealed messages could not be searched.",
        "9 messages are not indexed yet; search again in a moment.",
    ]
