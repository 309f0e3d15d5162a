"""Which turn runs when: one at a time per session and in order, bounded and fair across sessions, whatever fails."""

import asyncio
import random
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bot.lanes import Lanes
from config.names import TurnId
from sessions import inbox, lane, lifecycle, people
from sessions.models import Incoming
from tests.bot.house import SwitchedDatabase
from tests.sessions.stores import DATABASES


class Line:
    """A runner that only keeps time: what began and ended when, what overlapped, with failures on demand."""

    def __init__(self, database, *, seconds=lambda _claim: 0.0, fails=lambda _claim: False):
        self.database = database
        self.seconds = seconds
        self.fails = fails
        self.begun = []
        self.ended = []
        self.now_running = {}
        self.most_running = 0
        self.overlaps = 0
        self.stopped = []
        self.told = []
        self.gate = None

    async def run(self, claim, *, may_continue):
        self.begun.append((claim.session_id, claim.position))
        self.overlaps += claim.session_id in self.now_running
        self.now_running[claim.session_id] = claim
        self.most_running = max(self.most_running, len(self.now_running))
        try:
            if self.gate is not None:
                await self.gate.wait()
            if seconds := self.seconds(claim):
                await asyncio.sleep(seconds)
            else:
                await asyncio.sleep(0)
        finally:
            del self.now_running[claim.session_id]
        is_failing = self.fails(claim)
        going_on = may_continue() and not is_failing

        def finish(tx):
            lane.finish(tx, claim, "completed", 0)
            if going_on:
                return lane.claim(tx, claim.session_id, 0, context_messages=1), False
            return None, lane.waiting(tx, claim.session_id) > 0

        result = await self.database.write(finish)
        self.ended.append((claim.session_id, claim.position))
        if is_failing:
            raise RuntimeError("the runner broke after it stored its result")
        return result

    def stop(self, turn_id):
        self.stopped.append(turn_id)

    async def tell_wait(self, turn_id, language):
        self.told.append((turn_id, language))


class Hall:
    """Lanes over a real store, with messages put in as the gateway does."""

    def __init__(self, database, line, *, max_running=100, notice_after_s=0):
        self.database = database
        self.line = line
        self.lanes = Lanes(
            database,
            line,
            max_running=max_running,
            context_messages=1,
            notice_after_s=notice_after_s,
            now=lambda: 0,
        )
        self.number = 0

    async def accept(self, who, *, claims=True):
        """Accept a message, claim its turn with it where that may be, and tell the lanes."""
        self.number += 1
        message = Incoming(
            "m", "m.x", who, "direct", f"{self.number}", f"{self.number}", who, who, None, None, "x", 0
        )
        may_claim = claims and self.lanes.reserve()

        def take(tx):
            person = people.meet(tx, message, 0)
            found = lifecycle.resolve(
                tx, message, person, "person", separate_threads=True, expire_after_ms=0, persona=None, now=0
            )
            session = found.session
            queued = inbox.accept(tx, message, session, person, 0, ahead=found.waiting)
            claim = None
            if may_claim and queued.ahead == 0:
                claim = lane.claim(tx, session.id, 0, context_messages=1)
            return queued, claim

        queued, claim = await self.database.write(take)
        if claim is not None:
            self.lanes.start(claim)
        else:
            if may_claim:
                self.lanes.release()
            self.lanes.notify(queued.session_id)
        return queued

    async def until_idle(self, timeout_s=20):
        async with asyncio.timeout(timeout_s):
            while True:
                left = await self.database.read(
                    lambda tx: tx.row("SELECT COUNT(*) AS n FROM turns WHERE status IN ('queued', 'running')")
                )
                if not left["n"] and not self.lanes.running:
                    return
                await asyncio.sleep(0.005)

    def check(self):
        """One at a time, in order; never more than allowed."""
        assert self.line.overlaps == 0
        assert self.line.most_running <= self.lanes._max_running
        by_session = {}
        for session_id, position in self.line.begun:
            by_session.setdefault(session_id, []).append(position)
        for positions in by_session.values():
            assert positions == list(range(1, len(positions) + 1))
        assert self.lanes._reserved == 0


@pytest.fixture(params=list(DATABASES))
async def database(request, tmp_path):
    async with DATABASES[request.param](tmp_path) as opener:
        yield await opener()


async def test_one_session_runs_in_order(database):
    """A session's turns run one after the other, in the order of their acceptance."""
    hall = Hall(database, Line(database))
    for _ in range(20):
        await hall.accept("ada")
    await hall.until_idle()
    assert len(hall.line.ended) == 20
    hall.check()


async def test_sessions_run_side_by_side_up_to_the_limit(database):
    """As many sessions as allowed run at once, and not one more."""
    line = Line(database)
    line.gate = asyncio.Event()
    hall = Hall(database, line, max_running=7)
    await asyncio.gather(*(hall.accept(f"p{number}") for number in range(30)))
    await asyncio.sleep(0.05)
    assert (hall.lanes.running, hall.lanes.ready) == (7, 23)
    line.gate.set()
    await hall.until_idle()
    assert line.most_running == 7
    hall.check()


async def test_a_hot_session_does_not_hold_up_others(database):
    """With one place and 200 turns waiting in one session, another session's turn is the next but one at the latest."""
    line = Line(database)
    line.gate = asyncio.Event()
    hall = Hall(database, line, max_running=1)
    for _ in range(200):
        hot = await hall.accept("hot")
    await hall.accept("calm")
    line.gate.set()
    await hall.until_idle()
    order = [session_id for session_id, _ in line.begun]
    assert order.index(next(session for session in order if session != hot.session_id)) == 1
    hall.check()


async def test_the_end_of_a_turn_is_when_it_is_decided_who_goes_on(database):
    """Somebody who came while a turn ran is not passed over because nobody waited when it began."""
    line = Line(database)
    line.gate = asyncio.Event()
    hall = Hall(database, line, max_running=1)
    first = await hall.accept("hot")
    await hall.accept("hot")
    await asyncio.sleep(0.02)
    other = await hall.accept("calm")
    line.gate.set()
    await hall.until_idle()
    assert [session_id for session_id, _ in line.begun] == [
        first.session_id,
        other.session_id,
        first.session_id,
    ]


async def test_newcomers_do_not_overtake(database):
    """While somebody waits for a place, nobody gets one by reserving it."""
    line = Line(database)
    line.gate = asyncio.Event()
    hall = Hall(database, line, max_running=1)
    await hall.accept("a")
    assert not hall.lanes.reserve()
    await hall.accept("b")
    line.gate.set()
    await hall.until_idle()
    assert hall.lanes.reserve()
    assert not hall.lanes.reserve()
    hall.lanes.release()


async def test_a_released_place_goes_to_whoever_waits(database):
    """A place reserved for a message that was then declined is filled at once."""
    hall = Hall(database, Line(database), max_running=1)
    assert hall.lanes.reserve()
    await hall.accept("ada")
    await asyncio.sleep(0.02)
    assert hall.line.begun == []
    hall.lanes.release()
    await hall.until_idle()
    assert len(hall.line.ended) == 1


async def test_a_place_given_back_at_a_hand_over_is_filled(database):
    """A claim for a session whose task is at its very end leaves its reserved place to somebody who waits."""
    line = Line(database)
    hall = Hall(database, line, max_running=2)
    line.gate = asyncio.Event()
    queued = await hall.accept("ending")
    await asyncio.sleep(0.02)
    assert hall.lanes.reserve()  # for a message of the session that is about to end
    waiting = await hall.accept("waiting")
    assert hall.lanes.ready == 1
    claim = line.now_running[queued.session_id]
    hall.lanes.start(claim)  # as the gateway does when the turn before was just stored
    await asyncio.sleep(0.02)
    assert waiting.session_id in line.now_running
    hall.lanes._handed.clear()
    line.gate.set()
    await hall.until_idle()


async def test_recovery_takes_up_what_the_last_process_left(database):
    """Running and queued turns of the last process run again, each session in order."""
    hall = Hall(database, Line(database), max_running=0)
    for number in range(12):
        await hall.accept(f"p{number % 3}", claims=False)
    await database.write(
        lambda tx: lane.claim(tx, tx.row("SELECT id FROM sessions")["id"], 0, context_messages=1)
    )
    after = Hall(database, Line(database))
    assert await after.lanes.recover() == 3
    await after.until_idle()
    assert len(after.line.ended) == 12
    after.check()


async def test_draining_lets_running_turns_end_and_starts_no_other(database):
    """A drain waits for what runs; what waits stays as rows; nothing is cut off in time."""
    line = Line(database, seconds=lambda _: 0.1)
    hall = Hall(database, line, max_running=1)
    for who in ("a", "a", "b"):
        await hall.accept(who)
    await asyncio.sleep(0.02)
    assert await hall.lanes.drain(5) == 0
    assert len(line.ended) == 1
    await hall.accept("c")
    await asyncio.sleep(0.05)
    assert len(line.begun) == 1
    left = await database.read(lambda tx: tx.rows("SELECT status FROM turns"))
    assert sorted(row["status"] for row in left) == ["completed", "queued", "queued", "queued"]


async def test_draining_cuts_off_what_takes_too_long(database):
    """What does not end in time is cut off and stays as a row for the next start."""
    line = Line(database)
    line.gate = asyncio.Event()
    hall = Hall(database, line)
    await hall.accept("a")
    await hall.accept("b")
    await asyncio.sleep(0.02)
    assert await hall.lanes.drain(0.05) == 2
    left = await database.read(lambda tx: tx.rows("SELECT status FROM turns"))
    # Where there are other nodes, they may have it at once.
    as_row = "running" if database.dialect == "sqlite" else "queued"
    assert [row["status"] for row in left] == [as_row] * 2
    after = Hall(database, Line(database))
    assert await after.lanes.recover() == 2
    await after.until_idle()


async def test_a_store_that_cannot_is_asked_again(database):
    """A claim that the store refuses is tried again until it can; nothing is skipped."""
    inner, database = database, SwitchedDatabase(database)
    line = Line(inner)
    hall = Hall(database, line)
    assert hall.lanes.reserve()
    for _ in range(99):
        hall.lanes.reserve()
    queued = await hall.accept("ada", claims=False)
    database.is_refusing = True
    with capture_logs() as logs:
        for _ in range(100):
            hall.lanes.release()
        await asyncio.sleep(0.05)
        assert line.begun == []
        database.is_refusing = False
        await hall.until_idle()
    assert [(entry["event"], entry["session_id"]) for entry in logs] == [
        ("lanes.claim_failed", queued.session_id)
    ]
    assert len(line.ended) == 1


async def test_a_broken_runner_stops_neither_its_session_nor_others(database):
    """An exception out of a turn is logged, and what waits behind it in the session, and all other sessions, go on."""
    hall = Hall(database, Line(database, fails=lambda claim: claim.position == 1))
    with capture_logs() as logs:
        for who in ("a", "b", "a", "b"):
            await hall.accept(who)
        await hall.until_idle()
    assert len(hall.line.ended) == 4
    assert [entry["event"] for entry in logs] == ["lanes.lane_failed"] * 2


async def test_stopping_a_turn_that_has_not_begun_yet(database):
    """A stop between a turn's acceptance and its first step reaches it: it begins as cancelled."""
    line = Line(database)
    line.gate = asyncio.Event()
    hall = Hall(database, line)
    queued = await hall.accept("ada")
    hall.lanes.stop([queued.turn_id])
    await asyncio.sleep(0.02)
    assert line.now_running[queued.session_id].is_cancelled
    hall.lanes.stop([TurnId("unknown")])
    assert line.stopped == [queued.turn_id, "unknown"]
    line.gate.set()
    await hall.until_idle()


async def test_notices_are_told_after_the_wait_and_forgotten_at_the_end(database):
    """A notice is due after its time, with its person's language; a drain takes back what is not due yet."""
    line = Line(database)
    hall = Hall(database, line, notice_after_s=0.03)
    hall.lanes.wait_notice(TurnId("t1"), "de")
    await asyncio.sleep(0.1)
    assert line.told == [("t1", "de")]
    hall.lanes.wait_notice(TurnId("t2"), None)
    await hall.lanes.drain(1)
    hall.lanes.wait_notice(TurnId("t3"), None)
    await asyncio.sleep(0.1)
    assert line.told == [("t1", "de")]


async def test_a_thousand_sessions(database):
    """A thousand sessions with three turns each (200 on a server): all run, each in order, within the limit."""
    sessions = 1000 if database.dialect == "sqlite" else 200
    hall = Hall(database, Line(database), max_running=100)
    for _ in range(3):
        await asyncio.gather(*(hall.accept(f"p{number}") for number in range(sessions)))
    await hall.until_idle(40)
    assert len(hall.line.ended) == 3 * sessions
    hall.check()
    assert not hall.lanes._again
    assert not hall.lanes._handed


@pytest.mark.parametrize("store", list(DATABASES))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people_writing=st.lists(st.sampled_from("abcde"), min_size=1, max_size=40),
    max_running=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
async def test_order_and_no_overlap_under_random_delays_and_failures(
    tmp_path, store, people_writing, max_running, seed
):
    """Whatever the timing, whoever fails: each session's turns run once, in order, one at a time, within the limit."""
    rng = random.Random(seed)
    folder = tmp_path / str(uuid4())
    folder.mkdir()
    async with DATABASES[store](folder) as opener:
        database = await opener()
        line = Line(
            database,
            seconds=lambda _: rng.choice([0, 0, 0.001, 0.004]),
            fails=lambda _: rng.random() < 0.2,
        )
        hall = Hall(database, line, max_running=max_running)

        async def write(who):
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.005]))
            await hall.accept(who, claims=rng.random() < 0.8)

        with capture_logs():  # tracebacks are slow to print
            await asyncio.gather(*(write(who) for who in people_writing))
            await hall.until_idle()
        assert len(line.ended) == len(people_writing)
        hall.check()
