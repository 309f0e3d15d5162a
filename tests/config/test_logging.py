"""How logs look, what they never hold, and that they never stop or fail the program."""

import json
import logging
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from config import logging as logs
from config.errors import ConfigError
from config.settings import LogSettings


@pytest.fixture(autouse=True)
def _restored():
    """Logging as it was, after each test."""
    yield
    logs.stop()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def log(tmp_path):
    """`log(level=…)`: configure to a file; returns a function that gives the lines written so far."""
    file = tmp_path / "deep" / "er" / "palaver.log"

    def start(**given):
        logs.configure(LogSettings(file=file, **{"format": "json", **given}))

        def lines() -> list[str]:
            assert logs.flush()
            return file.read_text(encoding="utf-8").splitlines()

        return lines

    start.file = file
    return start


def test_a_line_is_one_json_object(log):
    """Event, level, UTC time, bound context and values; nothing else."""
    lines = log()
    structlog.contextvars.bind_contextvars(turn_id="01J")
    structlog.get_logger("gateway").info("turn.completed", duration_s=0.5, path=log.file)
    (line,) = lines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "level": "info",
        "event": "turn.completed",
        "turn_id": "01J",
        "duration_s": 0.5,
        "path": repr(log.file),
    }


def test_levels(log):
    """The level of the settings holds for our loggers; libraries are heard from warnings on, at debug too."""
    lines = log(level="debug")
    structlog.get_logger().debug("a.tried")
    logging.getLogger("discord.gateway").info("noise")
    logging.getLogger("discord.gateway").warning("heartbeat %s", "late")
    assert [json.loads(line)["event"] for line in lines()] == ["a.tried", "heartbeat late"]
    assert json.loads(lines()[1])["logger"] == "discord.gateway"
    log(level="error")
    structlog.get_logger().warning("b.tried")
    logging.getLogger("discord.gateway").warning("noise")
    structlog.get_logger().error("c.failed")
    assert [json.loads(line)["event"] for line in lines()][2:] == ["c.failed"]


def test_an_exception_is_structured_and_has_no_locals(log):
    """A traceback is data: type, value, frames; the values of variables stay out of it."""
    lines = log()

    def fail():
        private = "message-text"
        raise ValueError(f"bad {len(private)}")

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("turn.failed")
        logging.getLogger("uvicorn").exception("boom")
    for line in lines():
        (exception,) = json.loads(line)["exception"]
        assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "bad 12")
        assert exception["frames"][-1]["name"] == "fail"
        assert "message-text" not in line.replace(exception["frames"][-1].get("line", ""), "")


def test_warnings_are_logged(log):
    """A library's warning is a line, not text on stderr."""
    lines = log()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old api", DeprecationWarning, stacklevel=1)
    (line,) = lines()
    assert json.loads(line)["logger"] == "py.warnings"
    assert "old api" in line


secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(secret=secrets, format=st.sampled_from(["json", "pretty"]))
def test_no_line_holds_a_registered_secret(log, secret, format):
    """Wherever a secret gets into an event: text, key, value, nested, bytes of an address, exception."""
    assume(secret not in ORDINARY and secret.strip() == secret)
    lines = log(format=format)
    before = len(lines())
    logs.register_secret(secret)
    logger = structlog.get_logger()
    logger.info("GET https://api.telegram.org/bot%s/getMe", secret)
    logger.info(
        "a.b",
        url=str(httpx.URL("https://h/", params={"token": secret})),
        nested={"deep": [secret, {secret: 1}]},
    )
    logging.getLogger("httpx").warning("HTTP Request: %s", secret)
    try:
        raise RuntimeError(secret)
    except RuntimeError:
        logger.exception("c.failed")
    written = "\n".join(lines()[before:])
    assert "c.failed" in written
    assert secret not in written
    assert json.dumps(secret)[1:-1] not in written
    assert "[secret]" in written


ORDINARY = "GET https://api.telegram.org/bot HTTP Request: warning RuntimeError c.failed [secret] exception traceback"


def test_the_telegram_token_in_httpx_addresses(log, read):
    """httpx logs the address of each call, and the Bot API's address is the token."""
    lines = log(level="debug")
    loaded = read(
        TELEGRAM_BOT_TOKEN="123456:ABC-telegram-token-0123456789",
        PALAVER_DATABASE_URL="postgresql://u:geheim123@h/d",
    )
    logs.register_secrets(loaded.settings)
    before = logging.getLogger("httpx").level  # the adapter for Telegram sets one when it is imported, once
    logging.getLogger("httpx").setLevel(logging.INFO)
    try:
        with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
            client.get("https://api.telegram.org/bot123456:ABC-telegram-token-0123456789/getMe")
    finally:
        logging.getLogger("httpx").setLevel(before)
    structlog.get_logger().info("x.y", dsn="password geheim123", half="ABC-telegram-token-0123456789")
    first, second = lines()
    assert "/bot[secret]/getMe" in first
    assert "geheim123" not in second
    assert "telegram-token" not in second


def test_short_values_are_not_blotted_out(log):
    """`ollama` as the key a local server ignores does not redact the word ollama."""
    lines = log()
    logs.register_secret("ollama")
    logs.register_secret("")
    structlog.get_logger().info("model.chosen", server="ollama")
    assert "ollama" in lines()[0]


def test_pretty_lines_cannot_move_the_cursor(log):
    """Control characters from outside are shown, not obeyed."""
    lines = log(format="pretty")
    structlog.get_logger().info("a.b", name="x\x1b[2J\x07\u202ey")
    assert "\x1b[2J" not in "".join(lines())
    assert "\\x1b[2J" in "".join(lines())


@pytest.mark.parametrize("value", ["\ud800", 2**70, {1: {2}}, object(), float("nan"), b"\xff"])
def test_odd_values_are_written_somehow(log, value):
    """A value that JSON cannot hold costs its form, not the line."""
    lines = log()
    structlog.get_logger().info("a.b", value=value)
    assert json.loads(lines()[0])["event"] == "a.b"


class Treacherous:
    def __repr__(self):
        raise RuntimeError("no")


def test_logging_never_raises(log):
    """An object whose repr fails loses its line, not the caller; the loss is told with the next line."""
    lines = log()
    structlog.get_logger().info("a.b", value=Treacherous())
    logging.getLogger(logs.OWN_LOGGER).warning("%d", "not a number")
    structlog.get_logger().info("c.d")
    told, line = (json.loads(line) for line in lines())
    assert (told["event"], told["count"]) == ("log.lines_lost", 2)
    assert line["event"] == "c.d"


def test_the_log_file_is_private(log):
    """Parents are made; the file is for its owner; a second start appends."""
    log()
    structlog.get_logger().info("a.b")
    log()
    structlog.get_logger().info("c.d")
    assert logs.flush()
    assert stat.S_IMODE(log.file.stat().st_mode) == 0o600
    assert len(log.file.read_text().splitlines()) == 2


def test_a_log_file_that_cannot_be_opened(tmp_path):
    """A configured file that cannot be opened is a mistake in the configuration."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"log\.file: .*x\.log cannot be opened: "):
        logs.configure(LogSettings(file=tmp_path / "file" / "x.log"))


def test_a_chat_keeps_its_terminal(tmp_path, monkeypatch, capfd):
    """While a chat owns the terminal, lines go to the default file, and nowhere when that is impossible."""
    monkeypatch.setattr(logs, "default_log_file", lambda: tmp_path / "state" / "palaver.log")
    assert logs.configure(LogSettings(), to_terminal_chat=True) == str(tmp_path / "state" / "palaver.log")
    structlog.get_logger().info("a.b")
    logs.stop()
    assert "a.b" in (tmp_path / "state" / "palaver.log").read_text()
    (tmp_path / "blocked").write_text("")
    monkeypatch.setattr(logs, "default_log_file", lambda: tmp_path / "blocked" / "palaver.log")
    assert logs.configure(LogSettings(), to_terminal_chat=True).startswith("nowhere (")
    structlog.get_logger().info("c.d")
    logs.stop()
    assert capfd.readouterr() == ("", "")


def test_stdout_is_json_when_it_is_no_terminal(capfd):
    """The automatic format: JSON through a pipe or into a file."""
    assert logs.configure(LogSettings()) == "stdout"
    structlog.get_logger().info("a.b")
    assert logs.flush()
    assert json.loads(capfd.readouterr().out)["event"] == "a.b"


def run(code: str, **kwargs) -> subprocess.CompletedProcess[str]:
    prelude = (
        "import sys, structlog; from config import logging as logs; from config.settings import LogSettings; "
        "logs.configure(LogSettings()); log = structlog.get_logger()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code], text=True, timeout=50, check=False, **kwargs
    )


def test_the_last_lines_are_written_at_exit():
    """A program that ends right after logging loses nothing."""
    done = run("for i in range(500): log.info('a.b', i=i)", capture_output=True)
    assert done.returncode == 0
    assert [json.loads(line)["i"] for line in done.stdout.splitlines()] == list(range(500))


@pytest.mark.parametrize("to", ["/dev/full", "closed"])
def test_a_full_disk_or_a_closed_pipe_does_not_end_the_program(to):
    """Lines that cannot be written are dropped; the program runs on and ends as it would."""
    if to == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    elif not Path(to).exists():
        pytest.skip("no such device here")
    else:
        writer = os.open(to, os.O_WRONLY)
    try:
        done = run(
            "for i in range(100): log.info('a.b', i=i)\nlogs.flush(); sys.stderr.write('still here')",
            stdout=writer,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "still here")


def test_a_reader_that_stopped_does_not_block_the_program():
    """A pipe nobody reads fills up; logging goes on, bounded in memory and in time at exit."""
    reader, writer = os.pipe()
    try:
        done = run(
            f"for i in range({logs.MAX_WAITING_LINES * 2}): log.info('a.b', i=i)\nsys.stderr.write('done')",
            stdout=writer,
            stderr=subprocess.PIPE,
        )
        assert (done.returncode, done.stderr) == (0, "done")
        os.close(writer)
        assert b'"i":0' in os.read(reader, 4096)
    finally:
        os.close(reader)
