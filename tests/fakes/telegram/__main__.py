"""`python -m tests.fakes.telegram`: the fake Telegram as its own process, steered over its control port.

Prints one JSON line with its addresses and its pid, then serves until SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path

from .server import FakeTelegram
from .world import BOT_USERNAME


async def _run(arguments: argparse.Namespace) -> None:
    telegram = FakeTelegram(
        arguments.token,
        port=arguments.port,
        control_port=arguments.control_port,
        username=arguments.username,
        privacy_mode=arguments.privacy_mode,
        sees_bots=arguments.sees_bots,
        state=arguments.state,
    )
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with telegram:
        address = {"url": telegram.url, "control_url": telegram.control_url, "pid": os.getpid()}
        print(json.dumps(address), flush=True)
        await stopping.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.telegram", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the Bot API; 0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="of the control API; 0 takes a free one")
    parser.add_argument("--token", required=True)
    parser.add_argument("--username", default=BOT_USERNAME)
    parser.add_argument(
        "--privacy-mode", action="store_true", help="groups show the bot only what is meant for it"
    )
    parser.add_argument("--sees-bots", action="store_true", help="other bots' messages reach the bot")
    parser.add_argument("--state", type=Path, help="file that keeps the state over restarts of the fake")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
