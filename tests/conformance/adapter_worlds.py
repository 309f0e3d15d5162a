"""`AdapterWorld`: what `test_adapter.py` needs around an adapter, and the list of all worlds.

A world is a platform's counterparty (a fake server, a pseudo-terminal, a room in memory) with one person in it and the
real adapter connected to it. Each adapter's own test folder holds its world; a new adapter is done when its world
stands in `WORLDS`.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Protocol, cast

import pytest

from adapters.base import Adapter
from adapters.messages import Target
from config.names import PlatformMessageId


class AdapterWorld(Protocol):
    """A platform with one person and one bot account. The suite runs and closes the adapter; the world does not."""

    name: str
    adapter: Adapter
    """The real class under test, not yet running."""
    target: Target
    """The person's direct channel."""
    supports: frozenset[str]
    """What the wire can be made to do: a subset of lose_answer, rate_limit, refuse, outage, edit, group, poison, typing."""

    async def say(self, text: str, *, direct: bool = True, mention: bool = False) -> PlatformMessageId:
        """The person writes, over the real wire. Returns the id under which the adapter will deliver it."""

    async def visible(self, *, direct: bool = True) -> list[str]:
        """What the person sees from the bot now, in order, as plain text."""

    async def lose_next_answer(self) -> None:
        """The next send is done, but its answer never arrives."""

    async def rate_limit_next(self, retry_after_s: float) -> None: ...

    async def refuse_next(self) -> None:
        """The next send is refused for good (403)."""

    async def outage(self, on: bool) -> None: ...

    async def poison(self) -> None:
        """An update arrives that nobody can parse."""

    async def press(self, label: str) -> None:
        """The person presses the button of that label under the bot's last message. Only where there are buttons."""


class QuietWire:
    """For worlds whose wire cannot be made to do some of it: a test that asks all the same has not looked at `supports`."""

    async def lose_next_answer(self) -> None:
        pytest.fail("no answer can be lost here")

    async def rate_limit_next(self, retry_after_s: float) -> None:
        pytest.fail("nobody limits the pace here")

    async def refuse_next(self) -> None:
        pytest.fail("nothing is refused here")

    async def outage(self, on: bool) -> None:
        pytest.fail("nothing is ever away here")

    async def poison(self) -> None:
        pytest.fail("everything can be read here")

    async def press(self, label: str) -> None:
        pytest.fail("there are no buttons here")


WorldFactory = Callable[[], AbstractAsyncContextManager[AdapterWorld]]

WORLDS = {
    "memory": "tests.adapters.memory_world:memory_world",
    "memory-discordlike": "tests.adapters.memory_world:idempotent_memory_world",
    "memory-http": "tests.adapters.memory_world:http_memory_world",
    "terminal": "tests.adapters.terminal_world:terminal_world",
    "terminal-pipe": "tests.adapters.terminal_world:pipe_world",
    "telegram": "tests.adapters.telegram.world:telegram_world",
    "discord": "tests.adapters.discord.world:discord_world",
}
"""Name -> "module:context manager". Imported when asked for, so that one platform's SDK is not every test's affair."""


def open_world(name: str) -> AbstractAsyncContextManager[AdapterWorld]:
    module_name, _, attribute = WORLDS[name].partition(":")
    make = cast(WorldFactory, getattr(import_module(module_name), attribute))
    return make()
