"""Claim: one writer with group commit is many times faster than a commit per operation, and flat as a session grows.

A turn is two durable points: accept (session resolved, message stored, turn queued and claimed) and finish (answer, counters,
outbox), as the daemon does it. Contenders take turns on a disk whose fsync takes 1 ms.
"""

import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import alternate, fsyncs, median, on_model_disk, percentile, ratios, table, verdict
from config.names import AccountId, ChannelId, PlatformMessageId, PlatformUserId
from sessions import inbox, lifecycle, outbox, people
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase
from sessions.models import Claim, Incoming

TASKS, TURNS, ROUNDS = 100, 10, 5
QUESTION, ANSWER = "q" * 200, "a" * 600


def _incoming(number: int, channel: str) -> Incoming:
    return Incoming(
        platform="memory",
        account=AccountId("memory.main"),
        channel=ChannelId(channel),
        channel_kind="direct",
        message_id=PlatformMessageId(f"{channel}-{number}"),
        dedupe_id=f"{channel}-{number}",
        user_id=PlatformUserId(channel),
        display_name=channel,
        username=None,
        language="en",
        text=QUESTION,
        sent_at=0,
    )


def _accept(tx: Transaction, message: Incoming, now: int) -> Claim:
    if inbox.is_known(tx, message):
        raise AssertionError
    inbox.hear(tx, message, now)
    person = people.meet(tx, message, now)
    session, _ = lifecycle.resolve(
        tx, message, person, "person", separate_threads=True, expire_after_ms=0, persona=None, now=now
    )
    inbox.accept(tx, message, session, person, now, ahead=inbox.waiting(tx, session.id))
    claim = inbox.claim(tx, session.id, now, context_messages=20)
    assert claim is not None
    return claim


def _finish(tx: Transaction, claim: Claim, now: int) -> None:
    inbox.finish(tx, claim, "completed", now, answer=ANSWER, agent="bench")
    outbox.add(tx, claim.address, "answer", [{"text": ANSWER, "markup": None}], now, turn_id=claim.turn_id)


_number = iter(range(10**9))


async def turn(write: Callable[[Callable[[Transaction], Any]], Any], channel: str) -> None:
    message = _incoming(next(_number), channel)
    claim = await write(lambda tx: _accept(tx, message, 1))
    await write(lambda tx: _finish(tx, claim, 2))


async def measure(write: Callable[[Callable[[Transaction], Any]], Any], prefix: str) -> dict[str, float]:
    """TASKS people side by side, TURNS turns each."""
    times: list[float] = []

    async def person(number: int) -> None:
        for _ in range(TURNS):
            started = time.perf_counter()
            await turn(write, f"{prefix}{number}")
            times.append(time.perf_counter() - started)

    before, started, cpu = fsyncs(), time.perf_counter(), time.process_time()
    await asyncio.gather(*(person(number) for number in range(TASKS)))
    seconds = time.perf_counter() - started
    count = TASKS * TURNS
    return {
        "rate": count / seconds,
        "p50": 1000 * percentile(times, 0.5),
        "cpu": 1000 * (time.process_time() - cpu) / count,
        "fsyncs": (fsyncs() - before) / count,
    }


async def main() -> bool:
    folder = on_model_disk("benchmarks.store_turns")
    grouped = await SqliteDatabase.open(folder / "grouped.db")
    single = await SqliteDatabase.open(folder / "single.db")
    gate = asyncio.Lock()

    async def one_at_a_time(work: Callable[[Transaction], Any]) -> Any:
        async with gate:  # nothing can queue up, so each operation is a commit of its own
            return await single.write(work)

    results = await alternate(
        ROUNDS,
        {
            "group commit": lambda: measure(grouped.write, "p"),
            "commit per operation": lambda: measure(one_at_a_time, "p"),
        },
    )
    quotients = ratios(results, "rate", "commit per operation")
    print(
        f"Store turn, {TASKS} tasks, fsync 1 ms, {ROUNDS} alternating rounds of {TASKS * TURNS} turns (medians)\n"
    )
    print(
        table(
            ["design", "turns/s", "ratio [lowest-highest]", "p50 ms", "CPU ms/turn", "fsyncs/turn"],
            [
                [
                    name,
                    f"{median(rounds, 'rate'):.0f}",
                    "{:.1f} [{:.1f}-{:.1f}]".format(*quotients[name]),
                    f"{median(rounds, 'p50'):.1f}",
                    f"{median(rounds, 'cpu'):.2f}",
                    f"{median(rounds, 'fsyncs'):.3f}",
                ]
                for name, rounds in results.items()
            ],
        )
    )
    growth = await _growth(grouped, folder)
    await grouped.close()
    await single.close()
    shutil.rmtree(folder)
    print()
    return all(
        [
            verdict(
                "group commit at least 5 times commit per operation",
                is_met=quotients["group commit"][0] >= 5,
                measured=f"{quotients['group commit'][0]:.1f}",
            ),
            verdict(
                "at most 0.1 fsyncs a turn at 100 tasks",
                is_met=median(results["group commit"], "fsyncs") <= 0.1,
                measured=f"{median(results['group commit'], 'fsyncs'):.3f}",
            ),
            verdict(
                "a turn at 10,000 messages costs at most 1.2 times one at 10",
                is_met=growth <= 1.2,
                measured=f"{growth:.2f}",
            ),
        ]
    )


async def _growth(database: SqliteDatabase, folder: Path) -> float:
    """One person's turn in a session of 10 and of 10,000 messages, alternating; the ratio of the medians."""
    lengths = {"short": 10, "long": 10_000}
    for channel, messages in lengths.items():
        for start in range(0, messages // 2, 500):
            for _ in range(min(500, messages // 2 - start)):
                await turn(database.write, channel)
    times: dict[str, list[float]] = {channel: [] for channel in lengths}
    for _ in range(150):
        for channel in lengths:
            started = time.perf_counter()
            await turn(database.write, channel)
            times[channel].append(time.perf_counter() - started)
    short, long = (1000 * statistics.median(times[channel]) for channel in lengths)
    print(f"\nOne person, session of 10 messages: {short:.2f} ms a turn; of 10,000: {long:.2f} ms")
    return long / short


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
