"""One long run under load: `python -m tests.process.soak --minutes 10 --sessions 50 --rate 10`.

People write at a steady rate on the memory platform, and once a minute there is trouble: an outage of two seconds, lost
answers, a rate limit. Each minute one line: turns, memory, open files, and how long messages waited for their turn. The
checker looks at the end; exit code 1 on a violation, when messages cannot be answered, or when memory or files keep growing.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.counterparties import MemoryPeople, memory_people
from tests.process.daemon import Daemon, NotReady, quick_settings
from tests.process.invariants import check, read_rows
from tests.process.talk import Talk

MOST_GROWTH = 1.5
"""How much more memory the end may have than the second minute; the first one fills caches."""


@dataclass(frozen=True)
class Reading:
    minute: int
    turns: int
    rss_mb: float
    files: int
    wait_p50_ms: float
    wait_p99_ms: float

    def line(self) -> str:
        return (
            f"minute {self.minute:>4}  turns {self.turns:>7}  RSS {self.rss_mb:6.1f} MB  files {self.files:>4}"
            f"  dispatch p50 {self.wait_p50_ms:6.1f} ms  p99 {self.wait_p99_ms:7.1f} ms"
        )


def read(daemon: Daemon, minute: int, since_ms: int) -> Reading:
    """The daemon as the system sees it, and how long messages waited since then for their turn to begin."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    rss_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    files = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
    waits = sorted(
        row["wait"]
        for row in read_rows(
            daemon.database,
            "SELECT t.started_at - i.sent_at AS wait FROM turns t JOIN inbox i ON i.id = t.inbox_id"
            " WHERE t.started_at >= ? AND NOT EXISTS"
            " (SELECT 1 FROM turns a WHERE a.session_id = t.session_id AND a.position = t.position - 1"
            "  AND (a.finished_at IS NULL OR a.finished_at >= t.queued_at))",
            since_ms,
        )
    )
    turns = read_rows(daemon.database, "SELECT COUNT(*) AS n FROM turns WHERE status = 'completed'")[0]["n"]

    def share(part: float) -> float:
        return float(waits[min(len(waits) - 1, int(part * len(waits)))]) if waits else 0.0

    return Reading(minute, turns, rss_kb / 1024, files, share(0.5), share(0.99))


async def trouble(people: MemoryPeople, rng: random.Random) -> None:
    kind: dict[str, Any] = rng.choice(
        [{"is_down": True}, {"lose_answers": 2}, {"rate_limits": [1.0, 0.5, 0.5]}]
    )
    await people.remote("faults", **kind)
    await asyncio.sleep(2)
    await people.remote("faults", is_down=False)


async def soak(minutes: float, sessions: int, rate: float, seed: int, folder: Path) -> list[str]:
    """Run, print, and give what was wrong."""
    rng = random.Random(seed)
    problems: list[str] = []
    readings: list[Reading] = []
    async with memory_people() as people:
        settings = quick_settings(folder / "palaver.db", {"main": people.account()})
        async with Daemon(folder, settings) as daemon:
            talk = await Talk.begin(people, sessions)
            await daemon.start()
            began = time.monotonic()
            minute, since_ms = 0, 0
            disturbing: asyncio.Task[None] | None = None
            while (passed := time.monotonic() - began) < minutes * 60:
                await talk.say_something(rng)
                await asyncio.sleep(rng.expovariate(rate))
                if passed >= 60 * (minute + 1):
                    minute += 1
                    readings.append(read(daemon, minute, since_ms))
                    since_ms = int(time.time() * 1000)
                    print(readings[-1].line(), flush=True)
                    disturbing = asyncio.create_task(trouble(people, rng))
                if not daemon.is_running:
                    return [f"it ended with {daemon.returncode}", daemon.tail()]
            if disturbing is not None:
                await disturbing
            try:
                await talk.wait_answered(daemon, timeout_s=90)
                readings.append(read(daemon, minute + 1, since_ms))
                print(readings[-1].line() + "  (the end)", flush=True)
                if (code := await daemon.stop()) != 0:
                    problems.append(f"exit code {code}")
            except NotReady as error:
                problems.append(str(error))
            daemon.end()
            findings = check(
                daemon.database,
                "memory.main",
                people.platform,
                talk.said,
                await talk.shown(),
                logs=[daemon.log],
                secrets=people.secrets,
            )
    print(f"soak {minutes:g} min, {sessions} sessions, {rate:g}/s: {findings.figures()}")
    if len(readings) > 3:
        early, late = readings[1], readings[-1]
        if late.rss_mb > MOST_GROWTH * early.rss_mb:
            problems.append(f"memory grew from {early.rss_mb:.1f} to {late.rss_mb:.1f} MB")
        if late.files > early.files + 10:
            problems.append(f"open files grew from {early.files} to {late.files}")
    return problems + findings.violations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--rate", type=float, default=10, help="messages a second, over all sessions")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    with tempfile.TemporaryDirectory(prefix="palaver-soak-") as folder:
        problems = asyncio.run(
            soak(arguments.minutes, arguments.sessions, arguments.rate, seed, Path(folder))
        )
    for problem in problems:
        print(f"  violation (seed {seed}): {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
