"""kill -9 at random moments, whole daemon, each platform; the long runs are `make kill-loop`."""

import contextlib
import random
from pathlib import Path

import pytest

from tests import postgres
from tests.process import kill_loop

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]


@pytest.mark.parametrize(
    ("adapter", "cycles", "is_on_a_server"),
    [("memory", 5, False), ("telegram", 5, False), ("discord", 3, False), ("memory", 3, True)],
)
async def test_nothing_is_lost_by_killing(
    adapter: str, cycles: int, is_on_a_server: bool, tmp_path: Path
) -> None:
    """Kills at random moments while people write: none lost, none twice, order kept, all idle in the end."""
    seed = random.SystemRandom().randrange(1_000_000)
    with postgres.fresh_database() if is_on_a_server else contextlib.nullcontext() as url:
        outcome = await kill_loop.run(adapter, cycles, tmp_path, seed=seed, url=url)
    print(outcome.line())
    assert outcome.violations == [], f"seed {seed}"
