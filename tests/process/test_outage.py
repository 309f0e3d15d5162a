"""A platform that is down, slow, angry or gone: it is left alone, the other account goes on, and all is answered afterwards."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.process.counterparties import (
    DiscordPeople,
    TelegramPeople,
    discord_people,
    memory_people,
    telegram_people,
)
from tests.process.daemon import Daemon, eventually, quick_settings
from tests.process.invariants import check, is_idle
from tests.process.talk import Talk

pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]

SETTLE_S = 75
"""Longest time after the end of a trouble until all is answered: our longest pause between two tries is a minute."""


@dataclass
class World:
    """One daemon with two accounts: the one in trouble, and one on the memory platform that must not notice."""

    daemon: Daemon
    troubled: Talk
    calm: Talk

    async def calm_goes_on(self) -> None:
        """The other account answers, at once."""
        for chat in self.calm.chats:
            await self.calm.say(chat)

        async def answered() -> bool:
            return not await self.calm.missing()

        await eventually(answered, timeout_s=5, what="answers on the account that has no trouble")

    async def settle(self) -> None:
        """The trouble is over: everybody is answered, and everything holds."""

        async def all_answered() -> bool:
            return not await self.troubled.missing() and is_idle(self.daemon.database)

        try:
            await eventually(all_answered, timeout_s=SETTLE_S, what="answers after the trouble", every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.daemon.tail(30)}") from None
        await self.calm_goes_on()
        assert await self.daemon.stop() == 0
        for talk in (self.troubled, self.calm):
            people = talk.people
            findings = check(
                self.daemon.database,
                f"{people.platform.name}.{people.platform.name}",
                people.platform,
                talk.said,
                await talk.shown(),
                logs=[self.daemon.log],
                secrets=people.secrets,
            )
            assert findings.violations == []

    async def account(self, name: str) -> dict[str, Any]:
        return dict((await self.daemon.readiness())["accounts"][name])


@contextlib.asynccontextmanager
async def world(folder: Path, troubled: Any, server: str | None = None) -> AsyncIterator[World]:
    async with troubled() as people, memory_people() as calm_people:
        settings = quick_settings(
            folder / "palaver.db",
            {people.platform.name: people.account(), calm_people.platform.name: calm_people.account()},
            server=server,
        )
        async with Daemon(folder, settings) as daemon:
            place = World(daemon, await Talk.begin(people, 3), await Talk.begin(calm_people, 2))
            await daemon.start()
            await eventually(daemon.hears, timeout_s=20, what="both accounts hearing")
            for chat in place.troubled.chats:
                await place.troubled.say(chat)
            await place.troubled.wait_answered(daemon, timeout_s=20)
            yield place


async def requests(people: TelegramPeople, since: float) -> int:
    return sum(call.at >= since for call in await people.remote.call("calls"))


@pytest.mark.parametrize("kind", ["refuse", "502"])
async def test_telegram_down(kind: str, tmp_path: Path) -> None:
    """Telegram down for eight seconds, in the middle of turns: fewer than a request a second, then all is answered."""
    async with world(tmp_path, telegram_people) as place:
        people = place.troubled.people
        assert isinstance(people, TelegramPeople)
        for chat in place.troubled.chats:
            await place.troubled.say(chat, "delay=0.5")
        await asyncio.sleep(0.3)
        await people.remote.call("outage", kind=kind)
        began = time.time()
        await place.calm_goes_on()
        await asyncio.sleep(5)
        for chat in place.troubled.chats:
            await place.troubled.say(chat, "tool=clock")
        await place.calm_goes_on()
        await asyncio.sleep(3)
        lasted = time.time() - began
        assert (await place.account("telegram.telegram"))["state"] == "retrying"
        assert (await place.account("memory.memory"))["state"] == "hearing"
        if kind == "502":
            # Hearing and sending are probed apart from each other, each with growing pauses; the first few come quickly.
            assert await requests(people, began) < lasted + 5
        await people.remote.call("outage", kind=None)
        await place.settle()


async def test_telegram_429_storm(tmp_path: Path) -> None:
    """429 again and again: every retry_after is kept to the end, and nothing is lost."""
    async with world(tmp_path, telegram_people) as place:
        people = place.troubled.people
        assert isinstance(people, TelegramPeople)
        await people.remote.call(
            "fault", kind="429", method="sendMessage", count=8, probability=0.7, retry_after=2
        )
        await people.remote.call("fault", kind="429", method="editMessageText", count=3, retry_after=1)
        for round_ in range(3):
            for chat in place.troubled.chats:
                await place.troubled.say(chat, "pace=0.03" if round_ else "", words="quokka " * 20)
        await place.calm_goes_on()
        await place.settle()
        assert (await people.remote.call("flood_report")).calls_inside_penalty == 0


async def test_retry_after_is_kept_across_kill(server: str | None, tmp_path: Path) -> None:
    """kill -9 inside a penalty: the next process keeps quiet until its end too."""
    async with world(tmp_path, telegram_people, server) as place:
        people = place.troubled.people
        assert isinstance(people, TelegramPeople)
        await people.remote.call("fault", kind="429", method="sendMessage", count=1, retry_after=6)
        chat = place.troubled.chats[0]
        await place.troubled.say(chat)

        async def refused() -> bool:
            return any(call.status == 429 and call.ended_at for call in await people.remote.call("calls"))

        await eventually(refused, timeout_s=10, what="a 429")
        await asyncio.sleep(0.5)  # the hold is committed now
        place.daemon.kill()
        await place.daemon.start()
        # On a server the accounts are the next process's only after the dead one's leases.
        await eventually(place.daemon.hears, timeout_s=20, what="both accounts hearing")
        await place.troubled.say(chat)
        await place.settle()
        refusals = [
            call for call in await people.remote.call("calls", method="sendMessage") if call.status == 429
        ]
        sends = [
            call
            for call in await people.remote.call("calls", method="sendMessage")
            if call.at > refusals[0].at
        ]
        assert len(refusals) == 1
        assert sends[0].at >= refusals[0].ended_at + 6
        assert (await people.remote.call("flood_report")).calls_inside_penalty == 0


async def test_telegram_token_revoked_and_restored(tmp_path: Path) -> None:
    """A revoked token takes down that account alone, which says so; restored, it comes back and answers what waits."""
    async with world(tmp_path, telegram_people) as place:
        people = place.troubled.people
        assert isinstance(people, TelegramPeople)
        await place.troubled.say(script="delay=1")
        await asyncio.sleep(0.3)
        await people.remote.call("revoke_token", revoked=True)

        async def is_refused() -> bool:
            return bool((await place.account("telegram.telegram"))["state"] == "refused")

        await place.troubled.say()
        await eventually(is_refused, timeout_s=30, what="health says refused")
        await place.calm_goes_on()
        assert await place.daemon.status("/readyz") == 200
        await people.remote.call("revoke_token", revoked=False)
        await place.settle()


async def test_telegram_polled_by_somebody_else(tmp_path: Path) -> None:
    """A 409 conflict: the other poller is named in health and log, nothing is lost, and afterwards the account hears again."""
    async with world(tmp_path, telegram_people) as place:
        people = place.troubled.people
        assert isinstance(people, TelegramPeople)
        await people.remote.call("fault", kind="502", method="getUpdates", count=1)
        import aiohttp

        url = f"{people.remote.base_url}{people.secrets[0]}/getUpdates"
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.post(url, json={"timeout": 0, "offset": 0}) as answer:
                    assert answer.status in (200, 409, 502)
                await asyncio.sleep(0.3)
        for chat in place.troubled.chats:
            await place.troubled.say(chat)
        await place.calm_goes_on()
        await place.settle()


async def test_telegram_answers_lost(tmp_path: Path) -> None:
    """Answers to sends that get lost: sent again, marked as a possible repeat and counted; never silently twice."""
    async with world(tmp_path, telegram_people) as place:
        people = place.troubled.people
        assert isinstance(people, TelegramPeople)
        await people.remote.call("fault", kind="answer_lost", method="sendMessage", count=2)
        for chat in place.troubled.chats:
            await place.troubled.say(chat)
        await place.settle()
        shown = await place.troubled.shown()
        assert sum("↻" in text for texts in shown.values() for text in texts) == 2


async def test_preview_does_not_overtake(tmp_path: Path) -> None:
    """A slow platform: the next answer does not begin to grow on the screen before the last one is there."""
    async with world(tmp_path, telegram_people) as place:
        people = place.troubled.people
        assert isinstance(people, TelegramPeople)
        await people.remote.call("fault", kind="slow", method="sendMessage", count=6, delay_s=0.6)
        chat = place.troubled.chats[0]
        await place.troubled.say(chat, is_long=True)
        await place.troubled.say(chat, "pace=0.05", words="quokka " * 40)
        await place.troubled.say(chat, "pace=0.05", words="quokka " * 40)
        await place.settle()


async def test_discord_gateway_drops(tmp_path: Path) -> None:
    """Dropped, invalidated and closed gateway sessions while people write: nothing missed, nothing twice."""
    async with world(tmp_path, discord_people) as place:
        people = place.troubled.people
        assert isinstance(people, DiscordPeople)
        for verb, arguments in (
            ("drop", {}),
            ("drop", {"reset": True, "forget": True}),
            ("invalidate_sessions", {"resumable": False}),
            ("close_gateway", {"code": 4000}),
            ("request_reconnect", {}),
        ):
            for chat in place.troubled.chats:
                await place.troubled.say(chat, "delay=0.1")
            await people.remote.call(verb, **arguments)
            for chat in place.troubled.chats:
                await place.troubled.say(chat)
            await place.calm_goes_on()
            await asyncio.sleep(0.5)
        await place.settle()


async def test_discord_down(tmp_path: Path) -> None:
    """Discord's REST and gateway down for six seconds: all is answered afterwards, once."""
    async with world(tmp_path, discord_people) as place:
        people = place.troubled.people
        assert isinstance(people, DiscordPeople)
        for chat in place.troubled.chats:
            await place.troubled.say(chat, "delay=0.5")
        await asyncio.sleep(0.2)
        await people.remote.call("begin_outage")
        began, before = time.monotonic(), len(await people.remote.call("calls"))
        for chat in place.troubled.chats:
            await place.troubled.say(chat)
        await place.calm_goes_on()
        await asyncio.sleep(6)
        await place.calm_goes_on()
        lasted = time.monotonic() - began
        made = len(await people.remote.call("calls")) - before
        await people.remote.call("end_outage")
        await place.settle()
        # discord.py itself tries a refused request up to five times; beyond that it is our pauses that count.
        assert made < 2 * lasted + 10, f"{made} requests in {lasted:.1f} s"


async def test_discord_429(tmp_path: Path) -> None:
    """Rate limits of a bucket and of everything: obeyed, nothing lost."""
    async with world(tmp_path, discord_people) as place:
        people = place.troubled.people
        assert isinstance(people, DiscordPeople)
        await people.remote.call(
            "fail", route="POST */messages", kind="rate_limit", count=3, retry_after_s=1.0
        )
        for _ in range(2):
            for chat in place.troubled.chats:
                await place.troubled.say(chat)
        await place.calm_goes_on()
        await place.troubled.wait_answered(place.daemon, timeout_s=SETTLE_S)
        # By one chat alone: what was on its way in another when the 429 came would count as disobedience.
        await people.remote.call(
            "fail", route="POST */messages", kind="global_rate_limit", count=1, retry_after_s=1.5
        )
        await place.troubled.say()
        await place.settle()
        assert await people.remote.call("penalty_violations") == 0
