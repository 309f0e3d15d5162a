"""python -m tests.fakes.llm --port 4010: prints its address and serves until it is stopped."""

import argparse
import asyncio

from tests.fakes.llm.server import FakeLlm


async def _serve_forever(port: int, key: str | None) -> None:
    async with FakeLlm(key=key).running(port) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake language model on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", help="the only API key that is accepted")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve_forever(arguments.port, arguments.key))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
