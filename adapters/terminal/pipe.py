"""`Pipe`: a script talks, one message per line on stdin, each reply's plain text on stdout, and nothing else there.

Owns lines, encodings and closed pipes. Reading and writing happen in daemon threads of their own, on the bare file
descriptors: a pipe that blocks neither stops the event loop nor holds the program's end.
"""

import asyncio
import codecs
import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from adapters.terminal.surface import SurfaceGone

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
_BLOCK_BYTES: Final = 64 * 1024


class Pipe:
    is_sequential = True

    def __init__(
        self, stdin: int | None, stdout: int | None, stderr: int | None, texts: dict[str, str]
    ) -> None:
        """File descriptors; None for one that is closed already."""
        self._stdin = stdin
        self._stdout = stdout
        self._stderr = stderr
        self._texts = texts
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        """Blocks of input; an empty one ends it."""
        self._is_gone = False
        self._writing = asyncio.Lock()

    async def lines(self) -> AsyncGenerator[str, None]:
        number = 0
        async with contextlib.aclosing(self._raw_lines()) as raw_lines:
            async for raw in raw_lines:
                number += 1
                if raw is None:
                    self.warn(self._texts["too_long"].format(number=number, limit=MAX_LINE_BYTES >> 20))
                    continue
                text = self._decode(raw, number)
                if text.strip():
                    yield text

    async def show(self, markdown: str) -> None:
        """One reply, ended by a line break."""
        if self._stdout is None or self._is_gone:
            raise SurfaceGone
        data = f"{markdown}\n".encode("utf-8", "replace")
        async with self._writing:
            try:
                await _in_daemon_thread(lambda: _write_all(self._stdout, data))
            except OSError as error:  # EPIPE: `| head -1` has seen enough
                if error.errno != errno.EPIPE:  # a full disk, which whoever reads the file cannot know
                    self.warn(self._texts["unwritable"].format(reason=error.strerror))
                self._is_gone = True
                self._arrived.put_nowait(b"")
                raise SurfaceGone from error

    def show_typing(self) -> None:
        """Nothing: a script does not watch."""

    def announce(self, lines: Sequence[str]) -> None:
        """Nothing: only replies belong on stdout."""

    def warn(self, sentence: str) -> None:
        if self._stderr is not None:
            with contextlib.suppress(OSError):
                _write_all(self._stderr, f"palaver: {sentence}\n".encode())

    def _decode(self, raw: bytes, number: int) -> str:
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.warn(self._texts["not_utf8"].format(number=number))
            return raw.decode(errors="replace")

    async def _raw_lines(self) -> AsyncGenerator[bytes | None, None]:
        """Lines with their ends, the last one perhaps without; None for one that is too long."""
        if self._stdin is None:
            return
        line = bytearray()
        is_too_long = False
        async with contextlib.aclosing(self._blocks(self._stdin)) as blocks:
            async for block in blocks:
                for part in _split(block):
                    line += part
                    if len(line) > MAX_LINE_BYTES:
                        is_too_long = True
                        line.clear()
                    if part.endswith(b"\n"):
                        yield None if is_too_long else bytes(line)
                        line.clear()
                        is_too_long = False
        if is_too_long or line:
            yield None if is_too_long else bytes(line)

    async def _blocks(self, fd: int) -> AsyncGenerator[bytes, None]:
        """What comes in, as it comes. The reader waits for each block to be used, and for being let go."""
        ours, readers = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()

        def hand_in(block: bytes) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._arrived.put_nowait, block)

        threading.Thread(target=_read_blocks, args=(fd, readers, hand_in), name="stdin", daemon=True).start()
        with ours:
            while block := await self._arrived.get():
                yield block
                ours.send(b"n")


def _read_blocks(fd: int, control: socket.socket, hand_in: Callable[[bytes], None]) -> None:
    """Hand in block after block, an empty one at the end. After each, wait for a byte from `control`; stop when that
    closes, also in the middle of waiting for input.
    """
    with control:
        while True:
            waiting: list[int] = [fd, control.fileno()]
            readable, _, _ = select.select(waiting, [], [])
            if control.fileno() in readable:
                return
            try:
                block = os.read(fd, _BLOCK_BYTES)
            except (
                BlockingIOError
            ):  # somebody who shares this descriptor made it non-blocking, and was quicker
                continue
            except OSError:  # a terminal that has hung up reads as EIO
                block = b""
            hand_in(block)
            if not block or not control.recv(1):
                return


def _split(block: bytes) -> list[bytes]:
    """Lines ended by a line feed only; a lone carriage return is text."""
    lines = [line + b"\n" for line in block.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


def _write_all(fd: int | None, data: bytes) -> None:
    """Write until everything is out, also where the other side made the descriptor non-blocking."""
    assert fd is not None
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


async def _in_daemon_thread(call: Callable[[], None]) -> None:
    """`asyncio.to_thread` joins its threads at the end of the program; a blocked write must not hold that up."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            call()
        except OSError as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=work, name="stdout", daemon=True).start()
    await done
