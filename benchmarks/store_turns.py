"""Claim: one writer with group commit is many times faster than a commit per operation, and flat as a session grows.

A turn is two durable points: accept (session resolved, message stored, turn queued and claimed) and finish (answer, counters,
outbox), as the daemon does it. Contenders take turns on a disk whose fsync takes 1 ms: ours, ours with a commit for each
operation, and the session stores of other projects as far as they are installed, which append two messages and read the last 20.

    python -m benchmarks.store_turns [--people N] [--turns N] [--rounds N]
"""

import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import (
    Claim as Figure,
)
from benchmarks.measuring import (
    alternate,
    fsyncs,
    median,
    on_model_disk,
    options,
    percentile,
    quiet,
    ratios,
    table,
)
from benchmarks.peers import NAMES, NOT_INSTALLED, peers
from config.names import AccountId, ChannelId, PlatformMessageId, PlatformUserId
from sessions import inbox, lane, lifecycle, outbox, people
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase
from sessions.hot import HotSessions, Tail, tail_after
from sessions.models import Claim, Incoming

PEOPLE, TURNS, ROUNDS = 100, 10, 5
PEER_TURNS = 2
"""For each person in each round: some peers take a second for a hundred turns."""
CONTEXT = 20
QUESTION, ANSWER = "q" * 200, "a" * 600

GROUPED = Figure("turns/s with group commit, against a commit per operation", "at least", 5, "×")
FSYNCS = Figure("fsyncs for a turn, 100 people at once", "at most", 0.1, "", 3)
GROWTH = Figure("a turn in a session of 10,000 messages, against one of 10", "at most", 1.2, "×", 2)
AGAINST = {
    "openai": Figure(f"turns/s, against {NAMES['openai']}", "at least", 20, "×"),
    "langgraph": Figure(f"turns/s, against {NAMES['langgraph']}", "at least", 5, "×"),
    "agno": Figure(f"turns/s, against {NAMES['agno']}", "at least", 5, "×"),
}
CLAIMS = (GROUPED, FSYNCS, *AGAINST.values(), GROWTH)


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
    found = lifecycle.resolve(
        tx, message, person, "person", separate_threads=True, expire_after_ms=0, persona=None, now=now
    )
    if found.waiting:
        raise AssertionError
    recent = _hot.tail(found.session.id)
    return inbox.accept_and_claim(
        tx, message, found.session, person, now, context_messages=CONTEXT, recent=recent
    )


def _finish(tx: Transaction, claim: Claim, now: int) -> Tail:
    lane.finish(tx, claim, "completed", now, answer=ANSWER, agent="bench")
    outbox.add(tx, claim.address, "answer", [{"text": ANSWER, "markup": None}], now, turn_id=claim.turn_id)
    return tail_after(claim, ANSWER, {}, now, CONTEXT)


_number = iter(range(10**9))
_hot = HotSessions(64 * 2**20)
"""The ends of conversations that a daemon remembers, with its own default of memory."""


async def turn(write: Callable[[Callable[[Transaction], Any]], Any], channel: str) -> None:
    message = _incoming(next(_number), channel)
    claim = await write(lambda tx: _accept(tx, message, 1))
    _hot.keep(claim.session_id, await write(lambda tx: _finish(tx, claim, 2)))


async def measure(
    write: Callable[[Callable[[Transaction], Any]], Any], prefix: str, people: int, turns: int
) -> dict[str, float]:
    """People side by side, so many turns each."""
    times: list[float] = []

    async def person(number: int) -> None:
        for _ in range(turns):
            started = time.perf_counter()
            await turn(write, f"{prefix}{number}")
            times.append(time.perf_counter() - started)

    before, started, cpu = fsyncs(), time.perf_counter(), time.process_time()
    await asyncio.gather(*(person(number) for number in range(people)))
    seconds = time.perf_counter() - started
    count = people * turns
    return {
        "rate": count / seconds,
        "p50": 1000 * percentile(times, 0.5),
        "cpu": 1000 * (time.process_time() - cpu) / count,
        "fsyncs": (fsyncs() - before) / count,
    }


async def main() -> bool:
    folder = on_model_disk("benchmarks.store_turns")
    quiet()
    chosen = options(__doc__, people=PEOPLE, turns=TURNS, rounds=ROUNDS)
    grouped = await SqliteDatabase.open(folder / "grouped.db")
    single = await SqliteDatabase.open(folder / "single.db")
    gate = asyncio.Lock()

    async def one_at_a_time(work: Callable[[Transaction], Any]) -> Any:
        async with gate:  # nothing can queue up, so each operation is a commit of its own
            return await single.write(work)

    async with peers(folder) as others:
        names = {key: other.name for key, other in others.items()}
        contenders: dict[str, Callable[[], Any]] = {
            "group commit": lambda: measure(grouped.write, "p", chosen.people, chosen.turns),
            "commit per operation": lambda: measure(one_at_a_time, "p", chosen.people, chosen.turns),
        }
        for key, other in others.items():
            contenders[names[key]] = lambda other=other: other.ask(  # type: ignore[misc]  # bound early
                "turns", prefix="p", people=chosen.people, count=PEER_TURNS
            )
        results = await alternate(chosen.rounds, contenders)
    quotients = ratios(results, "rate", "group commit")
    print(
        f"Store turn, {chosen.people} people, fsync 1 ms, {chosen.rounds} alternating rounds of"
        f" {chosen.people * chosen.turns} turns ({chosen.people * PEER_TURNS} for peers), medians\n"
    )
    print(
        table(
            ["store", "turns/s", "of group commit [lowest-highest]", "p50 ms", "CPU ms/turn", "fsyncs/turn"],
            [
                [
                    name,
                    f"{median(rounds, 'rate'):.0f}",
                    "{:.3f} [{:.3f}-{:.3f}]".format(*quotients[name]),
                    f"{median(rounds, 'p50'):.1f}",
                    f"{median(rounds, 'cpu'):.2f}",
                    f"{median(rounds, 'fsyncs'):.3f}",
                ]
                for name, rounds in results.items()
            ],
        )
    )
    growth = await _growth(grouped)
    await grouped.close()
    await single.close()
    shutil.rmtree(folder)
    print()
    verdicts = [
        GROUPED.judge(1 / quotients["commit per operation"][0]),
        FSYNCS.judge(median(results["group commit"], "fsyncs")),
    ]
    for key, figure in AGAINST.items():
        verdicts.append(
            figure.judge(1 / quotients[names[key]][0], names[key])
            if key in names
            else figure.leave(NOT_INSTALLED)
        )
    return all([*verdicts, GROWTH.judge(growth)])


async def _growth(database: SqliteDatabase) -> float:
    """One person's turn in a session of 10 and of 10,000 messages, alternating; the ratio of the medians."""
    lengths = {"short": 10, "long": 10_000}

    def talk(tx: Transaction, channel: str, turns: int) -> None:
        for _ in range(turns):
            _finish(tx, _accept(tx, _incoming(next(_number), channel), 1), 2)

    for channel, messages in lengths.items():
        for first in range(0, messages // 2, 500):
            await database.write(
                lambda tx, channel=channel, turns=min(500, messages // 2 - first): talk(tx, channel, turns)  # type: ignore[misc]  # bound early
            )
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
