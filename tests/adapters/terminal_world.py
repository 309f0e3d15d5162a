"""The terminal adapter's worlds: a person at a pseudo-terminal, and a script at a pipe."""

import asyncio
import os
import pty
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from prompt_toolkit.data_structures import Size
from prompt_toolkit.output.vt100 import Vt100_Output

from adapters.messages import CommandSpec, Target
from adapters.terminal.adapter import CHANNEL, TerminalAdapter
from adapters.terminal.pipe import Pipe
from adapters.terminal.screen import RawInput, Screen
from adapters.terminal.surface import Surface, texts
from config.names import AccountId, PlatformMessageId
from config.settings import AccountSettings
from tests.conformance.adapter_worlds import QuietWire

ACCOUNT = AccountId("terminal.local")
COMMANDS = (CommandSpec("help", "What this bot does"), CommandSpec("history", "What was said", "count"))
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[=>78]|\][^\x07\x1b]*(\x07|\x1b\\))")


class Reader:
    """Everything that comes out of a descriptor, read as it comes so that the writer never waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = bytearray()

    @contextmanager
    def reading(self) -> Iterator[None]:
        os.set_blocking(self._fd, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._fd, self._drain)
        try:
            yield
        finally:
            loop.remove_reader(self._fd)

    def text(self) -> str:
        self._drain()
        return self._data.decode()

    def plain(self) -> str:
        """Without escape sequences."""
        return ESCAPE.sub("", self.text())

    def _drain(self) -> None:
        try:
            while data := os.read(self._fd, 65536):
                self._data += data
        except OSError:  # nothing there now, or the other side was closed
            return


def adapter_on(surface: Surface, *, longest_answer_s: float = 30) -> TerminalAdapter:
    """An adapter whose messages are t-1, t-2, …"""
    numbers = iter(range(1, 1_000_000))
    return TerminalAdapter(
        ACCOUNT,
        AccountSettings(platform="terminal"),
        lambda _: COMMANDS,
        surface=surface,
        new_id=lambda: f"t-{next(numbers)}",
        longest_answer_s=longest_answer_s,
    )


@dataclass
class TerminalWorld(QuietWire):
    name: str
    adapter: TerminalAdapter
    keyboard: int
    line_end: str
    screen: Reader
    supports: frozenset[str] = frozenset({"typing"})
    target: Target = Target(ACCOUNT, CHANNEL)  # noqa: RUF009 -- frozen
    said: int = 0

    def type(self, keys: str | bytes) -> None:
        data = keys.encode() if isinstance(keys, str) else keys
        assert os.write(self.keyboard, data) == len(data)

    async def say(self, text: str, *, direct: bool = True, mention: bool = False) -> PlatformMessageId:
        self.type(text + self.line_end)
        self.said += 1
        return PlatformMessageId(f"t-{self.said}")

    async def visible(self, *, direct: bool = True) -> list[str]:
        """At a pipe each line is a reply; at a prompt replies follow the bot's name and go on indented."""
        if self.name == "terminal-pipe":
            return self.screen.text().splitlines()
        replies: list[str] = []
        for line in re.split(r"[\r\n\b]+", self.screen.plain()):
            if line.startswith("bot › "):
                replies.append(line.removeprefix("bot › "))
            elif replies and line.startswith(" " * 6):
                replies[-1] += "\n" + line[6:]
        return replies

    async def shows(self, text: str, timeout_s: float = 10) -> None:
        """Return once the text was seen on the screen."""
        async with asyncio.timeout(timeout_s):
            while text not in self.screen.plain():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def terminal_world() -> AsyncIterator[TerminalWorld]:
    """A person at a pseudo-terminal of 80 columns."""
    keyboard, slave = pty.openpty()
    with (
        os.fdopen(slave, encoding="utf-8") as stdin,
        os.fdopen(os.dup(slave), "w", encoding="utf-8") as stdout,
    ):
        surface = Screen(
            COMMANDS,
            texts("en"),
            source=RawInput(stdin),
            output=Vt100_Output(stdout, lambda: Size(rows=24, columns=80), term="xterm", enable_cpr=False),
        )
        screen = Reader(keyboard)
        with screen.reading():
            yield TerminalWorld("terminal", adapter_on(surface), keyboard, "\r", screen)
    os.close(keyboard)


@asynccontextmanager
async def pipe_world() -> AsyncIterator[TerminalWorld]:
    """A script: lines in, replies out."""
    stdin, keyboard = os.pipe()
    screen_end, stdout = os.pipe()
    surface = Pipe(stdin, stdout, None, texts("en"))
    screen = Reader(screen_end)
    with screen.reading():
        yield TerminalWorld("terminal-pipe", adapter_on(surface), keyboard, "\n", screen)
    for fd in (stdin, keyboard, screen_end, stdout):
        os.close(fd)
