"""Claim: statistics cost at most 50 ms in a database of five million messages, whatever they are about, and are exact.

100,000 sessions of 25 turns each are filled in without durability, as the schema before the statistics, which the migration then
counts. A day's worth of changes that nobody has summed up yet lies on top.

    python -m benchmarks.statistics [--sessions N] [--turns N]
"""

import asyncio
import sqlite3
import sys
import time
from pathlib import Path

from benchmarks.measuring import Claim, options, percentile, quiet, table, working_folder
from sessions import statistics
from sessions.database import migrate
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase, SqliteTransaction
from sessions.database.sqlite_file import APPLICATION_ID
from sessions.scope import OperatorScope
from sessions.statistics import Subject

SESSIONS, TURNS, PEOPLE = 100_000, 25, 20_000
ROUNDS, WAITING = 30, 10_000

READ = Claim("statistics about whatever, p99", "below", 50, " ms")
MISCOUNTED = Claim("messages and turns that are not counted", "exactly", 0, "", 0)
CLAIMS = (READ, MISCOUNTED)


def fill(path: Path, sessions: int, turns: int) -> None:
    """What the first migration makes, with rows in it."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in (
        "journal_mode = OFF",
        "synchronous = OFF",
        "cache_size = -200000",
        f"application_id = {APPLICATION_ID}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    connection.row_factory = lambda cursor, row: dict(
        zip((one[0] for one in cursor.description), row, strict=True)
    )
    migrate.apply(SqliteTransaction(connection), migrate.migrations()[0], 0)
    now = int(time.time() * 1000)
    connection.execute("BEGIN")
    connection.execute("CREATE TEMP TABLE n (i INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO n (i) VALUES (?)", ((number,) for number in range(sessions)))
    connection.execute(
        "INSERT INTO sessions (id, key, scope, platform, account, channel, person_id, persona, status, end_reason,"
        " message_count, tool_call_count, input_tokens, output_tokens, created_at, last_activity_at)"
        " SELECT 's' || i, 'k' || i, 'person', CASE i % 3 WHEN 0 THEN 'discord' ELSE 'telegram' END, 'a', 'c' || i,"
        " 'p' || (i % :people), CASE i % 5 WHEN 0 THEN 'poet' END, CASE i % 10 WHEN 0 THEN 'active' ELSE 'archived' END,"
        " CASE i % 10 WHEN 0 THEN NULL ELSE 'expired' END, :turns * 2, :turns / 5, :turns * 300, :turns * 90,"
        " :now - i * 9000, :now - i * 9000 + 600000 FROM n",
        {"people": PEOPLE, "turns": turns, "now": now},
    )
    connection.execute(
        "INSERT INTO turns (id, session_id, position, inbox_id, status, queued_at, finished_at)"
        " SELECT s.id || 't' || i, s.id, i, 0,"
        " CASE (s.rowid + i) % 40 WHEN 0 THEN 'failed' WHEN 1 THEN 'timeout' ELSE 'completed' END,"
        " s.created_at + i * 1000, s.created_at + i * 1000 + 200 + (s.rowid * 7919 + i * 104729) % 30011"
        " FROM sessions s CROSS JOIN n WHERE i < :turns",
        {"turns": turns},
    )
    connection.execute(
        "INSERT INTO messages (session_id, position, part, role, content, created_at)"
        " SELECT s.id, i / 2, i % 2, CASE i % 2 WHEN 0 THEN 'user' ELSE 'assistant' END, 'message ' || i,"
        " s.created_at + i * 500 FROM sessions s CROSS JOIN n WHERE i < :messages",
        {"messages": turns * 2},
    )
    connection.execute("COMMIT")
    connection.close()


def change(tx: Transaction, sessions: int, count: int) -> None:
    """Facts as the daemon adds them: answers in existing sessions."""
    for number in range(count):
        tx.execute(
            "UPDATE sessions SET message_count = message_count + 1, last_activity_at = last_activity_at + 1000 WHERE id = :id",
            {"id": f"s{number * 37 % sessions}"},
        )


async def main() -> bool:
    chosen = options(__doc__, sessions=SESSIONS, turns=TURNS)
    quiet()
    with working_folder() as folder:
        return await measure(folder, chosen.sessions, chosen.turns)


async def measure(folder: Path, sessions: int, turns: int) -> bool:
    path = folder / "palaver.db"
    started = time.perf_counter()
    fill(path, sessions, turns)
    filled = time.perf_counter()
    database = await SqliteDatabase.open(path)
    migrated = time.perf_counter()
    while await database.write(lambda tx: statistics.fold(tx, 20_000)):
        pass
    await database.write(lambda tx: change(tx, sessions, WAITING))
    print(
        f"{sessions * turns * 2:,} messages, {sessions * turns:,} turns, {path.stat().st_size / 2**20:,.0f} MB; filled in"
        f" {filled - started:.0f} s, counted and indexed by the migrations in {migrated - filled:.0f} s\n"
    )
    now = int(time.time() * 1000)
    subjects = {
        "everything": Subject(),
        "a platform": Subject("platform", "telegram"),
        "a persona": Subject("persona", "poet"),
        "a person": Subject("person", "p77"),
        "a session": Subject("session", "s77"),
    }
    rows, everything = [], []
    for state in (f"{WAITING:,} changes waiting", "all summed up"):
        if state.startswith("all"):
            begun, folded = time.perf_counter(), 0
            slowest = 0.0
            while True:
                before = time.perf_counter()
                batch = await database.write(statistics.fold)
                slowest = max(slowest, time.perf_counter() - before)
                folded += batch
                if not batch:
                    break
            print(
                f"summed up {folded:,} changes, {1e6 * (time.perf_counter() - begun) / folded:.0f} us each,"
                f" the slowest batch {1000 * slowest:.0f} ms\n"
            )
        for name, subject in subjects.items():
            times = []
            for _ in range(ROUNDS):
                before = time.perf_counter()
                read = await database.read(lambda tx, s=subject: statistics.read(tx, OperatorScope(), s, now))  # type: ignore[misc]  # bound early
                times.append(1000 * (time.perf_counter() - before))
            assert read.messages
            everything += times
            rows.append(
                [
                    state,
                    name,
                    f"{read.messages:,}",
                    f"{percentile(times, 0.5):.1f}",
                    f"{percentile(times, 0.99):.1f}",
                ]
            )
    whole = await database.read(lambda tx: statistics.read(tx, OperatorScope(), Subject(), now))
    await database.close()
    print(table(["state", "about", "messages", "p50 ms", "p99 ms"], rows))
    print()
    missing = abs(whole.messages - sessions * turns * 2 - WAITING) + abs(
        sum(whole.turns.values()) - sessions * turns
    )
    return all(
        [
            READ.judge(percentile(everything, 0.99)),
            MISCOUNTED.judge(missing, f"of {whole.messages:,} messages"),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
