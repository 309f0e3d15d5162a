"""Do the fault tests see a fault? `python -m tests.process.mutations` breaks Palaver in known ways and runs them on it.

Each mutation takes one safeguard out of a copy of the source. The survey of crash points must then find a violation of the
kind that the safeguard is there to prevent; a mutation that nothing notices is printed and makes the exit code 1. Before them,
the same survey of the program as it is must find none. Arguments choose mutations by words of their names. What the store alone
promises is broken by `tests/sessions/mutations.py`; `make mutations` runs both.
"""

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
    sign: str
    """What a violation that comes of it says, as a regular expression."""
    adapter: str = "memory"
    also: tuple[tuple[str, str], ...] = ()
    """What else changes in the file, where a safeguard is not in one place."""
    tests: tuple[str, ...] = ()
    """Tests that must notice it, where no crash brings it to light."""


UNANSWERED = r"^crash .*: unanswered: |even without a crash: .*unanswered: "
SHOWN_TWICE = r"shown \d+ times"
FAILED = r"^FAILED "

MUTATIONS = (
    Mutation(
        "no mark before a send that cannot be repeated",
        "bot/delivery.py",
        "        if needs_mark and ",
        "        if False and ",
        sign=r"shown \d+ times, 0 marked",
        adapter="telegram",
    ),
    Mutation(
        "duplicates are not looked for",
        "bot/gateway.py",
        "if inbox.is_known(tx, incoming):",
        "if False:",
        sign=r"quarantined|intake_faulted",
    ),
    Mutation(
        "turns of the dead process are not taken up",
        "bot/lanes.py",
        "        lane.recover(tx)\n",
        "",
        sign=UNANSWERED,
    ),
    Mutation(
        "replies of the dead process are not taken up",
        "bot/app.py",
        "waiting = await self.delivery.recover()",
        "waiting = 0",
        sign=UNANSWERED,
    ),
    Mutation(
        "Telegram is told before the message is stored",
        "adapters/telegram/polling.py",
        "                confirmed = await self._take_all(batch)\n",
        "                if batch:\n"
        "                    await self._bot.raw_updates(offset=batch[-1]['update_id'] + 1, limit=1, timeout_s=0,\n"
        "                                                allowed_updates=ALLOWED_UPDATES)\n"
        "                confirmed = await self._take_all(batch)\n",
        sign=UNANSWERED,
        adapter="telegram",
    ),
    Mutation(
        "recorded steps are not given again",
        "sessions/lane.py",
        'if about["epoch"] > 1',
        "if False",
        sign=r"tool calls, not|ran again",
    ),
    Mutation(
        "a reply is queued after its turn has ended, not with it",
        "bot/turns.py",
        "            outbox.add(tx, address, kind, chunks, now, turn_id=claim.turn_id, session_id=claim.session_id)\n",
        "",
        sign=UNANSWERED,
        also=(
            (
                "        self._hot.keep(claim.session_id, tail)\n        if chunks:\n",
                (
                    "        self._hot.keep(claim.session_id, tail)\n"
                    "        await self._durably(lambda tx: outbox.add(tx, address, kind, chunks, self._now(),\n"
                    "                                                  turn_id=claim.turn_id, session_id=claim.session_id))\n"
                    "        quiet = None\n"
                    "        if chunks:\n"
                ),
            ),
        ),
    ),
    Mutation(
        "a reply has another key each time it is sent",
        "bot/delivery.py",
        "adapter.send(target, content, chunk.key, is_repeat=is_repeat)",
        'adapter.send(target, content, f"{chunk.key}.{self._now()}", is_repeat=is_repeat)',
        sign=SHOWN_TWICE,
    ),
    Mutation(
        "Discord gets another nonce each time",
        "adapters/discord/sending.py",
        "nonce=key,",
        'nonce=__import__("secrets").token_hex(8),',
        sign=FAILED,
        tests=(
            "tests/adapters/discord/test_sending.py",
        ),  # after a crash the look-up finds the copy all the same
    ),
    Mutation(
        "a wait that the platform asked for ends with the process",
        "sessions/outbox.py",
        '    tx.execute(\n        "INSERT INTO holds ',
        '    if tx:\n        return\n    tx.execute(\n        "INSERT INTO holds ',
        sign=FAILED,
        tests=("tests/bot/test_delivery.py",),
    ),
    Mutation(
        "a forged webhook call is let in",
        "adapters/telegram/webhook.py",
        "if not hmac.compare_digest(",
        "if False and hmac.compare_digest(",
        sign=FAILED,
        tests=("tests/adapters/telegram/test_webhook.py",),
    ),
    Mutation(
        "an earlier copy is not looked for on Discord",
        "adapters/discord/sending.py",
        "        if is_repeat:\n            after = ",
        "        if False:\n            after = ",
        sign=SHOWN_TWICE,
        adapter="discord",
    ),
    Mutation(
        "what was said to Discord meanwhile is not read",
        "adapters/discord/history.py",
        "                if begin is not None:\n                    gaps[place] = begin\n        if not is_current",
        "                if False:\n                    gaps[place] = begin\n        if not is_current",
        sign=UNANSWERED,
        adapter="discord",
    ),
)


def broken(mutation: Mutation) -> str:
    """The file with the mutation in it. Raises: ValueError if the source has changed so that it no longer fits."""
    source = (PROJECT / mutation.file).read_text()
    for old, new in ((mutation.old, mutation.new), *mutation.also):
        if (places := source.count(old)) != 1:
            raise ValueError(f"{mutation.file} has {places} places like {old.strip()!r}, not 1")
        source = source.replace(old, new)
    return source


def broken_copy(mutation: Mutation, folder: Path) -> Path:
    """A tree with the mutation in it."""
    for name in ("bot", "adapters", "sessions", "config", "tests"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    (folder / mutation.file).write_text(broken(mutation))
    return folder


async def violations_of(mutation: Mutation | None, adapter: str, folder: Path) -> list[str]:
    """What the survey finds, up to the first violation of the expected kind; of the program as it is, up to the first."""
    tree = PROJECT if mutation is None else broken_copy(mutation, folder / "tree")
    if mutation is not None and mutation.tests:
        return _failing(tree, mutation.tests)
    until = re.compile("" if mutation is None else mutation.sign)
    try:
        found = await crash_points.survey(
            adapter, folder / "run", tree=tree, until=until, every=4 if mutation is None else 1
        )
    except AssertionError as error:
        return [f"even without a crash: {error}"]
    return found.violations


def _failing(tree: Path, tests: Sequence[str]) -> list[str]:
    """The tests that fail in this tree, at most the first."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "--show-capture=no", *tests],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise AssertionError(f"the tests did not run\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return re.findall(r"^FAILED .*$", done.stdout, re.MULTILINE)


def main(words: Sequence[str]) -> int:
    chosen = [one for one in MUTATIONS if all(word in one.name for word in words)]
    for adapter in sorted({one.adapter for one in chosen if not one.tests}):
        with tempfile.TemporaryDirectory(prefix="palaver-mutation-") as folder:
            if found := asyncio.run(violations_of(None, adapter, Path(folder))):
                print(f"on {adapter} there is a violation as it is: {found[0]}")
                return 1
    unseen = 0
    for mutation in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="palaver-mutation-") as folder:
            violations = asyncio.run(violations_of(mutation, mutation.adapter, Path(folder)))
        found = [one for one in violations if re.search(mutation.sign, one)]
        unseen += not found
        verdict = (
            f"seen: {found[0].splitlines()[0][:90]}" if found else f"NOT SEEN ({len(violations)} others)"
        )
        print(
            f"{mutation.name:<57} {'tests' if mutation.tests else mutation.adapter:<9} {verdict}"
            f"  ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    print(f"{len(chosen) - unseen} of {len(chosen)} mutations seen")
    return 1 if unseen or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
