"""A model that fails all the time: `python -m tests.process.model_faults --turns 10000`.

Three of ten requests are refused, hang, break off, or bring something that is no answer, and twice in a run comes one of 100 MB.
The whole daemon runs on it. Every turn must end in the whole answer or in one short sentence with a reference, in order, and no
turn may take longer than its deadline and a second. One line of figures; exit code 1 on a violation.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests import postgres
from tests.fakes.llm import Answer, Call, FakeLlm, Rule, Seen
from tests.process.counterparties import memory_people
from tests.process.daemon import Daemon, eventually, quick_settings
from tests.process.invariants import FILLER, Findings, Store, check, is_idle, read_rows
from tests.process.talk import Talk

FAULTS = (
    *("401", "429", "quota", "500", "502", "503", "hang", "hang_midway", "cut_first", "cut", "cut_politely"),
    *("garbage", "shape", "html", "stream_error", "empty", "bad_arguments"),
)
SILENCE_S, DEADLINE_S = 0.5, 4.0
SLACK_S = 1.0
"""How much later than its deadline a turn may end."""


@dataclass
class Outcome:
    turns: int
    seconds: float
    requests: int
    faulty: int
    statuses: Counter[str]
    longest_s: float
    findings: Findings
    problems: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        return self.problems + self.findings.violations

    def line(self) -> str:
        ends = "  ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"turns {self.turns}  requests {self.requests}, {self.faulty} of them failed  {ends}"
            f"  longest turn {self.longest_s:.1f} s  {self.findings.figures()}  {self.seconds:.1f} s"
        )


def answer(messages: list[Seen]) -> Answer:
    """What the model says when it works: the last message's marker; for some, only after a look at the clock."""
    asked = max(number for number, message in enumerate(messages) if message.role == "user")
    # messages that were never answered stand before the last one, in one block
    last = messages[asked].text.rsplit("\n\n", 1)[-1]
    results = [message.text for message in messages[asked + 1 :] if message.role == "tool"]
    if "tool=clock" in last and not results:
        return Answer(calls=[Call("clock", "{}")])
    marker = re.search(r"#\d+", last)
    return Answer(f"{' '.join(results)} {marker[0] if marker else last} " + f"{FILLER} " * 20)


async def run(
    turns: int,
    folder: Path,
    *,
    sessions: int = 10,
    probability: float = 0.3,
    seed: int = 1,
    server: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """`server`: the URL of an empty database on a PostgreSQL server; without one it is a file in the folder."""
    rng = random.Random(seed)
    began = time.monotonic()
    async with FakeLlm().running() as llm, memory_people() as people:
        settings = quick_settings(folder / "palaver.db", {"main": people.account()}, server=server)
        settings["agent"] = {
            "kind": "llm",
            "model": "openai:fake",
            "base_url": llm.openai_url,
            "request_timeout_s": SILENCE_S,
            "max_retries": 1,
            "api_key": "sk-fake-model-key",
        }
        settings["turns"]["deadline_s"] = DEADLINE_S
        async with Daemon(folder, settings) as daemon:
            talk = await Talk.begin(people, sessions)
            await daemon.start()
            llm.rules = [Rule("", answer)]
            while not read_rows(daemon.database, "SELECT 1 FROM turns WHERE status = 'completed'"):
                await (
                    talk.say()
                )  # loading the model's libraries may take longer than the short deadline of this run
                await _nearly_done(daemon, len(talk.said))
            llm.chaos(probability, FAULTS, seed=seed)
            large = {turns // 3: "huge", 2 * turns // 3: "huge_line"}
            turns += len(talk.said)
            while len(talk.said) < turns:
                if (fault := large.pop(len(talk.said), None)) is not None:
                    llm.fail_next(fault)
                chat = talk.chats[len(talk.said) % sessions]
                await talk.say(chat, "tool=clock" if rng.random() < 0.2 else "")
                if len(talk.said) % (10 * sessions) == 0:
                    await _nearly_done(daemon, len(talk.said) - 5 * sessions)
                    progress(f"{len(talk.said)}/{turns}")
            await _nearly_done(daemon, turns)

            async def is_over() -> bool:
                return is_idle(daemon.database)

            await eventually(is_over, timeout_s=60, what="all replies")
            shown = await talk.shown()
            problems = []
            if (code := await daemon.stop()) != 0:
                problems.append(f"exit code {code} at the end")
            findings = check(
                daemon.database,
                "memory.main",
                people.platform,
                talk.said,
                shown,
                logs=[daemon.log],
                secrets=[*people.secrets, "sk-fake-model-key"],
                statuses=("completed", "failed", "timeout"),
            )
            ended = read_rows(daemon.database, "SELECT status, finished_at - started_at AS ms FROM turns")
            longest_s = max(row["ms"] for row in ended) / 1000
            if longest_s > DEADLINE_S + SLACK_S:
                problems.append(f"a turn took {longest_s:.1f} s, with a deadline of {DEADLINE_S:g} s")
            problems += _details_shown(daemon.database, shown)
            faulty = sum(entry.fault is not None for entry in llm.journal)
    return Outcome(
        turns,
        time.monotonic() - began,
        len(llm.journal),
        faulty,
        Counter(row["status"] for row in ended),
        longest_s,
        findings,
        problems,
    )


def _details_shown(database: Store, shown: object) -> list[str]:
    """What the record tells of a failure is the operator's: none of it stands on anybody's screen, all of it in the record."""
    screens = str(shown)
    errors = read_rows(database, "SELECT ref, kind, message FROM errors")
    told = [row["ref"] for row in errors if row["message"] in screens]
    return [f"{ref}: its details were shown to a person" for ref in told] + [
        f"{row['ref']}: no cause is recorded" for row in errors if not row["message"]
    ]


async def _nearly_done(daemon: Daemon, count: int) -> None:
    """Until so many turns have ended: the model's failures cost time, and nobody writes without end meanwhile."""

    async def ended() -> bool:
        rows = read_rows(
            daemon.database, "SELECT COUNT(*) AS n FROM turns WHERE status NOT IN ('queued', 'running')"
        )
        return bool(rows[0]["n"] >= count)

    await eventually(ended, timeout_s=120, what=f"the end of {count} turns", every_s=0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--probability", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    with (
        tempfile.TemporaryDirectory(prefix="palaver-model-") as folder,
        postgres.server_for(arguments.database) as server,
    ):
        outcome = asyncio.run(
            run(
                arguments.turns,
                Path(folder),
                sessions=arguments.sessions,
                probability=arguments.probability,
                seed=seed,
                server=server,
                progress=lambda line: print(line, file=sys.stderr),
            )
        )
    print(outcome.line(), flush=True)
    for violation in outcome.violations:
        print(f"  violation (seed {seed}): {violation}", file=sys.stderr)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
