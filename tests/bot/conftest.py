"""Houses for tests, which are whole daemons on a database of their own, and an operator's shell; each on every kind of database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from config import logging as logs
from tests.bot.console import Console
from tests.bot.house import House
from tests.sessions.stores import PLACES

Place = Callable[[str], str]


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Gives the address of an empty database; the same for the same name."""
    made: dict[str, str] = {}
    with ExitStack() as stack:

        def address(name: str) -> str:
            if name not in made:
                made[name] = stack.enter_context(PLACES[request.param](tmp_path / f"{name}.db"))
            return made[name]

        yield address


@pytest.fixture
def build(place: Place) -> Callable[..., House]:
    """Make a house; a second one on the same database is the first after a restart."""

    def make(*, name: str = "palaver", **options: Any) -> House:
        return House(place(name), **options)

    return make


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment configures nothing."""
    for name in ("PALAVER_CONFIG", "PALAVER_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    yield
    logs.stop()  # the commands that write silence the log for their own process


@pytest.fixture
def console(place: Place, tmp_path: Path, bare_environment: None) -> Console:
    """An operator at a shell."""
    return Console(tmp_path, place("palaver"))
