"""Ends and beginnings: signals, pipes and terminals, and what the program says when it cannot start."""

import asyncio
import contextlib
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.counterparties import memory_people
from tests.process.daemon import SCRIPT, Daemon, as_toml, clean_environment, eventually, quick_settings
from tests.process.invariants import check, read_rows
from tests.process.talk import Talk

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]


@contextlib.asynccontextmanager
async def talking(
    folder: Path, *, sessions: int, server: str | None = None, **changes: Any
) -> AsyncIterator[tuple[Talk, Daemon]]:
    """A daemon on the memory platform, not started yet, and people who may talk to it."""
    async with memory_people() as people:
        settings = quick_settings(folder / "palaver.db", {"main": people.account()}, server=server) | changes
        async with Daemon(folder, settings) as daemon:
            yield await Talk.begin(people, sessions), daemon


async def verdict(talk: Talk, daemon: Daemon) -> list[str]:
    people = talk.people
    return check(
        daemon.database,
        f"{people.platform.name}.main",
        people.platform,
        talk.said,
        await talk.shown(),
        logs=[daemon.log],
        secrets=people.secrets,
    ).violations


def run_once(folder: Path, *arguments: str, stdin: Any = subprocess.DEVNULL, **environment: str) -> Any:
    """The program, run to its end."""
    return subprocess.run(
        [str(SCRIPT), *arguments],
        **({"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}),
        capture_output=True,
        text=True,
        timeout=40,
        cwd=folder,
        env=clean_environment(folder) | environment,
        check=False,
    )


# SIGTERM


async def test_sigterm_drains_what_ends_in_time_and_keeps_the_rest(
    server: str | None, tmp_path: Path
) -> None:
    """SIGTERM with 20 turns running: the quick ones are answered, the others stay as rows and are answered after the restart."""
    async with talking(tmp_path, server=server, sessions=20, shutdown_after_s=3) as (talk, daemon):
        await daemon.start()
        for place, chat in enumerate(talk.chats):
            await talk.say(chat, "delay=1" if place % 2 else "delay=6")

        async def all_run() -> bool:
            return len(read_rows(daemon.database, "SELECT 1 FROM turns WHERE status = 'running'")) == 20

        await eventually(all_run, timeout_s=10, what="20 turns running")
        began = time.monotonic()
        assert await daemon.stop() == 0
        took = time.monotonic() - began
        assert took < 3 + 5, "shutdown_after_s is the limit, with a little for closing"
        answered = {one.number for one in talk.said} - {one.number for one in await talk.missing()}
        assert answered == {one.number for place, one in enumerate(talk.said) if place % 2}
        await daemon.start()
        await talk.wait_answered(daemon, timeout_s=30)
        assert await daemon.stop() == 0
        assert await verdict(talk, daemon) == []


async def test_second_sigterm_ends_at_once(server: str | None, tmp_path: Path) -> None:
    """Who cannot wait sends a second SIGTERM; what ran stays as a row."""
    async with talking(tmp_path, server=server, sessions=1, shutdown_after_s=30) as (talk, daemon):
        await daemon.start()
        await talk.say(script="delay=3")

        async def runs() -> bool:
            return bool(read_rows(daemon.database, "SELECT 1 FROM turns WHERE status = 'running'"))

        await eventually(runs, timeout_s=10, what="a turn running")
        daemon.send(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert daemon.is_running
        began = time.monotonic()
        assert await daemon.stop(timeout_s=5) == 130
        assert time.monotonic() - began < 2
        await daemon.start()
        await talk.wait_answered(daemon, timeout_s=30)
        await daemon.stop()
        assert await verdict(talk, daemon) == []


async def test_a_terminal_that_goes_away_ends_it_in_order(server: str | None, tmp_path: Path) -> None:
    """SIGHUP, also twice, is an orderly end: what runs is answered, exit 0. Under nohup it is nothing."""
    async with talking(tmp_path, server=server, sessions=1, shutdown_after_s=20) as (talk, daemon):
        ours = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup themselves
        try:
            await daemon.start()
        finally:
            signal.signal(signal.SIGHUP, ours)
        await talk.say(script="delay=2")

        async def runs() -> bool:
            return bool(read_rows(daemon.database, "SELECT 1 FROM turns WHERE status = 'running'"))

        await eventually(runs, timeout_s=10, what="a turn running")
        daemon.send(signal.SIGHUP)
        await asyncio.sleep(0.3)
        daemon.send(signal.SIGHUP)
        assert await daemon.ended(timeout_s=15) == 0
        assert await talk.missing() == []
        ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            await daemon.start()
        finally:
            signal.signal(signal.SIGHUP, ignored)
        daemon.send(signal.SIGHUP)
        await talk.say()
        await talk.wait_answered(daemon, timeout_s=15)
        assert daemon.is_running
        await daemon.stop()
        assert await verdict(talk, daemon) == []


async def test_sigterm_before_it_is_ready(server: str | None, tmp_path: Path) -> None:
    """A daemon stopped while it starts ends, whenever that is, and leaves a sound database."""
    async with talking(tmp_path, server=server, sessions=1) as (talk, daemon):
        await talk.say()
        for wait_s in (0.05, 0.2, 0.3, 0.35, 0.4, 0.5):
            daemon.launch()
            await asyncio.sleep(wait_s)
            daemon.send(signal.SIGTERM)
            assert await daemon.ended(timeout_s=15) in (0, -signal.SIGTERM)
        await daemon.start()
        await talk.wait_answered(daemon, timeout_s=15)
        await daemon.stop()
        assert await verdict(talk, daemon) == []


async def test_frozen_and_thawed(server: str | None, tmp_path: Path) -> None:
    """SIGSTOP for some seconds, in the middle of turns, is a pause and nothing else."""
    async with talking(tmp_path, server=server, sessions=5) as (talk, daemon):
        await daemon.start()
        for chat in talk.chats:
            await talk.say(chat, "delay=0.3 tool=clock")
        daemon.send(signal.SIGSTOP)
        for chat in talk.chats:
            await talk.say(chat)
        await asyncio.sleep(3)
        daemon.send(signal.SIGCONT)
        await talk.wait_answered(daemon, timeout_s=20)
        assert await daemon.stop() == 0
        assert await verdict(talk, daemon) == []


# chat


def chat_settings(folder: Path) -> str:
    path = folder / "chat.toml"
    path.write_text(
        as_toml(
            {"database_url": f"sqlite:{folder / 'chat.db'}", "agent": {"kind": "scripted"}, "language": "en"}
        )
    )
    return str(path)


def test_chat_over_a_pipe(tmp_path: Path) -> None:
    """A script of lines in, exactly the replies out, in order; and the end of the input is the end."""
    config = chat_settings(tmp_path)
    done = run_once(
        tmp_path,
        "chat",
        "--config",
        config,
        stdin='one\ntool=calculator:{"expression":"2+3"} two\n/reset\nthree\n',
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[0] == "echo: one"
    assert lines[1].startswith("echo: two [calculator: ") and "5" in lines[1]
    assert lines[2].startswith("Done. We start fresh")
    assert lines[3] == "echo: three"
    assert len(lines) == 4
    sessions = read_rows(
        tmp_path / "chat.db", "SELECT status, end_reason FROM sessions ORDER BY created_at, id"
    )
    assert sessions == [{"status": "ended", "end_reason": "reset"}, {"status": "active", "end_reason": None}]


def test_chat_with_a_closed_input(tmp_path: Path) -> None:
    """Nothing to read is the end of the chat, not a fault."""
    done = run_once(tmp_path, "chat", "--config", chat_settings(tmp_path), stdin="")
    assert (done.returncode, done.stdout) == (0, "")
    closed = subprocess.run(
        ["/bin/sh", "-c", '"$0" chat --config "$1" <&-', str(SCRIPT), chat_settings(tmp_path)],
        capture_output=True,
        text=True,
        timeout=40,
        env=clean_environment(tmp_path),
        check=False,
    )
    assert closed.returncode in (0, 78), closed.stderr
    assert "Traceback" not in closed.stderr + closed.stdout


def test_chat_in_a_terminal_ends_with_ctrl_c(tmp_path: Path) -> None:
    """In a terminal the chat answers, Ctrl-C says how to leave, and a second one does."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(SCRIPT), "chat", "--config", chat_settings(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=clean_environment(tmp_path) | {"TERM": "xterm"},
        start_new_session=True,
        preexec_fn=_own_terminal,  # noqa: PLW1509 - no thread runs here, and nothing else gives it a terminal
    )
    os.close(theirs)
    try:
        _read_until(ours, "/help", 20)
        os.write(ours, b"hello there\r")
        _read_until(ours, "echo: hello there", 20)
        os.write(ours, b"\x03")
        _read_until(ours, "Ctrl-D or /quit leaves.", 10)
        assert process.poll() is None
        os.write(ours, b"\x03")
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            _drain(ours)
            time.sleep(0.05)
        assert process.poll() in (0, 130)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _drain(terminal: int) -> str:
    import select

    text = b""
    while select.select([terminal], [], [], 0)[0]:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        text += piece
        if b"\x1b[6n" in piece:
            os.write(terminal, b"\x1b[1;1R")  # what a terminal answers when asked for the cursor
    return text.decode(errors="replace")


def _read_until(terminal: int, wanted: str, timeout_s: float) -> None:
    seen, deadline = "", time.monotonic() + timeout_s
    while wanted not in seen:
        assert time.monotonic() < deadline, f"{wanted!r} did not come; seen: {seen[-500:]!r}"
        seen += _drain(terminal)
        time.sleep(0.02)


# what cannot start


def assert_says(done: Any, code: int, *words: str) -> None:
    assert done.returncode == code, f"{done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


async def test_second_daemon_on_one_file(tmp_path: Path) -> None:
    """Two daemons on one file: the second one says who has it, exit 69, and the first does not notice."""
    async with talking(tmp_path, sessions=1) as (talk, daemon):
        await daemon.start()
        done = await asyncio.to_thread(run_once, tmp_path, "run", "--config", str(daemon.config))
        assert_says(done, 69, "belongs to another running Palaver", str(daemon.pid))
        await talk.say()
        await talk.wait_answered(daemon, timeout_s=10)


async def test_port_taken(tmp_path: Path) -> None:
    """A port somebody else has: exit 69 and the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with talking(tmp_path, sessions=1, http={"port": port}) as (_, daemon):
            done = await asyncio.to_thread(run_once, tmp_path, "run", "--config", str(daemon.config))
    assert_says(done, 69, str(port), "PALAVER_HTTP__PORT")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('database_url = "sqlite:x.db"\nlanguag = "en"\n', "languag"),
        ("[turns]\ndeadline_s = 'soon'\n", "turns.deadline_s"),
        ("[accounts.main]\nplatform = 'telegram'\n", "accounts.main.token"),
        ("not toml at all", "bad.toml"),
    ],
)
def test_bad_configuration(content: str, words: str, tmp_path: Path) -> None:
    """A mistake in the configuration: exit 78, with the path of the key."""
    (tmp_path / "bad.toml").write_text(content)
    assert_says(run_once(tmp_path, "run", "--config", "bad.toml"), 78, words)


def start_on(folder: Path, database: Path) -> Any:
    """A daemon that would work, were it not for its database."""
    config = folder / "on.toml"
    config.write_text(
        as_toml(quick_settings(database, {"main": {"platform": "memory", "api_url": "http://127.0.0.1:9"}}))
    )
    return run_once(folder, "run", "--config", str(config))


def test_broken_database(tmp_path: Path) -> None:
    """A damaged file: exit 69 and what to do; the file is left as it is."""
    database = tmp_path / "broken.db"
    database.write_bytes(b"SQLite format 3\x00" + os.urandom(8192))
    before = database.read_bytes()
    assert_says(start_on(tmp_path, database), 69, "damaged", "backup")
    assert database.read_bytes() == before


async def test_page_torn_out(tmp_path: Path) -> None:
    """A page overwritten in the middle is noticed at the start, before anybody is answered from it."""
    async with talking(tmp_path, sessions=2) as (talk, daemon):
        await daemon.start()
        for _ in range(20):
            await talk.say(is_long=True)
        await talk.wait_answered(daemon, timeout_s=30)
        await daemon.stop()
        with daemon.database.open("r+b") as file:
            pages = daemon.database.stat().st_size // 4096
            file.seek(4096 * (pages // 2))
            file.write(b"\xff" * 4096 * 3)
        done = await asyncio.to_thread(run_once, tmp_path, "run", "--config", str(daemon.config))
    assert_says(done, 69, "damaged")


def test_other_programs_database(tmp_path: Path) -> None:
    """A database that is not ours is not touched: exit 69."""
    database = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    assert_says(start_on(tmp_path, database), 69, "another program")


async def test_newer_schema(tmp_path: Path) -> None:
    """A file that a newer version wrote: exit 69 and how to get back."""
    async with talking(tmp_path, sessions=1) as (_, daemon):
        await daemon.start()
        await daemon.stop()
        with contextlib.closing(sqlite3.connect(daemon.database)) as connection, connection:
            connection.execute(
                "INSERT INTO schema_version (version, name, applied_at) VALUES (99, 'later', 0)"
            )
        done = await asyncio.to_thread(run_once, tmp_path, "run", "--config", str(daemon.config))
    assert_says(done, 69, "schema version 99", "newer")


def test_unwritable_folder(tmp_path: Path) -> None:
    """A folder that cannot be made: exit 69, naming it."""
    (tmp_path / "file").write_text("")
    assert_says(start_on(tmp_path, tmp_path / "file" / "palaver.db"), 69, "file")


def test_nobody_to_talk_to(tmp_path: Path) -> None:
    """No account and no terminal: exit 78 and the variables to set."""
    assert_says(run_once(tmp_path, "run"), 78, "TELEGRAM_BOT_TOKEN")
