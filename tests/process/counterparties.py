"""The other side of a daemon in a process of its own: people, chats, and what they see. One shape for every platform.

Owns starting and ending the fakes of `tests/fakes/` and translating to their control APIs. Every fault of a platform is
reached through `remote`, in that fake's own words.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from tests.fakes.discord.control import RemoteDiscord, spawn_discord
from tests.fakes.telegram.control import RemoteTelegram
from tests.fakes.telegram.control import spawn as spawn_telegram
from tests.process.daemon import PROJECT

TELEGRAM_TOKEN = "987654321:AAprocess-test-secret-telegram"
DISCORD_TOKEN = "process-test-secret-discord"
MEMORY_TOKEN = "process-test-secret-memory"


@dataclass(frozen=True)
class Chat:
    """A direct channel of one person with the bot."""

    channel: str
    """As the daemon calls it."""
    person: Any


@dataclass(frozen=True)
class Platform:
    """What differs between the platforms when one looks at the outcome."""

    name: str
    shows_once: bool
    """A send repeated with the same key shows one message only."""
    repeat_mark: str = ""
    """Stands in every message that may be there already."""
    longest_text: int = 4000


class Counterparty(Protocol):
    @property
    def platform(self) -> Platform: ...
    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never stand in a log."""

    def account(self) -> Mapping[str, Any]:
        """The account's settings."""

    async def open_chat(self, number: int) -> Chat: ...
    async def say(self, chat: Chat, text: str) -> str:
        """Somebody writes. Gives the message's id as the daemon calls it."""

    async def edit(self, chat: Chat, message_id: str, text: str) -> None: ...
    async def shown(self, chat: Chat) -> list[str]:
        """What people see of the bot in a chat, in order, edits applied."""


class MemoryPeople:
    platform = Platform("memory", shows_once=True)
    secrets = (MEMORY_TOKEN,)

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    def account(self) -> Mapping[str, Any]:
        return {"platform": "memory", "api_url": self.url, "token": MEMORY_TOKEN}

    async def remote(self, route: str, **body: Any) -> Any:
        async with self._session.post(f"{self.url}/_control/{route}", json=body) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def read(self, route: str) -> Any:
        async with self._session.get(f"{self.url}/_control/{route}") as answer:
            answer.raise_for_status()
            return await answer.json()

    async def open_chat(self, number: int) -> Chat:
        return Chat(f"p{number}", f"p{number}")

    async def say(self, chat: Chat, text: str) -> str:
        said = await self.remote("say", text=text, person=chat.person)
        return str(said["message_id"])

    async def edit(self, chat: Chat, message_id: str, text: str) -> None:
        await self.remote("edit", channel=chat.channel, message_id=message_id, person=chat.person, text=text)

    async def shown(self, chat: Chat) -> list[str]:
        return [one["text"] for one in await self.read("shown") if one["channel"] == chat.channel]


class TelegramPeople:
    platform = Platform("telegram", shows_once=False, repeat_mark="↻", longest_text=4096)
    secrets = (TELEGRAM_TOKEN,)

    def __init__(self, remote: RemoteTelegram, session: aiohttp.ClientSession) -> None:
        self.remote = remote
        self._session = session

    def account(self) -> Mapping[str, Any]:
        return {"platform": "telegram", "api_url": self.remote.url, "token": TELEGRAM_TOKEN}

    async def open_chat(self, number: int) -> Chat:
        user = await self.remote.user(f"Person{number}")
        chat = await self.remote.private_chat(user.id)
        return Chat(str(chat.id), user.id)

    async def say(self, chat: Chat, text: str) -> str:
        message = await self.remote.say(chat.person, int(chat.channel), text)
        return str(message.message_id)

    async def edit(self, chat: Chat, message_id: str, text: str) -> None:
        message = await self.remote.call("message", chat=int(chat.channel), message_id=int(message_id))
        await self.remote.call("edit", message=message, text=text)

    async def shown(self, chat: Chat) -> list[str]:
        # Asked for many times a second, so without making records of the answer.
        url = f"{self.remote.control_url}/_control/replies"
        async with self._session.post(url, json={"chat": int(chat.channel)}) as answer:
            return [message["text"] for message in (await answer.json())["result"]]


class DiscordPeople:
    platform = Platform("discord", shows_once=True, longest_text=2000)
    secrets = (DISCORD_TOKEN,)

    def __init__(self, remote: RemoteDiscord, api: str) -> None:
        self.remote = remote
        self._api = api

    def account(self) -> Mapping[str, Any]:
        return {"platform": "discord", "api_url": self._api, "token": DISCORD_TOKEN}

    async def open_chat(self, number: int) -> Chat:
        user = await self.remote.call("add_user", username=f"person{number}")
        channel = await self.remote.call("dm", user=user["id"])
        return Chat(channel["id"], user["id"])

    async def say(self, chat: Chat, text: str) -> str:
        message = await self.remote.call("say", user=chat.person, channel=chat.channel, text=text)
        return str(message["id"])

    async def edit(self, chat: Chat, message_id: str, text: str) -> None:
        await self.remote.call("edit", message=message_id, text=text)

    async def shown(self, chat: Chat) -> list[str]:
        return list(await self.remote.call("bot_texts", channel=chat.channel))


@contextlib.asynccontextmanager
async def memory_people() -> AsyncIterator[MemoryPeople]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.process.memory_platform", "--token", MEMORY_TOKEN),
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        async with aiohttp.ClientSession() as session:
            yield MemoryPeople(json.loads(line)["url"], session)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def telegram_people() -> AsyncIterator[TelegramPeople]:
    async with spawn_telegram(TELEGRAM_TOKEN) as remote, aiohttp.ClientSession() as session:
        yield TelegramPeople(remote, session)


@contextlib.asynccontextmanager
async def discord_people() -> AsyncIterator[DiscordPeople]:
    async with spawn_discord(token=DISCORD_TOKEN) as remote:
        addresses = await remote.call("describe")
        # a thousand starts a day are Discord's limit, not the loop's
        await remote.call("configure", session_starts_total=1_000_000)
        yield DiscordPeople(remote, addresses["api"])


PEOPLE: Mapping[str, Callable[[], contextlib.AbstractAsyncContextManager[Counterparty]]] = {
    "memory": memory_people,
    "telegram": telegram_people,
    "discord": discord_people,
}
