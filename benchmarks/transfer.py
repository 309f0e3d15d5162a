"""Export and import: messages a second, the memory they take, and what encryption costs a reader.

    python -m benchmarks.transfer [--sessions N] [--turns N] [--rounds N]

A session here has its turns, a recorded step for each, a tool call for every fifth, and messages of 200 and 600 characters; all
of that is written and read, and messages are what is counted. Files are in memory: the claim is about our work, not the disk's.
"""

import asyncio
import io
import sys
import time
import tracemalloc
from pathlib import Path

from benchmarks.measuring import Claim, options, percentile, quiet, resident_mb, table, working_folder
from sessions import lane
from sessions.database.sqlite import SqliteDatabase
from sessions.keys import session_key
from sessions.models import new_id
from sessions.sealing import new_key
from sessions.transfer import exporting, importing

NOW = 1_800_000_000_000
SESSIONS, TURNS, ROUNDS = 500, 40, 3

EXPORT = Claim("messages exported a second", "at least", 50_000, "", 0)
IMPORT = Claim("messages imported a second", "at least", 50_000, "", 0)
PEAK = Claim("memory that an export takes, whatever the size of the store", "below", 16, " MB")
SEALED = Claim("what encryption adds to reading 20 messages, p50", "below", 2, " ms", 2)
CLAIMS = (EXPORT, IMPORT, PEAK, SEALED)


def fill(tx, first: int, count: int, turns: int) -> None:
    """Sessions as a year of chat leaves them, by the columns the store writes."""
    for number in range(first, first + count):
        person, session, channel = new_id(), new_id(), f"chat-{number}"
        tx.execute(
            "INSERT INTO persons (id, display_name, created_at, last_seen_at) VALUES (:id, :name, :now, :now)",
            {"id": person, "name": f"Person {number}", "now": NOW},
        )
        tx.execute(
            "INSERT INTO identities (platform, platform_user_id, person_id, display_name, first_seen_at)"
            " VALUES ('telegram', :user, :id, :name, :now)",
            {"user": str(number), "id": person, "name": f"Person {number}", "now": NOW},
        )
        tx.execute(
            "INSERT INTO sessions (id, key, scope, platform, account, channel, person_id, status, next_position,"
            " message_count, tool_call_count, created_at, last_activity_at) VALUES (:id, :key, 'person', 'telegram',"
            " 'telegram.main', :channel, :person, 'active', :next, :messages, :calls, :now, :now)",
            {
                "id": session,
                "key": session_key("person", "telegram.main", channel, None, person),
                "channel": channel,
                "person": person,
                "next": turns + 1,
                "messages": 2 * turns,
                "calls": -(-turns // 5),
                "now": NOW,
            },
        )
        for position in range(1, turns + 1):
            turn = new_id()
            row = tx.row(
                "INSERT INTO inbox (account, channel, message_id, channel_kind, person_id, sent_at, received_at, outcome,"
                " reason, session_id, turn_id) VALUES ('telegram.main', :channel, :message, 'direct', :person, :now, :now,"
                " 'accepted', '', :session, :turn) RETURNING id",
                {
                    "channel": channel,
                    "message": str(position),
                    "person": person,
                    "now": NOW,
                    "session": session,
                    "turn": turn,
                },
            )
            tx.execute(
                "INSERT INTO turns (id, session_id, position, inbox_id, status, epoch, attempts, queued_at, started_at,"
                " finished_at, agent) VALUES (:id, :session, :position, :inbox, 'completed', 1, 1, :now, :now, :now, 'llm')",
                {"id": turn, "session": session, "position": position, "inbox": row["id"], "now": NOW},
            )
            for part, role, text in ((0, "user", "question " * 22), (1, "assistant", "answer " * 85)):
                tx.execute(
                    "INSERT INTO messages (session_id, position, part, role, content, person_id, author, turn_id, created_at,"
                    " is_sealed) VALUES (:session, :position, :part, :role, :content, :person, NULL, :turn, :now, :sealed)",
                    {
                        "session": session,
                        "position": position,
                        "part": part,
                        "role": role,
                        "content": tx.seal.seal(text),
                        "person": person if part == 0 else None,
                        "turn": turn,
                        "now": NOW + position,
                        "sealed": int(tx.seal.is_on),
                    },
                )
            tx.execute(
                "INSERT INTO steps (turn_id, number, kind, payload, created_at) VALUES (:turn, 1, 'answer', :payload, :now)",
                {"turn": turn, "payload": tx.seal.seal('{"text":"' + "answer " * 85 + '"}'), "now": NOW},
            )
            if position % 5 == 1:
                tx.execute(
                    "INSERT INTO tool_calls (turn_id, session_id, step, call_id, name, arguments, result, outcome,"
                    " started_at, duration_ms) VALUES (:turn, :session, 1, 'c', 'clock', '{}', 'noon', 'ok', :now, 3)",
                    {"turn": turn, "session": session, "now": NOW},
                )


async def made(path: Path, sessions: int, turns: int, keys: list[str]) -> SqliteDatabase:
    database = await SqliteDatabase.open(path, keys=keys)
    for first in range(0, sessions, 20):
        await database.write(lambda tx, at=first: fill(tx, at, min(20, sessions - at), turns))
    return database


async def transfer(folder: Path, source: SqliteDatabase, number: int) -> tuple[float, float, int]:
    """Messages a second out and in, and how many there were."""
    file = folder / f"round-{number}.jsonl"
    with io.FileIO(file, "w") as target:
        began = time.perf_counter()
        done = await exporting.export(source, target.write)
        out = done.messages / (time.perf_counter() - began)
    database = await SqliteDatabase.open(folder / f"round-{number}.db")
    with io.BufferedReader(io.FileIO(file)) as lines:
        began = time.perf_counter()
        came = await importing.load(database, lines, lambda: NOW)
        into = came.messages / (time.perf_counter() - began)
    again = io.BytesIO()
    await exporting.export(database, again.write)
    assert again.getvalue() == file.read_bytes(), "the round trip changed something"
    await database.close()
    for leftover in folder.glob(f"round-{number}.*"):
        leftover.unlink()
    return out, into, done.messages


async def peak_mb(source: SqliteDatabase) -> float:
    """Memory that an export takes besides what the process has."""
    tracemalloc.start()
    await exporting.export(source, lambda piece: None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


async def context_reads(database: SqliteDatabase, reads: int) -> list[float]:
    """Milliseconds for the last 20 messages of one session after another."""
    ids = [row["id"] for row in await database.read(lambda tx: tx.rows("SELECT id FROM sessions LIMIT 50"))]
    took = []
    for number in range(reads):
        began = time.perf_counter()
        found = await database.read(
            lambda tx, n=number: lane.conversation_until(tx, ids[n % len(ids)], 10**9, 20)
        )
        took.append((time.perf_counter() - began) * 1000)
        assert found
    return took


async def main() -> bool:
    chosen = options(__doc__, sessions=SESSIONS, turns=TURNS, rounds=ROUNDS)
    quiet()
    with working_folder(in_memory=True) as folder:
        plain = await made(folder / "plain.db", chosen.sessions, chosen.turns, [])
        sealed = await made(folder / "sealed.db", 50, chosen.turns, [new_key()])
        rounds = [await transfer(folder, plain, number) for number in range(chosen.rounds)]
        small, large = await peak_mb(sealed), await peak_mb(plain)
        reads = {"plain": await context_reads(plain, 600), "sealed": await context_reads(sealed, 600)}
        await plain.close()
        await sealed.close()
    out, into = max(one[0] for one in rounds), max(one[1] for one in rounds)
    print(
        table(
            ["round", "messages", "export/s", "import/s"],
            [[str(n), str(one[2]), f"{one[0]:,.0f}", f"{one[1]:,.0f}"] for n, one in enumerate(rounds, 1)],
        )
    )
    print(
        table(
            ["last 20 messages", "p50 ms", "p99 ms"],
            [
                [name, f"{percentile(took, 0.5):.2f}", f"{percentile(took, 0.99):.2f}"]
                for name, took in reads.items()
            ],
        )
    )
    cost = percentile(reads["sealed"], 0.5) - percentile(reads["plain"], 0.5)
    return all(
        [
            EXPORT.judge(out),
            IMPORT.judge(into),
            PEAK.judge(
                large,
                f"{small:.1f} MB for 50 sessions, {large:.1f} MB for {chosen.sessions}; process {resident_mb():.0f} MB",
            ),
            SEALED.judge(cost),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
