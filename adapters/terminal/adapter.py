"""`TerminalAdapter`: one person at one terminal, at a prompt or through a pipe. Needs no account and no network.

Owns the channel "terminal", its messages' ids and when a script's next line may be read. What the person sees is the
surface's. `run` returns when the person leaves or the input ends.
"""

import asyncio
import contextlib
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import structlog
from ulid import ULID

from adapters.base import Capabilities, Health, Intake, WebhookRoute
from adapters.choices import as_lines
from adapters.errors import Rejected
from adapters.handover import hand_over
from adapters.messages import Choice, Chunk, CommandSpec, InboundMessage, Target
from adapters.terminal.person import local_person
from adapters.terminal.pipe import Pipe
from adapters.terminal.surface import LEAVE, Surface, SurfaceGone, texts
from config.names import AccountId, ChannelId, PlatformMessageId
from config.settings import AccountSettings

CHANNEL = ChannelId("terminal")
CAPABILITIES = Capabilities(max_text=100_000, can_type=True)
REPEAT_MARK = "↻ "
"""Stands before a reply that may have been shown before."""
LONGEST_ANSWER_S = 600.0
"""A script's next line is read after this time even if nobody said that the answer is complete."""

logger = structlog.get_logger()


class TerminalAdapter:
    def __init__(
        self,
        account: AccountId,
        settings: AccountSettings,
        commands: Callable[[str], Sequence[CommandSpec]],
        *,
        language: str = "en",
        surface: Surface | None = None,
        new_id: Callable[[], str] = lambda: str(ULID()),
        longest_answer_s: float = LONGEST_ANSWER_S,
    ) -> None:
        """Without a `surface`: a prompt if stdin and stdout are terminals, else a pipe."""
        self._account = account
        self._person = local_person()
        self._language = self._person.language or language
        self._texts = texts(self._language)
        self._surface = surface or _own_surface(commands(self._language.split("-")[0]), self._texts)
        self._new_id = new_id
        self._longest_answer_s = longest_answer_s
        self._state = Health("starting")
        self._unsettled: dict[PlatformMessageId, asyncio.Event] = {}
        self._is_gone = False

    @property
    def account(self) -> AccountId:
        return self._account

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    @property
    def routes(self) -> Sequence[WebhookRoute]:
        return ()

    def health(self) -> Health:
        """Nothing stands between the person and us: while reading, every moment is proof."""
        return Health("hearing", time.time()) if self._state.state == "hearing" else self._state

    async def run(self, intake: Intake) -> None:
        logger.info("adapter.started", account=self._account)
        self._state = Health("hearing")
        try:
            async with contextlib.aclosing(self._surface.lines()) as lines:
                async for text in lines:
                    if self._is_gone or text.strip() in LEAVE:
                        return
                    await self._take_in(intake, text)
        finally:
            self._state = Health("stopped", time.time())

    def render(self, markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
        """The reply as it was written, in pieces of the longest size; a prompt shows it formatted, a pipe as it is."""
        source = as_lines(markdown, choices)
        text = source.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\N{REPLACEMENT CHARACTER}")
        size = CAPABILITIES.max_text
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        return [Chunk(piece.strip("\n")) for piece in pieces if piece.strip()]

    async def send(
        self,
        target: Target,
        chunk: Chunk,
        key: str,
        *,
        is_repeat: bool = False,
    ) -> PlatformMessageId:
        try:
            await self._surface.show(REPEAT_MARK + chunk.text if is_repeat else chunk.text)
        except SurfaceGone as error:
            # Whoever closed it has seen enough; keeping the reply would print it into the next, unrelated chat.
            self._is_gone = True
            for event in self._unsettled.values():
                event.set()
            raise Rejected(self._account, "the terminal was closed") from error
        return PlatformMessageId(str(ULID()))

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        raise Rejected(self._account, "a terminal cannot change what it has printed")

    async def typing(self, target: Target) -> None:
        self._surface.show_typing()

    async def close(self) -> None:
        """Nothing to let go of: the surface ends with `run`."""

    def settled(self, message_id: PlatformMessageId) -> None:
        """Everything for this message was said; a script's next line may be read."""
        if (event := self._unsettled.get(message_id)) is not None:
            event.set()

    def announce(self, lines: Sequence[str]) -> None:
        """Show lines above the prompt; a pipe shows none."""
        self._surface.announce(lines)

    async def _take_in(self, intake: Intake, text: str) -> None:
        message = InboundMessage(
            account=self._account,
            channel=CHANNEL,
            message_id=PlatformMessageId(self._new_id()),
            sender=self._person,
            text=text,
            sent_at_ms=time.time_ns() // 1_000_000,
            origin={"client": "pipe" if self._surface.is_sequential else "prompt", "device": platform.node()},
        )
        settled = self._unsettled[message.message_id] = asyncio.Event()
        try:
            await hand_over(intake, message, on_wait=lambda: self._surface.warn(self._texts["waiting"]))
            if self._surface.is_sequential:
                async with asyncio.timeout(self._longest_answer_s):
                    await settled.wait()
        except TimeoutError:
            self._surface.warn(self._texts["unanswered"].format(minutes=round(self._longest_answer_s / 60)))
        finally:
            del self._unsettled[message.message_id]


def _own_surface(commands: Sequence[CommandSpec], words: dict[str, str]) -> Surface:
    """This process's stdin and stdout."""
    stdin, stdout, stderr = _descriptor(sys.stdin), _descriptor(sys.stdout), _descriptor(sys.stderr)
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty():
        from adapters.terminal.screen import Screen  # prompt_toolkit and rich: only where somebody sees them

        return Screen(commands, words)
    return Pipe(stdin, stdout, stderr, words)


def _descriptor(stream: TextIO | None) -> int | None:
    """None for a stream that is closed (`palaver chat <&-`); its number may belong to something else by now."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
