"""One REST request taken apart, and its answer: what ``rest`` hands to ``routes`` and gets back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.discord.gateway import Gateway
from tests.fakes.discord.interactions import Interactions
from tests.fakes.discord.messages import MessageBoard
from tests.fakes.discord.model import Upload
from tests.fakes.discord.world import World


@dataclass
class Exchange:
    """A request, with everything that a route needs to answer it."""

    world: World
    board: MessageBoard
    interactions: Interactions
    gateway: Gateway
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None
    uploads: list[Upload] = field(default_factory=list)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: Any = None
    result_id: str | None = None


@dataclass(frozen=True)
class Route:
    """``needs_token`` is false where the address itself carries one (interactions and their webhooks)."""

    method: str
    template: str
    answer: Callable[[Exchange], Reply]
    needs_token: bool = True
