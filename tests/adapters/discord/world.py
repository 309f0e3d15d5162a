"""The Discord adapter's world: a fake Discord with one person in it, and what the other tests here need to run a bot."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from adapters.discord.adapter import DiscordAdapter
from adapters.discord.waits import Waits
from adapters.messages import CommandSpec, Target
from config.names import AccountId, ChannelId, PlatformMessageId, ThreadId
from config.settings import AccountSettings
from tests.adapters.recording import RecordingIntake
from tests.fakes.discord import Channel, FakeDiscord, Interaction, Message, User

ACCOUNT = AccountId("discord.main")
WAITS = Waits(
    first_retry_s=0.05,
    longest_retry_s=0.2,
    refused_retry_s=0.3,
    before_identify_s=0.02,
    guild_stream_s=0.05,
    request_timeout_s=1.0,
    catch_up_pause_s=0.01,
    accept_notice_s=0.3,
    declined_clear_s=0.1,
    commands_retry_s=0.1,
    watermark_flush_s=0.1,
)
SUPPORTS = frozenset({"lose_answer", "rate_limit", "refuse", "outage", "edit", "group", "poison", "typing"})
SEND = "POST /channels/*/messages"


def commands(language: str) -> Sequence[CommandSpec]:
    words = {"en": ("Begin anew", "What you can do"), "de": ("Neu anfangen", "Was es hier gibt")}[language]
    return (CommandSpec("reset", words[0]), CommandSpec("help", words[1], argument="topic"))


def make_adapter(
    fake: FakeDiscord,
    account: AccountId = ACCOUNT,
    *,
    table: Callable[[str], Sequence[CommandSpec]] = commands,
    language: str = "en",
    waits: Waits = WAITS,
    **settings: Any,
) -> DiscordAdapter:
    values = {"platform": "discord", "token": fake.token, "api_url": fake.api_url} | settings
    return DiscordAdapter(account, AccountSettings(**values), table, language=language, waits=waits)


def target_of(channel: Channel, account: AccountId = ACCOUNT, **further: Any) -> Target:
    """Where a reply to a message in this place goes."""
    if channel.is_thread:
        return Target(account, ChannelId(channel.parent_id or ""), "group", ThreadId(channel.id), **further)
    return Target(account, ChannelId(channel.id), "direct" if channel.is_dm else "group", **further)


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(
    adapter: DiscordAdapter, intake: RecordingIntake | None = None, *, hearing: bool = True
) -> AsyncIterator[RecordingIntake]:
    """Run the adapter (until it hears, unless told otherwise), and take it down at the end."""
    intake = intake or RecordingIntake()
    run = asyncio.create_task(adapter.run(intake))
    try:
        if hearing:
            await until(lambda: run.done() or adapter.health().state == "hearing")
        yield intake
        assert not run.done(), "run() ended by itself"
    finally:
        run.cancel()
        await asyncio.wait({run})
        await adapter.close()
    assert run.cancelled()


@dataclass
class Community:
    """One guild with one channel, one person who is in it and also has a direct channel."""

    fake: FakeDiscord
    ada: User
    general: Channel
    direct: Channel


@asynccontextmanager
async def community() -> AsyncIterator[Community]:
    async with FakeDiscord() as fake:
        ada = fake.add_user("ada", global_name="Ada")
        guild = fake.add_guild("Support", members=[ada])
        yield Community(fake, ada, fake.add_channel(guild, "general"), fake.dm(ada))


def buttons(message: Message) -> dict[str, str]:
    """What a message offers: custom_id by label, in order."""
    return {one["label"]: one["custom_id"] for row in message.components for one in row["components"]}


def press(fake: FakeDiscord, user: User, channel: Channel, label: str) -> Interaction:
    """Press a button under the bot's last message that has any."""
    (*_, message) = [message for message in fake.bot_messages(channel) if message.components]
    return fake.press(user, message, label)


@dataclass
class DiscordWorld:
    fake: FakeDiscord
    adapter: DiscordAdapter
    ada: User
    direct: Channel
    group: Channel
    target: Target
    name: str = "discord"
    supports: frozenset[str] = field(default=SUPPORTS)

    async def say(self, text: str, *, direct: bool = True, mention: bool = False) -> PlatformMessageId:
        message = self.fake.say(self.ada, self.direct if direct else self.group, text, mention_bot=mention)
        return PlatformMessageId(message.id)

    async def visible(self, *, direct: bool = True) -> list[str]:
        return self.fake.bot_texts(self.direct if direct else self.group)

    async def lose_next_answer(self) -> None:
        self.fake.fail(SEND, "lost_answer")

    async def rate_limit_next(self, retry_after_s: float) -> None:
        self.fake.fail(SEND, "rate_limit", retry_after_s=retry_after_s)

    async def refuse_next(self) -> None:
        self.fake.fail(SEND, "status", status=403)

    async def outage(self, on: bool) -> None:
        # nobody listens on its port: only then is it certain that a message was not sent
        if on:
            await self.fake.stop()
        else:
            await self.fake.start()

    async def poison(self) -> None:
        self.fake.world.emit("MESSAGE_CREATE", {"id": "not a number", "channel_id": None, "author": 7})

    async def press(self, label: str) -> None:
        press(self.fake, self.ada, self.direct, label)


@asynccontextmanager
async def discord_world() -> AsyncIterator[DiscordWorld]:
    """One person, her direct channel and a group, and the adapter as shipped but for its waits."""
    async with community() as here:
        adapter = make_adapter(here.fake)
        yield DiscordWorld(here.fake, adapter, here.ada, here.direct, here.general, target_of(here.direct))
