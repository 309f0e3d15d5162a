"""kill -9 at random moments, whole daemon, each platform; the long runs are `make kill-loop`."""

import functools
import random
from pathlib import Path

import pytest

from tests.process import kill_loop
from tests.process.nursery import Nursery, NurseryDaemon

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]


@pytest.mark.parametrize(("adapter", "cycles"), [("memory", 6), ("telegram", 6), ("discord", 4)])
async def test_nothing_is_lost_by_killing(
    adapter: str, cycles: int, server: str | None, nursery: Nursery, tmp_path: Path
) -> None:
    """Kills at random moments while people write: none lost, none twice, order kept, all idle in the end."""
    seed = random.SystemRandom().randrange(1_000_000)
    make = functools.partial(NurseryDaemon, nursery)
    outcome = await kill_loop.run(adapter, cycles, tmp_path, seed=seed, url=server, make=make)
    print(outcome.line())
    assert outcome.violations == [], f"seed {seed}"
