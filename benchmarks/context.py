"""Claim: composing what the model sees takes as long at 100,000 messages as at 10, and less than 20 ms at the 99th percentile.

Sessions of 10, 1,000 and 100,000 messages in one store, with the summaries that such conversations have; `build_context` by
turns, on a connection for reading. Then the same with a window so small that the whole ladder is gone down. Other projects'
stores, as far as they are installed, read the last 20 messages of as long a conversation by turns with ours; those that read all of
it to do so are not asked for the longest.

    python -m benchmarks.context [--rounds N] [--longest N]
"""

import asyncio
import sys
import time
from pathlib import Path

from benchmarks.measuring import Claim, options, percentile, quiet, table, working_folder
from benchmarks.peers import NAMES, NOT_INSTALLED, Peer, peers
from sessions import context, lane, lifecycle
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase
from sessions.models import Session
from sessions.scope import OperatorScope

ROUNDS, LONGEST = 400, 100_000
PEER_SIZES = {"openai": (10, 1_000, 10_000), "langgraph": (10, 1_000), "agno": (10, 1_000)}
"""Filling takes them long: agno stores run by run, and a LangGraph checkpoint holds all messages."""
PEER_READS = 20

SLOWEST = Claim(
    "composing what the model sees, p99 at any length up to 100,000 messages", "below", 20, " ms", 2
)
GROWTH = Claim("composing at 100,000 messages, against 1,000 (p50)", "at most", 1.3, "×", 2)
AGAINST = {
    key: Claim(f"reading the last 20 of 1,000 messages, {name} against ours (p50)", "at least", 1, "×")
    for key, name in NAMES.items()
}
CLAIMS = (SLOWEST, GROWTH, *AGAINST.values())
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
    chosen = options(__doc__, rounds=ROUNDS, longest=LONGEST)
    quiet()
    with working_folder() as folder:
        async with peers(folder) as others:
            return await measure(folder, others, chosen.rounds, (10, 1_000, chosen.longest))


async def measure(folder: Path, others: dict[str, Peer], rounds: int, sizes: tuple[int, ...]) -> bool:
    database = await SqliteDatabase.open(folder / "palaver.db")
    sessions = {size: await make(database, size) for size in sizes}
    for key, peer in others.items():
        for size in PEER_SIZES[key]:
            await peer.ask("fill", chat=f"c{size}", messages=size)
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
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
        if number % (rounds // PEER_READS or 1) == 0:
            for _ in range(2):
                for size, session in sessions.items():
                    started = time.perf_counter()
                    await database.read(
                        lambda tx, one=session.id: lane.conversation_until(tx, one, 2**62, 20)  # type: ignore[misc]  # bound early
                    )
                    times.setdefault(("last 20", size), []).append(1000 * (time.perf_counter() - started))
            for key, peer in others.items():
                for size in PEER_SIZES[key]:
                    times.setdefault((peer.name, size), []).extend(
                        (await peer.ask("read", chat=f"c{size}", times=2))["ms"]
                    )
    await database.close()
    p50 = {case: percentile(values, 0.5) for case, values in times.items()}
    p99 = {case: percentile(values, 0.99) for case, values in times.items()}
    print(f"build_context of a session, {rounds} rounds by turns; peers read the last 20 messages\n")
    print(
        table(
            ["", "messages", "p50 ms", "p99 ms"],
            [[case[0], f"{case[1]:,}", f"{p50[case]:.2f}", f"{p99[case]:.2f}"] for case in times],
        )
    )
    print()
    ours = p50["last 20", 1_000]
    composed = [values for (kind, _), values in times.items() if kind in ("all fits", "down the ladder")]
    verdicts = [
        SLOWEST.judge(max(percentile(values, 0.99) for values in composed)),
        # At ten messages there are no summaries and fewer messages to count, so the flat part begins at a thousand.
        GROWTH.judge(p50["all fits", sizes[-1]] / p50["all fits", 1_000]),
    ]
    for key, claim in AGAINST.items():
        verdicts.append(
            claim.judge(p50[others[key].name, 1_000] / ours, others[key].name)
            if key in others
            else claim.leave(NOT_INSTALLED)
        )
    return all(verdicts)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
