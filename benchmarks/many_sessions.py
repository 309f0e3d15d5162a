"""Claim: 1,000 sessions at once with turns of two seconds stay in order, in little memory, and do not wait for one another.

Each person writes three messages in a row; a turn lasts two seconds, an fsync one millisecond. Dispatch is the time from a turn
being free to run (its message written, or the one before it in its lane finished) to its start, read from the rows afterwards.

    python -m benchmarks.many_sessions [--sessions N] [--messages N] [--turn-s S]
"""

import asyncio
import shutil
import sys
from pathlib import Path

from benchmarks.daemon_turns import ACCOUNT
from benchmarks.measuring import Claim, on_model_disk, options, percentile, resident_mb, table
from bot import collector
from bot.app import App
from config import logging as logs
from config.settings import AccountSettings, AgentSettings, HttpSettings, LogSettings, Settings, TurnSettings
from sessions.database.sqlite import SqliteDatabase

SESSIONS, MESSAGES, TURN_S, SPREAD_S = 1000, 3, 2.0, 4.0

UNFINISHED = Claim("turns that did not complete", "exactly", 0, "", 0)
DISORDER = Claim("turns that began before the one ahead of them ended", "exactly", 0, "", 0)
DISPATCH = Claim("from being free to run to the start of the turn, p99", "at most", 50, " ms", 0)
MEMORY = Claim("resident memory at its highest", "at most", 250, " MB", 0)
CLAIMS = (UNFINISHED, DISORDER, DISPATCH, MEMORY)


async def main() -> bool:
    chosen = options(__doc__, sessions=SESSIONS, messages=MESSAGES, turn_s=TURN_S)
    folder = on_model_disk("benchmarks.many_sessions")
    try:
        return await measure(folder, chosen.sessions, chosen.messages, chosen.turn_s)
    finally:
        shutil.rmtree(folder)


async def measure(folder: Path, sessions: int, messages: int, turn_s: float) -> bool:
    settings = Settings(
        database_url=f"sqlite://{folder}/palaver.db",
        accounts={"main": AccountSettings(platform="memory")},
        agent=AgentSettings(kind="scripted"),
        turns=TurnSettings(max_running=sessions, queue_notice_after_s=0),
        http=HttpSettings(enabled=False),
    )
    logs.configure(LogSettings(file=folder / "log"))
    database = await SqliteDatabase.open(folder / "palaver.db")
    app = App(settings, database, {ACCOUNT: settings.accounts["main"]})
    await app.start()
    collector.relax()  # as a daemon does
    adapter = app.adapters[ACCOUNT]

    async def person(number: int) -> None:
        await asyncio.sleep(SPREAD_S * number / sessions)
        for turn in range(messages):
            await adapter.say(f"delay={turn_s} message {turn}", person=f"p{number}")  # type: ignore[attr-defined]  # the memory adapter

    await asyncio.gather(*(person(number) for number in range(sessions)))
    peak = resident_mb()
    while True:
        row = await database.read(
            lambda tx: tx.row("SELECT COUNT(*) AS n FROM turns WHERE status IN ('queued', 'running')")
        )
        peak = max(peak, resident_mb())
        if row is not None and not row["n"]:
            break
        await asyncio.sleep(0.2)
    rows = await database.read(
        lambda tx: tx.rows(
            "SELECT t.session_id, t.position, i.sent_at, t.started_at, t.finished_at, t.status"
            " FROM turns t JOIN inbox i ON i.turn_id = t.id ORDER BY t.session_id, t.position"
        )
    )
    await app.close()
    logs.stop()
    dispatch, disorder, before = [], 0, None
    for turn in rows:
        free_at = turn["sent_at"]
        if before is not None and before["session_id"] == turn["session_id"]:
            free_at = max(free_at, before["finished_at"])
            disorder += turn["started_at"] < before["finished_at"]
        dispatch.append(turn["started_at"] - free_at)
        before = turn
    finished = sum(turn["status"] == "completed" for turn in rows)
    p50, p99 = percentile(dispatch, 0.5), percentile(dispatch, 0.99)
    print(
        f"{sessions} sessions x {messages} messages, turns of {turn_s:g} s, everybody begins within {SPREAD_S:g} s\n"
    )
    print(
        table(
            ["turns", "completed", "out of order", "dispatch p50 ms", "p99 ms", "RSS MB"],
            [[str(len(rows)), str(finished), str(disorder), f"{p50:.0f}", f"{p99:.0f}", f"{peak:.0f}"]],
        )
    )
    print()
    return all(
        [
            UNFINISHED.judge(sessions * messages - finished),
            DISORDER.judge(disorder),
            DISPATCH.judge(p99),
            MEMORY.judge(peak),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
