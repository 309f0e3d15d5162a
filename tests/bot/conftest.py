"""Houses for tests: whole daemons on a file of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bot.house import House


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., House]:
    """Make a house; a second one with the same file is the first after a restart."""

    def make(*, file: str = "palaver.db", **options: Any) -> House:
        return House(tmp_path / file, **options)

    return make
