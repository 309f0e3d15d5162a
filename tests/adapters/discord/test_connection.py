"""The account's life: refused tokens, missing privileges, outages, several accounts on several servers."""

import asyncio
import contextlib
import logging

import pytest
from structlog.testing import capture_logs

from config.names import AccountId
from tests.adapters.discord.world import ACCOUNT, WAITS, community, make_adapter, running, target_of, until
from tests.adapters.recording import RecordingIntake
from tests.fakes.discord import FakeDiscord


def hears(adapter):
    return lambda: adapter.health().state == "hearing"


async def test_a_refused_token_is_said_and_retried_slowly():
    """A token that Discord refuses is shown as refused, with what to do; once it works the account is back."""
    async with community() as here:
        here.fake.revoke_token()
        adapter = make_adapter(here.fake)
        async with running(adapter, hearing=False) as intake:
            await until(lambda: adapter.health().state == "refused")
            assert "Reset Token" in adapter.health().detail
            assert here.fake.token not in adapter.health().detail
            assert len(here.fake.calls("GET /users/@me")) == 1
            here.fake.restore_token()
            await until(hears(adapter))
            here.fake.say(here.ada, here.direct, "back?")
            await intake.wait_for(1)


async def test_a_token_revoked_in_use():
    """A token revoked while connected (4004) becomes refused too, and no message of the gap is lost when it returns."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            fake.say(here.ada, here.direct, "one")
            await intake.wait_for(1)
            fake.revoke_token()
            await until(lambda: adapter.health().state == "refused")
            fake.say(here.ada, here.direct, "two")
            fake.restore_token()
            await intake.wait_for(2)
    assert intake.texts == ["one", "two"]


async def test_without_a_token():
    """An account without a token says so instead of ending."""
    async with community() as here:
        adapter = make_adapter(here.fake, token=None)
        async with running(adapter, hearing=False):
            await until(lambda: adapter.health().state == "refused")


async def test_a_missing_privilege_is_done_without():
    """Without the message content intent the bot says what to switch on and still hears mentions and direct messages."""
    async with community() as here:
        fake = here.fake
        fake.configure(message_content_intent=False)
        adapter = make_adapter(fake)
        with capture_logs() as logs:
            async with running(adapter) as intake:
                fake.say(here.ada, here.general, "unread")
                fake.say(here.ada, here.general, "you there", mention_bot=True)
                fake.say(here.ada, here.direct, "and here")
                await intake.wait_for(3)
                assert "Message Content Intent" in adapter.health().detail
    assert [(m.text, m.is_addressed) for m in intake.messages] == [
        ("", False),
        ("you there", True),
        ("and here", True),
    ]
    assert [entry["event"] for entry in logs].count("adapter.intent_missing") == 1


async def test_the_intent_can_be_left_out():
    """With message_content = false it is not asked for."""
    async with community() as here:
        here.fake.configure(message_content_intent=False)
        adapter = make_adapter(here.fake, message_content=False)
        async with running(adapter):
            assert adapter.health().detail == ""


@pytest.mark.parametrize("kind", ["status", "reset"])
async def test_an_outage_from_before_the_start(kind):
    """An account whose platform is down at the start keeps trying, without a storm, and hears when it is back."""
    async with community() as here:
        fake = here.fake
        fake.begin_outage(kind=kind)
        adapter = make_adapter(fake)
        async with running(adapter, hearing=False) as intake:
            await until(lambda: adapter.health().state == "retrying")
            await asyncio.sleep(0.5)
            assert len(fake.calls()) <= 12
            fake.end_outage()
            await until(hears(adapter))
            fake.say(here.ada, here.direct, "hello")
            await intake.wait_for(1)


async def test_an_outage_in_between():
    """Everything goes down and comes back: what was said meanwhile is heard, in order."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter) as intake:
            fake.say(here.ada, here.direct, "one")
            await intake.wait_for(1)
            fake.begin_outage()
            await until(lambda: adapter.health().state == "retrying")
            fake.say(here.ada, here.direct, "two")
            await asyncio.sleep(0.5)
            fake.end_outage()
            await intake.wait_for(2)
            await until(hears(adapter))
    assert intake.texts == ["one", "two"]


async def test_a_dead_link_is_noticed():
    """A connection on which nothing comes any more is given up after the heartbeat's time and made anew."""
    async with community() as here:
        fake = here.fake
        fake.configure(heartbeat_interval_s=0.1, heartbeat_grace=100)
        waits = type(WAITS)(
            **{name: getattr(WAITS, name) for name in WAITS.__slots__} | {"heartbeat_timeout_s": 0.4}
        )
        adapter = make_adapter(fake, waits=waits)
        async with running(adapter):
            heard_at = adapter.health().last_heard_at
            await until(lambda: adapter.health().last_heard_at > heard_at)
            fake.set_acks(False)
            fake.set_deaf(True)
            await fake.wait_until(lambda: len(fake.gateway_log("connect")) >= 2)
            fake.set_acks(True)
            fake.set_deaf(False)
            await until(hears(adapter))


async def test_two_accounts_on_two_servers():
    """Two accounts with different addresses in one process hear and answer each on its own, commands included."""
    async with community() as one, FakeDiscord(token="other-token") as second:
        bo = second.add_user("bo", global_name="Bo")
        second_direct = second.dm(bo)
        other = AccountId("discord.other")
        first_adapter, second_adapter = make_adapter(one.fake), make_adapter(second, other)
        async with running(first_adapter) as first, running(second_adapter) as further:
            one.fake.say(one.ada, one.direct, "to the first")
            second.say(bo, second_direct, "to the second")
            await first.wait_for(1)
            await further.wait_for(1)
            await second.wait_until(lambda: second.command_syncs() == 1)
            await one.fake.wait_until(lambda: one.fake.command_syncs() == 1)
            used = second.slash(bo, second_direct, "reset")
            await further.wait_for(2)
            for adapter, target in (
                (first_adapter, target_of(one.direct)),
                (second_adapter, target_of(second_direct, other)),
            ):
                (chunk,) = adapter.render("hello")
                await adapter.send(target, chunk, "key-1")
            (chunk,) = second_adapter.render("done")
            handle = further.messages[1].reply_handle
            await second_adapter.send(target_of(second_direct, other, reply_handle=handle), chunk, "key-2")
    assert (first.texts, further.texts) == (["to the first"], ["to the second", "/reset"])
    assert one.fake.bot_texts() == ["hello"]
    assert second.bot_texts() == ["done", "hello"]
    assert second.interaction(used).refusals == 0


async def test_one_account_down_does_not_touch_the_other():
    """While one account's platform is down, another account hears."""
    async with community() as one, FakeDiscord(token="other-token") as second:
        second.begin_outage()
        down = make_adapter(second, AccountId("discord.other"))
        async with running(make_adapter(one.fake)) as intake, running(down, hearing=False):
            await until(lambda: down.health().state == "retrying")
            one.fake.say(one.ada, one.direct, "hello")
            await intake.wait_for(1)


async def test_the_gateway_can_be_somewhere_else():
    """`gateway_url` is used for IDENTIFY and RESUME alike, whatever the REST API names."""
    async with community() as here:
        fake = here.fake
        async with running(make_adapter(fake, gateway_url=fake.gateway_url)) as intake:
            assert fake.calls("GET /gateway/bot") == []
            fake.drop()
            fake.say(here.ada, here.direct, "hello")
            await intake.wait_for(1)


async def test_neither_token_nor_text_is_logged():
    """Nothing that the library or the adapter logs holds the bot's token, an interaction's token, or what was said."""
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    handler = Keep()
    logging.getLogger().addHandler(handler)
    try:
        async with community() as here:
            fake = here.fake
            with capture_logs() as logs:
                async with running(make_adapter(fake)) as intake:
                    await fake.wait_until(lambda: fake.command_syncs() == 1)
                    fake.fail("POST /interactions/*", "lost_answer")
                    used = fake.slash(here.ada, here.direct, "reset")
                    fake.say(here.ada, here.direct, "a secret thing")
                    fake.fail("POST /channels/*", "rate_limit", retry_after_s=0.1)
                    await intake.wait_for(2)
                    fake.begin_outage()
                    await asyncio.sleep(0.3)
                    fake.end_outage()
            written = "\n".join([*map(str, logs), *records])
            assert logs
            for secret in (fake.token, used.token, "a secret thing"):
                assert secret not in written
    finally:
        logging.getLogger().removeHandler(handler)


async def test_the_library_adds_no_log_handlers():
    """discord.py logs through the standard library and sets up nothing of its own."""
    async with community() as here:
        before = list(logging.getLogger().handlers)
        async with running(make_adapter(here.fake)):
            pass
        own = logging.getLogger("discord").handlers
        assert [handler for handler in own if not isinstance(handler, logging.NullHandler)] == []
        assert logging.getLogger().handlers == before


async def test_run_ends_only_by_cancellation():
    """Close codes that Discord calls final are shown and retried; `run` goes on."""
    async with community() as here:
        adapter = make_adapter(here.fake)
        async with running(adapter) as intake:
            here.fake.close_gateway(4013, "Invalid intent(s).")
            with contextlib.suppress(TimeoutError):
                await until(lambda: adapter.health().state == "refused", 2)
            assert "4013" in adapter.health().detail
            await until(hears(adapter))
            here.fake.say(here.ada, here.direct, "hello")
            await intake.wait_for(1)
    assert isinstance(intake, RecordingIntake)
    assert adapter.account == ACCOUNT
