"""A crash at every commit boundary, on every platform; the scenario is in `crash_points.py`."""

from pathlib import Path

import pytest

from tests.process import crash_points

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


@pytest.mark.parametrize("adapter", ["memory", "telegram", "discord"])
async def test_every_commit_boundary(adapter: str, tmp_path: Path) -> None:
    """Whatever commit the process dies at, right after it or just before it: nothing lost, nothing twice, order kept."""
    every = crash_points.EVERY[adapter]
    survey = await crash_points.survey(adapter, tmp_path, every=every)
    print(adapter, survey.line())
    assert survey.violations == []
    assert survey.commits > 20, "the scenario is thinner than it was"
    # Two sides of each commit; a run that puts two operations into one commit has fewer.
    assert len(survey.reached) >= 0.8 * 2 * (survey.commits // every)
