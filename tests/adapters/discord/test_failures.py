"""What operators read when Discord refuses or cannot be reached: what happened, and what to do about it."""

import aiohttp
import discord
import pytest
from structlog.testing import capture_logs

from adapters.discord.failures import HINTS, in_words
from adapters.errors import Rejected
from adapters.messages import Chunk
from tests.adapters.discord.world import community, make_adapter, running, target_of, until


async def test_a_refusal_says_what_to_do():
    """A missing permission and closed direct messages name the remedy beside Discord's own code."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        async with running(adapter):
            fake.set_permissions(here.general, can_send=False)
            with pytest.raises(Rejected) as forbidden:
                await adapter.send(target_of(here.general), Chunk("hello"), "key-1")
            fake.refuse_dms(here.ada)
            with pytest.raises(Rejected) as closed:
                await adapter.send(target_of(here.direct), Chunk("hello"), "key-2")
    assert str(forbidden.value).endswith(f"403 50013 Missing Permissions: {HINTS[50013]}")
    assert "Send Messages" in str(forbidden.value)
    assert str(closed.value).endswith(HINTS[50007])


async def test_an_outage_is_told_in_words():
    """Neither the log nor health shows the page of a proxy or the representation of a request."""
    async with community() as here:
        fake = here.fake
        adapter = make_adapter(fake)
        with capture_logs() as logs:
            async with running(adapter):
                fake.begin_outage()
                await until(
                    lambda: adapter.health().detail.startswith(
                        ("Discord answered 503", "the gateway answered 503")
                    )
                )
                fake.end_outage()
                await until(lambda: adapter.health().state == "hearing")
    reasons = [str(entry.get("reason", "")) for entry in logs]
    assert any(reason == "the gateway answered 503" for reason in reasons)
    assert not [reason for reason in reasons if "<" in reason or len(reason) > 200]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer in time"),
        (discord.RateLimited(12.4), "rate limited for 12 s"),
        (
            aiohttp.ClientConnectorError(
                aiohttp.client_reqrep.ConnectionKey("discord.test", 443, True, True, None, None, None),
                ConnectionRefusedError(111, "Connection refused"),
            ),
            "no connection to discord.test:443 (Connection refused)",
        ),
        (ValueError("x" * 500), "ValueError('" + "x" * 188),
    ],
)
def test_errors_in_words(error, words):
    """Each kind of failure has a short sentence; what nobody foresaw is cut."""
    assert in_words(error) == words


async def test_a_first_connection_that_fails_is_told():
    """An account that logs in but gets no session, at the first start already, says why: silence would look like health."""
    async with community() as here:
        fake = here.fake
        fake.configure(session_starts_total=0)
        adapter = make_adapter(fake)
        with capture_logs() as logs:
            async with running(adapter, hearing=False):
                await until(lambda: "session starts" in adapter.health().detail)
    (told,) = [entry for entry in logs if entry["event"] == "adapter.not_connected"]
    assert told["reason"] == "few session starts are left at Discord for today; the next begins in 24 h"
