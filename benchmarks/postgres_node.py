"""One node on PostgreSQL, for `benchmarks/postgres_turns.py`: a daemon in a process, with people of its own in memory.

Reads a line of JSON for each thing to do and answers with one: `burst` (people side by side, so many turns each), `steady` (so
many messages a second), `say` (messages whose answers nobody waits for).
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bot import collector
from bot.app import App
from bot.stores import open_database
from config import logging as logs
from config.names import AccountId
from config.settings import LogSettings, NodeSettings, Settings, TurnSettings
from sessions.database.base import Database
from sessions.database.postgres import PostgresDatabase
from sessions.errors import StoreUnavailable


async def open_store(settings: Settings) -> Database:
    """The store as the daemon opens it."""
    try:
        return await open_database(settings)
    except StoreUnavailable:
        return await PostgresDatabase.open(settings.database_url)


LEASE_S = 3
"""For whatever a node holds by a lease."""


async def open_node(url: str, names: list[str], log: Path) -> App:
    """A node that knows these accounts; it is called as the first, and hears it."""
    leases = {
        section: {name: LEASE_S for name in known.model_fields if name.endswith("lease_s")}
        for section, known in (("node", NodeSettings), ("turns", TurnSettings))
    }
    settings = Settings.model_validate(
        {
            "database_url": url,
            "accounts": {name: {"platform": "memory"} for name in names},
            "agent": {"kind": "scripted"},
            "turns": {"max_running": 1000, "queue_notice_after_s": 0, **leases["turns"]},
            "node": {"name": names[0], **leases["node"]},
            "http": {"enabled": False},
        }
    )
    logs.configure(LogSettings(file=log, level="warning"))
    accounts = {AccountId(f"memory.{name}"): settings.accounts[name] for name in names}
    app = App(settings, await open_store(settings), accounts)
    await app.start()
    collector.relax()  # as a daemon does
    await asyncio.sleep(0.3)
    return app


async def burst(adapter: Any, prefix: str, people: int, turns: int) -> dict[str, float]:
    async def person(name: str) -> None:
        for turn in range(turns):
            await adapter.ask(f"hello {turn}", person=name, channel=name, timeout_s=60)

    began = time.time()
    await asyncio.gather(*(person(f"{prefix}{number}") for number in range(people)))
    return {"turns": people * turns, "began": began, "ended": time.time()}


async def steady(adapter: Any, prefix: str, rate: float, seconds: float, text: str) -> dict[str, float]:
    """Each message from another of some hundred people, so that hardly anybody waits for a turn of their own."""
    began, said = time.monotonic(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        said.append(asyncio.create_task(adapter.say(f"{text} {number}", person=f"{prefix}{number % 500}")))
    await asyncio.gather(*said)
    return {"messages": len(said), "seconds": time.monotonic() - began}


async def say(adapter: Any, prefix: str, count: int, text: str) -> dict[str, float]:
    await asyncio.gather(*(adapter.say(text, person=f"{prefix}{number}") for number in range(count)))
    return {"messages": count}


async def main() -> None:
    url, folder, *names = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    app = await open_node(url, names, Path(folder) / f"{names[0]}.log")
    adapter = app.adapters[AccountId(f"memory.{names[0]}")]
    loop = asyncio.get_running_loop()
    print(json.dumps({"is_ready": True}), file=answers, flush=True)
    does = {"burst": burst, "steady": steady, "say": say}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        try:
            answer: Any = {"result": await does[order.pop("do")](adapter, **order)}
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    with contextlib.suppress(Exception):
        await app.close()


if __name__ == "__main__":
    asyncio.run(main())
