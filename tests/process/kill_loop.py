"""kill -9 at random moments while people write: `python -m tests.process.kill_loop --cycles 200`.

Messages are written all the time; the daemon is killed a moment after its start, or a moment after it is ready, and started
again. In the end all must be answered, and the checker looks. One line of figures for each platform; on a violation the list of
them and exit code 1. The same seed gives the same messages and pauses. The platforms run side by side, as most of it is
waiting; `--adapter memory` chooses one. With `--database postgresql` there are two nodes, killed in turns, and each takes over from
the other. `make kill-loop` runs 200 cycles of each; before a release: `make kill-loop CYCLES=1000`.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests import postgres
from tests.fakes.distance import at_a_distance
from tests.process.counterparties import PEOPLE
from tests.process.daemon import Daemon, NotReady, eventually, quick_settings
from tests.process.invariants import Findings, check
from tests.process.talk import Talk

_DURING_START = 0.25
"""Share of kills that do not wait until it is ready."""
_EXCUSED = ("text",)
"""A kill in the middle of a line leaves half of one; tracebacks are looked for by `check` line by line all the same."""


@dataclass
class Outcome:
    adapter: str
    cycles: int
    seconds: float
    start_s: float
    findings: Findings
    problems: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        return self.problems + self.findings.violations

    def line(self) -> str:
        return (
            f"{self.adapter:<9} cycles {self.cycles}  {self.findings.figures()}"
            f"  start {self.start_s * 1000:.0f} ms  {self.seconds:.1f} s"
        )


async def run(
    adapter: str,
    cycles: int,
    folder: Path,
    *,
    seed: int = 1,
    sessions: int = 5,
    messages: int | None = None,
    make: Callable[..., Daemon] = Daemon,
    url: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """`make` is what makes a daemon of a folder and settings. With the URL of a server's database there are two of them."""
    rng, words = random.Random(seed), random.Random(seed + 1)
    total = messages if messages is not None else 4 * cycles
    began = time.monotonic()
    starts = []
    problems: list[str] = []
    async with PEOPLE[adapter]() as people:
        settings = quick_settings(folder / "palaver.db", {"main": people.account()}, server=url, lease_s=1)
        async with contextlib.AsyncExitStack() as stack:
            names = ["palaver"] if url is None else ["one", "two"]
            daemons = [await stack.enter_async_context(make(folder, settings, name=name)) for name in names]
            daemon = daemons[0]
            talk = await Talk.begin(people, sessions)
            # A first word in every chat: Discord tells nobody what was written in a channel the bot has never met.
            for one in daemons:
                one.launch()
                await one.wait_ready()
            await eventually(
                daemon.hears, timeout_s=20, what="hearing"
            )  # it came first, and so has the account
            for chat in talk.chats:
                await talk.say(chat)
            await talk.wait_answered(daemon, timeout_s=30)
            is_over = asyncio.Event()
            talking = asyncio.create_task(_talk_on(talk, words, total, is_over))
            try:
                for cycle in range(cycles):
                    daemon = daemons[cycle % len(daemons)]
                    daemon.kill()
                    at = time.monotonic()
                    daemon.launch()
                    if rng.random() < _DURING_START:
                        await asyncio.sleep(rng.uniform(0, 0.6))
                        continue
                    await daemon.wait_ready()
                    starts.append(time.monotonic() - at)
                    await asyncio.sleep(rng.uniform(0, 0.4))
                    if cycle % 20 == 19:
                        progress(f"{adapter} {cycle + 1}/{cycles}, {len(talk.said)} messages")
            finally:
                is_over.set()
                await talking
            daemon.kill()
            daemon.launch()
            try:
                await daemon.wait_ready()
                await talk.wait_answered(daemon, timeout_s=60)
                for one in daemons:
                    if (code := await one.stop()) != 0:
                        problems.append(f"exit code {code} at the end")
            except NotReady as error:
                problems.append(str(error))
            for one in daemons:
                one.end()
            findings = check(
                daemon.database,
                f"{people.platform.name}.main",
                people.platform,
                talk.said,
                await talk.shown(),
                logs=[one.log for one in daemons],
                secrets=people.secrets,
                excused=_EXCUSED,
            )
    return Outcome(
        adapter, cycles, time.monotonic() - began, median(starts) if starts else 0, findings, problems
    )


async def _talk_on(talk: Talk, rng: random.Random, total: int, is_over: asyncio.Event) -> None:
    """Write, spread over the whole loop, whether or not anybody listens."""
    while not is_over.is_set() and len(talk.said) < total + len(talk.chats):
        await talk.say_something(rng)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), rng.uniform(0, 0.4))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--adapter", choices=sorted(PEOPLE), nargs="+", default=list(PEOPLE), help="default: all of them"
    )
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument(
        "--seed", type=int, default=None, help="default: another one each time, printed on failure"
    )
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--distance-ms", type=float, default=0, help="how far away PostgreSQL is")
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--messages", type=int, default=None, help="most messages; default: 4 for each cycle")
    parser.add_argument(
        "--keep", type=Path, default=None, help="folder for database and log, kept afterwards"
    )
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    with tempfile.TemporaryDirectory(prefix="palaver-kill-") as folder:
        outcomes = asyncio.run(_run_all(arguments, arguments.keep or Path(folder), seed))
    for outcome in outcomes:
        for violation in outcome.violations:
            print(f"  violation on {outcome.adapter} (seed {seed}): {violation}", file=sys.stderr)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


async def _run_all(arguments: argparse.Namespace, folder: Path, seed: int) -> list[Outcome]:
    async def run_one(adapter: str) -> Outcome:
        if arguments.database == "sqlite":
            return await run_on(adapter, None)
        with postgres.fresh_database() as url:
            if not arguments.distance_ms:
                return await run_on(adapter, url)
            async with at_a_distance(url, arguments.distance_ms / 1000) as far:
                return await run_on(adapter, far)

    async def run_on(adapter: str, url: str | None) -> Outcome:
        outcome = await run(
            adapter,
            arguments.cycles,
            folder / adapter,
            seed=seed,
            sessions=arguments.sessions,
            messages=arguments.messages,
            url=url,
            progress=lambda line: print(line, file=sys.stderr),
        )
        print(outcome.line(), flush=True)
        return outcome

    return list(await asyncio.gather(*map(run_one, arguments.adapter)))


if __name__ == "__main__":
    sys.exit(main())
