"""The store against a model in memory: whatever happens in whatever order, both say the same.

Messages arrive, come twice, are claimed, answered, refused, stopped, reset, expired and moved; chunks go out, get lost and are
put off; processes die. After each of these the tables are read and compared with what a few dictionaries say.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sessions import cleanup, inbox, lane, lifecycle, outbox, queue
from sessions.database import postgres
from sessions.database.base import Database, Transaction
from sessions.errors import StaleClaim
from sessions.models import Claim, ErrorRecord, StepRecord
from tests.sessions import machines
from tests.sessions.records import ACCOUNT, NOW, answer_step, incoming, resolved, tool_call
from tests.sessions.stores import DATABASES, Opener, broken

T = TypeVar("T")

LEASE_MS = 3_600_000
"""No lease ends by itself, however slow the machine is: the model knows nothing of the server's clock."""
EXAMPLES = {"sqlite": 50, "postgresql": 12}
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Memory, where there is such a folder: what the machine compares is not how durable a disk is, and it commits thousands of times."""

USERS = ("ann", "bob", "cay")
GROUPS = ("g1", "g2", "g3")
EXPIRE_AFTER_MS = 1_000
PICK = st.integers(0, 999)
CHUNKS = st.sampled_from([1, 2, 0])


@dataclass
class ModelSession:
    id: str
    key: str
    channel: str
    is_group: bool
    is_live: bool = True
    active_at: int = NOW
    turns: list["ModelTurn"] = field(default_factory=list)
    counters: dict[str, int] = field(
        default_factory=lambda: {"messages": 0, "tools": 0, "errors": 0, "input": 0, "output": 0}
    )


@dataclass
class ModelTurn:
    id: str
    inbox_id: int
    session: ModelSession
    heard_in: str
    text: str
    status: str = "queued"
    epoch: int = 0
    attempts: int = 0
    """Claims of it that were not given back."""
    is_cancelled: bool = False
    steps: int = 0
    ends: int = 0
    """How often a result was stored for it."""


@dataclass
class ModelChunk:
    channel: str
    text: str
    turn: ModelTurn
    state: str = "ready"
    may_be_out: bool = False
    is_final: bool = True
    message: str | None = None
    sends: int = 0


class StoreMachine(RuleBasedStateMachine):
    """One store, the model of it, and claims in the hands of workers, some of which have lost their turn."""

    store: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.now = NOW
        self.number = 0
        self.sessions: list[ModelSession] = []
        self.turns: dict[str, ModelTurn] = {}
        self.chunks: dict[str, ModelChunk] = {}
        self.arrived: list[Any] = []
        self.claims: list[Claim] = []

    # the store

    @initialize()
    def open(self) -> None:
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="palaver-machine-", dir=QUICK))
        self.opener: Opener = self.runner.run(
            self.stack.enter_async_context(DATABASES[self.store](Path(folder)))
        )
        self.database: Database = self.runner.run(self.opener())

    def teardown(self) -> None:
        try:
            if hasattr(self, "database"):
                self.finish_everything()
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.database.write(work))

    def read(self, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.database.read(work))

    # choosing

    @property
    def running(self) -> list[ModelTurn]:
        return [turn for turn in self.turns.values() if turn.status == "running"]

    def holds(self, claim: Claim) -> bool:
        turn = self.turns[claim.turn_id]
        return turn.status == "running" and turn.epoch == claim.epoch

    @property
    def current(self) -> list[Claim]:
        return [claim for claim in self.claims if self.holds(claim)]

    @property
    def stale(self) -> list[Claim]:
        return [claim for claim in self.claims if not self.holds(claim)]

    def waiting(self) -> list[tuple[str, ModelChunk]]:
        return [
            (key, chunk)
            for key, chunk in self.chunks.items()
            if chunk.is_final and chunk.state in ("ready", "sending", "uncertain")
        ]

    # messages

    def take_in(self, tx: Transaction, message: Any, scope: Any) -> tuple[inbox.QueuedTurn, Any]:
        session, person, _ = resolved(tx, message, scope=scope, now=self.now, expire_after_ms=EXPIRE_AFTER_MS)
        queued = inbox.accept(tx, message, session, person, self.now, ahead=lane.waiting(tx, session.id))
        return queued, session

    @rule(
        user=st.sampled_from(USERS), group=st.sampled_from([None, None, *GROUPS]), messages=st.integers(1, 3)
    )
    def messages_arrive(self, user: str, group: str | None, messages: int) -> None:
        for _ in range(messages):
            self.a_message_arrives(user, group)

    def a_message_arrives(self, user: str, group: str | None) -> None:
        self.number += 1
        message = incoming(
            f"text {self.number}",
            user_id=user,
            channel=group or f"dm-{user}",
            channel_kind="group" if group else "direct",
            message_id=f"m{self.number}",
        )
        queued, session = self.write(lambda tx: self.take_in(tx, message, "channel" if group else "person"))
        live = next((one for one in self.sessions if one.is_live and one.key == session.key), None)
        if live is not None and self.now - live.active_at > EXPIRE_AFTER_MS:
            live.is_live, live = False, None
        if live is None:
            assert session.id not in {one.id for one in self.sessions}, "a session that had ended was taken"
            live = ModelSession(session.id, session.key, message.channel, bool(group))
            self.sessions.append(live)
        assert queued.session_id == live.id
        assert queued.ahead == sum(turn.status in ("queued", "running") for turn in live.turns)
        turn = ModelTurn(queued.turn_id, queued.inbox_id, live, message.channel, message.text)
        live.turns.append(turn)
        live.active_at = self.now
        live.counters["messages"] += 1
        self.turns[turn.id] = turn
        self.arrived.append(message)

    @precondition(lambda self: self.arrived)
    @rule(pick=PICK)
    def a_message_comes_twice(self, pick: int) -> None:
        message = self.arrived[pick % len(self.arrived)]
        assert self.read(lambda tx: inbox.is_known(tx, message))
        # and should nobody ask:
        scope = "channel" if message.channel_kind == "group" else "person"
        with pytest.raises(Exception, match=r"(?i)unique"):
            self.write(lambda tx: self.take_in(tx, message, scope))

    def taking_a_message_in_fails_half_way(self, pick: int) -> None:
        user = USERS[pick % len(USERS)]
        message = incoming("never", user_id=user, channel=f"dm-{user}", message_id="never")

        def work(tx: Transaction) -> None:
            self.take_in(tx, message, "person")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self.write(work)
        assert not self.read(lambda tx: inbox.is_known(tx, message))

    # turns

    def check_claim(self, session: ModelSession, claim: Claim | None) -> None:
        is_busy = any(turn.status == "running" for turn in session.turns)
        queued = [turn for turn in session.turns if turn.status == "queued"]
        if is_busy or not queued:
            assert claim is None
            return
        turn = queued[0]
        assert claim is not None
        turn.status = "running"
        turn.epoch += 1
        turn.attempts += 1
        assert (claim.turn_id, claim.epoch, claim.attempts) == (turn.id, turn.epoch, turn.attempts)
        assert claim.is_cancelled == turn.is_cancelled
        assert claim.messages[-1].content == turn.text
        assert [step.number for step in claim.steps] == list(range(1, turn.steps + 1))
        assert claim.address.channel == (session.channel if session.is_group else turn.heard_in)
        self.claims.append(claim)

    @precondition(lambda self: any(turn.status == "queued" for turn in self.turns.values()))
    @rule(pick=PICK)
    def a_worker_claims(self, pick: int) -> None:
        waiting = [one for one in self.sessions if any(turn.status == "queued" for turn in one.turns)]
        session = waiting[pick % len(waiting)]
        claim = self.write(
            lambda tx: lane.claim(tx, session.id, self.now, context_messages=10, lease_ms=LEASE_MS)
        )
        self.check_claim(session, claim)

    @precondition(lambda self: self.database.dialect == "postgresql" and self.current)
    @rule(pick=PICK)
    def a_node_gives_a_turn_back(self, pick: int) -> None:
        claim = self.current[pick % len(self.current)]
        assert claim.msg_id is not None
        held = queue.Held(claim.msg_id, claim.epoch)
        assert self.write(lambda tx: queue.give_back(tx, claim.turn_id, held))
        turn = self.turns[claim.turn_id]
        turn.status = "queued"
        turn.attempts -= 1

    @precondition(lambda self: self.current)
    @rule(pick=PICK, steps=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=3))
    def steps_are_recorded(self, pick: int, steps: list[tuple[bool, bool]]) -> None:
        claim = self.current[pick % len(self.current)]
        for is_error, twice in steps:
            self.a_step_is_recorded(claim, is_error=is_error, twice=twice)

    def a_step_is_recorded(self, claim: Claim, *, is_error: bool, twice: bool) -> None:
        turn = self.turns[claim.turn_id]
        turn.steps += 1
        step = StepRecord(turn.steps, "tool_result", {"n": turn.steps})
        for _ in range(2 if twice else 1):  # a write repeated because its acknowledgement was lost
            self.write(
                lambda tx: lane.record_step(
                    tx, claim, step, self.now, tool_call=tool_call(turn.steps, is_error=is_error)
                )
            )
        turn.session.counters["tools"] += 1
        turn.session.counters["errors"] += is_error

    @precondition(lambda self: self.current)
    @rule(
        pick=PICK,
        status=st.sampled_from(["completed", "failed", "timeout", "cancelled"]),
        has_answer=st.booleans(),
        has_error=st.booleans(),
        chunks=CHUNKS,
        claims_next=st.booleans(),
    )
    def a_turn_ends(
        self, pick: int, status: Any, *, has_answer: bool, has_error: bool, chunks: int, claims_next: bool
    ) -> None:
        claim = self.current[pick % len(self.current)]
        self.end_turn(claim, status, has_answer, has_error, chunks, claims_next)

    def end_turn(
        self, claim: Claim, status: Any, has_answer: bool, has_error: bool, chunks: int, claims_next: bool
    ) -> None:
        turn = self.turns[claim.turn_id]
        session = turn.session
        error = ErrorRecord(f"R{self.number}", "fault", "x", None) if has_error else None
        texts = [f"{turn.text} part {part}" for part in range(chunks)]

        def store(tx: Transaction) -> Claim | None:
            lane.finish(
                tx,
                claim,
                status,
                self.now,
                answer="answer" if has_answer else None,
                error=error,
                input_tokens=3,
                output_tokens=2,
            )
            bodies = [{"text": text} for text in texts]
            outbox.add(
                tx,
                claim.address,
                "error" if error else "answer",
                bodies,
                self.now,
                turn_id=turn.id,
                session_id=session.id,
            )
            return (
                lane.claim(tx, session.id, self.now, context_messages=10, lease_ms=LEASE_MS)
                if claims_next
                else None
            )

        following = self.write(store)
        turn.status = status
        turn.ends += 1
        session.active_at = self.now
        session.counters["messages"] += has_answer
        session.counters["errors"] += has_error
        session.counters["input"] += 3
        session.counters["output"] += 2
        for part, text in enumerate(texts):
            key = outbox.chunk_key(turn.inbox_id, "answer", part)
            preview = self.chunks.get(key)
            if preview is None:
                self.chunks[key] = ModelChunk(claim.address.channel, text, turn)
                continue
            preview.text, preview.is_final = text, True
            if preview.state in ("sending", "uncertain"):
                preview.may_be_out = True
                preview.state = "uncertain"
            else:
                preview.state = "ready"
        if claims_next:
            self.check_claim(session, following)

    @precondition(lambda self: self.stale)
    @rule(pick=PICK, way=st.sampled_from(["step", "finish", "preview"]))
    def a_worker_that_lost_its_turn_is_refused(self, pick: int, way: str) -> None:
        claim = self.stale[pick % len(self.stale)]

        def late(tx: Transaction) -> None:
            if way == "step":
                lane.record_step(tx, claim, answer_step(99), self.now, tool_call=tool_call())
            elif way == "finish":
                lane.finish(tx, claim, "completed", self.now, answer="late", input_tokens=1000)
            else:
                outbox.open_preview(tx, claim.address, {"text": "late"}, self.now, turn=claim)

        with pytest.raises(StaleClaim):
            self.write(late)

    @precondition(lambda self: any(turn.status in ("queued", "running") for turn in self.turns.values()))
    @rule(pick=PICK, with_queued=st.booleans())
    def somebody_asks_to_stop(self, pick: int, *, with_queued: bool) -> None:
        session = self.sessions[pick % len(self.sessions)]
        asked = self.write(
            lambda tx: lane.request_cancel(tx, [session.id], self.now, with_queued=with_queued)
        )
        statuses = ("queued", "running") if with_queued else ("running",)
        expected = [turn for turn in session.turns if turn.status in statuses and not turn.is_cancelled]
        assert sorted(asked) == sorted(turn.id for turn in expected)
        for turn in expected:
            turn.is_cancelled = True

    # sessions

    @precondition(lambda self: self.sessions)
    @rule(what=st.sampled_from(["reset", "time", "clean-up", "move", "failure"]), pick=PICK)
    def something_less_common_happens(self, what: str, pick: int) -> None:
        match what:
            case "reset":
                self.a_session_is_reset(pick)
            case "time":
                self.now += (1, EXPIRE_AFTER_MS // 2, EXPIRE_AFTER_MS + 1)[pick % 3]
            case "clean-up":
                self.the_clean_up_runs()
            case "move":
                self.a_group_gets_another_id(GROUPS[pick % 3], GROUPS[pick // 3 % 3])
            case _:
                self.taking_a_message_in_fails_half_way(pick)

    def a_session_is_reset(self, pick: int) -> None:
        live = [session for session in self.sessions if session.is_live]
        if not live:
            return
        session = live[pick % len(live)]

        def reset(tx: Transaction) -> None:
            found = lifecycle.find_live(tx, session.key)
            assert found is not None and found.id == session.id
            lifecycle.end(tx, found, "reset", self.now)

        self.write(reset)
        session.is_live = False

    def the_clean_up_runs(self) -> None:
        while self.write(
            lambda tx: cleanup.clean_up(
                tx,
                self.now,
                expire_after_ms=EXPIRE_AFTER_MS,
                archive_after_ms=10 * EXPIRE_AFTER_MS,
                delete_after_ms=None,
            )
        ):
            pass
        for session in self.sessions:
            is_busy = any(turn.status in ("queued", "running") for turn in session.turns)
            if session.is_live and not is_busy and self.now - session.active_at > EXPIRE_AFTER_MS:
                session.is_live = False

    def a_group_gets_another_id(self, old: str, new: str) -> None:
        moved = self.write(lambda tx: lifecycle.move_channel(tx, ACCOUNT, old, new, self.now))
        if old == new:
            assert moved == 0
            return
        there = [session for session in self.sessions if session.channel == old]
        assert moved == len(there)
        key = next((session.key for session in self.sessions if session.channel == new), None)
        is_taken = any(session.channel == new and session.is_live for session in self.sessions)
        for session in there:
            if session.is_live and is_taken:
                session.is_live = False
            session.channel = new
            session.key = key or self.read(
                lambda tx, one=session: (
                    lifecycle.read_session(
                        tx.row("SELECT * FROM sessions WHERE id = :id", {"id": one.id})
                    ).key
                )
            )
        for chunk in self.chunks.values():
            is_open = chunk.turn.status in ("queued", "running") and not chunk.is_final
            if chunk.channel == old and (chunk.state in ("ready", "sending", "uncertain") or is_open):
                chunk.channel = new

    # replies

    @precondition(lambda self: self.current)
    @rule(pick=PICK, outcome=st.sampled_from(["sent", "refused", "lost", "nothing heard"]))
    def a_preview_is_shown(self, pick: int, outcome: str) -> None:
        claim = self.current[pick % len(self.current)]
        turn = self.turns[claim.turn_id]
        key = outbox.chunk_key(turn.inbox_id, "answer", 0)
        opened = self.write(
            lambda tx: outbox.open_preview(tx, claim.address, {"text": "so far"}, self.now, turn=claim)
        )
        chunk = self.chunks.get(key)
        if chunk is None:
            chunk = self.chunks[key] = ModelChunk(claim.address.channel, "so far", turn, is_final=False)
        if chunk.message is not None:
            assert opened is not None and opened[1] == chunk.message
            return
        if chunk.state in ("sending", "uncertain"):
            assert opened is None
            return
        assert opened is not None and opened[1] is None
        chunk.state = "sending"
        self.heard_of(opened[0], chunk, outcome, body=None)

    @precondition(lambda self: self.waiting())
    @rule(
        pick=PICK,
        outcomes=st.lists(
            st.sampled_from(["sent", "refused", "lost", "nothing heard", "given up"]), min_size=1, max_size=4
        ),
    )
    def chunks_are_sent(self, pick: int, outcomes: list[str]) -> None:
        for outcome in outcomes:
            if self.waiting():
                self.a_chunk_is_sent(pick, outcome)

    def a_chunk_is_sent(self, pick: int, outcome: str) -> None:
        channels = sorted({chunk.channel for _, chunk in self.waiting()})
        channel = channels[pick % len(channels)]
        first = self.read(lambda tx: outbox.waiting(tx, ACCOUNT, channel))[0]
        chunk = self.chunks[first.key]
        begun = self.write(lambda tx: outbox.begin(tx, first.id))
        assert begun == (chunk.state != "sending")
        chunk.state = "sending"
        self.heard_of(first.id, chunk, outcome, body=first.body)

    def heard_of(self, chunk_id: int, chunk: ModelChunk, outcome: str, *, body: Any) -> None:
        match outcome:
            case "sent":
                self.number += 1
                name = chunk.message or f"p{self.number}"
                assert self.write(lambda tx: outbox.mark_sent(tx, chunk_id, name, self.now, body=body)), (
                    "what was sent is what the chunk says"
                )
                chunk.state, chunk.message, chunk.sends = "sent", name, chunk.sends + 1
            case "refused":
                self.write(lambda tx: outbox.put_off(tx, chunk_id, 0, "429"))
                chunk.state = "uncertain" if chunk.may_be_out and chunk.message is None else "ready"
            case "lost":
                self.write(lambda tx: outbox.mark_uncertain(tx, chunk_id, 0, "timeout"))
                chunk.state, chunk.may_be_out = "uncertain", True
            case "given up":
                self.write(lambda tx: outbox.give_up(tx, chunk_id, "failed", "too old", self.now))
                chunk.state = "failed"

    # crashes

    @precondition(
        lambda self: self.running or any(chunk.state == "sending" for chunk in self.chunks.values())
    )
    @rule(chance=st.integers(0, 2), is_moved=st.booleans())
    def the_process_may_die(self, chance: int, is_moved: bool) -> None:
        if chance == 0:
            self.the_process_dies_and_comes_back(is_moved=is_moved)

    def the_process_dies_and_comes_back(self, *, is_moved: bool = False) -> None:
        """`is_moved`: to another server, where the queue is made from the turns."""
        self.runner.run(self.database.close())
        self.database = self.runner.run(self.opener())
        recovered = self.write(lambda tx: (lane.recover(tx), outbox.recover(tx, ACCOUNT)))
        sending = [chunk for chunk in self.chunks.values() if chunk.state == "sending"]
        assert recovered == (len(self.running), len(sending))
        for turn in self.running:
            turn.status = "queued"
        for chunk in sending:
            chunk.state, chunk.may_be_out = "uncertain", True
        if is_moved and self.database.dialect == "postgresql":
            self.write(queue.purge)
            self.write(queue.refill)

    # what must always hold

    @invariant()
    def store_and_model_say_the_same(self) -> None:
        if not hasattr(self, "database"):
            return
        tables = self.read(
            lambda tx: {
                "sessions": tx.rows("SELECT * FROM sessions"),
                "turns": tx.rows("SELECT * FROM turns ORDER BY session_id, position"),
                "messages": tx.rows("SELECT session_id, COUNT(*) AS n FROM messages GROUP BY session_id"),
                "tools": tx.rows("SELECT session_id, COUNT(*) AS n FROM tool_calls GROUP BY session_id"),
                "outbox": tx.rows("SELECT * FROM outbox ORDER BY id"),
                "inbox": tx.rows("SELECT COUNT(*) AS n FROM inbox"),
                "work": lane.sessions_with_work(tx),
            }
        )
        assert tables["inbox"][0]["n"] == len(self.turns)
        self.compare_sessions(tables)
        self.compare_turns(tables["turns"])
        stored = {
            row["key"]: (
                row["channel"],
                row["state"],
                bool(row["may_be_out"]),
                bool(row["is_final"]),
                row["platform_message_id"],
            )
            for row in tables["outbox"]
        }
        assert stored == {
            key: (chunk.channel, chunk.state, chunk.may_be_out, chunk.is_final, chunk.message)
            for key, chunk in self.chunks.items()
        }
        assert set(tables["work"]) == {
            turn.session.id for turn in self.turns.values() if turn.status == "queued"
        }

    def compare_sessions(self, tables: dict[str, Any]) -> None:
        rows = {row["id"]: row for row in tables["sessions"]}
        assert set(rows) == {session.id for session in self.sessions}
        messages = {row["session_id"]: row["n"] for row in tables["messages"]}
        tools = {row["session_id"]: row["n"] for row in tables["tools"]}
        for session in self.sessions:
            row = rows[session.id]
            assert (row["status"] == "active") == session.is_live
            assert (row["channel"], row["key"]) == (session.channel, session.key)
            counters = {
                "messages": row["message_count"],
                "tools": row["tool_call_count"],
                "errors": row["error_count"],
                "input": row["input_tokens"],
                "output": row["output_tokens"],
            }
            assert counters == session.counters
            assert counters["messages"] == messages.get(session.id, 0), "counters equal rows"
            assert counters["tools"] == tools.get(session.id, 0), "counters equal rows"
        live = [row["key"] for row in tables["sessions"] if row["status"] in ("active", "paused")]
        assert len(live) == len(set(live)), "one live session per key"

    def compare_turns(self, rows: list[Any]) -> None:
        running: set[str] = set()
        unfinished: set[str] = set()
        assert len(rows) == len(self.turns)
        for row in rows:
            turn = self.turns[row["id"]]
            assert (row["status"], row["epoch"], row["attempts"]) == (
                turn.status,
                turn.epoch,
                turn.attempts,
            )
            assert turn.session.turns[row["position"] - 1] is turn, "positions are the order of acceptance"
            assert turn.ends == (row["status"] not in ("queued", "running")), "each message ends once"
            if row["status"] == "running":
                assert row["session_id"] not in running, "one running turn per session"
                running.add(row["session_id"])
            if row["status"] in ("queued", "running"):
                unfinished.add(row["session_id"])
            else:
                assert row["session_id"] not in unfinished, "results come in the order of acceptance"

    def finish_everything(self) -> None:
        """At the end the process dies once more, and whoever comes next answers everything that was accepted."""
        self.the_process_dies_and_comes_back()
        for session in self.sessions:
            for _ in range(len(session.turns) + 1):
                claim = self.write(
                    lambda tx, one=session: lane.claim(
                        tx, one.id, self.now, context_messages=10, lease_ms=LEASE_MS
                    )
                )
                self.check_claim(session, claim)
                if claim is None:
                    break
                self.end_turn(claim, "completed", True, False, 1, claims_next=False)
        assert all(turn.ends == 1 for turn in self.turns.values())
        self.store_and_model_say_the_same()
        assert self.runner.run(broken(self.database)) == set()


@pytest.mark.timeout(machines.TIMEOUT_S)
@pytest.mark.parametrize("store", list(DATABASES))
def test_store_and_model_never_differ(store, monkeypatch):
    """Every row of steps leaves the tables as the model says; nothing is lost, doubled, out of order or miscounted."""
    # A message that is there already is a race to the store, and lost each time: here there is nobody to wait for.
    monkeypatch.setattr(postgres, "_FIRST_PAUSE_S", 0)
    machines.run(StoreMachine, store, EXAMPLES, steps=50)
