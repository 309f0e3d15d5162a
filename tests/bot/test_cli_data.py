"""Commands for the data as a whole, from outside: what they print and return, and beside a daemon.

`tests/process/test_keeping.py` kills them.
"""

import asyncio
import contextlib
import json
import os
import pty
import shutil
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest

from sessions.database.sqlite import SqliteDatabase
from tests.process.daemon import SCRIPT, clean_environment
from tests.sessions import records as made
from tests.sessions.conversations import exported, talk
from tests.sessions.stores import lay_sqlite

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


class Shell:
    """`palaver …` on a database in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "palaver.db"
        self.keys: list[str] = []

    def environment(self) -> dict[str, str]:
        keys = {"PALAVER_STORE__ENCRYPTION_KEYS": json.dumps(self.keys)} if self.keys else {}
        return clean_environment(self.folder) | {"PALAVER_DATABASE_URL": f"sqlite:{self.path}"} | keys

    def start(self, *arguments: str, **how) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [SCRIPT, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=how.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        out, error = process.communicate(timeout=120)
        assert process.returncode == status, (arguments, process.returncode, out, error)
        return (out + error).decode()

    def store(self, work, *, keys: list[str] | None = None):
        """Do something with the database while no program has it."""

        async def run():
            database = await SqliteDatabase.open(
                lay_sqlite(self.path), keys=self.keys if keys is None else keys
            )
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(run())

    def fill(self, *, seed: int = 1, turns: int = 40, **how) -> None:
        async def work(database):
            await database.write(lambda tx: talk(tx, seed=seed, turns=turns, **how))

        self.store(work)

    def content(self) -> bytes:
        return self.store(exported)


@pytest.fixture
def shell(tmp_path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def full(shell) -> Shell:
    shell.fill()
    return shell


# what they say and return


def test_a_store_is_moved_by_a_pipe(full, tmp_path):
    """`sessions export | sessions import -` moves everything, and the second store exports the same bytes."""
    other = Shell(tmp_path / "other")
    other.folder.mkdir()
    pipe = full.start("sessions", "export")
    taken = subprocess.run(
        [SCRIPT, "sessions", "import", "-", "--json"],
        stdin=pipe.stdout,
        capture_output=True,
        env=other.environment(),
        check=True,
        timeout=60,
    )
    pipe.communicate(timeout=60)
    assert json.loads(taken.stdout)["sessions"] > 3
    assert other.content() == full.content()


def test_export_to_a_file_of_its_own(full):
    """The file is for its owner only, is never written over by mistake, and what is not JSONL is what was asked for."""
    full.run("sessions", "export", "--output", "all.jsonl")
    assert (full.folder / "all.jsonl").read_bytes() == full.content()
    assert stat.S_IMODE((full.folder / "all.jsonl").stat().st_mode) == 0o600
    assert "--force" in full.run("sessions", "export", "-o", "all.jsonl", status=2)
    full.run("sessions", "export", "-o", "all.jsonl", "--force", "--format", "markdown", "--person", "ada")
    text = (full.folder / "all.jsonl").read_text()
    assert "of ada" in text and "of bob" not in text
    assert full.run("sessions", "export", "--format", "csv").startswith("id,platform,")
    one = json.loads(full.run("sessions", "list", "--json"))[0]["id"]
    assert one in full.run("sessions", "export", one)
    full.run("sessions", "export", "01AAAAAAAAAAAAAAAAAAAAAAAA", status=1)
    full.run("sessions", "export", "--person", "nobody-has-this-name", status=1)


def test_import_says_what_is_wrong_with_a_file(full):
    """A cut-off, foreign or missing file gives a sentence and exit 2, and nothing of it is in the store."""
    full.run("sessions", "export", "-o", "all.jsonl")
    whole = (full.folder / "all.jsonl").read_bytes()
    other = Shell(full.folder / "other")
    other.folder.mkdir()
    (full.folder / "cut.jsonl").write_bytes(whole[: len(whole) * 2 // 3])
    said = [other.run("sessions", "import", str(full.folder / "cut.jsonl"), status=2)]
    assert "cut off" in said[0]
    (full.folder / "text").write_text("hello")
    said.append(other.run("sessions", "import", str(full.folder / "text"), status=2))
    assert "not JSON" in said[1]
    assert "no file" in other.run("sessions", "import", "none.jsonl", status=2)
    (full.folder / "c.json").write_text('[{"uuid": "1", "chat_messages": []}]')
    said.append(other.run("sessions", "import", str(full.folder / "c.json"), status=2))
    assert "an export of Claude belongs to nobody here" in said[2] and "--person ID" in said[2]
    assert not any("Sessions before that are in" in one for one in said)
    assert other.run("sessions", "list", "--json").strip() == "[]"


def test_a_chat_export_goes_into_a_persons_archive(full):
    """OpenAI's file is recognised and becomes archived sessions of the person named."""
    content = {"content_type": "text", "parts": ["hi"]}
    message = {"id": "m", "author": {"role": "user"}, "create_time": 1.7e9, "content": content}
    tree = {"n": {"id": "n", "message": message, "parent": None, "children": []}}
    document = [
        {"title": "T", "create_time": 1.7e9, "conversation_id": "c", "current_node": "n", "mapping": tree}
    ]
    (full.folder / "conversations.json").write_text(json.dumps(document))
    done = json.loads(full.run("sessions", "import", "conversations.json", "--person", "ada", "--json"))
    assert (done["sessions"], done["messages"]) == (1, 1)
    again = json.loads(full.run("sessions", "import", "conversations.json", "--person", "ada", "--json"))
    assert (again["sessions"], again["skipped"]) == (0, 1)
    told = full.run("sessions", "import", "conversations.json", "--person", "ada")
    assert "1 session of the file was there already." in told


def test_people_are_listed_and_erased(full):
    """`people erase` asks first; afterwards no word of the person is in the file, and the log of deeds says so."""
    listed = json.loads(full.run("people", "list", "--json"))
    assert {one["display_name"] for one in listed} == {"Name of ada", "Name of bob", "Name of cleo"}
    ada = next(one["id"] for one in listed if one["display_name"] == "Name of ada")
    full.run("people", "erase", ada, status=1)  # nobody answers the question
    assert b"word of ada" in full.path.read_bytes()
    full.run("backup", "palaver.db.copy")
    done = json.loads(full.run("people", "erase", ada, "--yes", "--json"))
    assert done["removed"]["messages"] > 0
    assert done["searched"]["left"] == {"palaver.db.copy": done["searched"]["pieces"]}
    assert {"palaver.db", "palaver.db.copy"} <= set(done["searched"]["files"])
    (full.folder / "palaver.db.copy").unlink()
    bob = full.run("people", "erase", "bob", "--yes")
    assert "none is in palaver.db" in bob and "still has" not in bob
    full.run("backup", "copy.db")
    raw = b"".join(file.read_bytes() for file in full.folder.glob("palaver.db*"))
    assert b"of ada" not in raw and b"of bob" not in raw and b"of cleo" in raw
    full.run("people", "erase", ada, "--yes", status=1)
    full.run("verify")


@pytest.mark.parametrize("words", [("stats",), ("check-config",), ("verify",), ("--help",)])
def test_a_disk_that_takes_no_output_is_said_in_a_line(full, words):
    """A full disk behind stdout ends a command with 69 and one line, whatever the command is."""
    with Path("/dev/full").open("wb") as disk:
        process = full.start(*words, stdout=disk)
        error = process.communicate(timeout=60)[1]
    assert error.decode() == "palaver: cannot write to stdout: No space left on device.\n"
    assert process.returncode == 69


def test_keys_are_made_and_rotated(full):
    """A key from `keys new` encrypts what was plain; without it nothing opens, and `--off` brings it back."""
    before = full.content()
    key = full.run("keys", "new").strip()
    assert "no key" not in full.run("keys", "rotate", status=2)
    full.keys = [key]
    full.run("keys", "rotate")
    assert b"word of" not in full.path.read_bytes()
    full.keys = []
    refusal = full.run("sessions", "list", status=69)
    assert "encrypted" in refusal and key not in refusal
    full.keys = ["nonsense"]
    assert "no key" in full.run("sessions", "list", status=69)
    full.keys = [key]
    full.run("keys", "rotate", "--off")
    full.keys = []
    assert full.content() == before


def test_backup_restore_verify_and_salvage(full):
    """A backup restores what was; `verify` tells a damaged store by exit 69; `salvage` says what it saved."""
    before = full.content()
    assert json.loads(full.run("backup", "copy.db", "--json"))["messages"] > 10
    assert "exists already" in full.run("backup", "copy.db", status=69)
    full.run("backup", "copy.db", "--force")
    full.fill(seed=2, turns=5)
    kept = json.loads(full.run("restore", "copy.db", "--json"))["kept"]
    assert Path(kept).exists() and full.content() == before
    assert json.loads(full.run("verify", "--json"))["is_sound"] is True
    with sqlite3.connect(full.path) as connection:
        connection.execute("UPDATE sessions SET message_count = 99")
    assert "count of messages" in full.run("verify", status=69)
    raw = bytearray((full.folder / "copy.db").read_bytes())
    raw[:4096] = bytes(4096)
    (full.folder / "damaged.db").write_bytes(raw)
    report = json.loads(full.run("salvage", "damaged.db", "saved.db", "--json"))
    assert report["is_complete"] is False
    assert "exists already" in full.run("salvage", "damaged.db", "saved.db", status=69)


def test_beside_an_owner_reading_works_and_writing_says_what_to_do(full):
    """While another process owns the file, commands that read do, and those that write name it and exit 69."""

    async def beside() -> None:
        owner = await SqliteDatabase.open(full.path)
        try:
            for arguments in (("sessions", "export"), ("people", "list"), ("verify",), ("backup", "copy.db")):
                await asyncio.to_thread(full.run, *arguments)
            await asyncio.to_thread(
                lambda: (full.folder / "e.jsonl").write_text(full.run("sessions", "export"))
            )
            for arguments in (
                ("sessions", "import", "e.jsonl"),
                ("people", "erase", "ada", "--yes"),
                ("restore", "copy.db"),
            ):
                said = await asyncio.to_thread(lambda chosen=arguments: full.run(*chosen, status=69))
                assert str(os.getpid()) in said and "Stop" in said
        finally:
            await owner.close()

    asyncio.run(beside())


# where it is written, and who reads along


def test_an_export_goes_wherever_output_can_go(full):
    """`-` is stdout, a pipe or device is written to and not replaced, a folder and a full disk are told in a sentence."""
    assert full.run("sessions", "export", "-o", "-").encode().startswith(full.content())
    os.mkfifo(full.folder / "pipe")
    process = full.start("sessions", "export", "-o", "pipe")
    raw = (full.folder / "pipe").read_bytes()
    process.communicate(timeout=60)
    assert raw == full.content()
    assert (full.folder / "pipe").is_fifo()
    (full.folder / "folder").mkdir()
    assert "is a folder" in full.run("sessions", "export", "-o", "folder", "--force", status=2)
    assert "No such file" in full.run("sessions", "export", "-o", "none/x.jsonl", status=69)
    with open("/dev/full", "wb") as nowhere:  # noqa: PTH123 - only its descriptor is wanted
        process = full.start("sessions", "export", stdout=nowhere)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 69
    assert error.decode().startswith("palaver: sessions export: cannot write to stdout: No space left")
    assert b"Traceback" not in error


@pytest.mark.parametrize("command", [("sessions", "export"), ("sessions", "list"), ("people", "list")])
def test_who_reads_only_the_beginning_gets_no_traceback(full, command):
    """`| head` closes the pipe: the command ends without a word."""
    full.fill(seed=3, turns=400)
    process = full.start(*command)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)
    assert error == b""


def on_a_terminal(shell: Shell, *arguments: str, **environment: str) -> bytes:
    """What a command writes to stderr where that is a terminal."""
    own, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [SCRIPT, *arguments],
            cwd=shell.folder,
            env=shell.environment() | {"TERM": "xterm"} | environment,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other side is gone
            while piece := os.read(own, 65536):
                seen += piece
        assert process.wait(timeout=60) == 0
        return seen
    finally:
        os.close(own)


def test_a_bar_is_for_terminals_only(full):
    """On a terminal long work shows how far it came; into a file or pipe not a byte of that goes, whatever FORCE_COLOR says."""
    assert b"Copying" in on_a_terminal(full, "backup", "one.db")
    assert b"Exporting" in on_a_terminal(full, "sessions", "export")
    environment = full.environment() | {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    done = subprocess.run(
        [SCRIPT, "backup", "two.db"],
        cwd=full.folder,
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout


def test_what_strangers_are_called_does_not_drive_the_terminal(shell):
    """Escapes in names and messages are shown as such, in lists, single views and searches; joined emoji stay whole."""

    async def work(database):
        evil = made.incoming(
            "look \x1b[2J here", display_name="E\x1b]0;vil\x07 👩\u200d🚀", username="e\x1bx"
        )
        await database.write(lambda tx: made.arrive(tx, evil))

    shell.store(work)
    for command in (
        ("people", "list"),
        ("people", "show", "user-1"),
        ("search", "look"),
        ("sessions", "list"),
    ):
        shown = shell.run(*command)
        assert "\x1b" not in shown and "\x07" not in shown, command
    assert "\\x1b]0;vil\\x07 👩\u200d🚀" in shell.run("people", "list")
    assert "[look] \\x1b[2J here" in shell.run("search", "look")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_a_shell_completes_commands_and_choices(shell):
    """What --install-completion installs makes a bash know commands, options and the words of a choice."""
    environment = shell.environment() | {
        "SHELL": "/bin/bash",
        "PATH": f"{Path(SCRIPT).parent}:{os.environ['PATH']}",
    }

    def bash(script: str) -> str:
        return subprocess.run(
            ["bash", "--norc", "-c", script],
            env=environment,
            cwd=shell.folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    bash("palaver --install-completion bash")

    def completed(*words: str) -> list[str]:
        listed = " ".join(f"'{word}'" for word in words)
        return bash(
            f"source ~/.bashrc; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1};"
            ' $(complete -p palaver | sed "s/.*-F \\([^ ]*\\) .*/\\1/") palaver; printf "%s\\n" "${COMPREPLY[@]}"'
        ).split()

    assert {"search", "sessions"} <= set(completed("palaver", "se"))
    assert {"export", "import", "archive", "delete"} <= set(completed("palaver", "sessions", ""))
    assert completed("palaver", "sessions", "export", "--format", "m") == ["markdown"]
    assert completed("palaver", "sessions", "list", "--status", "arch") == ["archived"]
    assert "--person" in completed("palaver", "sessions", "import", "--p")
