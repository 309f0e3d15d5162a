"""Claim: while the clean-up goes through a hundred thousand sessions, chat's p99 stays below twice what it is without it.

A quarter of the sessions is due for each of its steps: to be ended, archived, hidden, removed. People talk all the time, in
stretches with the clean-up and stretches without that take turns; each stretch with it goes on where the last one stopped.

    python -m benchmarks.cleanup_beside_chat [--sessions N] [--rounds N] [--stretch-s S]
"""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Claim, on_model_disk, options, percentile, quiet, table
from benchmarks.store_turns import turn
from sessions import cleanup, search
from sessions.database.sqlite import SqliteDatabase

SESSIONS, PEOPLE, STRETCH_S, ROUNDS, PAUSE_S = 100_000, 20, 3.0, 7, 0.02
"""The pause is the daemon's own between two batches."""

SLOWED = Claim("chat's p99 beside the clean-up, against without", "below", 2, "×", 2)
LEFT = Claim("sessions left that were due", "exactly", 0, "", 0)
CLAIMS = (SLOWED, LEFT)

DAY = 86_400_000
RULES = {"expire_after_ms": DAY, "archive_after_ms": 7 * DAY, "delete_after_ms": 30 * DAY}
DUE = (
    ("active", None, 2, None),
    ("ended", "reset", 9, 9),
    ("archived", "expired", 40, 40),
    ("ended", "deleted", 40, 2),
)
"""Status, reason, days since the last activity, days since the end."""


def rows(now: int, sessions: int) -> Iterator[tuple[object, ...]]:
    for number in range(sessions):
        status, reason, active, ended = DUE[number % len(DUE)]
        yield (
            f"s{number:025}",
            f"k{number}",
            f"c{number}",
            f"p{number % 5000}",
            status,
            reason,
            now - active * DAY - number,
            None if ended is None else now - ended * DAY - number,
        )


def fill(path: Path, now: int, sessions: int) -> None:
    """Sessions of two messages each, with their turn."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO sessions (id, key, channel, person_id, status, end_reason, last_activity_at, ended_at, scope, platform,"
            " account, message_count, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'person', 'memory', 'memory.main', 2, 1)",
            rows(now, sessions),
        )
        connection.execute(
            "INSERT INTO turns (id, session_id, position, inbox_id, status, queued_at, finished_at)"
            " SELECT 't' || id, id, 1, 0, 'completed', 1, 2 FROM sessions"
        )
        for part, role in enumerate(("user", "assistant")):
            connection.execute(
                "INSERT INTO messages (session_id, position, part, role, content, turn_id, created_at)"
                " SELECT id, 1, ?, ?, 'some words about ' || id, 't' || id, 1 FROM sessions",
                (part, role),
            )


async def main() -> bool:
    folder = on_model_disk("benchmarks.cleanup_beside_chat")
    chosen = options(__doc__, sessions=SESSIONS, rounds=ROUNDS, stretch_s=STRETCH_S)
    quiet()
    path = folder / "palaver.db"
    database = await SqliteDatabase.open(path)
    await database.close()
    now = int(time.time() * 1000)
    fill(path, now, chosen.sessions)
    database = await SqliteDatabase.open(path)
    while await database.write(lambda tx: search.index_pending(tx, 10_000)):
        pass
    touched = 0
    is_done = False

    async def clean_up(pause_s: float = PAUSE_S) -> None:
        nonlocal touched, is_done
        while batch := await database.write(lambda tx: cleanup.clean_up(tx, now, **RULES)):
            touched += batch
            await asyncio.sleep(pause_s)
        is_done = True

    async def stretch(*, with_clean_up: bool) -> list[float]:
        times: list[float] = []
        ends = time.monotonic() + chosen.stretch_s

        async def person(number: int) -> None:
            while time.monotonic() < ends:
                started = time.perf_counter()
                await turn(database.write, f"chat{number}")
                times.append(1000 * (time.perf_counter() - started))
                await asyncio.sleep(0.02)

        cleaning = asyncio.create_task(clean_up()) if with_clean_up else None
        await asyncio.gather(*(person(number) for number in range(PEOPLE)))
        if cleaning is not None:
            cleaning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await cleaning
        return times

    await stretch(with_clean_up=False)
    alone: list[float] = []
    beside: list[float] = []
    lines, ratios = [], []
    for number in range(chosen.rounds):
        before = touched
        without, along = await stretch(with_clean_up=False), await stretch(with_clean_up=True)
        alone += without
        beside += along
        ratios.append(percentile(along, 0.99) / percentile(without, 0.99))
        lines.append(
            [
                str(number + 1),
                *(f"{percentile(times, share):.1f}" for times in (without, along) for share in (0.5, 0.99)),
                str(touched - before),
            ]
        )
    print(table(["round", "p50 alone", "p99 alone", "p50 beside", "p99 beside", "cleaned up"], lines))
    started = time.perf_counter()
    rest = touched
    while not is_done:
        await clean_up(0)
    seconds = time.perf_counter() - started
    print(
        f"the rest, {touched - rest} steps, without pauses: {seconds:.1f} s; turns beside it: {len(beside)}"
    )
    due = await database.read(lambda tx: cleanup.due(tx, now, **RULES))
    await database.close()
    ratio = percentile(beside, 0.99) / percentile(alone, 0.99)
    per_round = json.dumps([round(one, 2) for one in ratios])
    shutil.rmtree(folder)
    return all(
        [
            SLOWED.judge(ratio, f"rounds {per_round}"),
            LEFT.judge(due.expired + due.archived + due.deleted, f"of {chosen.sessions:,}"),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
