"""Export, import and erasing against a model in memory: whatever is moved, cut off and forgotten in whatever order, both say the same.

Two stores that know nothing of each other. People write in direct chats and in a group of each, sessions end and are deleted, files
go from one store to the other, whole or cut off, with everything, of one person or of one session; people are forgotten in one of
them and come back. After each step every session and message of both is compared with a few dictionaries.
"""

import asyncio
import contextlib
import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bot import retention as daemon_side
from sessions import erasure, forking, invariants, lane, lifecycle, people
from sessions.database.base import Database, Transaction
from sessions.errors import TransferError
from sessions.lifecycle import Doer
from sessions.scope import OperatorScope, PersonScope
from sessions.transfer import intake
from tests.sessions import machines
from tests.sessions.conversations import exported, imported
from tests.sessions.records import NOW, arrive, claimed, incoming
from tests.sessions.stores import DATABASES

T = TypeVar("T")

EVERYTHING = OperatorScope()
USERS = ("ann", "bob")
STORES = (0, 1)
WHICH = st.sampled_from(STORES)
PICK = st.integers(0, 99)
EXAMPLES = {"sqlite": 40, "postgresql": 4}


@dataclass
class ModelSession:
    id: str
    owner: str | None
    """Whose it is; None: the group's."""
    status: str = "active"
    reason: str | None = None
    said: list[tuple[int, str, str, str | None]] = field(default_factory=list)
    """Position, role, text, and who wrote it."""

    @property
    def is_live(self) -> bool:
        return self.status in ("active", "paused")


class TransferMachine(RuleBasedStateMachine):
    """Two stores and the model of both."""

    store: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.databases: list[Database] = []
        self.model: list[dict[str, ModelSession]] = [{}, {}]
        self.known: list[set[str]] = [set(), set()]
        self.now = NOW
        self.number = 0
        self.batch = intake.BATCH, intake.LARGEST

    @initialize(batch=st.sampled_from([(12_000, 36_000), (6, 12), (1, 3)]))
    def open(self, batch: tuple[int, int]) -> None:
        intake.BATCH, intake.LARGEST = batch  # type: ignore[misc]  # as a larger file would have it
        for kind in (self.store, "sqlite"):
            folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="palaver-machine-"))
            opener = self.runner.run(self.stack.enter_async_context(DATABASES[kind](Path(folder))))
            self.databases.append(self.runner.run(opener()))

    def teardown(self) -> None:
        intake.BATCH, intake.LARGEST = self.batch  # type: ignore[misc]
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def write(self, which: int, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.databases[which].write(work))

    def read(self, which: int, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.databases[which].read(work))

    def person(self, which: int, user: str) -> Any:
        found = self.read(which, lambda tx: people.list_people(tx, words=user))
        return next((one.id for one in found if one.display_name == user), None)

    def live(self, which: int, owner: str | None) -> ModelSession | None:
        found = [one for one in self.model[which].values() if one.owner == owner and one.is_live]
        assert len(found) <= 1
        return found[0] if found else None

    def pick(self, which: int, number: int) -> ModelSession | None:
        there = list(self.model[which].values())
        return there[number % len(there)] if there else None

    # what people do

    @rule(which=WHICH, user=st.sampled_from(USERS), in_group=st.booleans(), is_answered=st.booleans())
    def say(self, which: int, user: str, in_group: bool, is_answered: bool) -> None:
        self.now += 1
        self.number += 1
        owner = None if in_group else user
        before = self.live(which, owner)
        message = incoming(
            f"m{self.number} of {user}",
            user_id=user,
            display_name=user,
            username=user,
            channel="group" if in_group else f"direct-{user}",
            channel_kind="group" if in_group else "direct",
            message_id=f"{which}-{self.number}",
        )

        def work(tx: Transaction) -> tuple[str, int]:
            queued = arrive(tx, message, now=self.now, scope="channel" if in_group else "person")
            claim = claimed(tx, queued.session_id, self.now)
            lane.finish(tx, claim, "completed", self.now, answer=f"a{self.number}" if is_answered else None)
            row = tx.row("SELECT position FROM turns WHERE id = :id", {"id": queued.turn_id})
            assert row is not None
            return queued.session_id, row["position"]

        session_id, position = self.write(which, work)
        assert (before.id == session_id) if before else session_id not in self.model[which]
        one = self.model[which].setdefault(session_id, ModelSession(session_id, owner))
        one.said.append((position, "user", message.text, user))
        if is_answered:
            one.said.append((position, "assistant", f"a{self.number}", None))
        self.known[which].add(user)

    @rule(which=WHICH, number=PICK, is_deleted=st.booleans())
    def end(self, which: int, number: int, is_deleted: bool) -> None:
        one = self.pick(which, number)
        if one is None or one.reason == "deleted" or (not one.is_live and not is_deleted):
            return
        self.now += 1
        session = self.read(which, lambda tx: lifecycle.find(tx, one.id, EVERYTHING))
        if is_deleted:
            self.write(which, lambda tx: lifecycle.delete(tx, session, self.now))
            one.status, one.reason = "ended", "deleted"
        else:
            self.write(which, lambda tx: lifecycle.end(tx, session, "reset", self.now))
            one.status, one.reason = "ended", "reset"

    @rule(which=WHICH)
    def fork_the_group(self, which: int) -> None:
        """What was said is in two sessions then, and only in one of them with the message that came."""
        one = self.live(which, None)
        if one is None:
            return
        self.now += 1
        session = self.read(which, lambda tx: lifecycle.find(tx, one.id, EVERYTHING))
        made = self.write(which, lambda tx: forking.fork(tx, session, self.now, last=None, by=Doer("person")))
        one.status, one.reason = "ended", "completed"
        said = self.read(which, lambda tx: lane.conversation_until(tx, made.session.id, 2**62, 10_000))
        assert [(line.role, line.content) for line in said] == [line[1:3] for line in one.said]
        forked = ModelSession(made.session.id, None)
        forked.said = [(line.position, *told[1:]) for line, told in zip(said, one.said, strict=True)]
        self.model[which][forked.id] = forked

    # what operators do

    @rule(
        source=WHICH,
        what=st.sampled_from(["everything", "person", "session"]),
        user=st.sampled_from(USERS),
        number=PICK,
        times=st.integers(1, 2),
    )
    def move(self, source: int, what: str, user: str, number: int, times: int) -> None:
        target = 1 - source
        moved = [one for one in self.model[source].values() if one.reason != "deleted"]
        how: dict[str, Any] = {}
        people = set(self.known[source])
        if what == "person":
            person = self.person(source, user)
            if person is None:
                return
            how["scope"] = PersonScope(person)
            moved = [one for one in moved if one.owner == user]
        elif what == "session":
            one = self.pick(source, number)
            if one is None:
                return
            how["ids"] = [one.id]
            moved = [one] if one.reason != "deleted" else []
        if what != "everything":
            people = {one.owner for one in moved if one.owner} | {
                author for one in moved for _, _, _, author in one.said if author
            }
        raw = self.runner.run(exported(self.databases[source], **how))
        for _ in range(times):
            done = self.runner.run(imported(self.databases[target], raw))
            new = [one for one in sorted(moved, key=lambda one: one.id) if one.id not in self.model[target]]
            assert (done.sessions, done.skipped) == (len(new), len(moved) - len(new))
            self.take_over(target, new)
        self.known[target] |= people

    def take_over(self, target: int, new: list[ModelSession]) -> None:
        for one in new:
            copied = copy.deepcopy(one)
            if copied.is_live and self.live(target, copied.owner) is not None:
                copied.status, copied.reason = "ended", "completed"
            self.model[target][copied.id] = copied

    @rule(source=WHICH, share=st.floats(0.05, 0.98))
    def move_what_was_cut_off(self, source: int, share: float) -> None:
        """Whatever of it came in, came whole."""
        target = 1 - source
        raw = self.runner.run(exported(self.databases[source]))
        with pytest.raises(TransferError):
            self.runner.run(imported(self.databases[target], raw[: int(len(raw) * share)]))
        there = {
            one.id
            for one in self.read(target, lambda tx: lifecycle.list_sessions(tx, EVERYTHING, limit=10_000))
        }
        hidden = {
            row["id"]
            for row in self.read(
                target, lambda tx: tx.rows("SELECT id FROM sessions WHERE key LIKE '%importing%'")
            )
        }
        new = sorted(there - hidden - set(self.model[target]))
        self.take_over(target, [self.model[source][session_id] for session_id in new])
        for user in USERS:
            if self.person(target, user) is not None:
                self.known[target].add(user)
        if hidden:  # the next whole import finishes it
            done = self.runner.run(imported(self.databases[target], raw))
            assert done.sessions >= 1
            rest = [
                one
                for one in sorted(self.model[source].values(), key=lambda one: one.id)
                if one.reason != "deleted" and one.id not in self.model[target]
            ]
            self.take_over(target, rest)
            self.known[target] |= self.known[source]

    @rule(which=WHICH, user=st.sampled_from(USERS))
    def forget(self, which: int, user: str) -> None:
        person = self.person(which, user)
        assert (person is not None) is (user in self.known[which])
        if person is None:
            return
        self.now += 1
        self.write(which, lambda tx: erasure.request(tx, person, self.now))
        self.runner.run(daemon_side.erase_people(self.databases[which], lambda: self.now, pause_s=0))
        self.known[which].discard(user)
        self.model[which] = {key: one for key, one in self.model[which].items() if one.owner != user}
        for one in self.model[which].values():
            gone = {position for position, _, _, author in one.said if author == user}
            one.said = [line for line in one.said if line[0] not in gone]

    # what must hold

    @invariant()
    def both_say_the_same(self) -> None:
        for which, _ in enumerate(self.databases):
            found = {
                one.id: one
                for one in self.read(which, lambda tx: lifecycle.list_sessions(tx, EVERYTHING, limit=10_000))
            }
            assert set(found) == set(self.model[which])
            for one in self.model[which].values():
                session = found[one.id]
                assert (session.status, session.end_reason) == (one.status, one.reason)
                assert session.message_count == len(one.said)
                said = self.read(
                    which, lambda tx, one=one: lane.conversation_until(tx, one.id, 2**62, 10_000)
                )
                assert [(line.position, line.role, line.content) for line in said] == [
                    line[:3] for line in one.said
                ]
                if one.owner is not None:
                    assert session.person_id == self.person(which, one.owner)

    @invariant()
    def the_books_hold(self) -> None:
        for which, database in enumerate(self.databases):
            for one in invariants.of(database.dialect):
                assert self.read(which, lambda tx, one=one: invariants.verify(tx, one)).holds, one.name

    @invariant()
    def nobody_sees_what_is_not_theirs(self) -> None:
        for which, _ in enumerate(self.databases):
            for user in self.known[which]:
                scope = PersonScope(self.person(which, user))
                seen = self.read(
                    which, lambda tx, scope=scope: lifecycle.list_sessions(tx, scope, limit=10_000)
                )
                mine = {
                    one.id
                    for one in self.model[which].values()
                    if one.owner == user and one.reason != "deleted"
                }
                assert {one.id for one in seen} == mine


@pytest.mark.parametrize("store", list(DATABASES))
def test_somebody_known_under_another_id_is_forgotten_with_what_was_moved(store):
    """A row of steps that chance seldom finds: two stores each have met the same person, and one gets the other's group."""
    machine = type("Machine", (TransferMachine,), {"store": store})()
    try:
        machine.open((12_000, 36_000))
        machine.say(0, "ann", in_group=True, is_answered=True)
        machine.say(1, "ann", in_group=False, is_answered=True)
        machine.say(1, "bob", in_group=True, is_answered=True)
        machine.move(0, "everything", "ann", 0, 1)
        machine.both_say_the_same()
        machine.forget(1, "ann")
        machine.both_say_the_same()
        machine.the_books_hold()
    finally:
        machine.teardown()


@pytest.mark.parametrize("store", list(DATABASES))
@pytest.mark.timeout(machines.TIMEOUT_S)
def test_moving_and_forgetting_are_what_the_model_says(store):
    """Any row of steps leaves in both stores what the model has, whichever databases they are."""
    machines.run(TransferMachine, store, EXAMPLES, steps=25)
