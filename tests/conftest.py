"""What a whole program runs on, for tests of it that start one."""

from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None, where the database is a file that the test makes; then the URL of an empty one on a server."""
    with postgres.server_for(request.param) as url:
        yield url
