"""The command line: what each command prints, how mistakes read, and the exit codes that scripts rely on."""

import asyncio
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bot import __main__, shell
from bot.cli import cli
from config import logging as logs
from sessions.database.sqlite import SqliteDatabase
from tests.bot.house import House

COMMANDS = ["run", "chat", "check-config", "doctor", "migrate", "why", "sessions"]


@pytest.fixture(autouse=True)
def clean_environment(tmp_path, monkeypatch):
    """No setting of the machine's own, and a folder of one's own."""
    for name in list(os.environ):
        if name.startswith(("PALAVER_", "TELEGRAM_", "DISCORD_", "OPENAI_", "ANTHROPIC_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALAVER_DATABASE_URL", f"sqlite://{tmp_path}/palaver.db")
    yield
    logs.stop()


def palaver(*arguments):
    result = CliRunner().invoke(cli, list(arguments), env={"COLUMNS": "100"})
    return result.exit_code, result.stdout, result.stderr


def test_help_lists_every_command():
    """--help, and no argument at all, list the commands."""
    code, out, _ = palaver("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    assert all(command in "".join(palaver()[1:]) for command in COMMANDS)


@pytest.mark.parametrize("group", [(), ("sessions",), ("people",), ("keys",), ("quarantine",)])
def test_a_list_of_commands_has_whole_sentences(group):
    """In a terminal of 80 columns each command's line in the list says all of its first sentence."""
    result = CliRunner().invoke(cli, [*group, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    commands = result.stdout.partition("Commands:")[2]
    assert commands
    assert "..." not in commands


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command):
    """Each command has help of its own."""
    code, out, _ = palaver(command, "--help")
    assert code == 0
    assert len(out.splitlines()) > 5


def test_where_the_database_is_said_to_be(tmp_path, monkeypatch):
    """A path is written from one's home, and says whether a start will make it; elsewhere it is whole."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    assert shell.database_place(f"sqlite://{home}/a/palaver.db") == "~/a/palaver.db (new)"
    (home / "a").mkdir(parents=True)
    (home / "a" / "palaver.db").touch()
    assert shell.database_place(f"sqlite://{home}/a/palaver.db") == "~/a/palaver.db"
    assert shell.database_place(f"sqlite://{tmp_path}/other.db") == f"{tmp_path}/other.db (new)"


def test_three_slashes_are_explained(monkeypatch):
    """A file in the root folder is hardly ever meant; check-config and doctor say how a relative path is written."""
    monkeypatch.setenv("PALAVER_DATABASE_URL", "sqlite:///chat.db")
    said = "the file is /chat.db; in the working directory it would be sqlite:chat.db"
    assert said in palaver("check-config")[1]
    assert said in palaver("doctor")[1]
    monkeypatch.setenv("PALAVER_DATABASE_URL", "sqlite:///var/lib/chat.db")
    assert "would be sqlite:" not in palaver("check-config")[1]


def test_ctrl_c_while_it_is_loaded_is_quiet(monkeypatch):
    """Whoever thinks better of it in the first second gets exit 130, not a traceback."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "bot.cli", SimpleNamespace(main=interrupted))
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130


def test_version():
    """--version prints name and version."""
    assert palaver("--version")[:2] == (0, "palaver 0.1.0\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("run", "--fast"),
        ("why",),
        ("why", "a", "b"),
        ("why", "x", "--jsn"),
        ("sessions", "list", "--status", "gone"),
        ("sessions", "list", "--limit", "0"),
    ],
)
def test_usage_mistakes_exit_2(arguments):
    """What is typed wrongly exits with 2 and says what is wrong on stderr."""
    code, out, err = palaver(*arguments)
    assert code == 2
    assert err
    assert "Traceback" not in err + out


@pytest.mark.parametrize(
    "command",
    [["run"], ["chat"], ["check-config"], ["doctor"], ["migrate"], ["why", "x"], ["sessions", "list"]],
)
def test_a_mistake_in_the_configuration_exits_78(command, monkeypatch):
    """Every command refuses a broken configuration in the same way: the setting, what is wrong, exit 78."""
    monkeypatch.setenv("PALAVER_AGENT__MODLE", "x")
    code, _, err = palaver(*command)
    assert code == 78
    assert err.startswith(
        "palaver: PALAVER_AGENT__MODLE: unknown setting; did you mean PALAVER_AGENT__MODEL?"
    )


def test_a_config_file_that_is_not_there_exits_78():
    """A file named and not found is a mistake, not a default."""
    code, _, err = palaver("check-config", "--config", "nowhere.toml")
    assert code == 78
    assert "nowhere.toml" in err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PALAVER_AGENT__TOOLS", "clok", "agent.tools: there is no tool 'clok'"),
        ("PALAVER_TEXTS", "nowhere", "there is no folder nowhere"),
    ],
)
@pytest.mark.parametrize("command", ["check-config", "chat"])
def test_mistakes_beyond_the_settings_tree_exit_78(monkeypatch, command, variable, value, said):
    """Unknown tools and a missing folder of texts are found by check-config, and refused by the daemon, alike."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PALAVER_LOG__FILE", "log.txt")
    code, out, err = palaver(command)
    assert (code, out) == (78, "")
    assert said in err


def test_run_with_nobody_to_talk_to_exits_78():
    """With no account and no terminal `run` says what to set."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bot", "run"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 78
    assert "accounts: none is configured" in done.stderr
    assert "TELEGRAM_BOT_TOKEN" in done.stderr


def test_check_config_hides_secrets(monkeypatch):
    """The effective settings are printed with their origin, and no secret among them, as text and as JSON."""
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "123456:" + "S3cr3t" * 5)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-" + "S3cr3t" * 5)
    for arguments in ((), ("--json",)):
        code, out, _ = palaver("check-config", *arguments)
        assert code == 0
        assert "S3cr3t" not in out
        assert "TELEGRAM_BOT_TOKEN" in out
    settings = {entry["path"]: entry for entry in json.loads(out)["settings"]}
    assert settings["agent.kind"]["value"] == "llm"


def test_migrate_makes_and_keeps(tmp_path):
    """`migrate` makes the database; a second time it says the same."""
    for _ in range(2):
        assert palaver("migrate")[:2] == (0, "The database is up to date.\n")
    assert (tmp_path / "palaver.db").exists()


def test_an_unwritable_database_exits_69(tmp_path, monkeypatch):
    """A database that cannot be had exits with 69, says why and what to do."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("PALAVER_DATABASE_URL", f"sqlite://{tmp_path}/file/palaver.db")
    code, _, err = palaver("migrate")
    assert code == 69
    assert err.startswith("palaver: database: cannot write in")
    assert "Make the folder writable" in err


def test_a_server_that_is_not_there_exits_69(monkeypatch):
    """A database that is not reached is said plainly by every command that needs one, with what to do and without the password."""
    monkeypatch.setenv("PALAVER_DATABASE_URL", "postgresql://ada:hidden-words@127.0.0.1:1/palaver")
    for command in (["migrate"], ["why", "x"], ["sessions", "list"]):
        code, _, err = palaver(*command)
        assert (code, "cannot connect" in err, "database_url" in err) == (69, True, True)
        assert "hidden-words" not in err


def test_a_database_that_somebody_owns_exits_69(tmp_path):
    """A second daemon on one file is refused with the owner's process."""

    async def owned():
        database = await SqliteDatabase.open(tmp_path / "palaver.db")
        try:
            return await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-P", "-m", "bot", "migrate"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        finally:
            await database.close()

    done = asyncio.run(owned())
    assert done.returncode == 69
    assert f"belongs to another running Palaver (process {os.getpid()})" in done.stderr


def test_before_the_first_start_there_is_nothing_to_read():
    """`why` and `sessions` without a database say that there is none yet."""
    for command in (["why", "x"], ["sessions", "list"]):
        code, _, err = palaver(*command)
        assert (code, "there is no database" in err) == (69, True)


@pytest.fixture
def talked(place, monkeypatch):
    """A database, of each kind, in which Ada has said hello and failed once."""
    url = place("talked")
    monkeypatch.setenv("PALAVER_DATABASE_URL", url)

    async def talk():
        house = House(url)
        async with house.running():
            await house.adapter.ask("hello")
            await house.adapter.ask("fail=unavailable")

    asyncio.run(talk())


@pytest.mark.usefixtures("talked")
def test_why():
    """`why` tells the story in words or JSON; of what is not known it says so and exits with 1."""
    code, out, _ = palaver("why", "memory.main", "ada", "m-1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["received", "accepted", "answered", "delivered"]
    code, out, _ = palaver("why", "m-2", "--json")
    assert json.loads(out)[0]["errors"][0]["kind"] == "unavailable"
    code, out, err = palaver("why", "m-3")
    assert (code, out) == (1, "")
    assert "nothing is known of m-3" in err
    code, _, err = palaver("why", "memory.main", "-1001234", "7")  # as Telegram numbers its groups
    assert (code, "nothing is known of memory.main -1001234 7" in err) == (1, True)


@pytest.mark.usefixtures("talked")
def test_sessions_list():
    """`sessions list` is a table or JSON, filtered by status, other systems' words included."""
    code, out, _ = palaver("sessions", "list")
    assert code == 0
    assert len(out.splitlines()) == 2
    code, out, _ = palaver("sessions", "list", "--json")
    assert json.loads(out)[0]["message_count"] == 3
    for status, count in (
        ("active", 1),
        ("ACTIVE", 1),
        ("is_active", 1),
        ("ended", 0),
        ("inactive", 0),
        ("EXPIRED", 0),
    ):
        code, out, _ = palaver("sessions", "list", "--json", "--status", status)
        assert (code, len(json.loads(out))) == (0, count)


def test_doctor(tmp_path, monkeypatch):
    """`doctor` exits 0 where all is well, 69 where something is bad, a line for each finding."""
    monkeypatch.setenv("PALAVER_HTTP__PORT", "0")
    code, out, _ = palaver("doctor")
    assert code == 0
    assert all(line.startswith("ok  ") for line in out.splitlines())
    (tmp_path / "palaver.db").write_bytes(b"not a database" * 1000)
    code, out, _ = palaver("doctor")
    assert code == 69
    assert "BAD  database" in out


def test_a_chat_over_a_pipe_ends_with_its_input(tmp_path):
    """Each line is a message, each reply is printed, and the end of the input ends it with 0, whatever the lines were."""
    lines = ["what is 17 + 25?", "/status", "/stop", "   ", "/nonsense", "", "x" * 40_000]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bot", "chat"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PALAVER_LOG__FILE": str(tmp_path / "log.txt")},
    )
    assert done.returncode == 0, done.stderr
    assert "42" in done.stdout
    assert "We have talked since" in done.stdout
    assert "I am not writing anything" in done.stdout
    assert "I do not know /nonsense" in done.stdout
    assert "too long for me" in done.stdout
    assert done.stderr == ""
