"""Claim: the whole daemon (memory adapter, instant agent) runs 1,500 turns a second on one core and adds little to each.

Part one: a hundred people on memory-backed files, as fast as they can, with the process held to one core. Part two: one person on
a disk whose fsync takes 1 ms, from the message's arrival to the reply at the adapter.

The table tells what a turn's CPU time consists of: the loop (adapter, gateway, agent, sending, its log lines) and the store's
writing thread (some twenty statements with their indexes and triggers, and the code around them); the rest is readers and the
log's thread.

    python -m benchmarks.daemon_turns [--people N] [--turns N] [--rounds N] [--single N]
"""

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path

from benchmarks.measuring import (
    Claim,
    has_model_disk,
    on_model_disk,
    options,
    percentile,
    quiet,
    table,
    working_folder,
)
from bot import collector
from bot.app import App
from config import logging as logs
from config.names import AccountId
from config.settings import AccountSettings, AgentSettings, HttpSettings, LogSettings, Settings
from sessions.database.sqlite import SqliteDatabase

RATE = Claim("turns/s of 100 people, the process on one core", "at least", 1500, "", 0)
ADDED = Claim("one person, from arrival to reply, p50 (2 fsyncs and 3 ms)", "at most", 5, " ms", 2)
CLAIMS = (RATE, ADDED)

ACCOUNT = AccountId("memory.main")
PEOPLE, TURNS, ROUNDS, SINGLE = 100, 20, 7, 300


async def open_app(folder: Path) -> tuple[App, SqliteDatabase]:
    """A daemon with nothing but the memory adapter and the scripted agent."""
    settings = Settings(
        database_url=f"sqlite://{folder}/palaver.db",
        accounts={"main": AccountSettings(platform="memory")},
        agent=AgentSettings(kind="scripted"),
        http=HttpSettings(enabled=False),
    )
    logs.configure(LogSettings(file=folder / "log"))
    database = await SqliteDatabase.open(folder / "palaver.db")
    app = App(settings, database, {ACCOUNT: settings.accounts["main"]})
    await app.start()
    collector.relax()  # as a daemon does
    await asyncio.sleep(0.2)
    return app, database


async def burst(app: App, database: SqliteDatabase, number: int, people: int, turns: int) -> dict[str, float]:
    adapter = app.adapters[ACCOUNT]

    async def person(name: str) -> None:
        for turn in range(turns):
            await adapter.ask(f"hello {turn}", person=name, channel=name)  # type: ignore[attr-defined]  # the memory adapter

    in_loop, in_store = time.thread_time(), await _stores_time(database)
    commits, started, cpu = database.commits, time.perf_counter(), time.process_time()
    await asyncio.gather(*(person(f"p{number}-{who}") for who in range(people)))
    count = people * turns
    figures = {
        "rate": count / (time.perf_counter() - started),
        "per_cpu": count / (time.process_time() - cpu),
        "commits": (database.commits - commits) / count,
        "loop": 1e6 * (time.thread_time() - in_loop) / count,
    }
    return {**figures, "store": 1e6 * (await _stores_time(database) - in_store) / count}


async def _stores_time(database: SqliteDatabase) -> float:
    """Seconds of CPU time that the writing thread has had."""
    return await database.write(lambda _tx: time.thread_time())


async def throughput(people: int, turns: int, count: int) -> float:
    """The median of turns for each second that the core was ours: others on the machine take some of its time."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        with working_folder(in_memory=True) as folder:
            app, database = await open_app(folder)
            rounds = [await burst(app, database, number, people, turns) for number in range(count + 1)][1:]
            await app.close()
            logs.stop()
    finally:
        os.sched_setaffinity(0, cores)
    print(
        f"Whole daemon, {people} people, instant agent, one core, {count} rounds of {people * turns} turns\n"
    )
    print(
        table(
            [
                "round",
                "turns/s",
                "turns/s of its CPU time",
                "commits/turn",
                "CPU us/turn",
                "of it loop",
                "store's thread",
            ],
            [
                [
                    str(number),
                    f"{row['rate']:.0f}",
                    f"{row['per_cpu']:.0f}",
                    f"{row['commits']:.2f}",
                    f"{1e6 / row['per_cpu']:.0f}",
                    f"{row['loop']:.0f}",
                    f"{row['store']:.0f}",
                ]
                for number, row in enumerate(rounds, 1)
            ],
        )
    )
    return percentile([row["per_cpu"] for row in rounds], 0.5)


async def latency(folder: Path, count: int) -> list[float]:
    """Milliseconds from the message's arrival until the reply is at the adapter."""
    app, _ = await open_app(folder)
    adapter = app.adapters[ACCOUNT]
    times = []
    for turn in range(count):
        started = time.perf_counter()
        await adapter.say(f"hello {turn}", person="ada", channel="ada")  # type: ignore[attr-defined]  # the memory adapter
        await adapter.wait_for_reply(channel="ada")  # type: ignore[attr-defined]  # same
        times.append(1000 * (time.perf_counter() - started))
        await asyncio.sleep(0.01)
    await app.close()
    logs.stop()
    return times


async def main() -> bool:
    chosen = options(__doc__, people=PEOPLE, turns=TURNS, rounds=ROUNDS, single=SINGLE)
    if not has_model_disk():
        is_met = RATE.judge(await throughput(chosen.people, chosen.turns, chosen.rounds))
        try:
            folder = on_model_disk("benchmarks.daemon_turns")
        except SystemExit as ended:
            return is_met and ended.code == 0
    else:
        is_met = True
        folder = on_model_disk("benchmarks.daemon_turns")
    quiet()
    times = await latency(folder, chosen.single)
    shutil.rmtree(folder)
    print(
        f"\nOne person, fsync 1 ms, {chosen.single} turns: arrival to reply p50 {percentile(times, 0.5):.2f} ms,"
        f" p99 {percentile(times, 0.99):.2f} ms\n"
    )
    return ADDED.judge(percentile(times, 0.5)) and is_met


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
