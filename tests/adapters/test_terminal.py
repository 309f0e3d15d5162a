"""The terminal adapter beyond the common promises: scripts at a pipe, a person at a prompt, and real processes."""

import asyncio
import os
import pty
import signal
import stat
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from adapters.base import IntakeClosed
from adapters.errors import Rejected
from adapters.messages import Chunk, Target
from adapters.settling import Settling
from adapters.terminal.adapter import CHANNEL, TerminalAdapter
from adapters.terminal.formatting import format_reply, wrapped
from adapters.terminal.person import local_person, locale_language
from adapters.terminal.pipe import MAX_LINE_BYTES, Pipe
from adapters.terminal.screen import _open_history
from adapters.terminal.surface import texts
from config.settings import AccountSettings
from tests.adapters.recording import RecordingIntake
from tests.adapters.terminal_world import (
    ACCOUNT,
    ESCAPE,
    TerminalWorld,
    adapter_on,
    pipe_world,
    terminal_world,
)

CHILD = (sys.executable, "-X", "dev", "-W", "error", "-m", "tests.adapters.terminal_child")
ROOT = Path(__file__).parents[2]


# a pipe, in this process


async def run_over(data: bytes, *, intake: RecordingIntake | None = None) -> tuple[RecordingIntake, str]:
    """Everything a script writes, until its end; what was delivered and what stood on stderr."""
    intake = intake or RecordingIntake()
    stdin, script = os.pipe()
    errors, stderr = os.pipe()
    adapter = adapter_on(Pipe(stdin, None, stderr, texts("en")))
    intake.settled = adapter.settled
    writing = asyncio.create_task(asyncio.to_thread(_write_and_close, script, data))
    async with asyncio.timeout(20):
        await adapter.run(intake)
    await writing
    os.close(stderr)
    with os.fdopen(errors, encoding="utf-8") as said:
        complaints = said.read()
    os.close(stdin)
    return intake, complaints


def _write_and_close(fd: int, data: bytes) -> None:
    with os.fdopen(fd, "wb") as script:
        script.write(data)


@pytest.mark.parametrize(
    ("data", "delivered"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\n\n  \none\n\n", ["one"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        ("grüß dich\u2028still one line\n".encode(), ["grüß dich\u2028still one line"]),
        (b"one\n/quit\ntwo\n", ["one"]),
        (b"one\n/exit", ["one"]),
    ],
)
async def test_a_line_is_a_message(data, delivered):
    """Each line is one message; empty lines are none; the last needs no line break; /quit and /exit leave."""
    intake, complaints = await run_over(data)
    assert intake.texts == delivered
    assert complaints == ""


async def test_a_line_that_is_not_utf8_is_delivered_with_a_complaint():
    """Bytes that are no UTF-8 are replaced, said in one sentence on stderr with the line's number, and the rest goes on."""
    intake, complaints = await run_over(b"fine\nbad \xff\xfe here\nfine again\n")
    assert intake.texts == [
        "fine",
        "bad \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} here",
        "fine again",
    ]
    assert complaints == "palaver: Line 2 of the input is not valid UTF-8; unreadable bytes were replaced.\n"


async def test_a_line_of_a_megabyte_is_one_message():
    """A huge line arrives whole, also when a multi-byte character lies across two reads."""
    line = "é" * 524_288 + "!"
    intake, complaints = await run_over(f"{line}\nnext\n".encode())
    assert intake.texts == [line, "next"]
    assert complaints == ""


async def test_a_line_beyond_all_measure_is_left_out_with_a_complaint():
    """A line that would fill the memory is refused in one sentence, and the next one is delivered."""
    intake, complaints = await run_over(b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nnext\n")
    assert intake.texts == ["next"]
    assert complaints == "palaver: Line 1 of the input is longer than 16 MB and was left out.\n"


async def test_ids_are_new_in_every_run():
    """Two runs never use the same message id, so that a restart's messages are no duplicates."""
    intake = RecordingIntake()
    for _ in range(2):
        stdin, keyboard = os.pipe()
        _write_and_close(keyboard, b"same\nsame\n")
        adapter = TerminalAdapter(
            ACCOUNT,
            AccountSettings(platform="terminal"),
            lambda _: (),
            surface=Pipe(stdin, None, None, texts("en")),
        )
        intake.settled = adapter.settled
        await adapter.run(intake)
        os.close(stdin)
    assert intake.texts == ["same"] * 4
    assert intake.duplicates == []


@pytest.fixture
async def script() -> AsyncIterator[TerminalWorld]:
    async with pipe_world() as world:
        yield world


async def test_the_next_line_waits_for_the_answer(script):
    """A line is delivered only after the one before it was settled."""
    intake = RecordingIntake()
    run = asyncio.create_task(script.adapter.run(intake))
    first = await script.say("first")
    await script.say("second")
    await intake.wait_for(1)
    await asyncio.sleep(0.1)
    assert intake.texts == ["first"]
    script.adapter.settled(first)
    await intake.wait_for(2)
    run.cancel()
    await asyncio.wait({run})
    assert intake.texts == ["first", "second"]


async def test_a_message_taken_in_twice_waits_for_its_answer(script):
    """Handed over again after a try that was stored all the same, a line still waits until it is answered."""

    class Forgetful(RecordingIntake):
        async def deliver(self, message):
            receipt = await super().deliver(message)
            if receipt.outcome == "accepted":
                raise IntakeClosed("the store did not say whether it was written", retry_after_s=0.01)
            return receipt

    intake = Forgetful()
    run = asyncio.create_task(script.adapter.run(intake))
    first = await script.say("first")
    await script.say("second")
    await intake.wait_until(lambda: len(intake.duplicates) == 1)
    await asyncio.sleep(0.1)
    assert intake.texts == ["first"]
    script.adapter.settled(first)
    await intake.wait_for(2)
    run.cancel()
    await asyncio.wait({run})


async def test_a_settling_before_deliver_returned_counts():
    """An answer that is quicker than `deliver` does not leave the script waiting."""

    class Hasty(RecordingIntake):
        async def deliver(self, message):
            adapter.settled(message.message_id)
            return await super().deliver(message)

    stdin, keyboard = os.pipe()
    adapter = adapter_on(Pipe(stdin, None, None, texts("en")))
    _write_and_close(keyboard, b"one\ntwo\n")
    intake = Hasty()
    async with asyncio.timeout(5):
        await adapter.run(intake)
    os.close(stdin)
    assert intake.texts == ["one", "two"]


async def test_an_answer_that_never_ends_does_not_hold_the_script_for_ever():
    """After the limit the next line is read, and stderr says so."""
    stdin, keyboard = os.pipe()
    errors, stderr = os.pipe()
    adapter = adapter_on(Pipe(stdin, None, stderr, texts("en")), longest_answer_s=0.05)
    _write_and_close(keyboard, b"one\ntwo\n")
    intake = RecordingIntake()
    async with asyncio.timeout(5):
        await adapter.run(intake)
    assert intake.texts == ["one", "two"]
    assert os.read(errors, 1000).count(b"No end of the answer") == 2
    for fd in (stdin, errors, stderr):
        os.close(fd)


async def test_typing_and_announcements_leave_a_pipe_alone(script):
    """Nothing but replies reaches stdout."""
    await script.adapter.typing(script.target)
    script.adapter.announce(["palaver 0.1.0"])
    await script.adapter.send(script.target, Chunk("**bold** stays as it is"), "key")
    assert script.screen.text() == "**bold** stays as it is\n"


async def test_a_closed_stdout_ends_the_chat():
    """When nobody reads any more, sending is Rejected, the line under way is let go, and `run` returns."""
    stdin, keyboard = os.pipe()
    reader, stdout = os.pipe()
    adapter = adapter_on(Pipe(stdin, stdout, None, texts("en")))
    intake = RecordingIntake()
    run = asyncio.create_task(adapter.run(intake))
    os.write(keyboard, b"one\ntwo\n")
    await intake.wait_for(1)
    os.close(reader)
    with pytest.raises(Rejected):
        await adapter.send(target_of(adapter), Chunk("nobody sees this"), "key")
    async with asyncio.timeout(5):
        await run
    with pytest.raises(Rejected):
        await adapter.send(target_of(adapter), Chunk("nor this"), "key")
    for fd in (stdin, keyboard, stdout):
        os.close(fd)


def target_of(adapter: TerminalAdapter) -> Target:
    return Target(adapter.account, CHANNEL)


async def test_a_reader_that_is_slow_blocks_nobody(script):
    """While a full pipe holds a reply up, the event loop goes on, and the reply is whole in the end."""
    script_text = "x" * 99_000
    reader, stdout = os.pipe()
    adapter = adapter_on(Pipe(None, stdout, None, texts("en")))
    sending = asyncio.create_task(adapter.send(script.target, Chunk(script_text), "key"))
    await asyncio.sleep(0.1)
    assert not sending.done()
    got = bytearray()
    while len(got) < len(script_text) + 1:
        got += await asyncio.to_thread(os.read, reader, 65536)
    await sending
    assert got.decode() == script_text + "\n"
    os.close(reader)
    os.close(stdout)


async def test_a_terminal_cannot_edit(script):
    """Editing is refused for good, as the capabilities say."""
    assert not script.adapter.capabilities.can_edit
    with pytest.raises(Rejected):
        await script.adapter.edit(script.target, "x", Chunk("y"))


def test_the_adapter_settles():
    """Delivery finds the optional verb by its protocol."""
    assert isinstance(adapter_on(Pipe(None, None, None, texts("en"))), Settling)


# a prompt


@pytest.fixture
async def person() -> AsyncIterator[tuple[TerminalWorld, RecordingIntake, asyncio.Task[None]]]:
    """At the prompt, which is up."""
    async with terminal_world() as world:
        intake = RecordingIntake()
        run = asyncio.create_task(world.adapter.run(intake))
        await world.shows("you ›")
        yield world, intake, run
        run.cancel()
        await asyncio.wait({run})


@pytest.mark.parametrize("keys", ["\x04", "/quit\r", " /exit \r", "\x03\x03"])
async def test_leaving(person, keys):
    """Ctrl-D, /quit, /exit and two Ctrl-C leave; nothing of it is a message."""
    world, intake, run = person
    world.type(keys)
    async with asyncio.timeout(5):
        await run
    assert intake.messages == []


async def test_one_interrupt_says_how_to_leave(person):
    """Ctrl-C at an empty prompt explains; with text it takes the text back; the chat goes on."""
    world, intake, run = person
    world.type("\x03")
    await world.shows("Ctrl-D or /quit leaves.")
    world.type("half a thought\x03")
    await world.say("whole")
    await intake.wait_for(1)
    assert intake.texts == ["whole"]
    assert not run.done()


async def test_a_paste_of_several_lines_is_one_message(person):
    """A bracketed paste keeps its line breaks and is sent by Enter."""
    world, intake, _ = person
    world.type("\x1b[200~one\ntwo\n  three\x1b[201~")
    world.type("\r")
    await intake.wait_for(1)
    assert intake.texts == ["one\ntwo\n  three"]


async def test_the_person_may_write_on_while_an_answer_is_under_way(person):
    """At a prompt nothing waits for `settled`."""
    world, intake, _ = person
    await world.say("first")
    await world.say("second")
    await intake.wait_for(2)
    assert intake.texts == ["first", "second"]


async def test_typing_is_shown_and_gone_with_the_reply(person):
    """A moving line says that an answer is being written."""
    world, _, _ = person
    await world.adapter.typing(world.target)
    await world.shows("writing")
    await world.adapter.send(world.target, Chunk("done"), "key")
    assert await world.visible() == ["done"]


@pytest.mark.parametrize(
    ("line", "columns", "lines"),
    [
        ("  log        ~/palaver.log", 80, ["  log        ~/palaver.log"]),
        ("  next       one two three four", 28, ["  next       one two three", "             four"]),
        ("  next       one two three", 20, ["  next       one two", "  three"]),
        ("palaver 0.1.0 — talking here", 22, ["palaver 0.1.0 —", "  talking here"]),
        ("  log        /a/path/that/is/long", 30, ["  log", "             /a/path/that/is/long"]),
        ("", 80, [""]),
    ],
)
def test_announcements_are_cut_between_words(line, columns, lines):
    """A line that does not fit goes on under its second column where there is room; no word and no path is cut."""
    assert wrapped(line, columns) == lines


async def test_announcements_stand_above_the_prompt(person):
    """Lines of the program's own are shown, without control characters."""
    world, _, _ = person
    world.adapter.announce(["palaver 0.1.0", "  database   \x1b[2Jsqlite"])
    await world.shows("palaver 0.1.0")
    await world.shows("  database   [2Jsqlite")
    assert "\x1b[2J" not in world.screen.text()


async def test_completion_offers_the_command_table(person):
    """Tab completes a command's name, with its description in the menu."""
    world, intake, _ = person
    world.type("/he")
    await world.shows("What this bot does")
    world.type("\t\r")
    await intake.wait_for(1)
    assert intake.texts == ["/help"]


async def test_a_closed_intake_is_told(person):
    """While nothing can be stored, the person learns that the message is kept; it is delivered afterwards."""
    world, intake, _ = person
    intake.close()
    await world.say("important")
    await world.shows("Nothing can be stored just now.")
    intake.open()
    await intake.wait_for(1)
    assert intake.texts == ["important"]
    assert world.screen.plain().count("Nothing can be stored just now.") == 1


def test_history_is_the_owners_alone(tmp_path):
    """The history file and its folder are readable by nobody else."""
    path = tmp_path / "palaver" / "history"
    _open_history(path).append_string("my secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(_open_history(path).load_history_strings()) == ["my secret"]


def test_a_history_that_cannot_be_kept_costs_nothing(tmp_path):
    """Where no file can be made, the history lives in memory."""
    (tmp_path / "file").write_text("")
    history = _open_history(tmp_path / "file" / "history")
    history.append_string("kept for now")
    assert history.get_strings() == ["kept for now"]


# how replies look


def plain(markdown: str, columns: int = 60) -> str:
    return ESCAPE.sub("", format_reply(markdown, "bot › ", columns))


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("42. In Tokyo it is 18:04.", "bot › 42. In Tokyo it is 18:04.\n"),
        ("42.", "bot › 42.\n"),
        ("one\ntwo", "bot › one\n      two\n"),
        ("<b>text</b>", "bot › <b>text</b>\n"),
        ("[a]: https://e.org", "bot › [a]: https://e.org\n"),
        ("# Title", "bot › Title\n"),
        ("**bold** and `code`", "bot › bold and code\n"),
        ("\x1b]0;owned\x07hi", "bot › ]0;ownedhi\n"),
        ("- a\n- b", "bot ›  • a\n       • b\n"),
    ],
)
def test_replies_are_formatted_without_losing_anything(markdown, shown):
    """Markdown is shown as formatted text; what is no Markdown in a chat stays as it was written."""
    assert plain(markdown) == shown


def test_no_line_is_wider_than_the_terminal():
    """Long words and code are fit to the width."""
    lines = plain("word " * 100 + "\n\n" + "x" * 500 + "\n\n```\n" + "y" * 300 + "\n```", 40).split("\n")
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({"LANG": "de_AT.UTF-8"}, "de-at"),
        ({"LANG": "de_DE@euro", "LC_ALL": "en_US.UTF-8"}, "en-us"),
        ({"LC_MESSAGES": "fr"}, "fr"),
        ({"LANG": "C.UTF-8"}, None),
        ({"LANG": "POSIX"}, None),
        ({"LANG": ""}, None),
        ({}, None),
    ],
)
def test_language_comes_from_the_locale(environ, language):
    """The person's language is the locale's, as an IETF tag."""
    assert locale_language(environ) == language


def test_somebody_without_a_name_is_a_number(monkeypatch):
    """A user that the system has no name for is known by number."""

    def no_name() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", no_name)
    assert local_person({}).user_id == str(os.getuid())


# real processes


def start(
    stdin: object, stdout: object = subprocess.PIPE, command: Sequence[str] = CHILD
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "PROMPT_TOOLKIT_NO_CPR": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )


def finish(child: subprocess.Popen[bytes], data: bytes | None = None) -> tuple[int, str, str]:
    with child:
        try:
            out, err = child.communicate(data, timeout=30)
        finally:
            child.kill()
    return child.returncode, (out or b"").decode(), err.decode()


@pytest.mark.process
def test_a_script_gets_its_answers_and_nothing_else():
    """Lines in, replies out in order, status 0, nothing else on stdout."""
    code, out, err = finish(start(subprocess.PIPE), b"one\nthree\nlast")
    assert (code, out) == (0, "**3** one\n**5** three\n**4** last\n"), err


@pytest.mark.process
def test_a_script_from_a_file(tmp_path):
    """A regular file as input works like a pipe."""
    (tmp_path / "lines").write_bytes(b"one\n" + b"x" * 1_000_000 + b"\n")
    with (tmp_path / "lines").open("rb") as lines:
        code, out, err = finish(start(lines))
    assert (code, out) == (0, "**3** one\n**1000000** " + "x" * 100 + "\n"), err


@pytest.mark.process
@pytest.mark.parametrize("redirection", ["</dev/null", "<&-"])
def test_no_input_ends_at_once(redirection):
    """An empty or closed stdin is the end of the input."""
    child = start(subprocess.DEVNULL, command=["sh", "-c", f'exec "$@" {redirection}', "sh", *CHILD])
    code, out, err = finish(child)
    assert (code, out) == (0, ""), err


@pytest.mark.process
def test_head_ends_a_chat_quietly():
    """`| head -1`: the first reply is seen, then the chat ends without a traceback."""
    reader, stdout = os.pipe()
    child = start(subprocess.PIPE, stdout)
    os.close(stdout)
    assert child.stdin is not None
    child.stdin.write(b"one\n")
    child.stdin.flush()
    assert os.read(reader, 100) == b"**3** one\n"
    os.close(reader)
    child.stdin.write(b"two\nthree\n")
    child.stdin.flush()
    code = child.wait(30)
    err = finish(child)[2]
    assert code == 0
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.process
def test_replies_that_a_full_disk_does_not_take_are_told():
    """Whoever reads the file cannot know that something is missing, so stderr says it, once."""
    with Path("/dev/full").open("wb") as disk:
        child = start(subprocess.PIPE, disk.fileno())
    told = b"palaver: Replies cannot be written to stdout: No space left on device.\n"
    assert child.communicate(b"one\ntwo\n", timeout=30)[1].count(told) == 1


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_chat_that_waits_for_input(number):
    """A read that never returns holds no exit."""
    child = start(subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"one\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"**3** one\n"
    child.send_signal(number)
    code, out, err = child.wait(10), *finish(child)[1:]
    assert (code, out) == (7, ""), err
    assert "Fatal" not in err


@pytest.mark.process
@pytest.mark.parametrize("ending", ["ctrl-d", "sigterm"])
def test_a_chat_at_a_real_terminal(ending):
    """At a terminal the prompt comes up, the reply is formatted, and the terminal's modes are put back at the end."""
    keyboard, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    child = start(slave, slave)
    seen = b""

    def read_until(text: str) -> None:
        nonlocal seen
        while text.encode() not in seen:
            seen += os.read(keyboard, 65536)

    read_until("you ›")
    os.write(keyboard, b"hello\r")
    read_until("bot › ")
    read_until("hello\r\n")
    if ending == "ctrl-d":
        os.write(keyboard, b"\x04")
    else:
        child.send_signal(signal.SIGTERM)
    code, _, err = finish(child)
    assert code == (0 if ending == "ctrl-d" else 7), err
    assert termios.tcgetattr(slave) == before
    os.close(keyboard)
    os.close(slave)
