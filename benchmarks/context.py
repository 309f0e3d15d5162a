"""Claim: composing what the model sees takes as long at 100,000 messages as at 10, and less than 20 ms at the 99th percentile.

Sessions of 10, 1,000 and 100,000 messages in one store, with the summaries that such conversations have; `build_context` by
turns, on a connection for reading. Then the same with a window so small that the whole ladder is gone down.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import percentile, table, verdict
from sessions import context, lifecycle
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase
from sessions.models import Session
from sessions.scope import OperatorScope

SIZES = (10, 1_000, 100_000)
ROUNDS = 400
TEXT = "We talked about the garden, the train to Ghent at 9:40 and who brings the cake. " * 4


def fill(tx: Transaction, name: str, first: int, last: int) -> None:
    """Messages of the turns from first to last."""
    for position in range(first, last + 1):
        for part, role in enumerate(("user", "assistant")):
            tx.execute(
                "INSERT INTO messages (session_id, position, part, role, content, author, created_at)"
                " VALUES (:id, :position, :part, :role, :content, 'Ada', 1)",
                {
                    "id": name,
                    "position": position,
                    "part": part,
                    "role": role,
                    "content": f"{position} {TEXT}",
                },
            )


async def make(database: SqliteDatabase, size: int) -> Session:
    name = f"bench-{size:06d}"
    turns = size // 2

    def begin(tx: Transaction) -> None:
        tx.execute(
            "INSERT INTO sessions (id, key, scope, platform, account, channel, status, created_at, last_activity_at,"
            " next_position) VALUES (:id, :id, 'person', 'memory', 'memory.main', :id, 'active', 1, 1, :next)",
            {"id": name, "next": turns + 1},
        )

    await database.write(begin)
    for first in range(1, turns + 1, 2_000):
        await database.write(
            lambda tx, first=first: fill(tx, name, first, min(turns, first + 1_999))  # type: ignore[misc]  # bound early
        )

    def summarise(tx: Transaction) -> None:
        covered = turns - 8
        for number in range(3):
            tx.execute(
                "INSERT INTO summaries (session_id, version, from_position, to_position, content, tokens, made_by, created_at)"
                " VALUES (:id, :version, :first, :last, :content, 400, 'digest', 1)",
                {
                    "id": name,
                    "version": number + 1,
                    "first": covered * number // 3 + 1,
                    "last": covered * (number + 1) // 3,
                    "content": "\n".join(
                        f"- Ada: note {line} about the garden and the cake" for line in range(32)
                    ),
                },
            )
        tx.execute("UPDATE sessions SET summarised_to = :to WHERE id = :id", {"to": covered, "id": name})

    if turns > 20:
        await database.write(summarise)
    return await database.read(lambda tx: lifecycle.find(tx, name, OperatorScope()))  # type: ignore[arg-type]  # a plain string


async def main() -> bool:
    folder = Path(tempfile.mkdtemp(prefix="palaver-bench-"))
    database = await SqliteDatabase.open(folder / "palaver.db")
    sessions = {size: await make(database, size) for size in SIZES}
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for kind, limit in (("all fits", 8_000), ("down the ladder", 600)):
            for size, session in sessions.items():
                started = time.perf_counter()
                seen = await database.read(
                    lambda tx, session=session, limit=limit: context.build_context(  # type: ignore[misc]  # bound early
                        tx, session, 20, limit_tokens=limit, instructions="Answer briefly."
                    )
                )
                times.setdefault((kind, size), []).append(1000 * (time.perf_counter() - started))
                assert seen.is_within
                assert seen.messages
    await database.close()
    shutil.rmtree(folder)
    p50 = {case: percentile(values, 0.5) for case, values in times.items()}
    p99 = {case: percentile(values, 0.99) for case, values in times.items()}
    print(f"build_context of a session, {ROUNDS} rounds by turns\n")
    print(
        table(
            ["", "messages", "p50 ms", "p99 ms"],
            [[case[0], f"{case[1]:,}", f"{p50[case]:.2f}", f"{p99[case]:.2f}"] for case in times],
        )
    )
    print()
    # At ten messages there are no summaries and fewer messages to count, so the flat part begins at a thousand.
    growth = p50["all fits", 100_000] / p50["all fits", 1_000]
    return all(
        [
            verdict(
                "p99 below 20 ms at every size",
                is_met=max(p99.values()) < 20,
                measured=f"{max(p99.values()):.2f} ms",
            ),
            verdict(
                "100,000 messages cost at most 1.3 times what 1,000 do",
                is_met=growth <= 1.3,
                measured=f"{growth:.2f}",
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
