"""Do the fault tests see a fault? `python -m tests.process.mutations` breaks Palaver in known ways and runs them on it.

Each mutation takes one safeguard out of a copy of the source. The survey of crash points must then find a violation; a
mutation that nothing notices is printed and makes the exit code 1.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.process import crash_points
from tests.process.daemon import PROJECT


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    adapter: str = "memory"


MUTATIONS = (
    Mutation(
        "no mark before a send that cannot be repeated",
        "bot/delivery.py",
        "        if needs_mark and ",
        "        if False and ",
        adapter="telegram",
    ),
    Mutation(
        "duplicates are not looked for",
        "bot/gateway.py",
        "if inbox.is_known(tx, incoming):",
        "if False:",
    ),
    Mutation(
        "turns of the dead process are not taken up",
        "bot/lanes.py",
        "await self._database.write(inbox.recover)",
        "pass",
    ),
    Mutation(
        "replies of the dead process are not taken up",
        "bot/app.py",
        "waiting = await self.delivery.recover()",
        "waiting = 0",
    ),
    Mutation(
        "Telegram is told before the message is stored",
        "adapters/telegram/polling.py",
        "                confirmed = await self._take_all(batch)\n",
        "                if batch:\n"
        "                    await self._bot.raw_updates(offset=batch[-1]['update_id'] + 1, limit=1, timeout_s=0,\n"
        "                                                allowed_updates=ALLOWED_UPDATES)\n"
        "                confirmed = await self._take_all(batch)\n",
        adapter="telegram",
    ),
    Mutation(
        "recorded steps are not given again",
        "sessions/inbox.py",
        'if row["attempts"] > 1',
        "if False",
    ),
)


def broken_copy(mutation: Mutation, folder: Path) -> Path:
    """A tree with the mutation in it. Raises: ValueError if the source has changed so that it no longer fits."""
    for name in ("bot", "adapters", "sessions", "config", "tests"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / mutation.file
    source = path.read_text()
    if source.count(mutation.old) != 1:
        places = source.count(mutation.old)
        raise ValueError(f"{mutation.file} has {places} places like {mutation.old.strip()!r}, not 1")
    path.write_text(source.replace(mutation.old, mutation.new))
    return folder


async def is_seen(mutation: Mutation, folder: Path) -> list[str]:
    """The violations that the survey finds, at least the first. Raises if it does not even work without a crash."""
    tree = broken_copy(mutation, folder / "tree")
    found = await crash_points.survey(
        mutation.adapter, folder / "run", tree=tree, until_first=True, timeout_s=5
    )
    return found.violations


def main() -> int:
    unseen = 0
    for mutation in MUTATIONS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="palaver-mutation-") as folder:
            violations = asyncio.run(is_seen(mutation, Path(folder)))
        unseen += not violations
        verdict = f"seen: {violations[0].splitlines()[0][:90]}" if violations else "NOT SEEN"
        print(
            f"{mutation.name:<50} {mutation.adapter:<9} {verdict}  ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
