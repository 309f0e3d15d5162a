"""The memory platform as a process of its own: `python -m tests.process.memory_platform`.

`tests/fakes/memory.py` with three control routes more: people edit, everything shown is told with its channel, and everything
is forgotten (for a daemon that begins with an empty database: it begins with the same keys).
Imports nothing of ours.
"""

import argparse
import asyncio
import json
import logging
import signal
import time
from typing import Any

from aiohttp import web

from tests.fakes.memory import Counterparty, serve


class Platform(Counterparty):
    def application(self) -> web.Application:
        app = super().application()
        app.add_routes(
            [
                web.post("/_control/edit", self._control_edit),
                web.get("/_control/shown", self._control_shown),
                web.post("/_control/forget", self._control_forget),
            ]
        )
        return app

    async def _control_edit(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        self._post(
            {
                "channel": body["channel"],
                "message_id": body["message_id"],
                "sender": {"user_id": body["person"], "display_name": body["person"].capitalize()},
                "text": body["text"],
                "sent_at_ms": time.time_ns() // 1_000_000,
                "is_edit": True,
            }
        )
        return web.json_response({})

    async def _control_shown(self, request: web.Request) -> web.Response:
        return web.json_response(list(self._shown.values()))

    async def _control_forget(self, request: web.Request) -> web.Response:
        self._shown.clear()
        self.sent.clear()
        self.waiting.clear()
        return web.json_response({})


async def _main(port: int, token: str | None) -> None:
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a bot killed in mid-sentence is no news
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(Platform(token=token), port) as url:
        print(json.dumps({"url": url}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token")
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.port, arguments.token))
