"""The adapter of `docs/howto/write-an-adapter.md` keeps every promise of the port, over a real HTTP wire.

Owns the pinboard's world; the promises are the conformance suite's, imported whole.
"""

import asyncio
import importlib.util
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters import registry
from adapters.base import Adapter
from adapters.errors import MessageGone, StartError
from adapters.messages import Chunk, Target
from bot.app import App
from config.names import AccountId, ChannelId, PlatformMessageId
from config.settings import AccountSettings, AgentSettings, HttpSettings, Settings
from sessions.database.sqlite import SqliteDatabase
from tests.adapters.recording import RecordingIntake
from tests.conformance.test_adapter import *  # noqa: F403 -- the suite, run for the `world` below
from tests.conformance.test_adapter import running, until
from tests.docs.pinboard import TOKEN, Pinboard, serve

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
ACCOUNT = AccountId("pinboard.main")
FIRST_RETRY_S = 0.05


def load_example():
    """The example as a module, from where the reader finds it."""
    spec = importlib.util.spec_from_file_location("example_adapter", HOWTO / "example_adapter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = load_example()


@dataclass
class PinboardWorld:
    pinboard: Pinboard
    adapter: Adapter
    name: str = "pinboard"
    target: Target = Target(ACCOUNT, ChannelId("ada"))  # noqa: RUF009 -- frozen
    supports: frozenset[str] = frozenset(
        {"lose_answer", "rate_limit", "refuse", "outage", "edit", "group", "poison"}
    )

    async def say(self, text: str, *, direct: bool = True, mention: bool = False) -> PlatformMessageId:
        room = "ada" if direct else "all"
        return PlatformMessageId(self.pinboard.say(text, room=room, is_private=direct, mention=mention))

    async def visible(self, *, direct: bool = True) -> list[str]:
        return self.pinboard.visible("ada" if direct else "all")

    async def lose_next_answer(self) -> None:
        self.pinboard.lose_answers += 1

    async def rate_limit_next(self, retry_after_s: float) -> None:
        self.pinboard.rate_limits.append(retry_after_s)

    async def refuse_next(self) -> None:
        self.pinboard.refusals += 1

    async def outage(self, on: bool) -> None:
        self.pinboard.set_outage(on)

    async def poison(self) -> None:
        self.pinboard.poison()


def settings_for(url: str | None) -> AccountSettings:
    return AccountSettings(platform="memory", api_url=url, token=TOKEN)


@asynccontextmanager
async def pinboard_world() -> AsyncIterator[PinboardWorld]:
    pinboard = Pinboard()
    async with serve(pinboard) as url:
        adapter = EXAMPLE.PinboardAdapter(
            ACCOUNT, settings_for(url), lambda _: (), first_retry_s=FIRST_RETRY_S
        )
        yield PinboardWorld(pinboard, adapter)


@pytest.fixture
async def world() -> AsyncIterator[PinboardWorld]:
    async with pinboard_world() as world:
        yield world


async def test_the_place_is_kept_over_a_restart():
    """A second run begins after the last post that the first one delivered, and hears what was written between."""
    intake = RecordingIntake()
    pinboard = Pinboard()
    async with serve(pinboard) as url:
        for said in ("before", "between"):
            adapter = EXAMPLE.PinboardAdapter(ACCOUNT, settings_for(url), lambda _: ())
            pinboard.say(said)
            async with running(PinboardWorld(pinboard, adapter), intake):
                await intake.wait_until(lambda said=said: said in intake.texts)
                await intake.wait_until(lambda: bool(intake.cursors))
    assert intake.texts == ["before", "between"]
    assert intake.duplicates == []


async def test_the_bots_own_posts_are_not_heard(world):
    """What the bot posts is skipped, and does not stop the feed."""
    async with running(world) as intake:
        await world.adapter.send(world.target, Chunk("mine"), "key-1")
        await world.say("yours")
        await intake.wait_for(1)
        await asyncio.sleep(0.1)
    assert intake.texts == ["yours"]


async def test_a_refused_token_is_said_and_tried_again(world):
    """A token that is refused shows in `health` and does not end `run`; once it is accepted, the adapter hears."""
    world.pinboard.accepts_token = False
    run = asyncio.create_task(world.adapter.run(RecordingIntake()))
    await until(lambda: world.adapter.health().state == "refused")
    world.pinboard.accepts_token = True
    await until(lambda: world.adapter.health().state == "hearing")
    run.cancel()
    await asyncio.wait({run})
    await world.adapter.close()


async def test_an_edit_of_what_is_gone(world):
    """Editing a post that does not exist is told apart from other refusals."""
    with pytest.raises(MessageGone):
        await world.adapter.edit(world.target, PlatformMessageId("p-99"), Chunk("new"))
    await world.adapter.close()


def test_missing_settings_are_told_at_once():
    """Without an address the adapter cannot be made, and the error says where to get one."""
    with pytest.raises(StartError) as caught:
        EXAMPLE.PinboardAdapter(ACCOUNT, settings_for(None), lambda _: ())
    assert caught.value.hint


async def test_a_person_on_the_pinboard_is_answered(tmp_path, monkeypatch):
    """The real daemon runs the example: a question is posted, and the answer appears once, also for a command."""
    pinboard = Pinboard()
    async with serve(pinboard) as url:
        accounts = {ACCOUNT: settings_for(url)}
        monkeypatch.setattr(registry, "load", lambda _platform: EXAMPLE.PinboardAdapter)
        settings = Settings(
            database_url=f"sqlite:{tmp_path / 'palaver.db'}",
            agent=AgentSettings(kind="offline"),
            http=HttpSettings(enabled=False),
        )
        app = App(settings, await SqliteDatabase.open(tmp_path / "palaver.db"), accounts)
        await app.start()
        try:
            pinboard.say("what is 17 + 25?")
            await until(lambda: len(pinboard.visible("ada")) == 1)
            pinboard.say("/reset")
            await until(lambda: len(pinboard.visible("ada")) == 2)
        finally:
            await app.close()
    first, second = pinboard.visible("ada")
    assert "42" in first
    assert "fresh" in second


def test_the_text_shows_the_example_as_it_is():
    """Every block of Python in the how-to stands in the example, line for line."""
    source = (HOWTO / "example_adapter.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", (HOWTO / "write-an-adapter.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        wanted = "\n".join(lines)
        assert wanted in "\n".join(line.strip() for line in source.splitlines() if line.strip()), block
