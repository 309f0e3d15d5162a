"""A crash at every commit boundary, on every platform; the scenario is in `crash_points.py`."""

from pathlib import Path

import pytest

from sessions.database.base import Dialect
from tests.process import crash_points
from tests.process.counterparties import PEOPLE
from tests.process.nursery import Nursery

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


@pytest.mark.parametrize("database", list(crash_points.EVERY))
@pytest.mark.parametrize("adapter", list(PEOPLE))
async def test_every_commit_boundary(
    adapter: str, database: Dialect, nursery: Nursery, tmp_path: Path
) -> None:
    """Whatever commit the process dies at, right after it or just before it: nothing lost, nothing twice, order kept."""
    every = crash_points.EVERY[database][adapter]
    survey = await crash_points.survey(adapter, tmp_path, database=database, nursery=nursery, every=every)
    print(adapter, survey.line())
    assert survey.violations == []
    assert survey.commits > 20, "the scenario is thinner than it was"
    # Two sides of each commit; a run that puts two operations into one commit has fewer.
    assert len(survey.reached) >= 0.8 * 2 * (survey.commits // every)
