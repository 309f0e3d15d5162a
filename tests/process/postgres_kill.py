"""kill -9 of PostgreSQL under load, over and over: `python -m tests.process.postgres_kill --cycles 30`.

Owns the load, the killing and the count. Messages are taken in by two stores on one server, as two nodes would; after
each kill the server is started again, and in the end every message that was acknowledged is there, once, in its place.
"""

import argparse
import asyncio
import random
import sys
from dataclasses import dataclass, field
from functools import partial

from config.names import ChannelId, PlatformUserId
from sessions import inbox
from sessions.database.base import Transaction
from sessions.database.postgres import PostgresDatabase
from sessions.errors import StoreUnavailable
from sessions.models import Incoming
from tests import postgres
from tests.sessions.records import arrive, incoming

_SESSIONS = 8


@dataclass
class Report:
    cycles: int = 0
    acknowledged: int = 0
    uncertain: int = 0
    """Commits whose outcome was not heard; they were said again."""
    uncertain_stored: int = 0
    lost: int = 0
    doubled: int = 0
    misplaced: int = 0
    """Messages of a session that are not in the order in which they were said."""


@dataclass
class _Load:
    said: dict[int, list[str]] = field(default_factory=lambda: {number: [] for number in range(_SESSIONS)})
    """What was acknowledged, by session, in order."""
    report: Report = field(default_factory=Report)
    is_over: bool = False

    async def talk(self, database: PostgresDatabase, number: int) -> None:
        """One person's messages, one after the other, each said until it is acknowledged."""
        while not self.is_over:
            message = incoming(
                user_id=PlatformUserId(f"user-{number}"), channel=ChannelId(f"channel-{number}"), text="hello"
            )
            was_uncertain = False
            while True:
                try:
                    outcome = await database.write(partial(_take_in, message), key=str(number))
                except StoreUnavailable as error:
                    if "may or may not" in error.reason:
                        was_uncertain = True
                        self.report.uncertain += 1
                    await asyncio.sleep(0.05)
                    continue
                break
            if outcome == "duplicate":
                assert was_uncertain, "a message was there before anybody said it"
                self.report.uncertain_stored += 1
            self.said[number].append(message.dedupe_id)
            self.report.acknowledged += 1
            await asyncio.sleep(0)


def _take_in(message: Incoming, tx: Transaction) -> str:
    if inbox.is_known(tx, message):
        return "duplicate"
    arrive(tx, message)
    return "accepted"


async def kill_cycles(cycles: int, seed: int = 0) -> Report:
    """Kill the server that many times while people talk, and count what is wrong afterwards."""
    rng = random.Random(seed)
    server = await asyncio.to_thread(postgres.Server.make)
    load = _Load()
    try:
        nodes = [await PostgresDatabase.open(server.url) for _ in range(2)]
        talks = [asyncio.create_task(load.talk(nodes[number % 2], number)) for number in range(_SESSIONS)]
        for _ in range(cycles):
            reached = load.report.acknowledged + rng.randint(10, 60)
            async with asyncio.timeout(60):  # work went on after the last kill, or this ends the run
                while load.report.acknowledged < reached:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(rng.uniform(0, 0.05))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(rng.uniform(0, 0.2))
            await asyncio.to_thread(server.start)
            load.report.cycles += 1
        load.is_over = True
        async with asyncio.timeout(60):
            await asyncio.gather(*talks)
        found = await nodes[0].read(_found)
        for node in nodes:
            await node.close()
    finally:
        load.is_over = True
        await asyncio.to_thread(server.remove)
    for number, said in load.said.items():
        stored = found.get(f"channel-{number}", [])
        load.report.lost += len(set(said) - set(stored))
        load.report.doubled += len(stored) - len(set(stored))
        load.report.misplaced += sum(a != b for a, b in zip(said, stored, strict=False))
    return load.report


def _found(tx: Transaction) -> dict[str, list[str]]:
    """Message ids by channel, in the order of their places in the lane, each with its turn and its message."""
    found: dict[str, list[str]] = {}
    for row in tx.rows(
        "SELECT i.channel, i.message_id FROM inbox i JOIN turns t ON t.id = i.turn_id JOIN messages m ON m.turn_id = t.id"
        " ORDER BY i.channel, t.position"
    ):
        found.setdefault(row["channel"], []).append(row["message_id"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 of PostgreSQL under load")
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = asyncio.run(kill_cycles(arguments.cycles, arguments.seed))
    print(report)
    return int(bool(report.lost or report.doubled or report.misplaced))


if __name__ == "__main__":
    sys.exit(main())
