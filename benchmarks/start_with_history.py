"""Claim: a daemon with a million stored messages is ready within two seconds of its start.

Fills a database, then starts the real `palaver run` as a process of its own and asks /readyz until it says yes.
"""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.measuring import percentile, verdict
from sessions.database.sqlite import SqliteDatabase

SESSIONS, MESSAGES, STARTS = 10_000, 100, 5


def fill(path: Path) -> None:
    """SESSIONS sessions of MESSAGES messages, with the turns and replies that belong to them."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        for session in range(SESSIONS):
            connection.execute(
                "INSERT INTO sessions (id, key, scope, platform, account, channel, status, next_position, message_count,"
                " created_at, last_activity_at) VALUES (?, ?, 'person', 'memory', 'memory.main', ?, 'active', ?, ?, 1, ?)",
                (
                    f"s{session}",
                    f"k{session}",
                    f"c{session}",
                    MESSAGES // 2 + 1,
                    MESSAGES,
                    int(time.time() * 1000),
                ),
            )
            turns = range(1, MESSAGES // 2 + 1)
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
    folder = Path(tempfile.mkdtemp(prefix="palaver-bench-"))
    try:
        asyncio.run(_make(folder / "palaver.db"))
        empty = [start(folder) for _ in range(STARTS)]
        fill(folder / "palaver.db")
        size = (folder / "palaver.db").stat().st_size / 2**20
        full = [start(folder) for _ in range(STARTS)]
    finally:
        shutil.rmtree(folder)
    print(f"Start to ready, median of {STARTS}: empty {percentile(empty, 0.5):.2f} s;")
    print(f"with {SESSIONS * MESSAGES:,} messages ({size:.0f} MB) {percentile(full, 0.5):.2f} s\n")
    return verdict(
        "ready within 2 s with a million messages",
        is_met=max(full) <= 2,
        measured=f"slowest {max(full):.2f} s",
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
