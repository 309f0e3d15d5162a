"""Claim: two nodes on PostgreSQL take in and run a thousand turns a second on two cores, and soon.

A server of our own with its files in memory, where an fsync takes 1 ms, and nodes that are processes of their own, each with an
account and people of its own; all of them share this machine's cores. Dispatch is the time from a message's arrival to the start
of its turn, by the rows. Another node goes on with the turns of one that was killed once its lease has run out. A backlog is put
into the rows by SQL, a hundred turns in each session; then the same people talk, and every turn that ends meanwhile counts. A
node whose server is a millisecond away is compared with one next to it.

    python -m benchmarks.postgres_turns [--people N] [--turns N] [--rounds N] [--seconds S] [--backlog N]
"""

import asyncio
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.measuring import Claim, on_model_disk, options, percentile, quiet, table
from benchmarks.peers import answer_of
from benchmarks.postgres_node import LEASE_S
from tests.fakes.distance import at_a_distance
from tests.postgres import NoServer, Server

PEOPLE, TURNS, ROUNDS, SECONDS, BACKLOG = 50, 10, 3, 10.0, 100_000
LANE = 100
"""Turns of one session in the backlog."""
RATE_S = 100.0
DISTANCE_S = 0.001

RATE = Claim("turns/s accepted and run by two nodes", "at least", 1000, "", 0)
P50 = Claim("from arrival to the start of the turn, 100 messages/s, p50", "at most", 10, " ms", 0)
P99 = Claim("from arrival to the start of the turn, 100 messages/s, p99", "at most", 50, " ms", 0)
RECOVERED = Claim(
    "from the kill -9 of a node to the start of its last turn on another (lease and 1 s)",
    "at most",
    LEASE_S + 1,
    " s",
    1,
)
BACKLOGGED = Claim("turns/s with 100,000 turns waiting, as a part of that with none", "at least", 0.5, "", 2)
FAR = Claim(
    "turns/s of a node whose server is 1 ms away, as a part of those of one next to it",
    "at least",
    0.3,
    "",
    2,
)
CLAIMS = (RATE, P50, P99, RECOVERED, BACKLOGGED, FAR)


class BenchServer(Server):
    """As for tests, but it makes its commits durable."""

    def _settings(self) -> list[str]:
        changed = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "2GB"}
        kept = [one for one in super()._settings() if one.split("=")[0] not in changed]
        return [*kept, *(f"{name}={value}" for name, value in changed.items())]


class Node:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, do: str, **what: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        answer = await answer_of(self.process)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


@asynccontextmanager
async def node(url: str, folder: Path, *names: str) -> AsyncIterator[Node]:
    """A node that knows these accounts and hears the first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.postgres_node", url, folder, *names),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=(folder / f"{names[0]}.err").open("wb"),
        limit=2**24,
    )
    try:
        await answer_of(process)
        yield Node(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def both(nodes: list[Node], prefix: str, people: int, turns: int) -> float:
    """Turns a second of all nodes together."""
    done = await asyncio.gather(
        *(
            one.ask("burst", prefix=f"{prefix}n{number}-", people=people, turns=turns)
            for number, one in enumerate(nodes)
        )
    )
    seconds = max(one["ended"] for one in done) - min(one["began"] for one in done)
    return float(sum(one["turns"] for one in done) / seconds)


def dispatch(url: str, prefix: str) -> list[float]:
    """Milliseconds from arrival to start, of those whose own earlier turn was not in the way."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT t.started_at - i.sent_at FROM turns t JOIN inbox i ON i.turn_id = t.id"
            " WHERE i.channel LIKE %s AND t.started_at IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM turns a WHERE a.session_id = t.session_id AND a.position = t.position - 1"
            " AND (a.finished_at IS NULL OR a.finished_at >= i.sent_at))",
            [f"{prefix}%"],
        ).fetchall()
    return [float(row[0]) for row in rows]


def pile_up(url: str, account: str, turns: int) -> None:
    """Turns as if that many messages had been taken in and nobody had come to run them."""
    sessions, now = max(1, turns // LANE), int(time.time() * 1000)
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO persons (id, display_name, created_at, last_seen_at) VALUES ('backlog', 'Many', %s, %s)",
            [now, now],
        )
        connection.execute(
            "INSERT INTO sessions (id, key, scope, platform, account, channel, person_id, status, next_position, message_count,"
            " created_at, last_activity_at) SELECT 'backlog' || n, 'backlog' || n, 'person', 'memory', %s, 'backlog' || n, 'backlog',"
            " 'active', %s, %s, %s, %s FROM generate_series(1, %s) n",
            [account, LANE + 1, LANE, now, now, sessions],
        )
        connection.execute(
            "INSERT INTO inbox (account, channel, message_id, channel_kind, person_id, sent_at, received_at, outcome, reason,"
            " session_id, turn_id) SELECT %s, 'backlog' || n, 'backlog' || p, 'direct', 'backlog', %s, %s, 'accepted', '',"
            " 'backlog' || n, 'backlog' || n || '.' || p FROM generate_series(1, %s) p, generate_series(1, %s) n",
            [account, now, now, LANE, sessions],
        )
        connection.execute(
            "INSERT INTO turns (id, session_id, position, inbox_id, status, queued_at)"
            " SELECT turn_id, session_id, CAST(substr(message_id, 8) AS bigint), id, 'queued', received_at"
            " FROM inbox WHERE turn_id LIKE 'backlog%%'"
        )
        connection.execute(
            "INSERT INTO messages (session_id, position, part, role, content, person_id, turn_id, created_at)"
            " SELECT session_id, position, 0, 'user', 'hello', 'backlog', id, queued_at FROM turns WHERE id LIKE 'backlog%%'"
        )
        connection.execute(
            "INSERT INTO turn_queue (vt, message, headers) SELECT clock_timestamp(), jsonb_build_object('turn', id),"
            " jsonb_build_object('x-pgmq-group', session_id) FROM turns WHERE id LIKE 'backlog%%' ORDER BY position, session_id"
        )
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE")


def ended_turns(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT COUNT(*) FROM turns WHERE finished_at IS NOT NULL").fetchone()
    return int(row[0]) if row is not None else 0


async def backlogged(url: str, nodes: list[Node], chosen: Any) -> float:
    """Turns a second that end while the people talk and the backlog waits."""
    await asyncio.to_thread(pile_up, url, "memory.two", chosen.backlog)
    await asyncio.sleep(2)  # every node has looked
    before, began = await asyncio.to_thread(ended_turns, url), time.monotonic()
    talking = asyncio.create_task(both(nodes, "b", chosen.people, chosen.turns))
    await asyncio.sleep(chosen.seconds)
    after, seconds = await asyncio.to_thread(ended_turns, url), time.monotonic() - began
    talking.cancel()
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await talking
    return (after - before) / seconds


async def recovery(url: str, node: Node) -> float | None:
    """Seconds from the end of a node in the middle of its turns until the last of them runs elsewhere; None if none does."""
    await node.ask("say", prefix="k", count=20, text="delay=4 hello")
    await asyncio.sleep(1.5)
    killed_at = time.time()
    node.process.kill()
    await node.process.wait()

    def restarted() -> list[int]:
        with psycopg.connect(url) as connection:
            return [
                row[0]
                for row in connection.execute(
                    "SELECT t.started_at FROM turns t JOIN inbox i ON i.turn_id = t.id"
                    " WHERE i.channel LIKE 'k%' AND t.attempts > 1"
                ).fetchall()
            ]

    while time.time() - killed_at < LEASE_S + 6:
        started = await asyncio.to_thread(restarted)
        if len(started) == 20:
            return max(started) / 1000 - killed_at
        await asyncio.sleep(0.2)
    return None


async def from_afar(url: str, folder: Path, chosen: Any) -> tuple[float, float]:
    """Turns a second of one node next to its server, and of one far from it."""
    rates: dict[str, list[float]] = {"near": [], "far": []}
    async with at_a_distance(url, DISTANCE_S) as far:
        for number in range(chosen.rounds):
            for place, server in (("near", url), ("far", far)):
                async with node(server, folder, place) as one:
                    await both([one], f"w{place}{number}", chosen.people, 2)
                    rates[place].append(await both([one], f"{place}{number}", chosen.people, chosen.turns))
    return statistics.median(rates["near"]), statistics.median(rates["far"])


async def measure(server: BenchServer, folder: Path, chosen: Any) -> bool:
    url = server.url
    async with node(url, folder, "two") as two, node(url, folder, "one", "two") as one:
        nodes = [one, two]
        await both(nodes, "w", chosen.people, 2)
        rates = [
            await both(nodes, f"r{number}", chosen.people, chosen.turns) for number in range(chosen.rounds)
        ]
        await one.ask("steady", prefix="s", rate=RATE_S, seconds=chosen.seconds, text="hello")
        await asyncio.sleep(1)
        waits = await asyncio.to_thread(dispatch, url, "s")
        recovery_s = await recovery(url, two)
    near, far = await from_afar(url, folder, chosen)
    async with node(url, folder, "two") as two, node(url, folder, "one", "two") as one:
        behind = await backlogged(url, [one, two], chosen)
        print(
            table(
                ["", "value"],
                [
                    ["turns/s of two nodes, each round", ", ".join(f"{rate:,.0f}" for rate in rates)],
                    [
                        "dispatch at 100/s, p50, p99",
                        f"{percentile(waits, 0.5):.0f}, {percentile(waits, 0.99):.0f} ms",
                    ],
                    [f"turns/s with {chosen.backlog:,} waiting", f"{behind:,.0f}"],
                    ["turns/s of one node: next to the server, 1 ms away", f"{near:,.0f}, {far:,.0f}"],
                ],
            )
        )
    verdicts = [
        RATE.judge(statistics.median(rates)),
        P50.judge(percentile(waits, 0.5)),
        P99.judge(percentile(waits, 0.99)),
    ]
    verdicts.append(
        RECOVERED.judge(recovery_s)
        if recovery_s is not None
        else RECOVERED.leave("the turns of a dead node wait for its next start")
    )
    verdicts.append(BACKLOGGED.judge(behind / statistics.median(rates)))
    verdicts.append(FAR.judge(far / near))
    return all(verdicts)


async def main() -> bool:
    folder = on_model_disk("benchmarks.postgres_turns")
    chosen = options(__doc__, people=PEOPLE, turns=TURNS, rounds=ROUNDS, seconds=SECONDS, backlog=BACKLOG)
    quiet()
    tempfile.tempdir = str(folder)
    folder.chmod(0o755)  # the server may be another user
    try:
        server = await asyncio.to_thread(BenchServer.make)
    except NoServer as error:
        reason = str(error).splitlines()[0]
        return all([claim.leave(reason) for claim in CLAIMS])  # noqa: C419 - each is told
    try:
        return await measure(server, folder, chosen)
    finally:
        await asyncio.to_thread(server.remove)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
