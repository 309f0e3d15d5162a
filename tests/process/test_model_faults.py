"""The whole daemon on a model that fails all the time; the long run is `make model-faults`."""

import random
from pathlib import Path

import pytest

from tests.process import model_faults

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


async def test_every_turn_ends_whatever_the_model_does(server: str | None, tmp_path: Path) -> None:
    """401, 429, 5xx, hangs, broken and senseless answers: each turn ends in an answer or in a reference, in order and in time."""
    seed = random.SystemRandom().randrange(1_000_000)
    outcome = await model_faults.run(100, tmp_path, sessions=15, seed=seed, server=server)
    print(outcome.line())
    assert outcome.violations == [], f"seed {seed}"
    assert outcome.faulty > 15
    assert outcome.statuses["completed"] > 30
    assert outcome.statuses["failed"] > 2
