"""Claim: 1,000 sessions at once with turns of two seconds stay in order, in little memory, and do not wait for one another.

Each person writes three messages in a row; a turn lasts two seconds. Dispatch is the time from a turn being free to run (accepted,
or the one before it in its lane finished) to its start, read from the rows afterwards.
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.daemon_turns import ACCOUNT
from benchmarks.measuring import percentile, resident_mb, table, verdict
from bot.app import App
from config import logging as logs
from config.settings import AccountSettings, AgentSettings, HttpSettings, LogSettings, Settings, TurnSettings
from sessions.database.sqlite import SqliteDatabase

SESSIONS, MESSAGES, TURN_S, SPREAD_S = 1000, 3, 2.0, 4.0


async def main() -> bool:
    folder = Path(tempfile.mkdtemp(prefix="palaver-bench-"))
    settings = Settings(
        database_url=f"sqlite://{folder}/palaver.db",
        accounts={"main": AccountSettings(platform="memory")},
        agent=AgentSettings(kind="scripted"),
        turns=TurnSettings(max_running=SESSIONS, queue_notice_after_s=0),
        http=HttpSettings(enabled=False),
    )
    logs.configure(LogSettings(file=folder / "log"))
    database = await SqliteDatabase.open(folder / "palaver.db")
    app = App(settings, database, {ACCOUNT: settings.accounts["main"]})
    await app.start()
    adapter = app.adapters[ACCOUNT]

    async def person(number: int) -> None:
        await asyncio.sleep(SPREAD_S * number / SESSIONS)
        for turn in range(MESSAGES):
            await adapter.say(f"delay={TURN_S} message {turn}", person=f"p{number}")  # type: ignore[attr-defined]  # the memory adapter

    await asyncio.gather(*(person(number) for number in range(SESSIONS)))
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
            "SELECT session_id, position, queued_at, started_at, finished_at, status FROM turns ORDER BY session_id, position"
        )
    )
    await app.close()
    logs.stop()
    shutil.rmtree(folder)
    dispatch, disorder, before = [], 0, None
    for turn in rows:
        free_at = turn["queued_at"]
        if before is not None and before["session_id"] == turn["session_id"]:
            free_at = max(free_at, before["finished_at"])
            disorder += turn["started_at"] < before["finished_at"]
        dispatch.append(turn["started_at"] - free_at)
        before = turn
    finished = sum(turn["status"] == "completed" for turn in rows)
    p50, p99 = percentile(dispatch, 0.5), percentile(dispatch, 0.99)
    print(
        f"{SESSIONS} sessions x {MESSAGES} messages, turns of {TURN_S:g} s, everybody begins within {SPREAD_S:g} s\n"
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
            verdict(
                "every lane in order, every turn completed",
                is_met=disorder == 0 and finished == len(rows) == SESSIONS * MESSAGES,
                measured=f"{finished} completed, {disorder} out of order",
            ),
            verdict("p99 dispatch at most 50 ms", is_met=p99 <= 50, measured=f"{p99:.0f} ms"),
            verdict("resident memory at most 250 MB", is_met=peak <= 250, measured=f"{peak:.0f} MB"),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
