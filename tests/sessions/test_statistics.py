"""Statistics: every number is what the rows say, after whatever happened, folded or not."""

import asyncio
import random
import re
import statistics as arithmetic
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.names import PersonId, SessionId
from sessions import cleanup, emptying, forking, invariants, lane, lifecycle, statistics
from sessions.database import migrate
from sessions.errors import SessionClosed, SessionError
from sessions.models import ErrorRecord, StepRecord
from sessions.scope import ChannelScope, OperatorScope, PersonScope, SessionOnly
from sessions.statistics import BOUNDS, DAY_MS, HOUR_MS, ResponseTimes, Statistics, Subject
from tests import postgres
from tests.sessions.records import ACCOUNT, DAY, NOW, arrive, claimed, incoming, resolved, tool_call
from tests.sessions.stores import DATABASES, TRANSACTIONS

EVERYTHING = OperatorScope()
MIGRATIONS = Path(migrate.__file__).parent / "migrations"


def counted_again(tx, subject: Subject, now: int) -> dict:
    """All numbers from the rows, the slow and plain way; without the timeline, which keeps what is gone."""
    sessions = tx.rows("SELECT * FROM sessions WHERE end_reason IS NULL OR end_reason <> 'deleted'")
    key = {"all": None, "platform": "platform", "persona": "persona", "person": "person_id", "session": "id"}[
        subject.dimension
    ]
    ours = {row["id"]: row for row in sessions if key is None or (row[key] or "") == subject.name}
    turns = [row for row in tx.rows("SELECT * FROM turns") if row["session_id"] in ours]
    ended = [row for row in turns if row["status"] not in ("queued", "running")]
    messages = [
        row
        for row in tx.rows("SELECT * FROM messages")
        if row["session_id"] in ours  # what a fork took along was said elsewhere
        and not (row["turn_id"] is None and ours[row["session_id"]]["forked_from"])
    ]
    calls = [row for row in tx.rows("SELECT * FROM tool_calls") if row["session_id"] in ours]
    errors = Counter(
        row["kind"]
        for row in tx.rows("SELECT * FROM errors")
        if row["session_id"] in ours or (row["session_id"] is None and subject.dimension == "all")
    )
    errors["tool"] += sum(row["outcome"] == "error" for row in calls)
    times = sorted(row["finished_at"] - row["queued_at"] for row in ended)

    def rank(percent: int) -> int | None:
        if not times:
            return None
        time = times[-(-percent * len(times) // 100) - 1]
        return next((bound for bound in BOUNDS if bound > time), 0) - 1

    def middle() -> int | None:
        ends = [
            max(bound for bound in BOUNDS if bound <= time)
            + min(bound for bound in BOUNDS if bound > time)
            - 1
            for time in times
        ]
        return round(sum(ends) / (2 * len(ends))) if ends else None

    return {
        "sessions": dict(Counter(row["status"] for row in ours.values())),
        "sessions_by_platform": dict(Counter(row["platform"] for row in ours.values())),
        "turns": dict(Counter(row["status"] for row in turns)),
        "messages": len(messages),
        "tool_calls": len(calls),
        "errors": {kind: number for kind, number in errors.items() if number},
        "input_tokens": sum(row["input_tokens"] for row in turns),
        "output_tokens": sum(row["output_tokens"] for row in turns),
        "success_rate": sum(row["status"] == "completed" for row in ended) / len(ended) if ended else None,
        "response": ResponseTimes(rank(50), rank(95), rank(99), middle()),
        "mean_session_messages": len(messages) / len(ours) if ours else None,
        "mean_session_duration_ms": arithmetic.fmean(
            row["last_activity_at"] - row["created_at"] for row in ours.values()
        )
        if ours
        else None,
    }


def subjects(tx) -> list[Subject]:
    found = [
        Subject(),
        Subject("platform", "telegram"),
        Subject("platform", "discord"),
        Subject("persona", "poet"),
    ]
    found += [Subject("persona", ""), Subject("platform", "nowhere"), Subject("session", "none")]
    found += [Subject("person", row["id"]) for row in tx.rows("SELECT id FROM persons")]
    found += [Subject("session", row["id"]) for row in tx.rows("SELECT id FROM sessions")]
    return found


def assert_exact(tx, now: int) -> None:
    for subject in subjects(tx):
        read = statistics.read(tx, EVERYTHING, subject, now)
        for name, value in counted_again(tx, subject, now).items():
            got = getattr(read, name)
            assert got == (pytest.approx(value) if isinstance(value, float) else value), (subject, name)


def fold_all(tx, batch: int = 500) -> None:
    while statistics.fold(tx, batch):
        pass


class History:
    """A random life of a few people: everything that the store can do, in any order."""

    def __init__(self, tx, seed: int) -> None:
        self.tx = tx
        self.chance = random.Random(seed)
        self.now = NOW
        self.messages: Counter[int] = Counter()

    def step(self) -> None:
        self.now += self.chance.choice([0, 7, 130, 4_000, 90_000, 3_000_000])
        getattr(self, self.chance.choices(*zip(*self.STEPS.items(), strict=True))[0])()

    STEPS = {  # noqa: RUF012 - a table of weights
        "say": 12, "work": 12, "stop": 2, "edit": 1, "reset": 2, "pause": 1, "archive": 1, "resume": 2, "delete": 1,
        "purge": 1, "clean": 1, "merge": 1, "fold": 2, "lose": 1, "wander": 1,
    }  # fmt: skip

    def note(self) -> None:
        self.messages[self.now - self.now % HOUR_MS] += 1

    def say(self) -> None:
        user, platform = f"user-{self.chance.randrange(4)}", self.chance.choice(["telegram", "discord"])
        message = incoming(
            "hi",
            user_id=user,
            platform=platform,
            account=f"{platform}.main",
            channel=self.chance.choice(["room", f"direct-{user}"]),
        )
        scope = self.chance.choice(["person", "person", "channel", "person_everywhere"])
        persona = self.chance.choice([None, "poet"])
        try:
            arrive(self.tx, message, scope=scope, persona=persona, now=self.now, expire_after_ms=DAY)
        except SessionClosed:  # it is paused
            return
        self.note()

    def work(self) -> None:
        waiting = lane.sessions_with_work(self.tx)
        if not waiting:
            return
        session_id = self.chance.choice(waiting)
        running = self.tx.row(
            "SELECT 1 AS x FROM turns WHERE session_id = :id AND status = 'running'", {"id": session_id}
        )
        if running is not None:
            lane.recover(self.tx)
        claim = claimed(self.tx, session_id, self.now)
        for number in range(self.chance.randrange(3)):
            step = StepRecord(number + 1, "tool_result", {})
            failed = self.chance.random() < 0.4
            lane.record_step(self.tx, claim, step, self.now, tool_call=tool_call(number + 1, is_error=failed))
        if self.chance.random() < 0.15:
            return  # it goes on running
        self.now += self.chance.choice([1, 5, 800, 31_000])
        status = self.chance.choice(["completed", "completed", "failed", "timeout", "cancelled"])
        error = None
        if status in ("failed", "timeout"):
            error = ErrorRecord(f"{self.chance.random()}", self.chance.choice(["fault", "timeout"]), "", None)
        answer = "yes" if status == "completed" or self.chance.random() < 0.3 else None
        lane.finish(
            self.tx,
            claim,
            status,
            self.now,
            answer=answer,
            error=error,
            input_tokens=self.chance.randrange(500),
            output_tokens=self.chance.randrange(90),
        )
        session = lifecycle.find(self.tx, session_id, EVERYTHING)
        if answer and session.end_reason != "deleted":
            self.note()

    def stop(self) -> None:
        lane.request_cancel(self.tx, lane.sessions_with_work(self.tx), self.now, with_queued=True)

    def edit(self) -> None:
        self.tx.execute("UPDATE messages SET content = 'edited' WHERE part = 0")

    def reset(self) -> None:
        self._move(lambda session: lifecycle.end(self.tx, session, "reset", self.now))

    def pause(self) -> None:
        self._move(lambda session: lifecycle.pause(self.tx, session, self.now))

    def archive(self) -> None:
        self._move(lambda session: lifecycle.archive(self.tx, session, self.now))

    def resume(self) -> None:
        self._move(lambda session: lifecycle.resume(self.tx, session, self.now))

    def delete(self) -> None:
        self._move(lambda session: lifecycle.delete(self.tx, session, self.now))

    def purge(self) -> None:
        self._move(lambda session: cleanup.purge(self.tx, session.id))

    def merge(self) -> None:
        """One person turns out to be another: their sessions move."""
        ids = [row["id"] for row in self.tx.rows("SELECT id FROM persons ORDER BY id")]
        if len(ids) > 1:
            self.tx.execute(
                "UPDATE sessions SET person_id = :new WHERE person_id = :old AND status = 'ended'",
                {"old": self.chance.choice(ids), "new": self.chance.choice(ids)},
            )

    def clean(self) -> None:
        self.now += self.chance.choice([0, 2 * DAY])
        rules = {"expire_after_ms": DAY, "archive_after_ms": 7 * DAY, "delete_after_ms": 8 * DAY}
        for _ in range(self.chance.randrange(4)):
            cleanup.clean_up(self.tx, self.now, **rules, batch=self.chance.choice([1, 5, 50]))

    def lose(self) -> None:
        """An error that belongs to no session."""
        error = ErrorRecord(f"{self.chance.random()}", "store", "", None)
        lane.record_error(self.tx, error, self.now, turn_id=None, session_id=None)

    def wander(self) -> None:
        lifecycle.move_channel(self.tx, "telegram.main", "room", f"room-{self.now}", self.now)

    def fold(self) -> None:
        statistics.fold(self.tx, self.chance.choice([1, 3, 500]))

    def _move(self, how) -> None:
        sessions = lifecycle.list_sessions(self.tx, EVERYTHING)
        if sessions:
            try:
                how(self.chance.choice(sessions))
            except SessionError:
                return


@pytest.mark.parametrize("seed", range(6))
def test_every_number_is_what_the_rows_say(tx, seed):
    """After a random history with failures, resets, expiry, deletions, purges and merged people: all subjects, exact."""
    history = History(tx, seed)
    for number in range(1, 161):
        history.step()
        if number % 40 == 0:
            assert_exact(tx, history.now)
    fold_all(tx)
    assert not statistics.has_changes(tx)
    assert_exact(tx, history.now)
    read = statistics.read(tx, EVERYTHING, Subject(), history.now)
    assert read.turns and read.errors and sum(read.sessions.values()) > 3


@pytest.mark.parametrize("store", list(TRANSACTIONS))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), steps=st.lists(st.sampled_from(sorted(History.STEPS)), max_size=60))
def test_any_order_of_events_is_counted(store, seed, steps):
    """Whatever order hypothesis thinks of."""
    with TRANSACTIONS[store]() as tx:
        history = History(tx, seed)
        for step in steps:
            history.now += 1000
            getattr(history, step)()
        assert_exact(tx, history.now)


@pytest.mark.parametrize("seed", range(3))
def test_the_timeline_counts_what_came(tx, seed):
    """Messages by hour and day are those that came then, also when their session is gone since."""
    history = History(tx, seed)
    for _ in range(120):
        history.step()
    read = statistics.read(tx, EVERYTHING, Subject(), history.now)
    hour, day = history.now - history.now % HOUR_MS, history.now - history.now % DAY_MS
    assert read.messages_by_hour == [history.messages[hour - back * HOUR_MS] for back in range(23, -1, -1)]
    per_day: Counter[int] = Counter()
    for at, number in history.messages.items():
        per_day[at - at % DAY_MS] += number
    assert read.messages_by_day == [per_day[day - back * DAY_MS] for back in range(13, -1, -1)]
    fold_all(tx, 7)
    assert statistics.read(tx, EVERYTHING, Subject(), history.now) == read


def test_folding_changes_no_number(tx):
    """Before, between and after folding, in batches of any size, every read is the same."""
    history = History(tx, 11)
    for _ in range(120):
        getattr(history, history.chance.choice([name for name in History.STEPS if name != "fold"]))()
        history.now += 500
    before = {subject: statistics.read(tx, EVERYTHING, subject, history.now) for subject in subjects(tx)}
    for batch in (1, 2, 13, 500):
        statistics.fold(tx, batch)
        for subject, read in before.items():
            assert statistics.read(tx, EVERYTHING, subject, history.now) == read
    assert not statistics.has_changes(tx)


def test_sums_of_persons_platforms_and_personas_agree(tx):
    """What all platforms have together is what everything has; the same for personas."""
    history = History(tx, 5)
    for _ in range(100):
        history.step()
    whole = statistics.read(tx, EVERYTHING, Subject(), history.now)
    for dimension, names in (("platform", ("telegram", "discord")), ("persona", ("", "poet"))):
        parts = [statistics.read(tx, EVERYTHING, Subject(dimension, name), history.now) for name in names]
        assert sum(part.messages for part in parts) == whole.messages
        assert sum((Counter(part.sessions) for part in parts), Counter()) == whole.sessions


def test_nobody_reads_what_is_not_theirs(tx):
    """A person reads their own sums and sessions, a channel its shared session, a turn its session; everything else is empty."""
    mine = arrive(tx, incoming("a")).session_id
    theirs = arrive(tx, incoming("b", user_id="user-2")).session_id
    shared = arrive(
        tx, incoming("c", user_id="user-2", channel="room", channel_kind="group"), scope="channel"
    ).session_id
    me = PersonId(tx.row("SELECT person_id FROM sessions WHERE id = :id", {"id": mine})["person_id"])
    them = tx.row("SELECT person_id FROM sessions WHERE id = :id", {"id": theirs})["person_id"]
    everything = [Subject(), Subject("platform", "telegram"), Subject("persona", ""), Subject("person", me)]
    everything += [Subject("person", them), *(Subject("session", one) for one in (mine, theirs, shared))]
    for scope, seen in (
        (PersonScope(me), {Subject("person", me), Subject("session", mine)}),
        (PersonScope(PersonId("nobody")), set()),
        (PersonScope(PersonId("telegram")), set()),
        (PersonScope(PersonId("")), set()),
        (ChannelScope(ACCOUNT, "room"), {Subject("session", shared)}),
        (ChannelScope(ACCOUNT, "other"), set()),
        (SessionOnly(SessionId(theirs)), {Subject("session", theirs)}),
        (OperatorScope(), set(everything)),
    ):
        for folded in (False, True):
            if folded:
                fold_all(tx)
            for subject in everything:
                read = statistics.read(tx, scope, subject, NOW)
                blank = Statistics(subject, messages_by_hour=[0] * 24, messages_by_day=[0] * 14)
                assert (read != blank) == (subject in seen), (scope, subject)


def test_a_copy_is_not_said_again(tx):
    """Forking counts no message; what is said in the copy, forgotten in it, and the copy's end are counted as elsewhere."""
    for text in ("one", "two", "three"):
        queued = arrive(tx, incoming(text))
        lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer="yes")
    session = resolved(tx, incoming("one"))[0]
    before = statistics.read(tx, EVERYTHING, Subject(), NOW)
    assert (before.messages, sum(before.messages_by_day)) == (6, 6)
    made = forking.fork(tx, session, NOW)
    assert_exact(tx, NOW)
    after = statistics.read(tx, EVERYTHING, Subject(), NOW)
    assert (after.messages, sum(after.messages_by_day)) == (6, 6)
    assert made.session.message_count == 6
    queued = arrive(tx, incoming("four"))
    lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer="yes")
    assert statistics.read(tx, EVERYTHING, Subject("session", made.session.id), NOW).messages == 2
    emptying.empty_turns(tx, made.session.id, [1, 4], NOW)
    assert_exact(tx, NOW)
    assert lifecycle.find(tx, made.session.id, EVERYTHING).message_count == 4
    lifecycle.delete(tx, lifecycle.find(tx, made.session.id, EVERYTHING), NOW)
    assert_exact(tx, NOW)
    assert statistics.read(tx, EVERYTHING, Subject(), NOW).messages == 6
    assert all(invariants.verify(tx, one).holds for one in invariants.of(tx.dialect))


def test_a_forgotten_person_leaves_no_id(tx):
    """After their sessions are gone, no statistics row names the person; the sums of all keep the timeline."""
    queued = arrive(tx, incoming("a"))
    _, person, _ = resolved(tx, incoming())
    fold_all(tx)
    cleanup.purge(tx, queued.session_id)
    statistics.forget_person(tx, person.id)
    for table in ("totals", "counts", "hours"):
        rows = tx.rows(f"SELECT * FROM statistics_{table}")
        assert rows or table != "hours"
        assert person.id not in str(rows)
    assert tx.rows("SELECT * FROM statistics_changes") == []
    assert statistics.read(tx, EVERYTHING, Subject(), NOW).messages == 0


def test_old_hours_are_removed_in_batches(tx):
    """Hours that nobody asks for any more go; those of the last 14 days stay."""
    for day in range(30):
        arrive(tx, incoming("x"), now=NOW + day * DAY)
    fold_all(tx)
    now = NOW + 29 * DAY
    before = statistics.read(tx, EVERYTHING, Subject(), now)
    removed = 0
    while batch := statistics.forget_old_hours(tx, now, 5):
        assert batch <= 4 * 6
        removed += batch
    assert removed > 0
    assert statistics.read(tx, EVERYTHING, Subject(), now) == before
    assert before.messages_by_day == [1] * 14


def test_the_cache_hit_rate_is_of_fourteen_days_and_every_node(tx):
    """What daemons add stands in the numbers of everything, for operators only; days that are past do not."""
    assert statistics.read(tx, EVERYTHING, Subject(), NOW).cache_hit_rate is None
    statistics.count_cache(tx, 0, 900, NOW - 15 * DAY)
    statistics.count_cache(tx, 50, 10, NOW - 13 * DAY)
    statistics.count_cache(tx, 20, 5, NOW)
    statistics.count_cache(tx, 10, 5, NOW)
    assert statistics.read(tx, EVERYTHING, Subject(), NOW).cache_hit_rate == 0.8
    assert statistics.read(tx, EVERYTHING, Subject(), NOW + DAY).cache_hit_rate == 30 / 40
    assert statistics.read(tx, EVERYTHING, Subject("platform", "telegram"), NOW).cache_hit_rate is None
    assert statistics.read(tx, PersonScope(PersonId("p")), Subject(), NOW).cache_hit_rate is None
    kept = tx.row("SELECT COUNT(*) AS n FROM cache_counts")
    assert kept and kept["n"] == 2


def test_buckets_are_the_same_everywhere(tx):
    """The code, the table of SQLite and the function of PostgreSQL hold the same bounds, each at most a tenth above the last."""
    for name in ("sqlite", "postgresql"):
        text = (MIGRATIONS / f"0003_statistics.{name}.sql").read_text()
        listed = re.search(r"VALUES\n(.*?);|'\{\n(.*?)\}'", text, re.DOTALL)
        assert [int(number) for number in re.findall(r"\d+", listed[0].split("\n", 1)[1])] == BOUNDS
    assert all(lower < upper <= max(lower + 1, lower * 1.1 + 1) for lower, upper in pairwise(BOUNDS))


@given(st.lists(st.integers(0, 6 * DAY_MS), min_size=1, max_size=200))
def test_percentiles_are_exact_with_respect_to_the_buckets(times):
    """Each is at least the true nearest rank and at most a tenth above it."""
    read = statistics.response_times(Counter(statistics.bucket_of(time) for time in times))
    ordered = sorted(times)
    for percent, value in ((50, read.p50_ms), (95, read.p95_ms), (99, read.p99_ms)):
        true = ordered[-(-percent * len(ordered) // 100) - 1]
        assert true <= value <= max(true, true * 1.1 + 1)
    true = sum(times) / len(times)
    assert abs(read.mean_ms - true) <= true / 20 + 1


def test_what_was_there_before_is_counted(oldest):
    """A database made by the first migration alone, with data in it: afterwards every number is what the rows say."""
    tx = oldest
    for number in range(40):
        status = ("active", "ended", "archived", "ended")[number % 4]
        tx.execute(
            "INSERT INTO sessions (id, key, scope, platform, account, channel, person_id, persona, status, end_reason,"
            " message_count, tool_call_count, input_tokens, created_at, last_activity_at) VALUES (:id, :id, 'person', :platform,"
            " 'a', 'c', :person, :persona, :status, :reason, 2, 1, 7, :now, :now + 5000)",
            {
                "id": f"s{number}",
                "platform": ("telegram", "discord")[number % 2],
                "person": (None, "p1", "p2")[number % 3],
                "persona": (None, "poet")[number // 2 % 2],
                "status": status,
                "reason": ("deleted" if number == 7 else "reset") if status != "active" else None,
                "now": NOW - number * HOUR_MS,
            },
        )
        about = {"session": f"s{number}", "turn": f"t{number}", "now": NOW - number * HOUR_MS}
        tx.execute(
            "INSERT INTO turns (id, session_id, position, inbox_id, status, queued_at, finished_at, input_tokens, tool_calls)"
            " VALUES (:turn, :session, 1, 1, :status, :now, :finished, 7, 1)",
            {
                **about,
                "status": ("completed", "failed", "queued")[number % 3],
                "finished": about["now"] + number * 11,
            },
        )
        for part, role in enumerate(("user", "assistant")):
            tx.execute(
                "INSERT INTO messages (session_id, position, part, role, content, created_at)"
                " VALUES (:session, 1, :part, :role, 'x', :now)",
                {"session": about["session"], "now": about["now"], "part": part, "role": role},
            )
        tx.execute(
            "INSERT INTO tool_calls (turn_id, session_id, step, call_id, name, arguments, result, outcome, started_at,"
            " duration_ms) VALUES (:turn, :session, 1, 'c', 'n', '{}', '', :outcome, 0, 0)",
            {"turn": about["turn"], "session": about["session"], "outcome": ("ok", "error")[number % 2]},
        )
        tx.execute(
            "INSERT INTO errors (ref, session_id, kind, message, created_at) VALUES (:ref, :session, 'fault', '', 0)",
            {"ref": f"r{number}", "session": about["session"] if number % 5 else None},
        )
    for migration in migrate.migrations()[1:]:
        migrate.apply(tx, migration, 0)
    for _ in range(2):
        assert_exact(tx, NOW)
        fold_all(tx)
    read = statistics.read(tx, EVERYTHING, Subject(), NOW)
    assert read.messages_by_hour == [2] * 24
    assert sum(read.messages_by_day) == 80


async def test_folding_beside_others_who_write_loses_and_doubles_nothing(tmp_path):
    """Several nodes on one PostgreSQL fold at the same time while facts come in: every read on the way and the end are exact."""
    postgres.skip_without_server()
    people, rounds = 4, 15
    async with DATABASES["postgresql"](tmp_path) as opener:
        nodes = [await opener() for _ in range(3)]

        async def talk(node, user: int) -> None:
            for _ in range(rounds):
                await node.write(lambda tx: arrive(tx, incoming(user_id=f"user-{user}", channel=f"c{user}")))

        async def fold_often(node) -> None:
            last = 0
            while not done.is_set():
                await node.write(lambda tx: statistics.fold(tx, 3))
                read = await node.read(lambda tx: statistics.read(tx, EVERYTHING, Subject(), NOW))
                assert last <= read.messages <= people * rounds
                last = read.messages

        done = asyncio.Event()
        folding = [asyncio.create_task(fold_often(node)) for node in nodes]
        await asyncio.gather(*(talk(nodes[user % 3], user) for user in range(people)))
        done.set()
        await asyncio.gather(*folding)
        while await nodes[0].write(statistics.fold):
            pass
        await nodes[0].read(lambda tx: assert_exact(tx, NOW))
        read = await nodes[0].read(lambda tx: statistics.read(tx, EVERYTHING, Subject(), NOW))
        assert read.messages == people * rounds
        assert sum(read.messages_by_hour) == people * rounds
