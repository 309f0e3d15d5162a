"""Houses for tests, which are whole daemons on a file of their own, and an operator's shell."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import logging as logs
from tests.bot.console import Console
from tests.bot.house import House


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., House]:
    """Make a house; a second one with the same file is the first after a restart."""

    def make(*, file: str = "palaver.db", **options: Any) -> House:
        return House(tmp_path / file, **options)

    return make


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """An operator at a shell, whose environment configures nothing."""
    for name in ("PALAVER_CONFIG", "PALAVER_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    yield Console(tmp_path)
    logs.stop()  # the commands that write silence the log for their own process
