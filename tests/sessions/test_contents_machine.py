"""Lifecycle, contents and forks against a model in memory: whatever happens in whatever order, both say the same.

Two people each have one key; messages come and are answered, sessions are paused, resumed, ended, archived, deleted, forked,
named and cleaned up, have idle times of their own, and hold notebooks, integrations, variables, metadata and tasks. After each
step every row is compared with a few dictionaries.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sessions import cleanup, contents, forking, lane, lifecycle
from sessions.contents import LinkKind
from sessions.errors import IllegalTransition, SessionNotFound
from sessions.lifecycle import Doer
from sessions.scope import OperatorScope, PersonScope
from tests.sessions import machines
from tests.sessions.records import DAY, NOW, arrive, claimed, incoming, resolved
from tests.sessions.stores import TRANSACTIONS

EVERYTHING = OperatorScope()
USERS = ("ann", "bob")
PICK = st.integers(0, 99)
KINDS = st.sampled_from(["notebook", "integration"])
NAMES = st.sampled_from(["alpha", "beta", "gamma"])
RULES = {"expire_after_ms": DAY, "archive_after_ms": 7 * DAY, "delete_after_ms": 30 * DAY}
EXAMPLES = {"sqlite": 60, "postgresql": 6}


@dataclass
class ModelSession:
    id: str
    user: str
    status: str = "active"
    reason: str | None = None
    title: str | None = None
    said: list[str] = field(default_factory=list)
    links: dict[str, list[str]] = field(default_factory=lambda: {"notebook": [], "integration": []})
    metadata: dict[str, int] = field(default_factory=dict)
    idle_ms: int | None = None
    variables: dict[str, int] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    task: str | None = None
    events: list[tuple[str, str]] = field(default_factory=list)
    active_at: int = NOW
    ended_at: int | None = None

    def move(self, status: str, reason: str | None, now: int) -> None:
        self.events.append((self.status, status))
        if (status == "ended" and self.status != "ended") or reason == "deleted":
            self.ended_at = now
        if status == "active":
            self.ended_at, self.active_at = None, now
        if status == "paused":
            self.ended_at = None
        self.status, self.reason = status, reason

    def is_idle(self, now: int) -> bool:
        """For longer than it may be, by its own time or else by the rule for all."""
        idle_ms = DAY if self.idle_ms is None else self.idle_ms
        return bool(idle_ms) and now - self.active_at > idle_ms


class ContentsMachine(RuleBasedStateMachine):
    """One store and the model of it."""

    store: str

    def __init__(self) -> None:
        super().__init__()
        self.context = TRANSACTIONS[self.store]()
        self.tx = self.context.__enter__()
        self.now = NOW
        self.number = 0
        self.model: dict[str, ModelSession] = {}
        self.persons: dict[str, str] = {}

    def teardown(self) -> None:
        self.context.__exit__(None, None, None)

    def live(self, user: str) -> ModelSession | None:
        found = [
            one for one in self.model.values() if one.user == user and one.status in ("active", "paused")
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def pick(self, number: int) -> ModelSession | None:
        """Any session that is still there, deleted ones included."""
        there = list(self.model.values())
        return there[number % len(there)] if there else None

    def stored(self, one: ModelSession) -> Any:
        return lifecycle.find(self.tx, one.id, EVERYTHING)

    # what people do

    @rule(user=st.sampled_from(USERS), is_answered=st.booleans())
    def say(self, user: str, is_answered: bool) -> None:
        self.now += 1
        message = incoming(f"m{self.number}", user_id=user, channel=user)
        self.number += 1
        before = self.live(user)
        if before is not None and before.status == "paused":
            return
        if before is not None and before.is_idle(self.now):
            before.move("ended", "abandoned" if before.task else "expired", self.now)
            before = None
        queued = arrive(self.tx, message, now=self.now)
        found, person, _ = resolved(self.tx, message, now=self.now)
        self.persons[user] = person.id
        if before is None:
            assert queued.session_id not in self.model
            self.model[queued.session_id] = ModelSession(queued.session_id, user)
        one = self.model[queued.session_id]
        assert found.id == one.id
        one.said.append(message.text)
        one.active_at = self.now
        # answered at once: what waits is the store machine's affair
        lane.finish(
            self.tx,
            claimed(self.tx, one.id, self.now),
            "completed",
            self.now,
            answer="a" if is_answered else None,
        )
        if is_answered:
            one.said.append("a")

    @rule(number=PICK, step=st.sampled_from(["pause", "resume", "end", "archive", "delete"]))
    def step(self, number: int, step: str) -> None:
        one = self.pick(number)
        if one is None:
            return
        self.now += 1
        found = self.stored(one)
        target = lifecycle.TRANSITIONS[one.status].get(step)  # type: ignore[index, call-overload]
        if one.reason == "deleted" and step == "archive":
            target = None
        functions: dict[str, Any] = {
            "pause": lifecycle.pause,
            "resume": lifecycle.resume,
            "end": lambda tx, session, now: lifecycle.end(tx, session, "completed", now),
            "archive": lifecycle.archive,
            "delete": lifecycle.delete,
        }
        if target is None:
            live = self.live(one.user)
            with pytest.raises(IllegalTransition):
                functions[step](self.tx, found, self.now)
            assert self.live(one.user) is live
            return
        live = self.live(one.user)
        functions[step](self.tx, found, self.now)
        if step == "resume" and live is not None and live is not one:
            live.move("ended", "completed", self.now)
        reasons = {"end": "completed", "delete": "deleted", "archive": one.reason}
        one.move(target, reasons.get(step), self.now)

    @rule(user=st.sampled_from(USERS), last=st.none() | st.integers(1, 5))
    def fork(self, user: str, last: int | None) -> None:
        one = self.live(user)
        if one is None:
            return
        self.now += 1
        made = forking.fork(self.tx, self.stored(one), self.now, last=last, by=Doer("person"))
        one.move("ended", "completed", self.now)
        said = one.said[-last:] if last else list(one.said)
        assert made.copied == len(said)
        self.model[made.session.id] = ModelSession(
            made.session.id,
            user,
            title=one.title,
            said=said,
            links={kind: list(names) for kind, names in one.links.items()},
            metadata=dict(one.metadata),
            idle_ms=one.idle_ms,
            variables=dict(one.variables),
            tasks=[one.task] if one.task else [],
            task=one.task,
            active_at=self.now,
        )

    @rule(number=PICK, title=st.none() | NAMES)
    def name(self, number: int, title: str | None) -> None:
        if (one := self.pick(number)) is not None:
            one.title = contents.set_title(self.tx, one.id, title)

    @rule(number=PICK, patch=st.dictionaries(NAMES, st.none() | st.integers(0, 3), max_size=2))
    def patch(self, number: int, patch: dict[str, int | None]) -> None:
        if (one := self.pick(number)) is not None:
            left = {name: value for name, value in (one.metadata | patch).items() if value is not None}
            one.metadata = left  # type: ignore[assignment]  # None is gone
            assert contents.merge_metadata(self.tx, one.id, patch) == left

    @rule(number=PICK, idle_ms=st.sampled_from([None, 0, DAY // 12, 9 * DAY]))
    def idle_time(self, number: int, idle_ms: int | None) -> None:
        if (one := self.pick(number)) is not None:
            lifecycle.set_expiry(self.tx, one.id, idle_ms)
            one.idle_ms = idle_ms

    @rule(number=PICK, kind=KINDS, name=NAMES, is_added=st.booleans())
    def link(self, number: int, kind: LinkKind, name: str, is_added: bool) -> None:
        one = self.pick(number)
        if one is None:
            return
        self.now += 1
        if is_added:
            assert contents.add_link(self.tx, one.id, kind, name, self.now) is (name not in one.links[kind])
            one.links[kind] += [name] if name not in one.links[kind] else []
        else:
            assert contents.remove_link(self.tx, one.id, kind, name) is (name in one.links[kind])
            one.links[kind] = [link for link in one.links[kind] if link != name]

    @rule(number=PICK, name=NAMES, value=st.none() | st.integers(0, 3))
    def variable(self, number: int, name: str, value: int | None) -> None:
        one = self.pick(number)
        if one is None:
            return
        if value is None:
            assert contents.delete_variable(self.tx, one.id, name) is (name in one.variables)
            one.variables.pop(name, None)
        else:
            contents.set_variable(self.tx, one.id, name, value, self.now)
            one.variables[name] = value

    @rule(number=PICK, task=st.none() | NAMES)
    def task(self, number: int, task: str | None) -> None:
        one = self.pick(number)
        if one is None:
            return
        if task is None:
            contents.clear_current_task(self.tx, one.id, self.now)
        else:
            contents.set_current_task(self.tx, one.id, task, self.now)
            one.tasks.append(task)
        one.task = task

    @rule(hours=st.sampled_from([1, 30, 24 * 8, 24 * 31]))
    def time_passes(self, hours: int) -> None:
        self.now += hours * DAY // 24

    @rule()
    def clean_up(self) -> None:
        while cleanup.clean_up(self.tx, self.now, **RULES):
            pass
        for one in list(self.model.values()):
            if one.status in ("active", "paused") and one.is_idle(self.now):
                one.move("ended", "abandoned" if one.task else "expired", self.now)
            is_over = one.status in ("ended", "archived") and one.reason != "deleted"
            if is_over and one.ended_at is not None and one.ended_at < self.now - 30 * DAY:
                one.move("ended", "deleted", self.now)
            elif one.status == "ended" and one.reason != "deleted" and one.ended_at < self.now - 7 * DAY:
                one.move("archived", one.reason, self.now)
            if one.reason == "deleted" and one.ended_at < self.now - DAY:
                del self.model[one.id]

    # what must hold

    @invariant()
    def both_say_the_same(self) -> None:
        found = {one.id: one for one in lifecycle.list_sessions(self.tx, EVERYTHING, limit=10_000)}
        assert set(found) == set(self.model)
        for one in self.model.values():
            session = found[one.id]
            assert (session.status, session.end_reason) == (one.status, one.reason)
            assert (session.title, session.current_task, session.ended_at) == (
                one.title,
                one.task,
                one.ended_at,
            )
            assert session.message_count == len(one.said)
            said = lane.conversation_until(self.tx, one.id, 2**62, 10_000)
            assert [message.content for message in said] == one.said
            for kind, names in one.links.items():
                assert contents.links(self.tx, one.id, EVERYTHING, kind) == names
            assert (session.metadata, session.expire_after_ms) == (one.metadata, one.idle_ms)
            assert contents.variables(self.tx, one.id, EVERYTHING) == one.variables
            assert [task.task for task in contents.tasks(self.tx, one.id, EVERYTHING)] == one.tasks[::-1]
            told = [
                (event.from_status, event.to_status)
                for event in lifecycle.events(self.tx, one.id, EVERYTHING)
            ]
            assert told == one.events

    @invariant()
    def everybody_sees_their_own_and_nothing_deleted(self) -> None:
        for user, person in self.persons.items():
            scope = PersonScope(person)
            seen = {one.id for one in lifecycle.list_sessions(self.tx, scope, limit=10_000)}
            mine = {one.id for one in self.model.values() if one.user == user and one.reason != "deleted"}
            assert seen == mine
            for one in self.model.values():
                if one.id not in mine:
                    with pytest.raises(SessionNotFound):
                        lifecycle.find(self.tx, one.id, scope)
                    assert contents.titles(self.tx, [one.id], scope) == {}


@pytest.mark.parametrize("store", list(TRANSACTIONS))
@pytest.mark.timeout(machines.TIMEOUT_S)
def test_lifecycle_contents_and_forks_are_what_the_model_says(store):
    """Any row of steps leaves the sessions, their contents and their histories as the model has them."""
    machines.run(ContentsMachine, store, EXAMPLES, steps=40)
