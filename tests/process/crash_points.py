"""A crash at every commit there is: right after it, and just before it, everywhere in a scenario that has everything.

Owns the scenario and the survey of all its crash points; `test_crash_points.py` runs it on Palaver as it is, `mutations.py`
on versions that were broken on purpose.
"""

import argparse
import asyncio
import contextlib
import random
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from sessions.database.base import Dialect
from tests import postgres
from tests.process.counterparties import PEOPLE, Chat, Counterparty, DiscordPeople, MemoryPeople
from tests.process.daemon import PROJECT, NotReady, eventually, quick_settings
from tests.process.invariants import FILLER, Said, check, is_idle
from tests.process.nursery import Nursery, NurseryDaemon
from tests.process.talk import Talk

LANES = 6
"""Scenarios beside each other; each is mostly waiting."""
EVERY: Mapping[Dialect, Mapping[str, int]] = {
    "sqlite": {"memory": 10, "telegram": 14, "discord": 18},
    "postgresql": {"memory": 18, "telegram": 22, "discord": 22},
}
"""`make test` tries every so many of the crash points, beginning anywhere: the slower a start, the fewer. On PostgreSQL each waits
for the leases of the process that died. All of them: `python -m tests.process.crash_points`, which `make crash-points` does, too.
"""


@dataclass
class Played:
    """How one scenario went."""

    commits: int
    """Of the first process."""
    crashed: bool
    violations: list[str]


class Scenario:
    """Acceptance, claims, steps, tool calls, a preview, results, several chunks, commands, /reset, a decline, an edit."""

    def __init__(
        self,
        people: Counterparty,
        nursery: Nursery,
        folder: Path,
        *,
        url: str | None = None,
        timeout_s: float = 20,
    ) -> None:
        """`url`: of an empty database on a PostgreSQL server; without one it is a file in `folder`."""
        settings = quick_settings(folder / "palaver.db", {"main": people.account()}, server=url)
        settings["turns"]["max_message_chars"] = 20_000 if people.platform.name == "memory" else 4096
        settings["access"] = {"block": ["mallory"]}
        self.people = people
        self._timeout_s = timeout_s
        self.daemon = NurseryDaemon(nursery, folder, settings)
        self._counter = folder / "commits"
        self._counter.write_text("0")
        self._crashed = False

    async def play(self, **environment: str) -> Played:
        """Play it; a daemon that dies on the way is started again, without the trap."""
        talk = self.talk = await Talk.begin(self.people, 2)
        ada, bob = talk.chats
        async with self.daemon:
            if isinstance(self.people, DiscordPeople):
                # Discord keeps nothing for a bot that is away, and tells it nothing of channels it has never met.
                await self.daemon.start()
                await eventually(self.daemon.hears, timeout_s=self._timeout_s, what="hearing")
                for chat in talk.chats:
                    await talk.say(chat)
                await self._answered()
                await self.daemon.stop()
            self.daemon.launch(COMMITS_FILE=str(self._counter), **environment)
            await talk.say(ada)
            await self._answered()
            await talk.say(bob, "tool=clock")
            await self._answered()
            await talk.say(ada, 'tool=clock tool=calculator:{"expression":"1+1"}')
            await talk.say(bob, "pace=0.03", words=f"{FILLER} " * 16)
            await self._answered()
            # Discord is asked late here (see `_answered`), and a later piece of an answer has nothing to be looked up by.
            await talk.say(bob, "pace=0.002", is_long=not isinstance(self.people, DiscordPeople))
            await self._say_plainly(ada, "/whoami", "command", str(ada.person))
            await self._answered()
            await talk.say(ada, "delay=0.15")
            behind = await talk.say(ada)
            await self.people.edit(ada, behind.message_id, f"#{behind.number} {FILLER} in other words")
            await self._answered()
            await self._say_plainly(ada, "/reset", "command", "We start fresh")
            await talk.say(ada)
            await self._answered()
            await self._say_plainly(bob, "/nonsense", "command", "/nonsense")
            await self._answered()
            while (code := await self._stop()) != 0:
                assert code == -signal.SIGKILL, self.daemon.tail()
                self._crashed = True
                await self._answered()
        findings = check(
            self.daemon.database,
            f"{self.people.platform.name}.main",
            self.people.platform,
            talk.said,
            await talk.shown(),
            logs=[self.daemon.log],
            secrets=self.people.secrets,
        )
        return Played(int(self._counter.read_text() or 0), self._crashed, findings.violations)

    async def _stop(self) -> int:
        """SIGTERM, once it can take one. Gives the exit code."""
        if self.daemon.is_running:
            with contextlib.suppress(NotReady):  # it may die of its trap first
                await self.daemon.wait_ready()
        return await self.daemon.stop()

    async def _say_plainly(self, chat: Chat, text: str, outcome: str, shows: str) -> None:
        message_id = await self.people.say(chat, text)
        self.talk.said.append(Said(chat, message_id, 0, outcome=outcome, shows=shows))  # type: ignore[arg-type]  # a literal

    def _is_idle(self) -> bool:
        try:
            return is_idle(self.daemon.database)
        except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):  # it has not been made yet
            return False

    async def _answered(self) -> None:
        """All is answered and the daemon idle; it is started again if it has died."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            if not self.daemon.is_running:
                self._crashed = True
                if isinstance(self.people, DiscordPeople):  # so late that it has forgotten the nonces
                    await self.people.remote.call("advance", seconds=400)
                self.daemon.launch()
            if self._is_idle() and not await self.talk.missing() and self._is_idle():
                return
            if time.monotonic() > deadline:
                numbers = [one.number for one in await self.talk.missing()]
                raise NotReady(f"unanswered: {numbers}\n{self.daemon.tail()}")
            await asyncio.sleep(0.05)


@dataclass
class Survey:
    """All crash points of one platform."""

    commits: int = 0
    """Of the scenario without a crash."""
    points: list[tuple[str, int]] = field(default_factory=list)
    reached: set[tuple[str, int]] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"commits {self.commits}  crash points reached {len(self.reached)}"
            f"  violations {len(self.violations)}"
        )

    async def work(
        self,
        adapter: str,
        nursery: Nursery,
        folder: Path,
        *,
        database: Dialect,
        until: re.Pattern[str] | None,
        timeout_s: float,
    ) -> None:
        """One lane: take points until none is left, or a violation was found that one was looking for."""
        async with PEOPLE[adapter]() as people:
            while self.points and not (until is not None and any(map(until.search, self.violations))):
                side, number = self.points.pop(0)
                if isinstance(people, MemoryPeople):
                    await people.remote("forget")
                if isinstance(people, DiscordPeople):  # an empty database begins with nonces used before
                    await people.remote.call("advance", seconds=400)
                place = folder / f"{side}-{number}"
                with postgres.server_for(database) as url:
                    scenario = Scenario(people, nursery, place, url=url, timeout_s=timeout_s)
                    try:
                        played = await scenario.play(CRASH_AT=str(number), CRASH_SIDE=side)
                    except NotReady as error:
                        played = Played(0, crashed=True, violations=[str(error)])
                self.violations += [f"crash {side} commit {number}: {one}" for one in played.violations]
                if played.crashed:
                    self.reached.add((side, number))
                elif played.commits >= number:
                    self.violations.append(f"crash {side} commit {number}: it did not happen")


async def survey(
    adapter: str,
    folder: Path,
    *,
    database: Dialect = "sqlite",
    tree: Path = PROJECT,
    nursery: Nursery | None = None,
    every: int = 1,
    until: re.Pattern[str] | None = None,
    timeout_s: float = 20,
) -> Survey:
    """Play the scenario once to count its commits, then once for each crash point.

    `tree` is the program's source; `nursery`, one that has it already.

    Raises: AssertionError if it does not work even without a crash.
    """
    async with contextlib.AsyncExitStack() as stack:
        if nursery is None:
            nursery = stack.enter_context(Nursery(folder, tree))
        async with PEOPLE[adapter]() as people:
            with postgres.server_for(database) as url:
                whole = await Scenario(people, nursery, folder / "whole", url=url, timeout_s=timeout_s).play()
        if whole.crashed or whole.violations:
            raise AssertionError(f"it does not work even without a crash: {whole.violations}")
        if not whole.commits:
            raise AssertionError("no commit was seen: the trap is not where commits are")
        # How operations share a commit is a matter of timing, so some runs have a few more.
        numbers = range(random.randint(1, every), whole.commits + 4, every)
        result = Survey(whole.commits, [(side, number) for number in numbers for side in ("after", "before")])
        async with asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(
                    result.work(adapter, nursery, folder, database=database, until=until, timeout_s=timeout_s)
                )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--adapter", choices=sorted(PEOPLE), nargs="+", default=list(PEOPLE), help="default: all of them"
    )
    parser.add_argument("--every", type=int, default=1, help="try only every so many points")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    arguments = parser.parse_args()
    violations: list[str] = []
    for adapter in arguments.adapter:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="palaver-crash-") as folder:
            found = asyncio.run(
                survey(adapter, Path(folder), database=arguments.database, every=arguments.every)
            )
        print(
            f"{adapter:<9} {arguments.database:<10} {found.line()}  {time.monotonic() - began:.0f} s",
            flush=True,
        )
        for violation in found.violations:
            print(f"  violation: {violation}", file=sys.stderr)
        violations += found.violations
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
