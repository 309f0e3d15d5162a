"""The Telegram adapter's world: a fake Bot API with one person in it, and what the other tests here need to run a bot."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from adapters.messages import CommandSpec, Target
from adapters.telegram.adapter import TelegramAdapter
from adapters.telegram.pauses import Backoff, Pauses
from config.names import AccountId, ChannelId, PlatformMessageId
from config.settings import AccountSettings
from tests.adapters.recording import RecordingIntake
from tests.fakes.telegram import Chat, FakeTelegram, User

ACCOUNT = AccountId("telegram.main")
SHORT = Backoff(0.05, 0.2)
PAUSES = Pauses(
    poll_timeout_s=5,
    least_poll_s=0.05,
    network=SHORT,
    refused=SHORT,
    conflict=SHORT,
    intake=Backoff(0.02, 0.1),
    commands=SHORT,
    webhook_check_s=0.3,
)
SUPPORTS = frozenset({"lose_answer", "rate_limit", "refuse", "outage", "edit", "group", "poison", "typing"})


def commands(language: str) -> Sequence[CommandSpec]:
    words = {"en": ("Say hello", "List the commands"), "de": ("Hallo sagen", "Die Befehle zeigen")}[language]
    return (CommandSpec("start", words[0]), CommandSpec("help", words[1]))


def make_adapter(
    telegram: FakeTelegram,
    account: AccountId = ACCOUNT,
    *,
    table: Callable[[str], Sequence[CommandSpec]] = commands,
    language: str = "en",
    pauses: Pauses = PAUSES,
    **settings: Any,
) -> TelegramAdapter:
    values = {"platform": "telegram", "token": telegram.token, "api_url": telegram.url} | settings
    return TelegramAdapter(account, AccountSettings(**values), table, language=language, pauses=pauses)


def target_of(chat: Chat, **further: Any) -> Target:
    return Target(
        ACCOUNT, ChannelId(str(chat.id)), "direct" if chat.type == "private" else "group", **further
    )


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(
    adapter: TelegramAdapter, intake: RecordingIntake | None = None, *, hearing: bool = True
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


def buttons(telegram: FakeTelegram, chat: Chat) -> dict[str, str]:
    """What the bot's last message offers: callback data by label, in order."""
    markup = telegram.replies(chat)[-1].reply_markup or {}
    return {
        button["text"]: button["callback_data"] for row in markup.get("inline_keyboard", []) for button in row
    }


def press(telegram: FakeTelegram, user: User, chat: Chat, label: str) -> str:
    """Press a button under the bot's last message; gives the query's id."""
    return telegram.press(user, telegram.replies(chat)[-1], buttons(telegram, chat)[label])


@dataclass
class TelegramWorld:
    telegram: FakeTelegram
    adapter: TelegramAdapter
    ada: User
    direct: Chat
    group: Chat
    target: Target
    name: str = "telegram"
    supports: frozenset[str] = field(default=SUPPORTS)

    async def say(self, text: str, *, direct: bool = True, mention: bool = False) -> PlatformMessageId:
        spoken = f"@{self.telegram.world.bot.username} {text}" if mention else text
        message = self.telegram.say(self.ada, self.direct if direct else self.group, spoken)
        return PlatformMessageId(str(message.message_id))

    async def visible(self, *, direct: bool = True) -> list[str]:
        return [message.text for message in self.telegram.replies(self.direct if direct else self.group)]

    async def lose_next_answer(self) -> None:
        self.telegram.fault("answer_lost", "sendMessage")

    async def rate_limit_next(self, retry_after_s: float) -> None:
        self.telegram.fault("429", "sendMessage", retry_after=int(retry_after_s))

    async def refuse_next(self) -> None:
        self.telegram.fault("403", "sendMessage")

    async def outage(self, on: bool) -> None:
        await self.telegram.outage("refuse" if on else None)

    async def poison(self) -> None:
        self.telegram.inject({"message": {"message_id": "not a number", "chat": None}})

    async def press(self, label: str) -> None:
        press(self.telegram, self.ada, self.direct, label)


@asynccontextmanager
async def telegram_world() -> AsyncIterator[TelegramWorld]:
    """One person, her direct chat and a group, and the adapter as shipped but for its pauses."""
    async with FakeTelegram() as telegram:
        ada = telegram.user("Ada", username="ada")
        direct, group = telegram.private_chat(ada), telegram.supergroup("Friends", [ada])
        adapter = make_adapter(telegram)
        yield TelegramWorld(telegram, adapter, ada, direct, group, target_of(direct))
