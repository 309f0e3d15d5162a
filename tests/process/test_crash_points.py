"""A crash at every commit boundary, on every platform; the scenario is in `crash_points.py`."""

from pathlib import Path

import pytest

from tests.process import crash_points

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


@pytest.mark.parametrize("adapter", ["memory", "telegram", "discord"])
async def test_every_commit_boundary(adapter: str, tmp_path: Path) -> None:
    """Whatever commit the process dies at, right after it or just before it: nothing lost, nothing twice, order kept."""
    survey = await crash_points.survey(adapter, tmp_path)
    print(
        f"{adapter}: {survey.commits} commits, {len(survey.reached)} crash points,"
        f" {len(survey.violations)} violations"
    )
    assert survey.violations == []
    assert survey.commits > 20, "the scenario is thinner than it was"
    assert len(survey.reached) >= 2 * survey.commits // crash_points.EVERY[adapter] - 8
