"""`Node`: a duty lasts as long as its lease, one node has it at a time, and it ends before another may begin."""

import asyncio
import contextlib

import pytest

from adapters.messages import Target
from bot.nodes import Node
from bot.preview import DistantPreview, typing_target
from config.names import AccountId, ChannelId
from sessions.leases import LeaseName
from sessions.models import Address
from tests.bot.house import SwitchedDatabase
from tests.sessions.stores import DATABASES

HEAR = LeaseName("hear", AccountId("memory.main"))
LEASE_S = 1.0


class Shared(SwitchedDatabase):
    """One node's way to a database that it does not close."""

    async def close(self) -> None:
        return


class Duty:
    """Keeps a record of who has it."""

    def __init__(self) -> None:
        self.having: list[str] = []
        self.most = 0
        self.times = 0

    def of(self, name):
        async def have(_lease):
            self.times += 1
            self.having.append(name)
            self.most = max(self.most, len(self.having))
            try:
                await asyncio.Event().wait()
            finally:
                self.having.remove(name)

        return have


@pytest.fixture(params=list(DATABASES))
async def inner(request, tmp_path):
    async with DATABASES[request.param](tmp_path) as opener:
        yield await opener()


@contextlib.asynccontextmanager
async def node(inner, duty, name, *, in_vain=None, **options):
    made = Node(Shared(inner), name, lease_s=LEASE_S, **options)
    live = LeaseName("live", AccountId(name))
    await made.start({HEAR: duty.of(name), live: Duty().of(name)}, in_vain=in_vain)
    try:
        yield made
    finally:
        await made.close()


async def until(claim, timeout_s=5):
    async with asyncio.timeout(timeout_s):
        while not claim():
            await asyncio.sleep(0.01)


async def test_one_has_it_and_keeps_it(inner):
    """The first keeps its lease by renewing it, for many lengths; both know whose it is."""
    duty = Duty()
    async with node(inner, duty, "one") as one, node(inner, duty, "two") as two:
        await until(lambda: two.holders.get(HEAR) == "one")
        await asyncio.sleep(2.5 * LEASE_S)
        assert (duty.having, duty.most, duty.times) == (["one"], 1, 1)
        assert (one.holds(HEAR), two.holds(HEAR)) == (True, False)


async def test_given_back_it_is_anothers_soon(inner):
    """Whoever gives it back has ended its duty first; it does not take it up again."""
    duty = Duty()
    async with node(inner, duty, "one") as one, node(inner, duty, "two") as two:
        await one.give_back([HEAR])
        assert "one" not in duty.having
        await until(lambda: two.holds(HEAR), LEASE_S)
        await asyncio.sleep(LEASE_S)
        assert (duty.having, duty.most) == (["two"], 1)


async def test_cut_off_from_the_database_the_duty_ends_in_time_and_begins_again(inner):
    """Without its database a node stops before its lease ends; the next takes over; later it may have it again."""
    duty = Duty()
    async with node(inner, duty, "one") as one, node(inner, duty, "two") as two:
        one._database.is_refusing = True
        await until(lambda: not one.holds(HEAR), 2 * LEASE_S)
        await until(lambda: two.holds(HEAR), 3 * LEASE_S)
        assert (duty.having, duty.most) == (["two"], 1)
        one._database.is_refusing = False
        await two.give_back([HEAR])
        await until(lambda: one.holds(HEAR), 3 * LEASE_S)
        await until(lambda: duty.having == ["one"])
        assert duty.most == 1


async def test_a_node_that_slept_has_nothing(inner):
    """By its own clock the lease is over: it may not act on it, though its loop has not run since."""
    now = [0.0]
    duty = Duty()
    async with node(inner, duty, "one", clock=lambda: now[0]) as one:
        assert one.holds(HEAR)
        now[0] = LEASE_S
        assert not one.holds(HEAR)


async def test_what_is_done_in_vain_is_passed_on(inner):
    """A node that reaches the database but not the platform leaves the account to another, once its duty has ended."""
    duty, cut_off = Duty(), {"one": True, "two": False}
    there = {name: {HEAR: lambda name=name: cut_off[name]} for name in cut_off}
    async with node(inner, duty, "one", in_vain=there["one"], pass_on_after_s=0.3) as one:
        await asyncio.sleep(0.6)
        assert one.holds(HEAR), "there is nobody else"
        async with node(inner, duty, "two", in_vain=there["two"], pass_on_after_s=0.3) as two:
            await until(lambda: two.holds(HEAR), 3 * LEASE_S)
            cut_off["one"] = False
            await asyncio.sleep(2 * LEASE_S)
            assert (duty.having, duty.most, duty.times) == (["two"], 1, 2)
        await until(lambda: one.holds(HEAR))


async def test_nobody_fares_better(inner):
    """The platform itself is away: the account goes round more and more slowly, and is somebody's nearly all the time."""
    duty, is_away = Duty(), {HEAR: lambda: True}
    async with (
        node(inner, duty, "one", in_vain=is_away, pass_on_after_s=0.2),
        node(inner, duty, "two", in_vain=is_away, pass_on_after_s=0.2),
    ):
        await until(lambda: duty.times >= 5, 20)
        times = duty.times
        await asyncio.sleep(0.9)  # nobody's third time is shorter than four times the first
        assert duty.times <= times + 1
        assert duty.most == 1


async def test_alone_a_node_has_everything_at_once():
    """Without others there is nobody to ask."""
    duty = Duty()
    alone = Node(None, "one")
    await alone.start({HEAR: duty.of("one")})
    await until(lambda: duty.having == ["one"])
    assert (alone.holds(HEAR), alone.lease(HEAR), alone.is_alone) == (True, None, True)
    await alone.close()
    assert duty.having == []


async def test_a_turn_elsewhere_shows_that_somebody_types():
    """The sending node is told where to show it, as long as the turn runs; what it cannot read it leaves alone."""
    said = []
    address = Address(AccountId("memory.main"), ChannelId("c1"), "group", None, None, None, 1)
    preview = DistantPreview(lambda word, detail: said.append((word, detail)), address, every_s=0.02)
    await until(lambda: len(said) > 2)
    await preview.stop()
    count = len(said)
    await asyncio.sleep(0.1)
    assert len(said) == count
    assert {word for word, _ in said} == {"typing"}
    assert typing_target(said[0][1]) == Target(AccountId("memory.main"), ChannelId("c1"), "group")
    for strange in ("", "{", "[1]", "7"):
        assert typing_target(strange) is None
