"""One long run under load: `python -m tests.process.soak --minutes 4 --sessions 1000 --rate 20 --turn-s 2`.

A thousand people, each in a chat of their own, write at a steady rate on the memory platform; a turn takes two seconds. First
everybody says some things quickly, so that what is remembered of conversations is full before anything is measured. Each minute
one line: turns, memory, open files, and how long messages waited for their turn, from their sending on the platform to the
turn's start, if no earlier turn of their own chat was in the way. With `--trouble` the platform fails once a minute in turn.

At the end come the figures beside their goals, and the checker's findings: nothing lost, nothing twice, order kept. Exit code 1
if a goal was missed, on a violation, or when messages cannot be answered.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.counterparties import MemoryPeople, memory_people
from tests.process.daemon import Daemon, NotReady, merged, quick_settings
from tests.process.invariants import check, is_idle, read_rows, unanswered
from tests.process.talk import Talk

MOST_GROWTH = 0.05
"""Of resident memory, from the first minute that is measured to the last."""
MOST_FILES = 1
"""More open files than in the first minute; sockets, which come and go with calls to the platform, are counted apart."""
MOST_SOCKETS = 110
"""The client's pool holds a hundred connections."""
MOST_WAIT_P99_MS = 50.0
_AT_ONCE = 50


@dataclass(frozen=True)
class Reading:
    minute: int
    turns: int
    rss_mb: float
    files: int
    sockets: int
    waits: Sequence[float]

    def share(self, part: float) -> float:
        return self.waits[min(len(self.waits) - 1, int(part * len(self.waits)))] if self.waits else 0.0

    def line(self) -> str:
        return (
            f"minute {self.minute:>4}  turns {self.turns:>7}  RSS {self.rss_mb:6.1f} MB  files {self.files:>3}"
            f"  sockets {self.sockets:>3}"
            f"  dispatch p50 {self.share(0.5):6.1f} ms  p99 {self.share(0.99):7.1f} ms"
        )


def read(daemon: Daemon, minute: int, since_ms: int) -> Reading:
    """The daemon as the system sees it, and how long messages waited since then for their turn to begin."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    rss_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    opened = [_target(one) for one in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    sockets = sum(target.startswith("socket:") for target in opened)
    waits = sorted(
        float(row["wait"])
        for row in read_rows(
            daemon.database,
            "SELECT t.started_at - i.sent_at AS wait FROM inbox i JOIN turns t ON t.id = i.turn_id"
            " WHERE i.id > (SELECT COALESCE(MAX(id), 0) FROM inbox WHERE outcome = 'accepted' AND received_at < ?)"
            " AND t.started_at IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM turns a WHERE a.session_id = t.session_id AND a.position = t.position - 1"
            "  AND (a.finished_at IS NULL OR a.finished_at >= i.sent_at))",
            since_ms,
        )
    )
    turns = read_rows(daemon.database, "SELECT COUNT(*) AS n FROM turns WHERE status = 'completed'")[0]["n"]
    return Reading(minute, turns, rss_kb / 1024, len(opened) - sockets, sockets, waits)


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return "socket:"


async def trouble(people: MemoryPeople, rng: random.Random) -> None:
    kind: dict[str, Any] = rng.choice(
        [{"is_down": True}, {"lose_answers": 2}, {"rate_limits": [1.0, 0.5, 0.5]}]
    )
    await people.remote("faults", **kind)
    await asyncio.sleep(2)
    await people.remote("faults", is_down=False)


async def warm_up(talk: Talk, daemon: Daemon, messages: int) -> None:
    """Everybody says so many things, some people at a time."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def person(number: int) -> None:
        async with places:
            await talk.say(talk.chats[number])

    for _ in range(messages):
        await asyncio.gather(*(person(number) for number in range(len(talk.chats))))
    await wait_idle(daemon, timeout_s=120)


async def wait_idle(daemon: Daemon, *, timeout_s: float) -> None:
    """Until nothing is left to do. Raises: NotReady."""
    deadline = time.monotonic() + timeout_s
    while not is_idle(daemon.database):
        if not daemon.is_running:
            raise NotReady(f"the daemon ended with {daemon.returncode}\n{daemon.tail()}")
        if time.monotonic() > deadline:
            raise NotReady(f"still busy after {timeout_s:g} s\n{daemon.tail()}")
        await asyncio.sleep(0.5)


async def shown(people: MemoryPeople, talk: Talk) -> Mapping[str, Sequence[str]]:
    """What everybody saw; asked for once, since there may be a million messages."""
    seen: dict[str, list[str]] = {chat.channel: [] for chat in talk.chats}
    for one in await people.read("shown"):
        seen[one["channel"]].append(one["text"])
    return seen


async def write_steadily(
    talk: Talk, daemon: Daemon, chosen: argparse.Namespace, rng: random.Random
) -> list[Reading]:
    """People write for so many minutes. Raises: NotReady."""
    readings: list[Reading] = []
    writing: set[asyncio.Task[Any]] = set()
    began = next_at = time.monotonic()
    since_ms = int(time.time() * 1000)
    assert isinstance(talk.people, MemoryPeople)
    while (passed := time.monotonic() - began) < chosen.minutes * 60:
        said = asyncio.create_task(talk.say(rng.choice(talk.chats), f"delay={chosen.turn_s:g}"))
        writing.add(said)
        said.add_done_callback(writing.discard)
        next_at += rng.expovariate(chosen.rate)
        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        if passed >= 60 * (len(readings) + 1):
            readings.append(await asyncio.to_thread(read, daemon, len(readings) + 1, since_ms))
            since_ms = int(time.time() * 1000)
            print(readings[-1].line(), flush=True)
            if chosen.trouble:
                disturbing = asyncio.create_task(trouble(talk.people, rng))
                writing.add(disturbing)
                disturbing.add_done_callback(writing.discard)
        if not daemon.is_running:
            raise NotReady(f"the daemon ended with {daemon.returncode}\n{daemon.tail()}")
    if writing:
        await asyncio.wait(writing)
    await wait_idle(daemon, timeout_s=90)
    readings.append(read(daemon, len(readings) + 1, since_ms))
    print(readings[-1].line() + "  (the end)", flush=True)
    return readings


def judge(readings: Sequence[Reading]) -> list[str]:
    """Print the figures beside their goals; gives those that were missed."""
    first, last = readings[0], readings[-1]
    growth = 100 * (last.rss_mb / first.rss_mb - 1)
    files = last.files - first.files
    waits = sorted(wait for reading in readings for wait in reading.waits)
    p99 = waits[min(len(waits) - 1, int(0.99 * len(waits)))]
    figures = (
        (f"memory grew by {growth:.1f} %", f"< {100 * MOST_GROWTH:g} %", growth < 100 * MOST_GROWTH),
        (f"open files grew by {files}", f"≤ {MOST_FILES}", files <= MOST_FILES),
        (
            f"open sockets {max(reading.sockets for reading in readings)} at most",
            f"≤ {MOST_SOCKETS}",
            all(reading.sockets <= MOST_SOCKETS for reading in readings),
        ),
        (
            f"dispatch p50 {statistics.median(waits):.0f} ms, p99 {p99:.0f} ms",
            f"p99 < {MOST_WAIT_P99_MS:g} ms",
            p99 < MOST_WAIT_P99_MS,
        ),
    )
    for text, goal, is_met in figures:
        print(f"{'met    ' if is_met else 'NOT MET'}  {text} ({goal})")
    return [text for text, _, is_met in figures if not is_met]


async def soak(chosen: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    """Run, print, and give what was wrong."""
    rng = random.Random(seed)
    problems: list[str] = []
    async with memory_people() as people:
        settings = merged(
            quick_settings(folder / "palaver.db", {"main": people.account()}),
            {"turns": {"max_running": max(1000, chosen.sessions)}},
        )
        async with Daemon(folder, settings) as daemon:
            talk = await Talk.begin(people, chosen.sessions)
            await daemon.start()
            try:
                began = time.monotonic()
                await warm_up(talk, daemon, chosen.warm_up)
                print(f"{len(talk.said)} messages to warm up, {time.monotonic() - began:.0f} s", flush=True)
                problems += judge(await write_steadily(talk, daemon, chosen, rng))
                if (code := await daemon.stop()) != 0:
                    problems.append(f"exit code {code}")
            except NotReady as error:
                problems.append(str(error))
            daemon.end()
            seen = await shown(people, talk)
            problems += [f"#{one.number} was never answered" for one in unanswered(talk.said, seen)[:20]]
            findings = check(
                daemon.database,
                "memory.main",
                people.platform,
                talk.said,
                seen,
                logs=[daemon.log],
                secrets=people.secrets,
            )
    print(
        f"soak {chosen.minutes:g} min, {chosen.sessions} sessions, {chosen.rate:g}/s, turns of {chosen.turn_s:g} s:"
        f" {findings.figures()}"
    )
    return problems + findings.violations


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4, help="default 4; 1440 is a day")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20, help="messages a second, over all sessions")
    parser.add_argument("--turn-s", type=float, default=2, help="how long a turn takes")
    parser.add_argument(
        "--warm-up", type=int, default=12, help="messages of each person before the measuring"
    )
    parser.add_argument("--trouble", action="store_true", help="the platform fails once a minute")
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.randrange(1_000_000)
    with tempfile.TemporaryDirectory(prefix="palaver-soak-") as folder:
        problems = asyncio.run(soak(chosen, seed, Path(folder)))
    for problem in problems:
        print(f"  violation (seed {seed}): {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
