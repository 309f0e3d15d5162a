"""``python -m tests.fakes.discord``: the fake as a process of its own, steered over ``/_control``.

Prints one JSON line with its addresses once it listens, and runs until SIGTERM or SIGINT.
"""

import argparse
import asyncio
import json
import signal

from tests.fakes.discord.server import FakeDiscord


async def serve(port: int, token: str, seed: int) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with FakeDiscord(token=token, seed=seed, port=port) as fake:
        print(json.dumps(fake.describe()), flush=True)
        await stopping.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.discord", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--token", default="fake-discord-token", help="the only bot token that is accepted")
    parser.add_argument("--seed", type=int, default=0, help="for faults with a probability")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.token, options.seed))


if __name__ == "__main__":
    main()
