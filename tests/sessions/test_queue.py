"""The queue of turns that nodes share: who holds what, until when, and what becomes of a turn whose holder is gone.

On PostgreSQL; that the lanes keep their order and run one at a time is shown for both databases in test_inbox.py.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from bot.lanes import Lanes
from config.names import ChannelId, PlatformUserId
from sessions import emptying, invariants, lane, queue
from sessions.database.postgres import PostgresDatabase
from sessions.errors import StaleClaim
from sessions.models import ErrorRecord
from sessions.queue import Held
from tests import postgres
from tests.sessions.records import NOW, answer_step, arrive, claimed, incoming, turn_row


@pytest.fixture
def tx():
    with postgres.open_transaction() as transaction:
        yield transaction


@pytest.fixture
async def database():
    with postgres.fresh_database() as url:
        opened = await PostgresDatabase.open(url)
        try:
            yield opened
        finally:
            await opened.close()


def of(number, **changes):
    """A message of one of several people, each with a session."""
    return incoming(user_id=PlatformUserId(f"user-{number}"), channel=ChannelId(f"chat-{number}"), **changes)


def rows(tx):
    return tx.rows(
        "SELECT msg_id, read_ct, message->>'turn' AS turn, headers->>'x-pgmq-group' AS session,"
        " CASE WHEN vt > clock_timestamp() THEN 1 ELSE 0 END AS is_held FROM turn_queue ORDER BY msg_id"
    )


def held(claim):
    return Held(claim.msg_id, claim.epoch)


def removed(tx, claim):
    return bool(tx.execute(*queue.removing(held(claim))))


def end_leases(tx):
    """As if the leases had passed without a renewal."""
    tx.execute("UPDATE turn_queue SET vt = clock_timestamp() - interval '1 second'")


def test_a_turn_is_queued_with_its_message(tx):
    """Accepting queues the turn in its session's group, and no earlier than that: both are one transaction."""
    queued = arrive(tx)
    [row] = rows(tx)
    assert (row["turn"], row["session"], row["read_ct"], row["is_held"]) == (
        queued.turn_id,
        queued.session_id,
        0,
        0,
    )


async def test_what_is_not_taken_in_is_not_queued(database):
    """An acceptance that fails leaves nothing in the queue."""

    def work(tx):
        arrive(tx)
        raise LookupError("later in the same transaction")

    with pytest.raises(LookupError):
        await database.write(work)
    assert await database.read(rows) == []


def test_a_held_turn_closes_its_lane(tx):
    """While the first turn of a lane is held nobody gets the second, by name or from the whole queue."""
    session_id = arrive(tx).session_id
    arrive(tx)
    claimed(tx, session_id)
    assert lane.claim(tx, session_id, NOW, context_messages=5) is None
    assert lane.claim_heads(tx, 10, NOW, context_messages=5) == []
    assert queue.heads(tx, 10) == []


def test_the_end_of_a_lease_opens_it_again(tx):
    """A turn whose holder was not heard of is taken anew with its steps; the former holder can store neither step nor result."""
    session_id = arrive(tx).session_id
    old = claimed(tx, session_id)
    lane.record_step(tx, old, answer_step(1), NOW)
    end_leases(tx)
    assert queue.heads(tx, 10) == [session_id]
    [new] = lane.claim_heads(tx, 10, NOW, context_messages=5, node="two")
    assert (new.turn_id, new.epoch, new.attempts, new.msg_id) == (old.turn_id, 2, 2, old.msg_id)
    assert [step.number for step in new.steps] == [1]
    with pytest.raises(StaleClaim):
        lane.record_step(tx, old, answer_step(2), NOW)
    with pytest.raises(StaleClaim):
        lane.finish(tx, old, "completed", NOW, answer="late")
    lane.finish(tx, new, "completed", NOW, answer="mine")
    assert rows(tx) == []


def test_the_queue_alone_refuses_who_comes_late(tx):
    """The message's number is not enough to end a turn: the count of reads must be the holder's own."""
    session_id = arrive(tx).session_id
    old = claimed(tx, session_id)
    end_leases(tx)
    new = claimed(tx, session_id)
    assert not removed(tx, old)
    assert not queue.bury(tx, held(old))
    assert not queue.give_back(tx, old.turn_id, held(old))
    assert len(rows(tx)) == 1
    assert removed(tx, new)


def test_a_lease_is_renewed_while_it_is_held(tx):
    """Renewing makes it last again and says which are still held; one that another node took is not prolonged for it."""
    first, second = (arrive(tx, of(number)).session_id for number in range(2))
    mine, lost = claimed(tx, first), claimed(tx, second)
    end_leases(tx)
    theirs = claimed(tx, second)
    end_leases(tx)
    assert queue.renew(tx, [held(mine), held(lost)], 5000) == {held(mine)}
    assert [row["is_held"] for row in rows(tx)] == [1, 0]
    assert 4000 < queue.next_end_ms(tx) <= 5000
    assert queue.renew(tx, [held(theirs)], 1000) == {held(theirs)}


def test_nothing_is_held_and_nothing_renewed(tx):
    """An empty queue has no end to wait for, and no heads."""
    assert queue.next_end_ms(tx) is None
    assert queue.renew(tx, [], 1000) == set()
    assert queue.heads(tx, 5) == []


def test_giving_back_is_no_attempt(tx):
    """A node that stops lets others go on at once; the turn is as if it had not been begun, but what it still does is refused."""
    session_id = arrive(tx).session_id
    old = claimed(tx, session_id)
    assert queue.give_back(tx, old.turn_id, held(old))
    assert turn_row(tx, old.turn_id)["status"] == "queued"
    with pytest.raises(StaleClaim):
        lane.finish(tx, old, "completed", NOW)


async def test_what_is_given_back_is_taken_at_once(database):
    """The next claim has the next epoch and counts as the first attempt."""
    queued = await database.write(arrive)
    old = await database.write(lambda tx: claimed(tx, queued.session_id))
    await database.write(lambda tx: queue.give_back(tx, old.turn_id, held(old)))
    new = await database.write(lambda tx: claimed(tx, queued.session_id))
    assert (new.epoch, new.attempts) == (2, 1)


def test_a_turn_that_nobody_can_run_becomes_a_dead_letter(tx):
    """It leaves the queue for pgmq's archive under its reference, and the lane goes on."""
    session_id = arrive(tx).session_id
    following = arrive(tx)
    bad = claimed(tx, session_id)
    lane.finish(tx, bad, "failed", NOW, error=ErrorRecord("ABC123", "poison", "begun 3 times", None))
    [dead] = tx.rows("SELECT message->>'turn' AS turn, read_ct FROM dead_turns")
    assert (dead["turn"], dead["read_ct"]) == (bad.turn_id, 1)
    assert turn_row(tx, bad.turn_id)["error_ref"] == "ABC123"
    assert claimed(tx, session_id).turn_id == following.turn_id


def test_another_failure_is_no_dead_letter(tx):
    """What ended in an error that the person was told of is over like any other turn."""
    session_id = arrive(tx).session_id
    lane.finish(
        tx,
        claimed(tx, session_id),
        "failed",
        NOW,
        error=ErrorRecord("ABC123", "fault", "no model", None),
    )
    assert tx.rows("SELECT 1 AS x FROM dead_turns") == []
    assert rows(tx) == []


def test_the_longest_waiting_lanes_come_first(tx):
    """One turn of each lane, as many as are asked for, in order of arrival."""
    expected = [arrive(tx, of(number)).session_id for number in range(5)]
    for number in range(5):
        arrive(tx, of(number))
    assert queue.heads(tx, 3) == expected[:3]
    claims = lane.claim_heads(tx, 3, NOW, context_messages=5)
    assert [(claim.session_id, claim.position) for claim in claims] == [(one, 1) for one in expected[:3]]
    assert queue.heads(tx, 9) == expected[3:]


def test_erasing_takes_turns_out(tx):
    """A turn whose words are erased leaves the queue, and whoever runs it is refused."""
    session_id = arrive(tx).session_id
    kept = arrive(tx)
    running = claimed(tx, session_id)
    emptying.empty_turns(tx, session_id, [running.position], NOW)
    assert [row["turn"] for row in rows(tx)] == [kept.turn_id]
    with pytest.raises(StaleClaim):
        lane.finish(tx, running, "completed", NOW)


def test_the_queue_is_made_from_the_turns(tx):
    """Where nothing was queued, each lane comes back whole and in order, and what is no longer wanted goes."""
    for number in range(6):
        arrive(tx, of(number % 2))
    before = [(row["session"], row["turn"]) for row in rows(tx)]
    [gone] = tx.rows("SELECT MIN(msg_id) AS id FROM turn_queue")
    tx.execute("DELETE FROM turn_queue WHERE msg_id = :id", {"id": gone["id"]})
    tx.execute(
        "INSERT INTO turn_queue (vt, message, headers) VALUES (clock_timestamp(), jsonb_build_object('turn', 'none'), NULL)"
    )
    assert queue.refill(tx) == 3
    after = [(row["session"], row["turn"]) for row in rows(tx)]
    for session_id in {session for session, _ in before}:
        assert [one for one in after if one[0] == session_id] == [
            one for one in before if one[0] == session_id
        ]
    assert len(after) == 6
    assert queue.refill(tx) == 0


def test_what_was_begun_goes_on_from_its_steps_however_it_came_back(tx):
    """Given back at a stop, or put into the queue of another database: its steps are there, and its epoch goes on."""
    queued = arrive(tx)
    claim = claimed(tx, queued.session_id)
    assert not claim.is_resumed
    lane.record_step(tx, claim, answer_step(), NOW)
    assert queue.give_back(tx, queued.turn_id, held(claim))
    again = claimed(tx, queued.session_id)
    assert (again.epoch, again.attempts, again.is_resumed, len(again.steps)) == (2, 1, True, 1)
    assert queue.give_back(tx, queued.turn_id, held(again))
    queue.purge(tx)
    assert queue.refill(tx) == 1
    moved = claimed(tx, queued.session_id)
    assert (moved.epoch, moved.attempts, moved.is_resumed, len(moved.steps)) == (3, 1, True, 1)
    with pytest.raises(StaleClaim):
        lane.record_step(tx, claim, answer_step(), NOW)


@pytest.mark.parametrize("name", ["turn_queued", "queued_turn"])
def test_what_does_not_agree_is_found(tx, name):
    """A turn outside the queue waits for ever, and a message without a turn keeps nobody's place: `palaver verify` tells both."""
    [invariant] = [one for one in invariants.of(tx.dialect) if one.name == name]
    arrive(tx)
    assert invariants.verify(tx, invariant).holds
    if name == "turn_queued":
        tx.execute("DELETE FROM turn_queue")
    else:
        tx.execute("UPDATE turns SET status = 'cancelled', finished_at = 1")
    assert invariants.verify(tx, invariant).broken == 1


class Slow:
    """A runner whose turns take until they are let go."""

    def __init__(self, database):
        self.database = database
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.ran = []
        self.refused = 0

    async def run(self, claim, *, may_continue):
        self.ran.append(claim)
        self.begun.set()
        await self.gate.wait()
        try:
            await self.database.write(lambda tx: lane.finish(tx, claim, "completed", NOW, answer="x"))
        except StaleClaim:
            self.refused += 1
        return None, True

    def stop(self, turn_id): ...

    async def tell_wait(self, turn_id, language): ...


@asynccontextmanager
async def sharing(lanes):
    """A node that runs what waits, until the end of the block."""
    task = asyncio.create_task(lanes.share())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await lanes.drain(5)


def lanes_on(database, runner, *, node="one", lease_s=0.6, max_running=3, **more):
    return Lanes(
        database,
        runner,
        max_running=max_running,
        context_messages=5,
        notice_after_s=0,
        node=node,
        lease_s=lease_s,
        **more,
    )


async def test_a_turn_that_takes_longer_than_its_lease_stays_its_nodes(database):
    """Renewed all the time, it is not taken by a second node that looks for work meanwhile, and is finished once."""
    one, two = Slow(database), Slow(database)
    first, second = lanes_on(database, one), lanes_on(database, two, node="two")
    await database.write(arrive)
    sharing = [asyncio.create_task(first.share())]
    try:
        await asyncio.wait_for(one.begun.wait(), 10)
        sharing.append(asyncio.create_task(second.share()))
        await asyncio.sleep(1.5)
        one.gate.set()
        await first.drain(5)
        assert (len(one.ran), one.refused, two.ran) == (1, 0, [])
        assert await database.read(rows) == []
    finally:
        for task in sharing:
            task.cancel()
        await asyncio.wait(sharing)


async def test_a_turn_that_is_not_renewed_goes_to_the_next_node(database):
    """A node that is not heard of loses its turn when the lease ends, not at the next look, and its late result is refused."""
    one, two = Slow(database), Slow(database)
    two.gate.set()
    first, second = lanes_on(database, one), lanes_on(database, two, node="two")
    await database.write(arrive)
    await first.look()
    await asyncio.wait_for(one.begun.wait(), 10)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with sharing(second):
        await asyncio.wait_for(two.begun.wait(), 10)
        assert loop.time() - began < 1.6
        one.gate.set()
        await first.drain(5)
        assert one.refused == 1
        assert [claim.epoch for claim in two.ran] == [2]


async def test_a_drained_node_gives_back_what_it_could_not_finish(database):
    """The turn can be taken at once, long before its lease would have ended, and the others are told of it."""
    runner, told = Slow(database), []
    lanes = lanes_on(database, runner, lease_s=60, hint=lambda word, detail: told.append((word, detail)))
    queued = await database.write(arrive)
    await lanes.look()
    await asyncio.wait_for(runner.begun.wait(), 10)
    assert await lanes.drain(0) == 1
    assert ("turns", queued.session_id) in told
    [row] = await database.read(rows)
    assert not row["is_held"]


async def test_what_arrives_while_a_node_stops_is_given_back(database):
    """A look that has claims on its way when the drain begins: they are held by nobody afterwards."""
    runner = Slow(database)
    lanes = lanes_on(database, runner, lease_s=60)
    await database.write(arrive)
    looking = asyncio.create_task(lanes.look())
    while not lanes._reserved:  # its claims are being made
        await asyncio.sleep(0)
    assert await lanes.drain(5) == 0
    await looking
    [row] = await database.read(rows)
    assert (row["read_ct"], row["is_held"]) == (1, 0)
    assert runner.ran == []


async def test_a_lane_behind_a_long_one_that_is_held_is_found(database):
    """However much waits in a lane whose first turn runs elsewhere, the next lane's first turn is taken by who has room."""
    one, two = Slow(database), Slow(database)
    first, second = lanes_on(database, one, lease_s=60, max_running=1), lanes_on(database, two, node="two")

    def many(tx):
        for _ in range(250):
            arrive(tx, of(0))

    await database.write(many)
    await first.look()
    await asyncio.wait_for(one.begun.wait(), 10)
    await database.write(lambda tx: arrive(tx, of(1)))
    await second.look()
    await asyncio.wait_for(two.begun.wait(), 10)
    one.gate.set()
    two.gate.set()
    for lanes in (first, second):
        await lanes.drain(5)


async def test_a_backlog_is_worked_off_without_waiting_for_looks(database):
    """More lanes than places: the next batch is asked for when there is room again, not a second later."""

    def many(tx):
        for number in range(40):
            arrive(tx, of(number))

    await database.write(many)
    runner = Slow(database)
    runner.gate.set()
    lanes = lanes_on(database, runner, lease_s=10, max_running=4)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with sharing(lanes):
        while len(runner.ran) < 40:
            await asyncio.sleep(0.01)
            assert loop.time() - began < 6, "ten batches, and not a second for each"


async def test_a_node_without_room_tells_the_others(database):
    """What it takes in but cannot begin is hinted at, so that a node with room need not wait for its look."""
    runner, told = Slow(database), []
    lanes = lanes_on(database, runner, max_running=1, hint=lambda word, detail: told.append((word, detail)))
    first, second = [await database.write(lambda tx, n=n: arrive(tx, of(n))) for n in range(2)]
    lanes.notify(first.session_id)
    lanes.notify(second.session_id)
    assert told == [("turns", second.session_id)]
    runner.gate.set()
    await lanes.drain(5)
