"""The reference pages say what the code has: every name of the one stands in the other, and the other way round.

Owns docs/reference/{commands,cli,delivery,http,database}.md and the tables that others share with them. Links, commands
and variables in all documents are `test_documents.py`; settings and events are tested where they are made.
"""

import dataclasses
import importlib
import inspect
import re
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import get_args

import discord
import pytest
import typer
from pydantic import TypeAdapter

from adapters import errors as adapter_errors
from adapters.base import Health
from adapters.registry import ADAPTERS
from adapters.telegram.adapter import TelegramAdapter
from bot import catalogue, cli, commands, policy, shell
from bot.agents.base import AgentErrorKind
from bot.app import App
from bot.health import HealthCheck
from bot.telemetry import Telemetry
from bot.web.app import build
from config.names import AccountId
from config.settings import AccountSettings, AgentSettings, Duration, Settings
from sessions import lifecycle, scope
from sessions.database.sqlite import SqliteDatabase
from sessions.models import ChunkState, EndReason, SessionScope, SessionStatus, TurnStatus
from sessions.statistics import Statistics

DOCS = Path(__file__).parents[2] / "docs"
ACCOUNT = AccountId("telegram.main")


def page(name):
    return (DOCS / name).read_text()


def section(name, heading):
    """What stands under a heading, up to the next one of the same or a higher level."""
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", page(name), re.MULTILINE | re.DOTALL
    )
    assert found, f"{name} has no heading {heading!r}"
    return found[2]


def rows(text):
    """The cells of every table row below a header line, backticks kept."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = {number for number, row in enumerate(cells) if all(set(cell) <= {"-", ":"} for cell in row)}
    return [row for number, row in enumerate(cells) if number not in rules and number + 1 not in rules]


def first_names(text):
    """The first word in backticks of each row's first cell."""
    return [found[1] for row in rows(text) if (found := re.match(r"`([^`]+)`", row[0]))]


def words(text):
    return re.findall(r"`([^`]+)`", text)


# commands.md


def test_every_command_is_described_and_no_other():
    """commands.md has the table of bot/commands.py, in its order, with its arguments and the words people read."""
    texts = catalogue.load("en", None)
    described = [tuple(row) for row in rows(page("reference/commands.md"))]
    assert described == [
        (
            f"`/{command.name}`",
            f"`{command.argument}`" if command.argument else "",
            texts.say(f"command_{command.name}", "en"),
        )
        for command in commands.TABLE.values()
    ]


def test_a_page_of_history_is_as_long_as_said():
    """commands.md tells the number of messages on a page of /history."""
    assert commands.HISTORY_PAGE == 10
    assert "ten messages a page" in page("reference/commands.md")


# cli.md


def command_lines():
    """Each command of the program, with the long options it takes."""
    group = typer.main.get_command(cli.cli)

    def walk(command, path):
        children = getattr(command, "commands", None)
        if children is None:
            yield (
                path,
                {opt for parameter in command.params for opt in parameter.opts if opt.startswith("--")},
            )
            return
        for name, child in children.items():
            yield from walk(child, f"{path} {name}")

    return dict(walk(group, "palaver"))


def test_every_command_line_is_described_and_no_other():
    """cli.md has a heading for each command of the program."""
    headings = re.findall(r"^## `([a-z -]+?)(?: [A-Z]+…?)*`$", page("reference/cli.md"), re.MULTILINE)
    assert sorted(headings) == sorted(command_lines())


@pytest.mark.parametrize("line", sorted(command_lines()))
def test_every_option_is_described_and_no_other(line):
    """Under each command cli.md lists exactly the options that it takes."""
    text = page("reference/cli.md")
    body = re.split(r"^## ", text.split(f"## `{line}", 1)[1], flags=re.MULTILINE)[0]
    (options,) = re.findall(r"^Options: (.*?)(?=\n\n|\Z)", body, re.MULTILINE | re.DOTALL)
    described = set(re.findall(r"--[a-z-]+", options))
    assert described == command_lines()[line] - {"--help"}


def test_the_options_of_the_program_itself():
    """cli.md names every option that comes before a command."""
    group = typer.main.get_command(cli.cli)
    (own,) = re.findall(r"^Options of `palaver` itself: (.*)$", page("reference/cli.md"), re.MULTILINE)
    named = {opt for parameter in group.params for opt in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", own)) == named | {"--help"}


def test_exit_statuses_are_the_programs():
    """cli.md lists the exit statuses that the program has names for, besides 0, 1, 2 and 130."""
    listed = {int(row[0]) for row in rows(page("reference/cli.md"))}
    assert listed == {0, 1, 2, 130, shell.UNAVAILABLE, shell.FAULT, shell.CONFIGURATION}


def test_the_words_for_a_status_are_understood():
    """Every word that cli.md gives for --status is one that `sessions list` takes, and none is left out."""
    body = page("reference/cli.md").split("## `palaver sessions list`")[1]
    said = set(words(body.split("`--status` (")[1].split(")")[0]))
    assert said == set(get_args(SessionStatus)) | set(lifecycle.SEED_WORDS)


# delivery.md


def test_every_reason_for_declining_is_described_and_no_other():
    """delivery.md has the fixed list of reasons that log and `palaver why` use."""
    described = first_names(section("reference/delivery.md", "Why a message is declined"))
    assert sorted(described) == sorted(reason for reason in get_args(policy.Reason) if reason)


def test_every_status_of_a_turn_is_described_and_no_other():
    """delivery.md has each status a turn can have."""
    described = first_names(section("reference/delivery.md", "The states of a turn"))
    assert sorted(described) == sorted(get_args(TurnStatus))


def test_every_state_of_a_chunk_is_described_and_no_other():
    """delivery.md has each state of a chunk, and what may follow is a state."""
    table = rows(section("reference/delivery.md", "The states of a chunk"))
    assert sorted(words(row[0])[0] for row in table) == sorted(get_args(ChunkState))
    assert {word for row in table for word in words(row[2])} <= set(get_args(ChunkState))


def delivery_errors():
    return {
        name
        for name, value in vars(adapter_errors).items()
        if inspect.isclass(value)
        and issubclass(value, adapter_errors.DeliveryError)
        and value is not adapter_errors.DeliveryError
    }


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("reference/delivery.md", "What an error means"),
        ("howto/write-an-adapter.md", "4. Send, and say truly what happened"),
    ],
)
def test_every_error_of_a_send_is_described_and_no_other(name, heading):
    """Both tables of errors have each class that an adapter may raise."""
    assert set(first_names(section(name, heading))) == delivery_errors()


def test_the_policies_for_uncertain_sends():
    """delivery.md has each value of on_uncertain, and names the default as such."""
    field = AccountSettings.model_fields["on_uncertain"]
    table = rows(section("reference/delivery.md", "Uncertain sends"))
    policies = {found: row[0] for row in table if (found := next(iter(words(row[0])), None))}
    assert set(policies) == set(get_args(field.annotation))
    assert [name for name, cell in policies.items() if "default" in cell] == [field.default]


# http.md


async def served_routes(tmp_path):
    """Path and method of everything that a daemon with a webhook account serves."""
    settings = AccountSettings(
        platform="telegram", token="123456:TEST", webhook_url="https://bot.example.org"
    )
    adapter = TelegramAdapter(ACCOUNT, settings, lambda _: ())
    database = await SqliteDatabase.open(tmp_path / "palaver.db")
    try:
        web = build(HealthCheck(database, {}), Telemetry(), adapter.routes, max_body_bytes=1)
        return {(route.path, method) for route in web.routes for method in route.methods - {"HEAD"}}
    finally:
        await adapter.close()
        await database.close()


async def test_every_route_is_described_and_no_other(tmp_path):
    """http.md has each route with its method."""
    table = page("reference/http.md").split("## `/readyz`")[0]
    described = {(words(row[0])[0].replace("<account name>", "main"), row[1]) for row in rows(table)}
    assert described == await served_routes(tmp_path)


async def test_the_fields_of_readyz_are_described(tmp_path):
    """http.md explains every state an account can be in, and shows the fields of the real report."""
    body = section("reference/http.md", "`/readyz`")
    listed = set(first_names(body))
    states = {*get_args(inspect.get_annotations(Health)["state"]), "deaf"}
    statuses = {"ready", "degraded", "not ready", "stopping"}
    assert listed == states | statuses
    database = await SqliteDatabase.open(tmp_path / "palaver.db")
    adapter = TelegramAdapter(ACCOUNT, AccountSettings(platform="telegram", token="1:T"), lambda _: ())
    try:
        report = await HealthCheck(database, {ACCOUNT: adapter}).report()
    finally:
        await adapter.close()
        await database.close()
    for field in (*report.details, *report.details["accounts"][ACCOUNT]):
        assert f'"{field}"' in body


async def test_every_metric_is_described_and_no_other(tmp_path):
    """http.md has each metric of a whole daemon, with its kind; operate.md names only such."""
    database = await SqliteDatabase.open(tmp_path / "palaver.db")
    app = App(Settings(agent=AgentSettings(kind="offline")), database, {})
    try:
        exposed = dict(re.findall(r"^# TYPE (\w+) (\w+)$", app.telemetry.exposition().decode(), re.MULTILINE))
    finally:
        await database.close()
    exposed = {name: kind for name, kind in exposed.items() if not name.endswith("_created")}
    table = rows(section("reference/http.md", "`/metrics`"))
    assert {words(row[0])[0]: row[1] for row in table} == exposed
    for name in re.findall(r"palaver_[a-z_]+(?=[`{])", page("howto/operate.md")):
        assert name in exposed or name.removesuffix("_count") in exposed


# database.md


async def test_every_table_is_described_and_no_other(tmp_path):
    """database.md has each table of a database that was made now."""
    path = tmp_path / "palaver.db"
    await (await SqliteDatabase.open(path)).close()
    with sqlite3.connect(path) as connection:
        made = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not name.startswith(
                ("sqlite_", "message_words_")
            )  # the full-text index keeps tables of its own
        }
    connection.close()
    described = first_names(page("reference/database.md").split("## Values")[0])
    assert set(described) == made
    assert len(described) == len(made)


def test_the_words_for_sessions_are_described():
    """database.md has every status, end reason and scope of a session; sessions.md explains the scopes."""
    text = section("reference/database.md", "Values")
    for choices in (SessionStatus, EndReason, SessionScope):
        assert set(get_args(choices)) <= set(words(text))
    assert set(first_names(section("explanation/sessions.md", "Which session?"))) == set(
        get_args(SessionScope)
    )


def test_the_life_of_a_session_is_the_table_of_transitions():
    """sessions.md has each step with the statuses it leads from and to."""
    described = {}
    for row in rows(section("explanation/sessions.md", "Its life")):
        sources = get_args(SessionStatus) if row[1] == "any" else words(row[1])
        described[row[0]] = {source: words(row[2])[0] for source in sources}
    wanted = {}
    for source, steps in lifecycle.TRANSITIONS.items():
        for step, target in steps.items():
            wanted.setdefault(step, {})[source] = target
    assert described == wanted


def test_the_picture_of_a_session_is_the_table_of_transitions():
    """The arrows between states in the picture of sessions.md are the transitions that there are."""
    body = section("explanation/sessions.md", "Its life")
    arrows = re.findall(r"^    (\w+) --> (\w+): ([a-z, ]+)$", body, re.MULTILINE)
    drawn = {(source, step, target) for source, target, steps in arrows for step in steps.split(", ")}
    assert drawn == {
        (source, step, target)
        for source, steps in lifecycle.TRANSITIONS.items()
        for step, target in steps.items()
    }


def test_every_scope_is_described_and_no_other():
    """isolation.md has each kind of scope that a read can take."""
    described = first_names(section("explanation/isolation.md", "It lives in the store"))
    assert set(described) == {kind.__name__ for kind in get_args(scope.Scope)}


# shared tables


def test_every_kind_of_a_models_failure_is_described_and_no_other():
    """connect-a-model.md has each kind of error an agent reports, and the one a turn adds."""
    described = first_names(section("howto/connect-a-model.md", "When the model fails"))
    assert set(described) == {*get_args(AgentErrorKind), "poison"}


def test_the_ports_name_what_there_is():
    """architecture.md names every adapter that ships."""
    (line,) = [row for row in rows(page("explanation/architecture.md")) if row[0] == "`Adapter`"]
    assert set(re.findall(r"[a-z]+", line[2])) - {"double"} == set(ADAPTERS)


@pytest.mark.parametrize("name", ["../README.md", "tutorial.md", "howto/discord.md"])
def test_the_invitation_asks_for_what_it_says(name):
    """The number in Discord's address stands for the four permissions that are named, and no other."""
    wanted = discord.Permissions(
        view_channel=True, send_messages=True, send_messages_in_threads=True, read_message_history=True
    )
    assert re.findall(r"permissions=(\d+)", page(name)) == [str(wanted.value)]


# session-functions.md


def test_every_function_that_is_named_exists():
    """session-functions.md names functions of `sessions` that there are, and no others."""
    named = set()
    for row in rows(page("reference/session-functions.md")):
        named |= set(re.findall(r"`(\w+)\.(\w+)(?:\(.*?\))?`", row[1]))
    assert len(named) > 35
    missing = []
    for module, name in named:
        if module[0].isupper():
            continue
        if not hasattr(importlib.import_module(f"sessions.{module}"), name):
            missing.append(f"{module}.{name}")
    assert missing == []


KNOWN_ELSEWHERE = """
getOrCreateSession getSession getActiveSession listUserSessions updateSession updateActivity pauseSession resumeSession endSession
deleteSession cleanupOldSessions addMessage addNotebook removeNotebook addIntegration removeIntegration setVariable getVariable
setCurrentTask clearCurrentTask getSessionStats findById findByConversation findOrCreate addSummary updateState clearMessages
cleanupExpired cleanupInactive getStats summarizeSession buildContext recordToolCall recordError cleanup create deactivate
create_user_session get_active_session update_session_activity link_mission_to_session abandon_inactive_sessions createSession
initializeSession completeSession updateSessionActivity autoSaveSession loadSession linkMissionToSession saveSessionState
recoverSession getSessionMetadata listSessions switchToSession create_session get_session get_or_create_session add_message
get_user_sessions cleanup_old_sessions include_messages createChatSession updateChatSessionStatus getChatSessionStats
scheduleChatSessionCleanup sendMessage chat createMission useSession validate_token
token_limit expires_in_ms context_data session_metadata
DEFAULT_TOKEN_LIMIT SUMMARIZE_THRESHOLD SUMMARY_MAX_TOKENS MIN_MESSAGES_TO_SUMMARIZE SESSION_EXPIRY_MS CLEANUP_INTERVAL_MS
CACHE_MAX_SIZE CHAT_SESSION_CLEANUP_INTERVAL CHAT_SESSION_TIMEOUT_HOURS ENABLE_CHAT_SESSIONS
""".split()
"""Functions, arguments and settings of the session services that ours takes after."""


def test_every_function_known_elsewhere_is_mapped():
    """session-functions.md has each of them in the first column of a table."""
    first = " ".join(row[0] for row in rows(page("reference/session-functions.md")))
    named = {re.match(r"\w+", word)[0] for word in words(first)}
    assert [name for name in KNOWN_ELSEWHERE if name not in named] == []


def test_the_numbers_that_are_mapped_are_the_statistics():
    """Each field of `Statistics` but its subject is in the table, and nothing else is."""
    table = rows(section("reference/session-functions.md", "Numbers"))
    named = {name for row in table if len(row) == 2 for name in words(row[1])}
    assert named == {one.name for one in dataclasses.fields(Statistics)} - {"subject"}


def test_the_defaults_that_are_mapped_are_the_settings():
    """Settings are there with these defaults, and what is no setting is a constant of that value."""
    checked = 0
    for row in rows(section("reference/session-functions.md", "Defaults")):
        if not row[3]:
            continue
        module, name = words(row[2])[0].split(".")
        default = words(row[3])[0]
        if "not a setting" in row[2]:
            assert str(getattr(importlib.import_module(f"sessions.{module}"), name)) == default
        else:
            value = getattr(getattr(Settings(), module), name)
            wanted = (
                TypeAdapter(Duration).validate_python(default)
                if isinstance(value, timedelta)
                else int(default)
            )
            assert value == wanted, row
        checked += 1
    assert checked == 10
