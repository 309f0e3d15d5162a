"""The comforts of the chat as people use them: a whole daemon, the real adapters, and the platforms' fakes on the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.app import App
from config.names import AccountId
from config.settings import AccountSettings, Settings
from sessions.database.sqlite import SqliteDatabase
from tests.adapters.discord import world as discord_world
from tests.adapters.telegram import world as telegram_world
from tests.fakes.discord import FakeDiscord
from tests.fakes.telegram import FakeTelegram
from tests.sessions.stores import lay_sqlite


@asynccontextmanager
async def daemon(path, platform: str, **account) -> AsyncIterator[App]:
    """A daemon with one account, wired as `palaver run` wires it, but at a pace that does not hold a test up."""
    account["pace"] = {"per_direct_channel_per_s": 100.0, "per_group_channel_per_min": 6000.0}
    settings = Settings.model_validate(
        {
            "agent": {"kind": "scripted"},
            "accounts": {"main": {"platform": platform, **account}},
            "http": {"enabled": False},
            "delivery": {"preview": False},
        }
    )
    database = await SqliteDatabase.open(lay_sqlite(path / "palaver.db"))
    accounts = {
        AccountId(f"{platform}.main"): AccountSettings.model_validate({"platform": platform, **account})
    }
    app = App(settings, database, accounts)
    await app.start()
    try:
        await until(lambda: all(adapter.health().state == "hearing" for adapter in app.adapters.values()))
        yield app
    finally:
        await app.close()


async def rows(app: App, sql: str) -> list[dict]:
    return [dict(row) for row in await app.database.read(lambda tx: tx.rows(sql))]


async def until(condition, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


class TelegramPerson:
    """Ada in her chat with the bot: writes, reads the answer, presses."""

    def __init__(self, telegram: FakeTelegram, chat=None, user=None) -> None:
        self.telegram = telegram
        self.user = user or telegram.user("Ada", username="ada")
        self.chat = chat or telegram.private_chat(self.user)

    async def _answer(self, before: int) -> str:
        await until(lambda: len(self.telegram.replies(self.chat)) > before)
        return self.telegram.replies(self.chat)[before].text

    async def say(self, text: str) -> str:
        before = len(self.telegram.replies(self.chat))
        self.telegram.say(self.user, self.chat, text)
        return await self._answer(before)

    async def press(self, label: str) -> str:
        before = len(self.telegram.replies(self.chat))
        telegram_world.press(self.telegram, self.user, self.chat, self.label(label))
        return await self._answer(before)

    def offered(self) -> list[str]:
        return list(telegram_world.buttons(self.telegram, self.chat))

    def label(self, beginning: str) -> str:
        return next(label for label in self.offered() if label.removeprefix("● ").startswith(beginning))


class DiscordPerson:
    """Ada on Discord: slash commands and buttons in a direct channel."""

    def __init__(self, fake: FakeDiscord) -> None:
        self.fake = fake
        self.user = fake.add_user("ada", global_name="Ada")
        fake.add_guild("Support", members=[self.user])
        self.channel = fake.dm(self.user)

    def _shown(self) -> list:
        return [message for message in self.fake.bot_messages(self.channel) if message.text]

    async def _answer(self, before: int) -> str:
        await until(lambda: len(self._shown()) > before)
        return self._shown()[before].text

    async def say(self, text: str) -> str:
        before = len(self._shown())
        if text.startswith("/"):
            name, _, argument = text[1:].partition(" ")
            option = next(
                (
                    one["options"][0]["name"]
                    for one in self.fake.commands()
                    if one["name"] == name and argument
                ),
                "",
            )
            self.fake.slash(self.user, self.channel, name, {option: argument} if argument else None)
        else:
            self.fake.say(self.user, self.channel, text)
        return await self._answer(before)

    async def press(self, label: str) -> str:
        before = len(self._shown())
        discord_world.press(self.fake, self.user, self.channel, self.label(label))
        return await self._answer(before)

    def offered(self) -> list[str]:
        return list(discord_world.buttons(self._shown()[-1]))

    def label(self, beginning: str) -> str:
        return next(label for label in self.offered() if label.removeprefix("● ").startswith(beginning))


@asynccontextmanager
async def on_telegram(path):
    async with FakeTelegram() as telegram:
        person = TelegramPerson(telegram)
        async with daemon(path, "telegram", token=telegram.token, api_url=telegram.url) as app:
            yield app, person


@asynccontextmanager
async def on_discord(path):
    async with FakeDiscord() as fake:
        person = DiscordPerson(fake)
        account = {"token": fake.token, "api_url": fake.api_url}
        async with daemon(path, "discord", **account) as app:
            await fake.wait_until(lambda: bool(fake.commands()), what="commands")
            yield app, person


async def go_through_it_all(app, person):
    """One person's tour: two conversations, back to the first by a button, a copy, pages, and forgetting one."""
    assert "Hello Ada." in await person.say("/start")
    assert await person.say("a trip to Rome") == "echo: a trip to Rome"
    assert "kept under /sessions" in await person.say("/reset")
    assert await person.say("bread recipes") == "echo: bread recipes"

    assert "Pick one to go on there" in await person.say("/sessions")
    assert [label.split(" · ")[0] for label in person.offered()] == ["● bread recipes", "a trip to Rome"]
    assert "We go on with “a trip to Rome”" in await person.press("a trip to Rome")

    assert "called “Holidays”" in await person.say("/rename Holidays")
    assert "begins with 1 message" in (await person.say("/fork 1")).replace("one message", "1 message")
    assert person.offered() == ["Back to the original"]
    assert "“Holidays”: 2 messages" in await person.press("Back to the original")

    for number in range(5):
        assert await person.say(f"question {number}") == f"echo: question {number}"
    assert "Page 1 of 2" in await person.say("/history")
    assert person.offered() == ["Older"]
    assert "Page 2 of 2" in await person.press("Older")
    assert person.offered() == ["Newer"]
    assert "Page 1 of 2" in await person.press("Newer")

    assert "Found" in await person.say("/search recipes")

    assert "What shall I forget?" in await person.say("/forget")
    assert person.offered() == ["This conversation", "Everything of mine"]
    assert "“Holidays”, 12 messages, will be gone" in await person.press("This conversation")
    assert "Nothing is forgotten" in await person.press("No, keep it")
    await person.say("/forget")
    await person.press("This conversation")
    assert "Done. Nobody can see" in await person.press("Yes, forget it")
    (gone,) = await rows(app, "SELECT title, message_count FROM sessions WHERE end_reason = 'deleted'")
    assert gone == {"title": "Holidays", "message_count": 12}
    (kept,) = await rows(
        app, "SELECT COUNT(*) AS n FROM sessions WHERE end_reason = 'deleted' OR status = 'active'"
    )
    assert kept["n"] == 1, "nothing else was touched, and nothing is live"

    assert "have started fresh" in await person.say("/archive")
    await person.say("one more")
    assert "“one more” is put away" in await person.say("/archive")
    assert "100 % of the questions were answered" in await person.say("/stats")


async def test_the_comforts_on_telegram(tmp_path):
    """Lists, buttons, copies, pages and forgetting, over the Bot API: every press is answered and none stays spinning."""
    async with on_telegram(tmp_path) as (app, person):
        await go_through_it_all(app, person)
        queries = person.telegram.world.callback_queries.values()
        await until(lambda: all(query.answer is not None for query in queries))
        assert len(queries) == 8


async def test_the_comforts_on_discord(tmp_path):
    """The same with slash commands and components: every interaction is deferred in time, filled once, refused never."""
    async with on_discord(tmp_path) as (app, person):
        await go_through_it_all(app, person)
        interactions = person.fake.interactions()
        assert {one.state for one in interactions} == {"answered"}
        assert {one.callback_type for one in interactions} == {5}
        assert sum(one.refusals for one in interactions) == 0
        assert sum(one.type == 3 for one in interactions) == 8


async def test_a_button_in_a_group_speaks_for_who_pressed_it(tmp_path):
    """Bob presses what Ada was offered: he is asked for himself, and his yes does not confirm hers."""
    async with FakeTelegram() as telegram:
        ada = TelegramPerson(telegram)
        bob = telegram.user("Bob", username="bob")
        group = telegram.supergroup("Friends", [ada.user, bob])
        async with daemon(tmp_path, "telegram", token=telegram.token, api_url=telegram.url) as app:
            here = TelegramPerson(telegram, group, ada.user)
            there = TelegramPerson(telegram, group, bob)
            await here.say(f"@{telegram.world.bot.username} hello")
            await here.say("/forget")
            assert "Shall I forget it?" in await here.press("Everything of mine")
            assert "nothing for you to confirm" in await there.press("Yes, forget it")
            assert await rows(app, "SELECT * FROM erasures") == []
