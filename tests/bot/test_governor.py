"""Pace: the windows a platform counts in, the holds it told us to keep, and how an account that is down is probed."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Pace
from bot.delivery import _pace
from bot.governor import Governor, Window
from config.names import AccountId
from config.settings import AccountSettings

ACCOUNT = AccountId("memory.main")


class Clock:
    """Seconds, moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def make(clock=None, **pace):
    governor = Governor(clock=clock or Clock(), jitter=lambda: 0.5)
    governor.add(ACCOUNT, Pace(**pace))
    return governor


def most_within(times, period):
    """The most events in any span of that length."""
    times = sorted(times)
    # A hair less than the period, as sums of fractions are not exact.
    return max((sum(1 for t in times if start <= t < start + period - 1e-6) for start in times), default=0)


# windows


@given(
    limit=st.sampled_from([0.25, 0.5, 1, 1.5, 3, 20, 30]),
    period=st.sampled_from([1.0, 60.0]),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=120),
)
def test_a_window_is_exact(limit, period, steps):
    """Whatever the rhythm: never more than the limit in any span of the period, and no event later than needed."""
    window = Window(limit, period)
    now, taken = 0.0, []
    for step in steps:
        now += step
        wait = window.wait_s(now)
        assert wait >= 0
        if wait:
            now += wait
            assert window.wait_s(now) <= 1e-9
        window.take(now)
        taken.append(now)
    allowed = max(1, int(limit))
    assert most_within(taken, period * allowed / limit) <= allowed


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.4)), max_size=200))
def test_account_and_channel_are_both_kept(events):
    """Over all channels and in each: never more than allowed in any window, by try and take under one clock."""
    clock = Clock()
    governor = make(clock, per_account_per_s=5, per_direct_channel_per_s=1, per_group_channel_per_min=20)
    gone_out = []
    for channel, step in events:
        clock.now += step
        if governor.try_acquire(ACCOUNT, channel, "group"):
            gone_out.append((channel, clock.now))
    assert most_within([at for _, at in gone_out], 1) <= 5
    for channel in "abc":
        times = [at for where, at in gone_out if where == channel]
        assert most_within(times, 1) <= 1
        assert most_within(times, 60) <= 20


def test_a_minutes_window_holds_to_its_last_second():
    """The 21st message to a group goes out one minute after the first."""
    clock = Clock()
    governor = make(clock, per_group_channel_per_min=20)
    assert all(governor.try_acquire(ACCOUNT, "g", "group") for _ in range(20))
    clock.now += 59.9
    assert not governor.try_acquire(ACCOUNT, "g", "group")
    clock.now += 0.1
    assert governor.try_acquire(ACCOUNT, "g", "group")


def test_direct_channels_have_no_groups_limit():
    """The limit a minute is for groups alone."""
    governor = make(per_group_channel_per_min=2)
    assert all(governor.try_acquire(ACCOUNT, "ada", "direct") for _ in range(10))


async def test_acquire_keeps_the_pace_in_real_time():
    """Callers that wait go out one by one, no two closer than allowed, and learn how long they waited."""
    governor = Governor()
    governor.add(ACCOUNT, Pace(per_account_per_s=50))
    loop = asyncio.get_running_loop()
    times = []

    async def send(channel):
        waited = await governor.acquire(ACCOUNT, channel, "direct")
        times.append(loop.time())
        return waited

    waits = await asyncio.gather(*(send(f"c{number}") for number in range(60)))
    assert max(waits) > 0.01
    assert most_within(times, 0.9) <= 50


def test_what_was_sent_before_a_restart_counts():
    """Messages sent less than a window ago by the last process count in this one, for the group and the account."""
    governor = make(per_account_per_s=3, per_group_channel_per_min=2)
    governor.remember(ACCOUNT, [("g", "group", 30.0), ("g", "group", 10.0)])
    assert not governor.try_acquire(ACCOUNT, "g", "group")
    assert governor.try_acquire(ACCOUNT, "other", "group")
    governor.remember(ACCOUNT, [("x", "direct", 0.1), ("y", "direct", 0.1)])
    assert not governor.try_acquire(ACCOUNT, "z", "direct")


def test_many_channels_do_not_make_it_forget_what_still_counts():
    """Beyond thousands of channels only those are forgotten whose windows are empty."""
    clock = Clock()
    governor = make(clock, per_group_channel_per_min=2)
    for number in range(12_000):
        assert governor.try_acquire(ACCOUNT, f"g{number}", "group")
    assert all(governor.try_acquire(ACCOUNT, f"g{number}", "group") for number in range(100))
    assert not any(governor.try_acquire(ACCOUNT, f"g{number}", "group") for number in range(100))
    clock.now += 61
    for number in range(30_000):
        governor.try_acquire(ACCOUNT, f"h{number}", "group")
    assert len(governor._accounts[ACCOUNT].channels) < 31_000


# settings


def test_the_operators_pace_stands_in_place_of_the_platforms():
    """Each limit that is set replaces the platform's; the others stay."""
    platform = Pace(30, 1, 20)
    own = AccountSettings(platform="memory", pace={"per_group_channel_per_min": 5})
    assert _pace(platform, own) == Pace(30, 1, 5)
    assert _pace(platform, AccountSettings(platform="memory")) == platform


# holds


@pytest.mark.parametrize(
    ("held", "asked", "may_go"), [("a", "a", False), ("a", "b", True), (None, "a", False), (None, "b", False)]
)
def test_a_hold_is_kept_to_its_end(held, asked, may_go):
    """Nothing goes to a held channel, or anywhere from a held account, until the time is over."""
    clock = Clock()
    governor = make(clock)
    governor.hold(ACCOUNT, held, 5)
    assert governor.try_acquire(ACCOUNT, asked, "direct") is may_go
    assert (governor.held_s(ACCOUNT, asked) == 0) is may_go
    clock.now += 4.99
    assert governor.try_acquire(ACCOUNT, asked, "direct") is may_go
    clock.now += 0.01
    assert governor.try_acquire(ACCOUNT, asked, "direct")
    assert governor.held_s(ACCOUNT, asked) == 0


def test_a_shorter_hold_does_not_shorten_a_longer_one():
    """The latest end counts."""
    clock = Clock()
    governor = make(clock)
    governor.hold(ACCOUNT, "a", 60)
    governor.hold(ACCOUNT, "a", 1)
    clock.now += 59
    assert not governor.try_acquire(ACCOUNT, "a", "direct")


def test_a_hold_known_before_the_first_message_does_not_change_the_channels_limits():
    """A group that was on hold at the start keeps the limits of a group afterwards."""
    clock = Clock()
    governor = make(clock, per_group_channel_per_min=2)
    governor.hold(ACCOUNT, "g", 1)
    clock.now += 2
    assert [governor.try_acquire(ACCOUNT, "g", "group") for _ in range(3)] == [True, True, False]


async def test_a_hold_that_comes_while_waiting_is_kept_too():
    """Whoever waits for a window looks again before going out."""
    governor = Governor()
    governor.add(ACCOUNT, Pace(per_direct_channel_per_s=1))
    loop = asyncio.get_running_loop()
    await governor.acquire(ACCOUNT, "a", "direct")
    waiting = asyncio.create_task(governor.acquire(ACCOUNT, "a", "direct"))
    await asyncio.sleep(0.01)
    started = loop.time()
    governor.hold(ACCOUNT, "a", 1.2)
    await waiting
    assert loop.time() - started >= 1.19


# an account that is down


async def test_one_probe_at_a_time():
    """While the account is down one caller gets through as a probe; its answer lets all others go."""
    clock = Clock()
    governor = make(clock)
    governor.failed(ACCOUNT)
    assert governor.is_down(ACCOUNT)
    clock.now += 100
    waiting = [asyncio.create_task(governor.acquire(ACCOUNT, f"c{number}", "direct")) for number in range(5)]
    await asyncio.sleep(0.01)
    assert sum(task.done() for task in waiting) == 1
    governor.failed(ACCOUNT)
    await asyncio.sleep(0.01)
    assert sum(task.done() for task in waiting) == 1
    clock.now += 100
    governor.answered(ACCOUNT)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_an_answer_wakes_everybody():
    """Callers that wait for a probe go out as soon as the platform answered it."""
    clock = Clock()
    governor = make(clock)
    governor.failed(ACCOUNT)
    clock.now += 100
    await governor.acquire(ACCOUNT, "probe", "direct")
    waiting = [asyncio.create_task(governor.acquire(ACCOUNT, f"c{number}", "direct")) for number in range(5)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    governor.answered(ACCOUNT)
    await asyncio.wait(waiting, timeout=1)
    assert all(task.done() for task in waiting)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_probes_grow_apart_and_never_come_more_than_once_a_second(jitter):
    """The pauses between probes double up to about a minute; even the first is a second long."""
    clock = Clock()
    governor = Governor(clock=clock, jitter=lambda: jitter)
    governor.add(ACCOUNT, Pace())
    pauses = []
    for _ in range(10):
        governor.failed(ACCOUNT)
        pauses.append(governor._accounts[ACCOUNT].probe_at - clock.now)
        clock.now += pauses[-1]
    assert pauses[0] >= 1
    assert all(later >= earlier for earlier, later in itertools.pairwise(pauses))
    assert 60 <= pauses[-1] <= 90
    governor.answered(ACCOUNT)
    governor.failed(ACCOUNT)
    assert governor._accounts[ACCOUNT].probe_at - clock.now <= 1.5


# previews


async def test_previews_take_nothing_from_a_final_reply():
    """While a final reply waits anywhere in the account, and while it is down, a preview is left out."""
    governor = make()
    governor.hold(ACCOUNT, "a", 5)
    final = asyncio.create_task(governor.acquire(ACCOUNT, "a", "direct"))
    await asyncio.sleep(0.01)
    assert not governor.try_acquire(ACCOUNT, "b", "direct")
    final.cancel()
    await asyncio.wait([final])
    assert governor.try_acquire(ACCOUNT, "b", "direct")
    governor.failed(ACCOUNT)
    assert not governor.try_acquire(ACCOUNT, "b", "direct")
