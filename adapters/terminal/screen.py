"""`Screen`: a chat at a prompt. Replies appear above it as formatted Markdown, also while the person types.

Owns the prompt (prompt_toolkit), its history and its completion. How a reply looks is `formatting.py`'s.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path

from platformdirs import user_state_path
from prompt_toolkit import PromptSession
from prompt_toolkit.application import in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.patch_stdout import patch_stdout

from adapters.messages import CommandSpec
from adapters.terminal.formatting import format_reply, without_control, wrapped
from adapters.terminal.surface import LEAVE, SurfaceGone

TYPING_LASTS_S = 6.0
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SPINNER_STEP_S = 0.12
LEAVE_WITHIN_S = 2.0
"""Two Ctrl-C at an empty prompt within this time leave."""


class RawInput(Vt100Input):
    """A keyboard that stays raw while a reply is printed: a Ctrl-D pressed in that moment would else be eaten by the
    terminal's own line editing.
    """

    def cooked_mode(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class Screen:
    is_sequential = False

    def __init__(
        self,
        commands: Sequence[CommandSpec],
        texts: dict[str, str],
        *,
        source: Input | None = None,
        output: Output | None = None,
        history_file: Path | None = None,
    ) -> None:
        """Without `source` and `output`: this process's own terminal, with the history of earlier chats."""
        self._texts = texts
        self._owns_terminal = output is None
        if history_file is None and self._owns_terminal:
            history_file = user_state_path("palaver") / "history"
        self._session: PromptSession[str] = PromptSession(
            history=_open_history(history_file) if history_file else InMemoryHistory(),
            completer=_CommandCompleter(commands, texts["quit"]),
            key_bindings=self._key_bindings(),
            input=source or RawInput(sys.stdin),
            output=output,
        )
        self._printing = asyncio.Lock()
        self._frames = cycle(SPINNER)
        self._typing_until = 0.0
        self._interrupted_at = float("-inf")
        self._spinner: asyncio.Task[None] | None = None
        self._announcements: set[asyncio.Task[None]] = set()

    async def lines(self) -> AsyncGenerator[str, None]:
        # What libraries print would tear the prompt; a terminal that was given to us is not this process's stdout.
        with patch_stdout(raw=True) if self._owns_terminal else contextlib.nullcontext():
            try:
                while True:
                    text = await self._session.prompt_async(
                        self._prompt, handle_sigint=False, set_exception_handler=False
                    )
                    if text.strip():
                        yield text
            except EOFError:  # Ctrl-D, or the terminal has hung up
                return
            finally:
                self._typing_until = 0.0
                if self._spinner is not None:
                    self._spinner.cancel()

    async def show(self, markdown: str) -> None:
        self._typing_until = 0.0
        columns = self._session.app.output.get_size().columns
        await self._print(format_reply(markdown, self._texts["bot"], columns))

    def show_typing(self) -> None:
        self._typing_until = time.monotonic() + TYPING_LASTS_S
        if self._spinner is None or self._spinner.done():
            self._spinner = asyncio.create_task(self._spin())

    def announce(self, lines: Sequence[str]) -> None:
        columns = self._session.app.output.get_size().columns
        text = "".join(f"{line}\n" for given in lines for line in wrapped(without_control(given), columns))
        if not self._session.app.is_running:
            self._write(text)
            return
        task = asyncio.create_task(self._announce(text))
        self._announcements.add(task)
        task.add_done_callback(self._announcements.discard)

    def warn(self, sentence: str) -> None:
        self.announce([sentence])

    async def _announce(self, text: str) -> None:
        with contextlib.suppress(SurfaceGone):
            await self._print(text)

    async def _print(self, text: str) -> None:
        """Above the prompt while there is one."""
        try:
            async with self._printing, in_terminal():
                self._write(text)
        except OSError as error:
            raise SurfaceGone from error

    def _write(self, text: str) -> None:
        output = self._session.app.output
        output.write_raw(text)
        output.flush()

    def _prompt(self) -> StyleAndTextTuples:
        """The prompt; above it, while an answer is being written, a line that moves."""
        prompt: StyleAndTextTuples = [("bold", self._texts["you"])]
        if time.monotonic() < self._typing_until and not self._session.app.is_done:
            prompt.insert(0, ("", f"{next(self._frames)} {self._texts['typing']}\n"))
        return prompt

    async def _spin(self) -> None:
        while time.monotonic() < self._typing_until:
            self._session.app.invalidate()
            await asyncio.sleep(SPINNER_STEP_S)
        self._session.app.invalidate()

    def _key_bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        @bindings.add("c-c")
        def _(event: KeyPressEvent) -> None:
            """Take back what was typed; at an empty prompt say how to leave, and the second time leave."""
            now = time.monotonic()
            if event.current_buffer.text:
                event.current_buffer.reset()
            elif now - self._interrupted_at < LEAVE_WITHIN_S:
                event.app.exit(exception=EOFError)
            else:
                self._interrupted_at = now
                self.announce([self._texts["leave"]])

        @bindings.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        return bindings


class _CommandCompleter(Completer):
    """Command names after a slash at the beginning."""

    def __init__(self, commands: Sequence[CommandSpec], quit_description: str) -> None:
        self._descriptions = {f"/{command.name}": command.description for command in commands}
        self._descriptions |= dict.fromkeys(sorted(LEAVE), quit_description)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        typed = document.text_before_cursor
        if typed.startswith("/"):
            for name, description in self._descriptions.items():
                if name.startswith(typed) and name != typed:
                    yield Completion(name, start_position=-len(typed), display_meta=description)


class _History(FileHistory):
    """What was typed, kept for the next chat. A disk that takes nothing costs the history, not the chat."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _open_history(path: Path) -> History:
    """A history only its owner can read; in memory where the file cannot be had."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return _History(path)
