"""kill -9 at random moments, whole daemon, each platform; the long runs are `make kill-loop`."""

import random
from pathlib import Path

import pytest

from tests.process import kill_loop

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]


@pytest.mark.parametrize("adapter", ["memory", "telegram", "discord"])
async def test_nothing_is_lost_by_killing(adapter: str, tmp_path: Path) -> None:
    """Kills at random moments while people write: none lost, none twice, order kept, all idle in the end."""
    seed = random.SystemRandom().randrange(1_000_000)
    outcome = await kill_loop.run(adapter, 3 if adapter == "discord" else 5, tmp_path, seed=seed)
    print(outcome.line())
    assert outcome.violations == [], f"seed {seed}"
