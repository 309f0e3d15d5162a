"""Hot sessions: what is remembered of a conversation is what reading it gives, whatever happens meanwhile, within its bytes."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from config.settings import Settings
from sessions import emptying, forking, inbox, lane, lifecycle, summaries, window
from sessions.errors import StaleClaim
from sessions.hot import HotSessions, Tail, tail_after
from sessions.models import Claim, Message
from sessions.scope import OperatorScope
from tests.sessions import machines
from tests.sessions.records import NOW, arrive, incoming, session_row
from tests.sessions.stores import TRANSACTIONS

EXAMPLES = {"sqlite": 150, "postgresql": 8}
ASKED = 8
USERS = ("ann", "bob")
PICK = st.sampled_from([0, 0, 0, 1, 1, 2, 7])
"""Mostly where somebody has just talked, so that a row of steps comes back to what it began."""


def tail_of(session_id: str, texts: list[str]) -> Tail:
    messages = [Message(session_id, number, 0, "user", text, None, NOW) for number, text in enumerate(texts)]
    return Tail(0, len(texts), ASKED, 0, messages)


@given(
    max_bytes=st.integers(0, 20_000),
    steps=st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"), st.lists(st.text("aß漢😀", max_size=400), max_size=4), st.booleans()
        ),
        max_size=40,
    ),
)
def test_it_stays_within_its_bytes_and_lets_the_oldest_go(max_bytes, steps):
    """Whatever is kept and forgotten: never more bytes than allowed, the count of them right, and what was kept last is there."""
    hot = HotSessions(max_bytes)
    order: list[str] = []
    for session_id, texts, is_forgotten in steps:
        order = [one for one in order if one != session_id]
        if is_forgotten:
            hot.forget(session_id)
        else:
            hot.keep(session_id, tail_of(session_id, texts))
            order.append(session_id)
        there = [one for one in order if hot.tail(one) is not None]
        assert len(hot) == len(there)
        assert 0 <= hot.bytes <= max_bytes
        assert bool(hot.bytes) == bool(there)
        assert (
            sum(len(message.content.encode()) for one in there for message in hot.tail(one).messages)
            <= hot.bytes
        )
    for session_id in order:
        hot.forget(session_id)
    assert (len(hot), hot.bytes) == (0, 0)


def test_a_giant_pushes_nobody_out():
    """One conversation may take a quarter of the room; a larger one is not kept, nor is what was kept of it before."""
    hot = HotSessions(40_000)
    hot.keep("small", tail_of("small", ["x"]))
    hot.keep("grows", tail_of("grows", ["x"]))
    hot.keep("grows", tail_of("grows", ["x" * 10_000]))
    assert hot.tail("grows") is None
    assert hot.tail("small") is not None


class HotMachine(RuleBasedStateMachine):
    """Conversations whose ends one daemon remembers, with all that happens to sessions besides, here and in other processes."""

    store: str

    def __init__(self) -> None:
        super().__init__()
        self._opened = TRANSACTIONS[self.store]()
        self.tx = self._opened.__enter__()
        self.hot = HotSessions(20_000)
        self.sent: list[Any] = []
        self.answered = 0

    @initialize(turns=st.sampled_from([0, 6, 6]))
    def somebody_has_talked(self, turns: int) -> None:
        """Often long enough for a summary."""
        if turns:
            self.somebody_writes("ann")
            self.turns_run(0, [(True, "here")] * turns)

    def teardown(self) -> None:
        self._opened.__exit__(None, None, None)

    def pick(self, number: int, *, is_summarised: bool = False) -> Any:
        """One of the sessions, the last active first."""
        found = lifecycle.list_sessions(self.tx, OperatorScope(), limit=1000)
        if is_summarised:
            found = [one for one in found if session_row(self.tx, one.id)["summarised_to"]]
        return found[number % len(found)] if found else None

    def undone(self, work: Callable[[], None]) -> None:
        """Do something in a part of the transaction that fails."""
        self.tx.execute("SAVEPOINT attempt")
        work()
        self.tx.execute("ROLLBACK TO attempt")
        self.tx.execute("RELEASE attempt")

    @rule(user=st.sampled_from(USERS))
    def somebody_writes(self, user: str) -> None:
        message = incoming(f"message {len(self.sent)}", user_id=user, channel=f"direct-{user}")
        self.sent.append(message)
        arrive(self.tx, message)

    @rule(number=PICK)
    def somebody_edits(self, number: int) -> None:
        if self.sent:
            before = self.sent[number % len(self.sent)]
            inbox.replace_text(
                self.tx,
                incoming(
                    f"edited {number}",
                    user_id=before.user_id,
                    channel=before.channel,
                    message_id=before.message_id,
                ),
                NOW,
            )

    def take(self, session_id: str) -> Claim | None:
        """A turn, whose conversation must be what reading gives."""
        claim = lane.claim(self.tx, session_id, NOW, context_messages=ASKED, recent=self.hot.tail(session_id))
        if claim is not None:
            upto = session_row(self.tx, session_id)["summarised_to"]
            read = lane.conversation_until(self.tx, session_id, claim.position, ASKED, after=upto)
            assert list(claim.messages) == read
            assert list(claim.summaries) == (window.summaries_of(self.tx, session_id) if upto else [])
        return claim

    @rule(
        number=PICK,
        ends=st.lists(
            st.tuples(st.booleans(), st.sampled_from(["here", "here", "here", "elsewhere", "undone"])),
            min_size=1,
            max_size=5,
        ),
    )
    def turns_run(self, number: int, ends: list[tuple[bool, str]]) -> None:
        if (session := self.pick(number)) is None:
            return
        for answers, where in ends:
            if session.status == "active" and not lane.waiting(self.tx, session.id):
                self.somebody_writes(session.channel.removeprefix("direct-"))
            if (claim := self.take(session.id)) is not None:
                self.end_turn(session.id, claim, answers, where)

    def end_turn(self, session_id: str, claim: Claim, answers: bool, where: str) -> None:
        answer = f"answer {self.answered}" if answers else None
        self.answered += 1

        def finish() -> None:
            lane.finish(self.tx, claim, "completed", NOW, answer=answer, metadata={})

        if where == "undone":  # its end was not committed, so nothing is kept of it
            self.undone(finish)
            lane.recover(self.tx)
            return
        finish()
        with pytest.raises(StaleClaim):
            finish()
        if where == "here":
            self.hot.keep(session_id, tail_after(claim, answer, {}, NOW, ASKED))

    @rule(number=PICK)
    def it_is_summarised(self, number: int) -> None:
        if (session := self.pick(number)) is None:
            return
        due = summaries.plan(
            self.tx, session.id, Settings.model_validate({"agent": {"context_messages": ASKED}})
        )
        if due is not None:
            made = summaries.Made(1, due.from_position, due.to_position, f"- {due.to_position}", 3, "digest")
            assert summaries.store(self.tx, due, [made], [], NOW)

    @rule(number=PICK)
    def its_summaries_are_made_anew(self, number: int) -> None:
        session = self.pick(number, is_summarised=True)
        again = None if session is None else summaries.plan_again(self.tx, session.id, Settings())
        if again is not None:
            made = summaries.Made(1, 1, again.basis.summarised_to, f"- anew {self.answered}", 3, "digest")
            assert summaries.store(self.tx, again, [made], summaries.versions(self.tx, again), NOW)

    @rule(number=PICK)
    def its_summaries_are_discarded(self, number: int) -> None:
        if (session := self.pick(number, is_summarised=True)) is not None:
            summaries.discard(self.tx, session.id)

    @rule(number=PICK, back=st.integers(0, 5), is_undone=st.booleans())
    def a_turn_is_forgotten(self, number: int, back: int, is_undone: bool) -> None:
        if (session := self.pick(number)) is None:
            return
        position = session_row(self.tx, session.id)["next_position"] - 1 - back

        def forget() -> None:
            emptying.empty_turns(self.tx, session.id, [position], NOW)

        self.undone(forget) if is_undone else forget()

    @rule(number=PICK, step=st.sampled_from(["end", "resume", "archive", "fork"]))
    def a_session_changes(self, number: int, step: str) -> None:
        session = self.pick(number)
        if session is None:
            return
        match step, session.status:
            case "end", "active" | "paused":
                lifecycle.end(self.tx, session, "reset", NOW)
            case "resume", "ended" | "archived":
                lifecycle.resume(self.tx, session, NOW)
            case "archive", "ended":
                lifecycle.archive(self.tx, session, NOW)
            case "fork", _:
                forking.fork(self.tx, session, NOW, last=5)


@pytest.mark.parametrize("store", list(TRANSACTIONS))
@pytest.mark.timeout(machines.TIMEOUT_S)
def test_what_is_remembered_is_what_reading_gives(store):
    """Any row of turns, edits, erasures, summaries, forks, failed commits and other processes' work: never a stale word."""
    machines.run(HotMachine, store, EXAMPLES, steps=40)
