"""Claim: the targets that the session services before us set themselves are met at p99: create < 5 ms, add < 10, context < 20.

One client on a disk whose fsync takes 1 ms, in a database of 1,000 sessions with 20 messages each.

    python -m benchmarks.single_operations [--count N] [--sessions N]
"""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import Claim, on_model_disk, options, percentile, quiet, table
from benchmarks.store_turns import _incoming, turn
from config.names import AccountId
from sessions import inbox, lane, lifecycle, people
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase

COUNT, SESSIONS = 400, 1000

CREATE = Claim("create a session, p99", "below", 5, " ms", 2)
ADD = Claim("add a message, p99", "below", 10, " ms", 2)
CONTEXT = Claim("read the last 20 messages, p99", "below", 20, " ms", 2)
FIND = Claim("find the live session, p99", "below", 1, " ms", 2)
CLAIMS = (CREATE, ADD, CONTEXT, FIND)


async def main() -> bool:
    folder = on_model_disk("benchmarks.single_operations")
    chosen = options(__doc__, count=COUNT, sessions=SESSIONS)
    quiet()
    database = await SqliteDatabase.open(folder / "palaver.db")
    for start in range(0, chosen.sessions, 100):
        await asyncio.gather(*(_fill(database, f"p{number}") for number in range(start, start + 100)))

    times: dict[Claim, list[float]] = {claim: [] for claim in CLAIMS}

    async def timed(claim: Claim, work: Any) -> Any:
        started = time.perf_counter()
        result = await work
        times[claim].append(1000 * (time.perf_counter() - started))
        return result

    for number in range(chosen.count):
        message = _incoming(number, f"new{number}")
        session, person = await timed(CREATE, database.write(_create(message)))
        await timed(
            ADD,
            database.write(lambda tx, m=message, s=session, p=person: inbox.accept(tx, m, s, p, 1, ahead=0)),  # type: ignore[misc]  # bound early
        )
        await timed(FIND, database.read(lambda tx, key=session.key: lifecycle.find_live(tx, key)))  # type: ignore[misc]  # bound early
        known = await database.read(
            lambda tx, n=number: tx.row(  # type: ignore[misc]  # bound early
                "SELECT id FROM sessions WHERE account = :account ORDER BY id LIMIT 1 OFFSET :n",
                {"account": AccountId("memory.main"), "n": n},
            )
        )
        assert known is not None
        await timed(
            CONTEXT,
            database.read(lambda tx, i=known["id"]: lane.conversation_until(tx, i, 10**9, 20)),  # type: ignore[misc]  # bound early
        )
    await database.close()
    shutil.rmtree(folder)
    print(f"Single operations, one client, fsync 1 ms, {chosen.count} of each\n")
    print(
        table(
            ["operation", "p50 ms", "p99 ms"],
            [
                [
                    claim.what.removesuffix(", p99"),
                    f"{percentile(taken, 0.5):.2f}",
                    f"{percentile(taken, 0.99):.2f}",
                ]
                for claim, taken in times.items()
            ],
        )
    )
    print()
    verdicts = [claim.judge(percentile(taken, 0.99)) for claim, taken in times.items()]
    return all(verdicts)


def _create(message: Any) -> Callable[[Transaction], Any]:
    def create(tx: Transaction) -> Any:
        person = people.meet(tx, message, 1)
        found = lifecycle.resolve(
            tx, message, person, "person", separate_threads=True, expire_after_ms=0, persona=None, now=1
        )
        return found.session, person

    return create


async def _fill(database: SqliteDatabase, channel: str) -> None:
    for _ in range(10):
        await turn(database.write, channel)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
