"""A program of one terminal adapter and an intake that echoes: what process tests start as a child.

Run as `python -m tests.adapters.terminal_child`. Ends when the input does, and at SIGTERM or SIGINT with status 7.
"""

import asyncio
import signal
import sys

import structlog

from adapters.base import Receipt
from adapters.errors import Rejected
from adapters.messages import InboundMessage, Target
from adapters.terminal import TerminalAdapter
from config.names import AccountId
from config.settings import AccountSettings
from tests.adapters.recording import RecordingIntake


class Echo(RecordingIntake):
    """Answers every message a moment after it was accepted, as the daemon does."""

    def __init__(self, adapter: TerminalAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.answers: set[asyncio.Task[None]] = set()

    async def deliver(self, message: InboundMessage) -> Receipt:
        receipt = await super().deliver(message)
        self.answers.add(asyncio.create_task(self.answer(message)))
        return receipt

    async def answer(self, message: InboundMessage) -> None:
        await asyncio.sleep(0.01)
        try:
            for chunk in self.adapter.render(f"**{len(message.text)}** {message.text[:100]}"):
                await self.adapter.send(Target(message.account, message.channel), chunk, "key")
        except Rejected:
            pass  # as in the daemon: recorded, and no more said
        finally:
            self.adapter.settled(message.message_id)


async def main() -> int:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    loop = asyncio.get_running_loop()
    adapter = TerminalAdapter(AccountId("terminal.local"), AccountSettings(platform="terminal"), lambda _: ())
    run = asyncio.create_task(adapter.run(Echo(adapter)))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, run.cancel)
    await asyncio.wait({run})
    await adapter.close()
    return 7 if run.cancelled() else run.result() or 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
