"""Claim: a daemon with a million stored messages is ready within two seconds of its start.

Fills a database by plain inserts, past the store but through its tables and triggers, then starts the real `palaver run` as a
process of its own and asks /readyz until it says yes.

    python -m benchmarks.start_with_history [--sessions N] [--messages N] [--starts N]
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.measuring import Claim, options, percentile, quiet, working_folder
from sessions.database.sqlite import SqliteDatabase

SESSIONS, MESSAGES, STARTS = 10_000, 100, 5

READY = Claim("from the start of the process to ready, median", "at most", 2, " s", 2)
CLAIMS = (READY,)


def fill(path: Path, sessions: int, messages: int) -> None:
    """So many sessions of so many messages, with the turns and replies that belong to them."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        for session in range(sessions):
            connection.execute(
                "INSERT INTO sessions (id, key, scope, platform, account, channel, status, next_position, message_count,"
                " created_at, last_activity_at) VALUES (?, ?, 'person', 'memory', 'memory.main', ?, 'active', ?, ?, 1, ?)",
                (
                    f"s{session}",
                    f"k{session}",
                    f"c{session}",
                    messages // 2 + 1,
                    messages,
                    int(time.time() * 1000),
                ),
            )
            turns = range(1, messages // 2 + 1)
            connection.executemany(
                "INSERT INTO turns (id, session_id, position, inbox_id, status, epoch, queued_at)"
                " VALUES (?, ?, ?, ?, 'completed', 1, 1)",
                [(f"t{session}-{turn}", f"s{session}", turn, session * 1000 + turn) for turn in turns],
            )
            connection.executemany(
                "INSERT INTO messages (session_id, position, part, role, content, created_at) VALUES (?, ?, ?, ?, ?, 1)",
                [
                    (f"s{session}", turn, part, ("user", "assistant")[part], "m" * 200)
                    for turn in turns
                    for part in (0, 1)
                ],
            )
            connection.executemany(
                "INSERT INTO outbox (key, account, channel, channel_kind, kind, part, body, state, created_at, sent_at)"
                " VALUES (?, 'memory.main', ?, 'direct', 'answer', 0, '{}', 'sent', 1, 1)",
                [(f"{session}-{turn}", f"c{session}") for turn in turns],
            )
    connection.close()


def start(folder: Path) -> float:
    """Seconds from the start of the process to ready."""
    with tempfile.NamedTemporaryFile() as log:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PALAVER_DATABASE_URL": f"sqlite://{folder}/palaver.db",
            "PALAVER_ACCOUNTS__MAIN__PLATFORM": "memory",
            "PALAVER_HTTP__PORT": str(port := _free_port()),
        }
        started = time.perf_counter()
        process = subprocess.Popen(
            [Path(sys.executable).with_name("palaver"), "run"],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            while time.perf_counter() - started < 60:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                        if answer.status == 200:
                            return time.perf_counter() - started
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    time.sleep(0.01)
            raise TimeoutError(Path(log.name).read_text())
        finally:
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def _make(path: Path) -> None:
    await (await SqliteDatabase.open(path)).close()


def main() -> bool:
    chosen = options(__doc__, sessions=SESSIONS, messages=MESSAGES, starts=STARTS)
    quiet()
    with working_folder() as folder:
        asyncio.run(_make(folder / "palaver.db"))
        empty = [start(folder) for _ in range(chosen.starts)]
        fill(folder / "palaver.db", chosen.sessions, chosen.messages)
        size = (folder / "palaver.db").stat().st_size / 2**20
        full = [start(folder) for _ in range(chosen.starts)]
    print(f"Start to ready, median of {chosen.starts}: empty {percentile(empty, 0.5):.2f} s;")
    print(
        f"with {chosen.sessions * chosen.messages:,} messages ({size:.0f} MB) {percentile(full, 0.5):.2f} s\n"
    )
    return READY.judge(percentile(full, 0.5), f"slowest of {chosen.starts} starts {max(full):.2f} s")


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
