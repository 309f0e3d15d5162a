"""The adapter as a whole: its start, its menu of commands, its limits, and several of it side by side."""

import asyncio
import logging
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from adapters.base import Pace
from adapters.errors import StartError
from adapters.messages import Chunk, CommandSpec
from adapters.telegram.adapter import TelegramAdapter
from adapters.telegram.pauses import Backoff
from config.names import AccountId
from config.settings import AccountSettings
from tests.adapters.recording import RecordingIntake
from tests.adapters.telegram.world import ACCOUNT, PAUSES, commands, make_adapter, running, target_of, until
from tests.fakes.telegram import FakeTelegram

SCOPES = ("all_private_chats", "all_group_chats")


@pytest.fixture
async def telegram():
    async with FakeTelegram() as telegram:
        yield telegram


def menu(telegram, scope, language=""):
    sets = telegram.world.command_sets
    return [
        [(command["command"], command["description"]) for command in each.commands]
        for each in sets
        if each.scope == {"type": scope} and each.language_code == language
    ]


async def published(intake):
    await intake.wait_until(lambda: (ACCOUNT, "commands_hash") in intake.cursors)


@pytest.mark.parametrize(("language", "other"), [("en", "de"), ("de", "en")])
async def test_the_menu_is_published_in_both_languages(telegram, language, other):
    """Private and group chats get the table, in the account's language for everybody and in the other for its speakers."""
    with capture_logs() as logs:
        async with running(make_adapter(telegram, language=language)) as intake:
            await published(intake)
    for scope in SCOPES:
        assert menu(telegram, scope) == [[(spec.name, spec.description) for spec in commands(language)]]
        assert menu(telegram, scope, other) == [[(spec.name, spec.description) for spec in commands(other)]]
    assert [entry["commands"] for entry in logs if entry["event"] == "adapter.commands_published"] == [2]


async def test_the_menu_is_published_only_when_it_changed(telegram):
    """A second start with the same table asks Telegram for nothing; one with another table publishes it."""
    intake = RecordingIntake()
    async with running(make_adapter(telegram), intake):
        await published(intake)
    before = len(telegram.calls("setMyCommands"))
    assert before == 4
    async with running(make_adapter(telegram), intake):
        await asyncio.sleep(0.2)
    assert len(telegram.calls("setMyCommands")) == before
    kept = intake.cursors[ACCOUNT, "commands_hash"]
    async with running(make_adapter(telegram, table=lambda _: (CommandSpec("stop", "Stop"),)), intake):
        await intake.wait_until(lambda: intake.cursors[ACCOUNT, "commands_hash"] != kept)
    assert menu(telegram, "all_private_chats") == [[("stop", "Stop")]]


@pytest.mark.parametrize("fault", ["429", "400", "500", "reset", "garbage"])
async def test_a_menu_that_fails_is_tried_later(telegram, fault):
    """The menu is worth no failed start: hearing goes on, and the menu follows."""
    telegram.fault(fault, "setMyCommands", count=2)
    adapter = make_adapter(telegram)
    async with running(adapter) as intake:
        assert adapter.health().state == "hearing"
        await published(intake)
    assert len(menu(telegram, "all_group_chats")[0]) == 2


async def test_a_menu_that_cannot_be_kept_is_not_published_again_and_again(telegram):
    """While the intake is closed only the note of having published waits."""
    intake = RecordingIntake()
    intake.close()
    async with running(make_adapter(telegram), intake):
        await until(lambda: len(telegram.calls("setMyCommands")) == 4)
        await asyncio.sleep(0.2)
        assert len(telegram.calls("setMyCommands")) == 4
        intake.open()
        await published(intake)


async def test_the_menu_can_be_left_alone(telegram):
    """sync_commands = false publishes nothing."""
    async with running(make_adapter(telegram, sync_commands=False)):
        await asyncio.sleep(0.2)
    assert telegram.calls("setMyCommands") == []


async def test_a_table_that_fails_costs_no_hearing(telegram):
    """A mistake in the command table is logged, and the account hears."""

    def broken(_language):
        raise KeyError("no such text")

    ada = telegram.user("Ada")
    with capture_logs() as logs:
        async with running(make_adapter(telegram, table=broken)) as intake:
            telegram.say(ada, telegram.private_chat(ada), "hi")
            await intake.wait_for(1)
    assert any(entry["event"] == "adapter.commands_failed" for entry in logs)


async def test_a_renamed_bot_is_known_by_its_new_name(telegram):
    """The name remembered from the last start is corrected by what Telegram says now."""
    ada = telegram.user("Ada")
    group = telegram.supergroup("Friends", [ada])
    intake = RecordingIntake()
    intake.cursors[ACCOUNT, "identity"] = f"{telegram.world.bot.id}:old_name"
    async with running(make_adapter(telegram), intake):
        await intake.wait_until(lambda: intake.cursors[ACCOUNT, "identity"].endswith(":palaver_test_bot"))
        telegram.say(ada, group, "@palaver_test_bot hi")
        (message,) = await intake.wait_for(1)
    assert (message.text, message.is_addressed) == ("hi", True)


@pytest.mark.parametrize("kept", ["", "nonsense", ":name", "12:", "x:y", "999:another_bot"])
async def test_a_name_that_cannot_be_read_is_asked_for(telegram, kept):
    """A damaged note of the name, or that of another bot whose token stood here before, is as good as none."""
    intake = RecordingIntake()
    intake.cursors[ACCOUNT, "identity"] = kept
    async with running(make_adapter(telegram), intake):
        await intake.wait_until(lambda: intake.cursors[ACCOUNT, "identity"].endswith(":palaver_test_bot"))


async def test_two_accounts_side_by_side():
    """Two bots in one process hear and answer each on its own; one's outage is not the other's."""
    async with (
        FakeTelegram("111:AAA", username="one_bot") as first,
        FakeTelegram("222:BBB", username="two_bot") as second,
    ):
        servers = {AccountId("telegram.one"): first, AccountId("telegram.two"): second}
        intake = RecordingIntake()
        one, two = (make_adapter(server, account) for account, server in servers.items())
        chats = [server.private_chat(server.user("Ada")) for server in servers.values()]
        async with running(one, intake), running(two, intake):
            first.say(chats[0].id, chats[0], "to one")
            second.say(chats[1].id, chats[1], "to two")
            await intake.wait_for(2)
            await first.outage("refuse")
            await until(lambda: one.health().state == "retrying")
            assert two.health().state == "hearing"
            await two.send(target_of(chats[1]), Chunk("still here"), "k")
    assert {(message.account, message.text) for message in intake.messages} == {
        ("telegram.one", "to one"),
        ("telegram.two", "to two"),
    }
    assert [message.text for message in second.replies(chats[1])] == ["still here"]
    assert first.replies(chats[0]) == []


async def test_a_held_poll_keeps_no_reply_waiting(telegram):
    """While a poll hangs, many replies go out side by side."""
    ada = telegram.user("Ada")
    chat = telegram.private_chat(ada)
    adapter = make_adapter(telegram)
    async with running(adapter):
        telegram.fault("slow", "sendMessage", count=None, delay_s=0.2)
        async with asyncio.timeout(5):
            await asyncio.gather(*(adapter.send(target_of(chat), Chunk(f"{n}"), f"k{n}") for n in range(40)))
    assert len(telegram.replies(chat)) == 40


def test_capabilities_follow_the_settings():
    """Telegram's own limits, unless the operator sets others; never more than the Bot API hands out."""
    shipped = make_adapter(FakeTelegram()).capabilities
    assert (shipped.max_text, shipped.text_unit, shipped.is_idempotent) == (4096, "utf16", False)
    assert (shipped.can_edit, shipped.can_type, shipped.has_threads) == (True, True, True)
    assert shipped.pace == Pace(30, 1, 20)
    assert shipped.max_attachment_bytes == 20 * 1024 * 1024
    own = make_adapter(
        FakeTelegram(), pace={"per_account_per_s": 1000}, max_attachment_bytes=30 * 1024 * 1024
    ).capabilities
    assert own.pace == Pace(1000, 1, 20)
    assert own.max_attachment_bytes == 20 * 1024 * 1024


@pytest.mark.parametrize("token", [None, "", "  ", "two words"])
def test_an_account_without_a_token_cannot_start(token):
    """A missing or impossible token is an error before anything is tried, with what to do."""
    with pytest.raises(StartError) as caught:
        TelegramAdapter(ACCOUNT, AccountSettings(platform="telegram", token=token), commands)
    assert "BotFather" in caught.value.hint


async def test_no_token_reaches_a_log(telegram, caplog):
    """Whatever level the root logger has, neither the SDK nor its HTTP client writes the token or a text."""
    ada = telegram.user("Ada")
    chat = telegram.private_chat(ada)
    adapter = make_adapter(telegram)
    with caplog.at_level(logging.DEBUG):
        async with running(adapter) as intake:
            telegram.say(ada, chat, "a secret text")
            await intake.wait_for(1)
            await adapter.send(target_of(chat), Chunk("another secret"), "k")
            telegram.fault("garbage", "getUpdates")
            telegram.say(ada, chat, "a secret again")
            await intake.wait_for(2)
    assert caplog.records
    for unwanted in (telegram.token, "secret"):
        assert unwanted not in caplog.text


async def test_asking_for_the_name_again_does_not_hammer_a_refused_token(telegram):
    """With the name known, a refused token is asked as slowly beside the feed as in it."""
    intake = RecordingIntake()
    intake.cursors[ACCOUNT, "identity"] = f"{telegram.world.bot.id}:palaver_test_bot"
    telegram.revoke_token()
    adapter = make_adapter(telegram, pauses=replace(PAUSES, refused=Backoff(5, 5)))
    async with running(adapter, intake, hearing=False):
        await until(lambda: adapter.health().state == "refused")
        await asyncio.sleep(0.5)
    assert len(telegram.calls()) == 2
