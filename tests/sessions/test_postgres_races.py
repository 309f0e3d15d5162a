"""Two nodes on one PostgreSQL at the same moment: what SQLite's single writer decides by itself is decided right here, too.

In each race the first transaction has done its work and not committed yet when the second runs into it.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from config.names import ChannelId, PlatformUserId
from sessions import cleanup, contents, inbox, invariants, lane, lifecycle, outbox, people, queue
from sessions.database import migrate
from sessions.database.base import Transaction
from sessions.database.postgres import PostgresDatabase
from sessions.errors import IllegalTransition, StaleClaim
from sessions.models import Claim, Incoming, Session
from sessions.scope import OperatorScope
from tests import postgres
from tests.sessions.records import (
    ACCOUNT,
    CHANNEL,
    DAY,
    NOW,
    answer_step,
    arrive,
    claimed,
    count,
    incoming,
    resolved,
    session_row,
    turn_row,
)
from tests.sessions.stores import held_up

Work = Callable[[Transaction], Any]


@dataclass
class Nodes:
    """Two daemons' stores on one database."""

    one: PostgresDatabase
    two: PostgresDatabase
    url: str

    async def race(self, first: Work, second: Work) -> tuple[Any, Any]:
        """Run `first` on one node up to its commit, then `second` on the other; commit when the second waits or has ended.

        Gives what each returned or raised.
        """
        worked, may_commit = threading.Event(), threading.Event()

        def held(tx: Transaction) -> Any:
            result = first(tx)
            worked.set()
            assert may_commit.wait(20)
            return result

        early = asyncio.create_task(self.one.write(held))
        late = None
        try:
            while not early.done() and not worked.is_set():
                await asyncio.sleep(0.005)
            assert not early.done(), "it was to wait for its commit"
            late = asyncio.create_task(self.two.write(second))
            while not late.done() and not await asyncio.to_thread(self._somebody_waits):
                await asyncio.sleep(0.01)
        finally:
            may_commit.set()
            results = await asyncio.gather(*filter(None, (early, late)), return_exceptions=True)
        return results[0], results[1]

    async def mix(self, *works: Work, may_mix: bool = True) -> list[Any]:
        """Run works on one node in one batch, under different keys, their statements between one another's if they may mix.

        Gives what each returned or raised.
        """
        async with held_up(self.one):
            writing = [
                asyncio.create_task(self.one.write(work, key=str(number), may_mix=may_mix))
                for number, work in enumerate(works)
            ]
            await asyncio.sleep(0)
        return await asyncio.gather(*writing, return_exceptions=True)

    def _somebody_waits(self) -> bool:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
            return row is not None


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    with postgres.fresh_database() as url:
        one, two = await PostgresDatabase.open(url), await PostgresDatabase.open(url)
        try:
            yield Nodes(one, two, url)
        finally:
            await asyncio.gather(one.close(), two.close())


def take_in(message: Incoming, *, now: int = NOW, **how: Any) -> Work:
    """The gateway's transaction, as far as the store is concerned."""

    def work(tx: Transaction) -> inbox.QueuedTurn | None:
        if inbox.is_known(tx, message):
            return None
        inbox.hear(tx, message, now)
        session, person, _ = resolved(tx, message, now=now, **how)
        return inbox.accept(tx, message, session, person, now, ahead=lane.waiting(tx, session.id))

    return work


async def begun(nodes: Nodes, **changes: Any) -> Session:
    """A session that has one turn waiting."""
    queued = await nodes.one.write(take_in(incoming(**changes)))
    return await nodes.one.read(lambda tx: lifecycle.find(tx, queued.session_id, OperatorScope()))


async def test_two_messages_make_one_session(nodes):
    """The first two messages of a person, taken in by two nodes, share one session, one person, and have an order."""
    first, second = await nodes.race(take_in(incoming("a")), take_in(incoming("b")))
    assert first.session_id == second.session_id
    turns = await nodes.one.read(lambda tx: [turn_row(tx, t.turn_id)["position"] for t in (first, second)])
    assert turns == [1, 2]
    assert second.ahead == 1
    counts = await nodes.one.read(lambda tx: [count(tx, t) for t in ("sessions", "persons", "identities")])
    assert counts == [1, 1, 1]


async def test_a_message_heard_by_two_nodes_is_taken_in_once(nodes):
    """The same message on both: one accepts it, for the other it is known, and there is one turn."""
    message = incoming()
    first, second = await nodes.race(take_in(message), take_in(message))
    assert first is not None
    assert second is None
    assert await nodes.one.read(lambda tx: [count(tx, t) for t in ("inbox", "turns", "messages")]) == [
        1,
        1,
        1,
    ]


async def test_a_message_of_a_known_session_heard_twice_is_taken_in_once(nodes):
    """The same where the session exists already, so that its row is what they meet at."""
    await begun(nodes)
    message = incoming()
    first, second = await nodes.race(take_in(message), take_in(message))
    assert first is not None
    assert second is None


async def test_a_person_met_twice_is_one_person(nodes):
    """Somebody new who writes in two channels at once is met once."""
    here, there = incoming(), incoming(channel=ChannelId("chat-2"))
    first, second = await nodes.race(
        lambda tx: people.meet(tx, here, NOW), lambda tx: people.meet(tx, there, NOW)
    )
    assert first.id == second.id
    assert await nodes.one.read(lambda tx: count(tx, "persons")) == 1


async def test_positions_are_given_in_the_order_of_the_commits(nodes):
    """Whoever gets a position finds all smaller ones committed: nobody can be overtaken by a slower transaction."""
    session = await begun(nodes)

    def work(message: Incoming, tx: Transaction) -> tuple[int, int]:
        queued = take_in(message)(tx)
        position = turn_row(tx, queued.turn_id)["position"]
        before = tx.row(
            "SELECT COUNT(*) AS n FROM turns WHERE session_id = :id AND position < :position",
            {"id": session.id, "position": position},
        )
        return position, before["n"]

    found = await asyncio.gather(
        *(
            node.write(lambda tx, m=incoming(): work(m, tx), key=str(number % 4))
            for number in range(30)
            for node in (nodes.one, nodes.two)
        )
    )
    assert sorted(position for position, _ in found) == list(range(2, 62))
    assert all(before == position - 1 for position, before in found)


async def test_a_lane_is_claimed_by_one_node(nodes):
    """Two nodes ask for the same lane: one gets the turn, the other nothing, and the epoch grew once."""
    session = await begun(nodes)
    await nodes.one.write(take_in(incoming()))
    claim: Work = lambda tx: lane.claim(tx, session.id, NOW, context_messages=5)  # noqa: E731
    first, second = await nodes.race(claim, claim)
    assert first.epoch == 1
    assert first.position == 1
    assert second is None


async def test_the_next_turn_is_not_claimed_while_the_last_one_is_being_finished(nodes):
    """One node finishes a turn and takes the next; another that looks in that moment gets neither of them."""
    session = await begun(nodes)
    await nodes.one.write(take_in(incoming()))
    claim = await nodes.one.write(lambda tx: claimed(tx, session.id))

    def finish_and_go_on(tx: Transaction) -> Any:
        lane.finish(tx, claim, "completed", NOW, answer="x")
        return claimed(tx, session.id)

    following, other = await nodes.race(
        finish_and_go_on, lambda tx: lane.claim(tx, session.id, NOW, context_messages=5)
    )
    assert following.position == 2
    assert other is None


async def test_many_claims_run_each_turn_once_and_one_at_a_time(nodes):
    """Two nodes that claim and finish the turns of five sessions as fast as they can run each once, in order."""
    expected: dict[str, list[int]] = {}
    for number in range(5):
        session = await begun(
            nodes, user_id=PlatformUserId(f"user-{number}"), channel=ChannelId(f"chat-{number}")
        )
        for _ in range(5):
            await nodes.one.write(
                take_in(
                    incoming(user_id=PlatformUserId(f"user-{number}"), channel=ChannelId(f"chat-{number}"))
                )
            )
        expected[session.id] = list(range(1, 7))
    ran: dict[str, list[int]] = {session_id: [] for session_id in expected}
    under_way: set[str] = set()

    async def work(node: PostgresDatabase, beside: str) -> None:
        while await node.read(lane.sessions_with_work):
            for session_id, positions in ran.items():
                claim = await node.write(
                    lambda tx, s=session_id: lane.claim(tx, s, NOW, context_messages=5), key=beside
                )
                if claim is None:
                    continue
                assert session_id not in under_way
                under_way.add(session_id)
                await asyncio.sleep(0)
                positions.append(claim.position)
                under_way.discard(session_id)
                await node.write(
                    lambda tx, c=claim: lane.finish(tx, c, "completed", NOW, answer="x"), key=beside
                )

    await asyncio.gather(*(work(node, beside) for node in (nodes.one, nodes.two) for beside in "ab"))
    assert ran == expected


async def test_a_chunk_is_begun_by_one_sender(nodes):
    """Two senders want to send the same chunk: one may."""
    session = await begun(nodes)
    claim = await nodes.one.write(lambda tx: claimed(tx, session.id))
    await nodes.one.write(lambda tx: outbox.add(tx, claim.address, "answer", [{"text": "x"}], NOW))
    [chunk] = await nodes.one.read(lambda tx: outbox.waiting(tx, ACCOUNT, CHANNEL))
    begin: Work = lambda tx: outbox.begin(tx, chunk.id)  # noqa: E731
    assert await nodes.race(begin, begin) == (True, False)


async def test_a_late_step_and_a_new_claim_see_one_another(nodes):
    """A step recorded while the turn is taken away is either among the new holder's steps or refused, never between."""
    session = await begun(nodes)
    claim = await nodes.one.write(lambda tx: claimed(tx, session.id))

    def take_away(tx: Transaction) -> Any:
        lane.recover(tx)
        return claimed(tx, session.id)

    _, new = await nodes.race(lambda tx: lane.record_step(tx, claim, answer_step(1), NOW), take_away)
    assert [step.number for step in new.steps] == [1]
    newer, refused = await nodes.race(take_away, lambda tx: lane.record_step(tx, new, answer_step(2), NOW))
    assert [step.number for step in newer.steps] == [1]
    assert isinstance(refused, StaleClaim)


async def test_an_edit_and_a_claim_agree_on_the_words(nodes):
    """An edit that says it was in time is what the turn answers."""
    message = incoming("old")
    queued = await nodes.one.write(take_in(message))
    edit = incoming("new", message_id=message.message_id, dedupe_id=f"{message.message_id}:1")
    outcome, claim = await nodes.race(
        lambda tx: inbox.replace_text(tx, edit, NOW), lambda tx: claimed(tx, queued.session_id)
    )
    assert outcome == "replaced"
    assert claim.messages[-1].content == "new"


async def test_an_edit_that_meets_a_claim_is_late(nodes):
    """The other way round: the turn was taken first, so the edit is told that it is answered already."""
    message = incoming("old")
    queued = await nodes.one.write(take_in(message))
    edit = incoming("new", message_id=message.message_id, dedupe_id=f"{message.message_id}:1")
    claim, outcome = await nodes.race(
        lambda tx: claimed(tx, queued.session_id), lambda tx: inbox.replace_text(tx, edit, NOW)
    )
    assert claim.messages[-1].content == "old"
    assert outcome == "answered"


async def test_a_reset_and_a_message_leave_one_live_session(nodes):
    """A message that meets a reset begins the next session, for the old one is over by then."""
    session = await begun(nodes)
    _, queued = await nodes.race(lambda tx: lifecycle.end(tx, session, "reset", NOW), take_in(incoming()))
    assert queued.session_id != session.id


async def test_two_resets_end_a_session_once(nodes):
    """The second hears that there is nothing to end any more; nothing breaks."""
    session = await begun(nodes)
    ended, refused = await nodes.race(
        lambda tx: lifecycle.end(tx, session, "reset", NOW),
        lambda tx: lifecycle.end(tx, session, "reset", NOW),
    )
    assert ended.status == "ended"
    assert isinstance(refused, IllegalTransition)


async def test_two_nodes_expire_an_idle_session_once(nodes):
    """Two messages after a long silence, on two nodes: the old session expires and they share the new one."""
    old = await begun(nodes)
    later = NOW + 3 * DAY
    first, second = await nodes.race(
        take_in(incoming(), now=later, expire_after_ms=DAY),
        take_in(incoming(), now=later, expire_after_ms=DAY),
    )
    assert first.session_id == second.session_id != old.id


def tidy(now: int) -> Work:
    return lambda tx: cleanup.clean_up(
        tx, now, expire_after_ms=DAY, archive_after_ms=DAY, delete_after_ms=DAY
    )


async def finished(nodes: Nodes) -> Session:
    """A session whose only turn has ended."""
    session = await begun(nodes)
    claim = await nodes.one.write(lambda tx: claimed(tx, session.id))
    await nodes.one.write(lambda tx: lane.finish(tx, claim, "completed", NOW, answer="x"))
    return session


async def test_the_clean_up_leaves_a_session_alone_that_is_being_talked_in(nodes):
    """A message on its way in makes the session busy for the clean-up of another node, before the commit already."""
    session = await finished(nodes)
    queued, touched = await nodes.race(
        take_in(incoming(), now=NOW + 2 * DAY, expire_after_ms=5 * DAY), tidy(NOW + 2 * DAY)
    )
    assert queued.session_id == session.id
    assert touched == 0


async def test_a_message_that_meets_the_clean_up_begins_anew(nodes):
    """The clean-up was first: the message is in a new session, not lost in the expired one."""
    session = await finished(nodes)
    touched, queued = await nodes.race(
        tidy(NOW + 2 * DAY), take_in(incoming(), now=NOW + 2 * DAY, expire_after_ms=5 * DAY)
    )
    assert touched == 1
    assert queued.session_id != session.id


async def test_two_clean_ups_share_the_work(nodes):
    """Two nodes that tidy up at once do not wait for one another, and do not undo one another's."""
    await finished(nodes)
    assert await nodes.race(tidy(NOW + 2 * DAY), tidy(NOW + 2 * DAY)) == (1, 0)


async def test_a_resumed_session_is_not_removed(nodes):
    """A session that somebody takes up again in the moment of its removal stays."""
    session = await finished(nodes)
    ended = await nodes.one.write(lambda tx: lifecycle.end(tx, session, "completed", NOW))
    archived = await nodes.one.write(lambda tx: lifecycle.archive(tx, ended, NOW))
    _, touched = await nodes.race(
        lambda tx: lifecycle.resume(tx, archived, NOW + 9 * DAY), tidy(NOW + 9 * DAY)
    )
    assert touched == 0
    found = await nodes.one.read(lambda tx: lifecycle.find(tx, session.id, OperatorScope()))
    assert found.status == "active"


async def test_taking_up_an_old_session_while_the_live_one_ends(nodes):
    """Who takes up an old session ends the live one first; that somebody else just did so is no reason to fail."""
    old = await finished(nodes)
    ended = await nodes.one.write(lambda tx: lifecycle.end(tx, old, "reset", NOW))
    live = await begun(nodes)
    _, resumed = await nodes.race(
        lambda tx: lifecycle.end(tx, live, "reset", NOW), lambda tx: lifecycle.resume(tx, ended, NOW)
    )
    assert (resumed.id, resumed.status) == (old.id, "active")


async def test_two_patches_of_metadata_are_both_kept(nodes):
    """Reading, changing and writing back is one step."""
    session = await begun(nodes)
    await nodes.race(
        lambda tx: contents.merge_metadata(tx, session.id, {"a": 1}),
        lambda tx: contents.merge_metadata(tx, session.id, {"b": 2}),
    )
    found = await nodes.one.read(lambda tx: lifecycle.find(tx, session.id, OperatorScope()))
    assert found.metadata == {"a": 1, "b": 2}


async def test_two_moves_of_a_channel_are_one(nodes):
    """Both nodes hear that a channel has a new id; its session follows once."""
    session = await begun(nodes)
    move: Work = lambda tx: lifecycle.move_channel(tx, ACCOUNT, CHANNEL, ChannelId("new"), NOW)  # noqa: E731
    assert await nodes.race(move, move) == (1, 0)
    found = await nodes.one.read(lambda tx: lifecycle.find(tx, session.id, OperatorScope()))
    assert (found.channel, found.status) == ("new", "active")


async def test_what_is_told_once_is_told_once(nodes):
    """A stranger is declined aloud by one node, and told about the wait by one."""
    message = incoming()
    queued = await nodes.one.write(take_in(message))
    declined: Work = lambda tx: people.tell_declined_once(tx, "telegram", message.user_id, NOW)  # noqa: E731
    assert await nodes.race(declined, declined) == (True, False)
    notice: Work = lambda tx: lane.mark_noticed(tx, queued.turn_id, NOW)  # noqa: E731
    told, not_told = await nodes.race(notice, notice)
    assert told is not None
    assert not_told is None


async def test_a_deadlock_costs_time_and_nothing_else(nodes):
    """Two nodes that lock two sessions in opposite order both get their way, each effect once."""
    one = await begun(nodes)
    two = await begun(nodes, user_id=PlatformUserId("user-2"), channel=ChannelId("chat-2"))
    meeting = threading.Barrier(2)

    def both(first: Session, second: Session) -> Work:
        def work(tx: Transaction) -> None:
            raise_count(tx, first)
            with contextlib.suppress(threading.BrokenBarrierError):  # the second try meets nobody
                meeting.wait(2)
            raise_count(tx, second)

        return work

    def raise_count(tx: Transaction, session: Session) -> None:
        tx.execute("UPDATE sessions SET error_count = error_count + 1 WHERE id = :id", {"id": session.id})

    await asyncio.gather(nodes.one.write(both(one, two)), nodes.two.write(both(two, one)))
    for session in (one, two):
        found = await nodes.one.read(lambda tx, s=session: lifecycle.find(tx, s.id, OperatorScope()))
        assert found.error_count == 2


async def test_batches_that_deadlock_are_taken_apart(nodes):
    """The same for operations that share commits with others: all are done, each once."""
    sessions = [
        await begun(nodes, user_id=PlatformUserId(f"user-{n}"), channel=ChannelId(f"chat-{n}"))
        for n in range(8)
    ]

    def grow(session: Session) -> Work:
        return lambda tx: tx.execute(
            "UPDATE sessions SET error_count = error_count + 1 WHERE id = :id", {"id": session.id}
        )

    for _ in range(5):
        await asyncio.gather(
            *(nodes.one.write(grow(session)) for session in sessions),
            *(nodes.two.write(grow(session)) for session in reversed(sessions)),
        )
    found = await nodes.one.read(lambda tx: tx.rows("SELECT error_count FROM sessions"))
    assert [row["error_count"] for row in found] == [10] * 8


async def test_two_nodes_that_start_at_once_migrate_once():
    """A new database opened by three nodes in the same moment has its schema once, and all three work."""
    with postgres.bare_database() as url:
        nodes = await asyncio.gather(*(PostgresDatabase.open(url) for _ in range(3)))
        try:
            rows = await nodes[0].read(
                lambda tx: tx.rows("SELECT version FROM schema_version ORDER BY version")
            )
            assert [row["version"] for row in rows] == [
                migration.version for migration in migrate.migrations()
            ]
            for node in nodes:
                await node.write(arrive)
        finally:
            await asyncio.gather(*(node.close() for node in nodes))


async def test_two_nodes_that_each_hold_what_the_other_wants_go_on_at_once(nodes):
    """Operations that share a commit wait for another node for a moment only: then each is done alone, and no circle is left."""
    await nodes.one.write(lambda tx: [inbox.set_cursor(tx, ACCOUNT, name, "0", NOW) for name in "ab"])
    held = {"a": threading.Event(), "b": threading.Event()}

    def first(own: str, other: str) -> Work:
        def work(tx: Transaction) -> None:
            tx.execute("SET LOCAL deadlock_timeout = '60s'")  # the server does not notice
            inbox.set_cursor(tx, ACCOUNT, own, "first", NOW)
            held[own].set()
            held[other].wait(20)

        return work

    async def batch(node: PostgresDatabase, own: str, other: str) -> None:
        busy = asyncio.create_task(node.write(lambda tx: tx.row("SELECT pg_sleep(0.1) AS x")))
        await asyncio.sleep(0.05)  # what comes now shares the next commit
        await asyncio.gather(
            node.write(first(own, other)),
            node.write(lambda tx: inbox.set_cursor(tx, ACCOUNT, other, f"by {own}", NOW)),
            busy,
        )

    async with asyncio.timeout(30):
        await asyncio.gather(batch(nodes.one, "a", "b"), batch(nodes.two, "b", "a"))
    found = await nodes.one.read(lambda tx: [inbox.cursor(tx, ACCOUNT, name) for name in "ab"])
    assert set(found) <= {"first", "by a", "by b"}


async def test_waiting_for_another_node_is_not_the_fault_of_what_waits(nodes):
    """Beside one that fails, in a batch that is taken apart, a write that another node keeps waiting is done when that one is."""
    await nodes.one.write(lambda tx: inbox.set_cursor(tx, ACCOUNT, "held", "0", NOW))
    is_held = threading.Event()

    def hold(tx: Transaction) -> None:
        inbox.set_cursor(tx, ACCOUNT, "held", "first", NOW)
        is_held.set()
        time.sleep(1)

    def fail(_: Transaction) -> None:
        raise ZeroDivisionError

    holding = asyncio.create_task(nodes.two.write(hold))
    await asyncio.to_thread(is_held.wait, 10)
    busy = asyncio.create_task(nodes.one.write(lambda tx: tx.row("SELECT pg_sleep(0.1) AS x")))
    await asyncio.sleep(0.05)  # what comes now shares the next commit
    failed, waited = await asyncio.gather(
        nodes.one.write(fail),
        nodes.one.write(lambda tx: inbox.set_cursor(tx, ACCOUNT, "held", "second", NOW)),
        return_exceptions=True,
    )
    assert isinstance(failed, ZeroDivisionError)
    assert waited is None
    await asyncio.gather(holding, busy)
    assert await nodes.one.read(lambda tx: inbox.cursor(tx, ACCOUNT, "held")) == "second"


# Works of one node that share a transaction, where no lock keeps them apart


def from_channel(number: int, **changes: Any) -> Incoming:
    """One person writes in many places."""
    return incoming(channel=ChannelId(f"chat-{number}"), **changes)


async def agrees(nodes: Nodes) -> None:
    seen = await nodes.one.read(
        lambda tx: [invariants.verify(tx, one) for one in invariants.of("postgresql")]
    )
    assert [verdict for verdict in seen if not verdict.holds] == []


async def test_messages_from_many_channels_that_share_a_session_have_an_order(nodes):
    """Somebody new writes in five channels at once: one person, one session, five turns in five places."""
    taken = await nodes.mix(*(take_in(from_channel(n), scope="person_everywhere") for n in range(5)))
    assert len({queued.session_id for queued in taken}) == 1
    assert sorted(queued.ahead for queued in taken) == [0, 1, 2, 3, 4]
    counts = await nodes.one.read(lambda tx: [count(tx, t) for t in ("sessions", "persons", "turns")])
    assert counts == [1, 1, 5]
    again = await nodes.mix(*(take_in(from_channel(n), scope="person_everywhere") for n in range(5)))
    places = await nodes.one.read(
        lambda tx: [turn_row(tx, queued.turn_id)["position"] for queued in [*taken, *again]]
    )
    assert sorted(places[:5]) == [1, 2, 3, 4, 5]
    assert sorted(places[5:]) == [6, 7, 8, 9, 10]
    await agrees(nodes)


async def test_two_messages_that_find_a_free_lane_do_not_both_run(nodes):
    """Both see that nothing is unfinished; one claims its turn with its acceptance, the other waits behind it."""

    def take(number: int) -> Work:
        def work(tx: Transaction) -> Claim | None:
            session, person, _ = resolved(tx, from_channel(number), scope="person_everywhere")
            if lane.waiting(tx, session.id):
                inbox.accept(tx, from_channel(number), session, person, NOW, ahead=1)
                return None
            return inbox.accept_and_claim(tx, from_channel(number), session, person, NOW, context_messages=5)

        return work

    await nodes.one.write(take_in(from_channel(9), scope="person_everywhere"))
    [claim] = await nodes.one.write(lambda tx: lane.claim_heads(tx, 1, NOW, context_messages=5))
    await nodes.one.write(lambda tx: lane.finish(tx, claim, "completed", NOW, answer="x"))
    claims = await nodes.mix(take(0), take(1))
    assert sorted(claim is None for claim in claims) == [False, True]
    await agrees(nodes)


async def test_a_turn_does_not_begin_before_one_that_waits(nodes):
    """Both see a free lane; the first only queues its turn, for want of a place: the other must not run before it."""

    def take(number: int) -> Work:
        def work(tx: Transaction) -> bool:
            session, person, _ = resolved(tx, from_channel(number), scope="person_everywhere")
            if number == 0 or lane.waiting(tx, session.id):
                inbox.accept(tx, from_channel(number), session, person, NOW, ahead=0)
                return False
            inbox.accept_and_claim(tx, from_channel(number), session, person, NOW, context_messages=5)
            return True

        return work

    await nodes.one.write(take_in(from_channel(9), scope="person_everywhere"))
    [claim] = await nodes.one.write(lambda tx: lane.claim_heads(tx, 1, NOW, context_messages=5))
    await nodes.one.write(lambda tx: lane.finish(tx, claim, "completed", NOW, answer="x"))
    assert await nodes.mix(take(0), take(1)) == [False, False]
    await agrees(nodes)
    [head] = await nodes.one.write(lambda tx: lane.claim_heads(tx, 5, NOW, context_messages=5))
    assert head.position == 2


async def test_an_idle_session_expires_once_for_messages_that_come_together(nodes):
    """Two channels after a long silence: the old session ends and they share the new one."""
    old = await nodes.one.write(take_in(from_channel(0), scope="person_everywhere"))
    later = NOW + 3 * DAY
    first, second = await nodes.mix(
        *(
            take_in(from_channel(n), now=later, scope="person_everywhere", expire_after_ms=DAY)
            for n in range(2)
        )
    )
    assert first.session_id == second.session_id != old.session_id
    await agrees(nodes)


async def test_a_turn_that_ends_and_a_message_that_comes_in_count_both(nodes):
    """Of one session, under different keys: the message has its place behind the answer, and is waited for or found free."""
    first = await nodes.one.write(take_in(from_channel(0), scope="person_everywhere"))
    claim = await nodes.one.write(lambda tx: claimed(tx, first.session_id))
    finished, queued = await nodes.mix(
        lambda tx: lane.finish(tx, claim, "completed", NOW, answer="x"),
        take_in(from_channel(1), scope="person_everywhere"),
    )
    row = await nodes.one.read(lambda tx: session_row(tx, first.session_id))
    assert (row["message_count"], row["next_position"]) == (3, 3)
    assert finished is True or queued.ahead == 0 or await nodes.one.read(queue.is_waiting)
    await agrees(nodes)


async def test_two_ends_of_one_turn_among_others_store_one_answer(nodes):
    """A holder that came too late is refused, and refuses nobody else."""
    first = await nodes.one.write(take_in(from_channel(0)))
    claim = await nodes.one.write(lambda tx: claimed(tx, first.session_id))
    other = take_in(from_channel(1, user_id=PlatformUserId("user-2")))
    one, two, queued = await nodes.mix(
        lambda tx: lane.finish(tx, claim, "completed", NOW, answer="x"),
        lambda tx: lane.finish(tx, claim, "completed", NOW, answer="y"),
        other,
    )
    assert [isinstance(result, StaleClaim) for result in (one, two)] == [False, True]
    assert queued.ahead == 0
    await agrees(nodes)


async def test_works_that_may_not_mix_share_a_commit_and_nothing_else(nodes):
    """What reads under a lock and writes then, as a command does, is done before the next begins."""
    session = await begun(nodes)
    before = nodes.one.commits
    await nodes.mix(
        *(
            lambda tx, name=name: contents.merge_metadata(tx, session.id, {name: 1})  # type: ignore[misc]
            for name in "abc"
        ),
        may_mix=False,
    )
    found = await nodes.one.read(lambda tx: lifecycle.find(tx, session.id, OperatorScope()))
    assert found.metadata == {"a": 1, "b": 1, "c": 1}
    assert nodes.one.commits == before + 2
