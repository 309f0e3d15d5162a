"""Many people at once on several nodes: `python -m tests.process.fleet_load --nodes 3 --sessions 1000 --messages 10`.

Owns the load and its figures. Everybody's messages come mixed with the others' and faster than they are answered; in the end each is
answered once, in order, and no two turns of a session ran at the same time. With `--distance-ms 1` the server is that far away.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests import postgres
from tests.fakes.distance import at_a_distance
from tests.process.counterparties import MemoryPeople, memory_people
from tests.process.daemon import eventually
from tests.process.invariants import Findings, check, is_idle
from tests.process.nodes import Fleet
from tests.process.talk import Talk

_AT_A_TIME = 50
OVERLAPS = (
    "SELECT a.id FROM turns a JOIN turns b ON b.session_id = a.session_id AND b.position > a.position"
    " WHERE b.started_at < a.finished_at"
)


@dataclass
class Load:
    seconds: float
    ran: dict[str, int]
    """Turns by node."""
    overlaps: int
    deadlocks: int
    """Transactions that waited for each other until the server ended one, which was then done again."""
    findings: Findings

    @property
    def violations(self) -> list[str]:
        return self.findings.violations + [f"{self.overlaps} turns began before the one before ended"] * bool(
            self.overlaps
        )

    def line(self) -> str:
        shares = ", ".join(f"{name} {turns}" for name, turns in sorted(self.ran.items()))
        return (
            f"{self.findings.figures()}  overlaps {self.overlaps}  deadlocks {self.deadlocks}"
            f"  ran {shares}  {self.seconds:.0f} s"
        )


async def run(
    folder: Path, *, nodes: int, sessions: int, messages: int, timeout_s: float, distance_s: float = 0
) -> Load:
    """All of it on a server of the tests. Raises: NotReady if it is not answered in time."""
    with postgres.fresh_database() as url:
        async with (
            memory_people() as people,
            at_a_distance(url, distance_s) if distance_s else contextlib.nullcontext(url) as seen,
            Fleet(folder, seen, people, node={"lease_s": 10}) as fleet,
        ):
            started = await fleet.start(*(f"node{number}" for number in range(1, nodes + 1)))
            talk = await Talk.begin(people, sessions)
            began = time.monotonic()
            for _ in range(messages):  # everybody's first message, then everybody's second, …
                for first in range(0, sessions, _AT_A_TIME):
                    await asyncio.gather(*(talk.say(chat) for chat in talk.chats[first : first + _AT_A_TIME]))

            async def is_over() -> bool:
                heard = await fleet.rows("SELECT COUNT(*) AS n FROM inbox")
                return heard[0]["n"] >= sessions * messages and await asyncio.to_thread(is_idle, url)

            await eventually(is_over, timeout_s=timeout_s, what="all answered", every_s=0.25)
            seconds = time.monotonic() - began
            ran = await fleet.rows("SELECT node, COUNT(*) AS n FROM turns GROUP BY node")
            overlaps = await fleet.rows(OVERLAPS)
            deadlocks = await fleet.rows(
                "SELECT deadlocks AS n FROM pg_stat_database WHERE datname = current_database()"
            )
            for node in started:
                assert await node.stop() == 0
            findings = await asyncio.to_thread(
                check,
                url,
                "memory.main",
                people.platform,
                talk.said,
                await _shown(people),
                logs=[node.log for node in started],
                secrets=people.secrets,
            )
            return Load(
                seconds,
                {str(row["node"]).rpartition(".")[0]: row["n"] for row in ran},
                len(overlaps),
                deadlocks[0]["n"],
                findings,
            )


async def _shown(people: MemoryPeople) -> dict[str, list[str]]:
    """Everything on everybody's screen, asked for once."""
    shown: dict[str, list[str]] = defaultdict(list)
    for one in await people.read("shown"):
        shown[one["channel"]].append(one["text"])
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--distance-ms", type=float, default=0)
    arguments = parser.parse_args()
    violations: list[str] = []
    for nodes in arguments.nodes:
        with tempfile.TemporaryDirectory(prefix="palaver-load-") as folder:
            load = asyncio.run(
                run(
                    Path(folder),
                    nodes=nodes,
                    sessions=arguments.sessions,
                    messages=arguments.messages,
                    timeout_s=600,
                    distance_s=arguments.distance_ms / 1000,
                )
            )
        print(f"{nodes} nodes  {load.line()}", flush=True)
        for violation in load.violations:
            print(f"  violation: {violation}", file=sys.stderr)
        violations += load.violations
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
