"""The life of a session: made, found, paused, ended, expired, moved, cleaned up; and what hangs on it."""

import asyncio
import dataclasses
from typing import Any

import pytest

from config.names import ChannelId, PersonId
from sessions import addresses, cleanup, contents, forking, history, inbox, lane, lifecycle, outbox, search
from sessions.errors import IllegalTransition, SessionNotFound
from sessions.models import Session, StepRecord
from sessions.scope import ChannelScope, OperatorScope, PersonScope, SessionOnly
from tests.sessions.records import (
    ACCOUNT,
    CHANNEL,
    DAY,
    NOW,
    arrive,
    claimed,
    count,
    error_record,
    incoming,
    resolved,
    session_row,
    tool_call,
)
from tests.sessions.stores import DATABASES, TRANSACTIONS

EVERYTHING = OperatorScope()
RULES = {"expire_after_ms": DAY, "archive_after_ms": 7 * DAY, "delete_after_ms": 30 * DAY}


def session(tx, **changes: Any) -> Session:
    return resolved(tx, incoming(**changes))[0]


def fresh(tx, stale: Session) -> Session:
    return lifecycle.find(tx, stale.id, EVERYTHING)


# resolving


def test_messages_of_one_person_share_a_session_and_others_have_their_own(tx):
    """Made with the first message, found with the next; another person gets another."""
    first, person, is_new = resolved(tx, incoming(), persona="bard")
    again, _, is_new_again = resolved(tx, incoming(), persona="other")
    assert (is_new, is_new_again) == (True, False)
    assert again == first
    assert (first.status, first.person_id, first.persona, first.scope) == (
        "active",
        person.id,
        "bard",
        "person",
    )
    assert (first.account, first.channel, first.platform) == (ACCOUNT, CHANNEL, "telegram")
    assert session(tx, user_id="user-2").id != first.id


def test_threads_are_apart_only_if_the_operator_wants_it(tx):
    """With separate threads each has a session; without, the thread is not part of it."""
    assert session(tx, thread="1").id != session(tx, thread="2").id != session(tx).id
    one, _, _ = resolved(tx, incoming(user_id="u", thread="1"), separate_threads=False)
    other, _, _ = resolved(tx, incoming(user_id="u", thread="2"), separate_threads=False)
    assert one.id == other.id and one.thread is None


def test_a_shared_session_belongs_to_nobody(tx):
    """The session of a channel has no person, so that no person's scope ever shows it."""
    group = {"channel": "g", "channel_kind": "group"}
    one, person, _ = resolved(tx, incoming(**group), scope="channel")
    other, _, _ = resolved(tx, incoming(user_id="user-2", **group), scope="channel")
    assert one.id == other.id and one.person_id is None
    member, _, _ = resolved(tx, incoming(**group), scope="member")
    assert member.person_id == person.id


def test_a_session_idle_for_too_long_is_replaced(tx):
    """At the limit it goes on; past it, it ends as expired and a new one begins. Zero means never."""
    first = session(tx)
    again, _, _ = resolved(tx, incoming(), now=NOW + 100, expire_after_ms=100)
    assert again.id == first.id
    late, _, is_new = resolved(tx, incoming(), now=NOW + 101, expire_after_ms=100)
    assert late.id != first.id and is_new
    old = fresh(tx, first)
    assert (old.status, old.end_reason, old.ended_at) == ("ended", "expired", NOW + 101)
    for_ever, _, _ = resolved(tx, incoming(), now=NOW + 900 * DAY, expire_after_ms=0)
    assert for_ever.id == late.id


def test_accepting_and_finishing_keep_a_session_from_expiring(tx):
    """Idle is counted from the last message or answer."""
    queued = arrive(tx, now=NOW + 500)
    lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW + 800, answer="a")
    found, _, is_new = resolved(tx, incoming(), now=NOW + 890, expire_after_ms=100)
    assert found.id == queued.session_id and not is_new


def test_two_live_sessions_under_one_key_cannot_be_stored(tx):
    """Whatever the code does, the database refuses a second live session of a key."""
    first = session(tx)
    tx.execute("SAVEPOINT wrong")
    with pytest.raises(Exception, match=r"(?i)unique"):
        tx.execute(
            "INSERT INTO sessions (id, key, scope, platform, account, channel, status, created_at, last_activity_at)"
            " VALUES ('other', :key, 'person', 'p', 'a', 'c', 'paused', 0, 0)",
            {"key": first.key},
        )
    tx.execute("ROLLBACK TO SAVEPOINT wrong")


# transitions

STEPS = {
    "pause": lifecycle.pause,
    "resume": lifecycle.resume,
    "end": lambda tx, found, now: lifecycle.end(tx, found, "completed", now),
    "archive": lifecycle.archive,
    "delete": lifecycle.delete,
}
WAYS_TO = {"active": (), "paused": ("pause",), "ended": ("end",), "archived": ("end", "archive")}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", WAYS_TO)
def test_each_step_from_each_status_is_in_the_table_or_refused(tx, status, step):
    """All twenty pairs: those of the table lead where it says with the right times, all others raise and change nothing."""
    found = session(tx)
    for way in WAYS_TO[status]:
        found = STEPS[way](tx, found, NOW + 1)
    before = session_row(tx, found.id)
    target = lifecycle.TRANSITIONS[found.status].get(step)
    if target is None:
        with pytest.raises(IllegalTransition, match=status):
            STEPS[step](tx, found, NOW + 2)
        assert session_row(tx, found.id) == before
        return
    moved = STEPS[step](tx, found, NOW + 2)
    assert moved == fresh(tx, found)
    assert moved.status == target
    assert (moved.paused_at is not None) == (target == "paused")
    assert (moved.ended_at is not None) == (target in ("ended", "archived"))
    assert (moved.archived_at is not None) == (target == "archived")
    assert (moved.end_reason is not None) == (target in ("ended", "archived"))
    if step == "delete":
        assert moved.end_reason == "deleted" and moved.ended_at == NOW + 2
    if step == "archive":
        assert moved.end_reason == "completed" and moved.ended_at == NOW + 1
    assert moved.last_activity_at == (NOW + 2 if step == "resume" else NOW)


def test_a_transition_on_old_knowledge_is_refused(tx):
    """Somebody else ended the session meanwhile: pausing it raises and changes nothing."""
    stale = session(tx)
    lifecycle.end(tx, stale, "reset", NOW)
    with pytest.raises(IllegalTransition):
        lifecycle.pause(tx, stale, NOW)
    assert fresh(tx, stale).end_reason == "reset"


def test_resuming_ends_the_session_that_took_its_place(tx):
    """There is one live session per key: the resumed one, and only with the same key."""
    first = session(tx)
    bystander = session(tx, user_id="user-2")
    ended = lifecycle.end(tx, first, "reset", NOW)
    second = session(tx)
    resumed = lifecycle.resume(tx, ended, NOW + 5)
    assert (resumed.status, resumed.end_reason, resumed.last_activity_at) == ("active", None, NOW + 5)
    assert (fresh(tx, second).status, fresh(tx, second).end_reason) == ("ended", "completed")
    assert fresh(tx, bystander).status == "active"
    assert session(tx).id == first.id


def test_a_deleted_session_is_not_resumed_on_old_knowledge(tx):
    """Deleted meanwhile: whoever still holds it as ended cannot bring it back."""
    ended = lifecycle.end(tx, session(tx), "reset", NOW)
    lifecycle.delete(tx, ended, NOW)
    with pytest.raises(IllegalTransition):
        lifecycle.resume(tx, ended, NOW)
    assert fresh(tx, ended).end_reason == "deleted"


def test_queued_turns_outlive_the_end_of_their_session(tx):
    """What was accepted before a reset is still claimed and answered, in the old session."""
    message = incoming("before")
    queued = arrive(tx, message)
    lifecycle.end(tx, resolved(tx, message)[0], "reset", NOW)
    after = arrive(tx, incoming("after"))
    assert after.session_id != queued.session_id and after.ahead == 0
    claim = claimed(tx, queued.session_id)
    lane.finish(tx, claim, "completed", NOW, answer="answered")
    assert session_row(tx, queued.session_id)["status"] == "ended"


# finding


def test_finding_is_limited_to_the_scope(tx):
    """A session outside the scope is as if it were not there."""
    mine, person, _ = resolved(tx, incoming())
    assert lifecycle.find(tx, mine.id, PersonScope(person.id)).id == mine.id
    for scope in (
        PersonScope(PersonId("somebody else")),
        ChannelScope(ACCOUNT, CHANNEL),
        SessionOnly(session(tx, user_id="user-2").id),
    ):
        with pytest.raises(SessionNotFound):
            lifecycle.find(tx, mine.id, scope)
    assert lifecycle.find_live(tx, mine.key).id == mine.id
    lifecycle.end(tx, mine, "reset", NOW)
    assert lifecycle.find_live(tx, mine.key) is None


def test_lists_filter_by_status_and_page(tx):
    """The latest active first; statuses filter; pages neither overlap nor skip."""
    made = [resolved(tx, incoming(user_id=f"u{n}"), now=NOW + n)[0] for n in range(6)]
    lifecycle.end(tx, made[0], "reset", NOW)
    lifecycle.pause(tx, made[1], NOW)
    newest_first = [found.id for found in reversed(made)]
    assert [found.id for found in lifecycle.list_sessions(tx, EVERYTHING)] == newest_first
    pages = [lifecycle.list_sessions(tx, EVERYTHING, limit=4, offset=offset) for offset in (0, 4, 8)]
    assert [[found.id for found in page] for page in pages] == [newest_first[:4], newest_first[4:], []]
    assert [found.id for found in lifecycle.list_sessions(tx, EVERYTHING, statuses=["ended", "paused"])] == [
        made[1].id,
        made[0].id,
    ]
    assert lifecycle.list_sessions(tx, EVERYTHING, statuses=["archived"]) == []


def test_the_words_of_other_systems_mean_existing_statuses(tx):
    """Each word is a filter that `list_sessions` takes, and is none of our own words."""
    found = lifecycle.end(tx, session(tx), "expired", NOW)
    for word, statuses in lifecycle.SEED_WORDS.items():
        assert word == word.lower() and word not in lifecycle.TRANSITIONS
        assert statuses and set(statuses) <= set(lifecycle.TRANSITIONS)
        listed = [one.id for one in lifecycle.list_sessions(tx, EVERYTHING, statuses=statuses)]
        assert (found.id in listed) == ("ended" in statuses)


def test_a_deleted_session_is_hidden_from_all_but_the_operator(tx):
    """Neither its person nor its own turns see it; the operator does until its rows are gone."""
    message = incoming("secret")
    queued = arrive(tx, message)
    mine, person, _ = resolved(tx, message)
    contents.set_variable(tx, mine.id, "name", "x", NOW)
    lifecycle.delete(tx, mine, NOW)
    for scope in (PersonScope(person.id), SessionOnly(mine.id), ChannelScope(ACCOUNT, CHANNEL)):
        with pytest.raises(SessionNotFound):
            lifecycle.find(tx, mine.id, scope)
        assert lifecycle.list_sessions(tx, scope) == []
        assert contents.variables(tx, mine.id, scope) == {}
        assert history.page(tx, mine.key, scope).total == 0
        assert search.search(tx, scope, search.SearchQuery("secret")).total == 0
    assert lifecycle.find(tx, queued.session_id, EVERYTHING).end_reason == "deleted"


# cleaning up


def clean(tx, now: int, **rules: Any) -> list[int]:
    """Run the clean-up to its end; gives the sizes of its batches."""
    values = {"expire_after_ms": DAY, "archive_after_ms": 7 * DAY, "delete_after_ms": 30 * DAY} | rules
    sizes = []
    while batch := cleanup.clean_up(tx, now, **values):
        sizes.append(batch)
        assert len(sizes) < 100, "the clean-up does not come to an end"
    return sizes


def test_sessions_expire_are_archived_and_removed_in_their_time(tx):
    """One after the other: idle for a day, ended for a week, ended for a month, hidden for a day; at each limit not yet."""
    found = session(tx)
    assert clean(tx, NOW + DAY) == []
    clean(tx, NOW + DAY + 1)
    assert (fresh(tx, found).status, fresh(tx, found).end_reason) == ("ended", "expired")
    ended_at = NOW + DAY + 1
    assert clean(tx, ended_at + 7 * DAY) == []
    clean(tx, ended_at + 7 * DAY + 1)
    archived = fresh(tx, found)
    assert (archived.status, archived.end_reason, archived.ended_at) == ("archived", "expired", ended_at)
    assert clean(tx, ended_at + 30 * DAY) == []
    hidden_at = ended_at + 30 * DAY + 1
    clean(tx, hidden_at)
    hidden = fresh(tx, found)
    assert (hidden.status, hidden.end_reason, hidden.ended_at) == ("ended", "deleted", hidden_at)
    with pytest.raises(SessionNotFound):
        lifecycle.find(tx, found.id, PersonScope(found.person_id))
    assert clean(tx, hidden_at + DAY) == []
    clean(tx, hidden_at + DAY + 1)
    assert count(tx, "sessions") == 0
    assert count(tx, "session_events") == 0


def test_the_clean_up_works_in_small_batches(tx):
    """No batch is larger than told, and batches go on until nothing is due."""
    for number in range(12):
        session(tx, user_id=f"u{number}")
    values = {"expire_after_ms": DAY, "archive_after_ms": 7 * DAY, "delete_after_ms": 30 * DAY}
    sizes = [cleanup.clean_up(tx, NOW + 2 * DAY, batch=5, **values) for _ in range(4)]
    assert sizes == [5, 5, 2, 0]
    sizes = []
    for later in (NOW + 100 * DAY, NOW + 102 * DAY):
        while touched := cleanup.clean_up(tx, later, batch=5, **values):
            sizes.append(touched)
    assert max(sizes) <= 5 and count(tx, "sessions") == 0


@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("ended", [None, "reset", "deleted"])
def test_a_session_with_unfinished_turns_is_left_alone(tx, is_running, ended):
    """However old: not expired, not archived, not removed, as long as a turn waits or runs."""
    message = incoming()
    queued = arrive(tx, message)
    claim = claimed(tx, queued.session_id) if is_running else None
    found = resolved(tx, message)[0]
    if ended == "deleted":
        lifecycle.delete(tx, found, NOW)
    elif ended:
        lifecycle.end(tx, found, ended, NOW)
    before = session_row(tx, queued.session_id)
    assert clean(tx, NOW + 400 * DAY) == []
    assert session_row(tx, queued.session_id) == before
    claim = claim or claimed(tx, queued.session_id)
    lane.finish(tx, claim, "completed", NOW, answer="at last")
    clean(tx, NOW + 400 * DAY)
    clean(tx, NOW + 900 * DAY)
    clean(tx, NOW + 902 * DAY)
    assert count(tx, "sessions") == 0


def test_a_session_may_have_an_idle_time_of_its_own(tx):
    """Shorter, longer or for ever, whoever comes first: the next message or the clean-up; None is the setting again."""
    hour = DAY // 24
    ids = {
        user: arrive(tx, incoming(user_id=user, channel=user), now=NOW).session_id
        for user in ("short", "long", "ever", "set")
    }
    for session_id in ids.values():
        lane.finish(tx, claimed(tx, session_id, NOW), "completed", NOW, answer="yes")
    lifecycle.set_expiry(tx, ids["short"], hour)
    lifecycle.set_expiry(tx, ids["long"], 3 * DAY)
    lifecycle.set_expiry(tx, ids["ever"], 0)
    lifecycle.set_expiry(tx, ids["set"], hour)
    lifecycle.set_expiry(tx, ids["set"], None)
    with pytest.raises(ValueError, match="before"):
        lifecycle.set_expiry(tx, ids["set"], -1)

    def live(now):
        due = cleanup.due(tx, now, **RULES).expired
        before = len(lifecycle.list_sessions(tx, EVERYTHING, statuses=("active",)))
        while cleanup.clean_up(tx, now, **RULES):
            pass
        left = {one.id for one in lifecycle.list_sessions(tx, EVERYTHING, statuses=("active",))}
        assert due == before - len(left)
        return {user for user, session_id in ids.items() if session_id in left}

    assert live(NOW + hour) == {"short", "long", "ever", "set"}
    again = arrive(tx, incoming(user_id="short", channel="short"), now=NOW + 2 * hour)
    assert again.session_id != ids["short"]
    lane.finish(tx, claimed(tx, again.session_id, NOW), "completed", NOW + 2 * hour, answer="yes")
    assert live(NOW + DAY + 1) == {"long", "ever"}
    assert arrive(tx, incoming(user_id="long", channel="long"), now=NOW + 2 * DAY).session_id == ids["long"]
    lane.finish(tx, claimed(tx, ids["long"], NOW), "completed", NOW + 2 * DAY, answer="yes")
    assert live(NOW + 90 * DAY) == {"ever"}
    fork = forking.fork(tx, lifecycle.find(tx, ids["ever"], EVERYTHING), NOW + 90 * DAY)
    assert fork.session.expire_after_ms == 0


def plan_of(status, where, order, **limits):
    """How SQLite looks for what is due."""
    sql = f"EXPLAIN QUERY PLAN SELECT s.* FROM sessions s WHERE s.status = '{status}' AND {where} ORDER BY s.{order} LIMIT 9"
    with TRANSACTIONS["sqlite"]() as tx:
        return " / ".join(row["detail"] for row in tx.rows(sql, limits))


def test_looking_for_own_idle_times_reads_only_sessions_that_have_one():
    """A batch of the clean-up costs the same among a hundred thousand live sessions: it never walks over all of them."""
    plan = plan_of("active", cleanup._OWN_TIME_OVER, "last_activity_at", now=NOW)
    assert "USING INDEX sessions_own_expiry (status=? AND expire_after_ms>?)" in plan


@pytest.mark.parametrize(
    ("status", "where", "order", "limits"),
    [
        ("active", cleanup._INACTIVE, "last_activity_at", {"inactive": NOW}),
        ("ended", cleanup._OLD, "ended_at", {"old": NOW}),
        ("ended", cleanup._FINISHED, "ended_at", {"finished": NOW}),
        ("ended", cleanup._DELETED, "ended_at", {"deleted": NOW}),
    ],
)
def test_what_is_due_is_read_in_the_order_of_an_index(status, where, order, limits):
    """Nothing is sorted: a batch costs the same however many are due."""
    assert "TEMP B-TREE" not in plan_of(status, where, order, **limits)


def test_never_means_never(tx):
    """Without a time of removal ended sessions stay; without a time of expiry idle ones do."""
    ended = lifecycle.end(tx, session(tx), "reset", NOW)
    idle = session(tx, user_id="user-2")
    clean(tx, NOW + 9000 * DAY, expire_after_ms=0, delete_after_ms=None)
    assert fresh(tx, ended).status == "archived"
    assert fresh(tx, idle).status == "active"


@pytest.mark.parametrize("delete_after_ms", [30 * DAY, None])
def test_what_was_deleted_on_request_is_removed_after_a_day(tx, delete_after_ms):
    """Whatever the rule for ended sessions: who asked for deletion gets it."""
    arrive(tx)
    found = session(tx)
    lane.finish(tx, claimed(tx, found.id), "completed", NOW, answer="a")
    lifecycle.delete(tx, found, NOW)
    assert clean(tx, NOW + DAY, delete_after_ms=delete_after_ms) == []
    clean(tx, NOW + DAY + 1, delete_after_ms=delete_after_ms)
    assert count(tx, "sessions") == count(tx, "messages") == 0


def test_removal_leaves_the_bare_fact_that_messages_came(tx):
    """Nothing of what was said, who said it or what went wrong is left; the message is still known, so it is not taken twice."""
    message = incoming("my secret", reply_handle={"token": "t"})
    queued = arrive(tx, message)
    claim = claimed(tx, queued.session_id)
    lane.record_step(
        tx, claim, StepRecord(1, "tool_result", {"content": "secret"}), NOW, tool_call=tool_call()
    )
    lane.finish(tx, claim, "failed", NOW, answer="your secret", error=error_record())
    outbox.add(
        tx,
        claim.address,
        "answer",
        [{"text": "your secret"}],
        NOW,
        turn_id=claim.turn_id,
        session_id=claim.session_id,
    )
    waiting_notice = addresses.address_of(tx, queued.inbox_id)
    outbox.add(tx, waiting_notice, "notice", [{"text": "one is ahead"}], NOW, turn_id=claim.turn_id)
    contents.set_variable(tx, queued.session_id, "name", "secret", NOW)
    other = arrive(tx, incoming("kept", user_id="user-2"))
    cleanup.purge(tx, queued.session_id)
    for table in ("messages", "turns", "sessions"):
        assert count(tx, table) == 1
    for table in ("steps", "tool_calls", "errors", "outbox", "session_variables", "summaries"):
        assert count(tx, table) == 0, table
    row = tx.row("SELECT * FROM inbox WHERE id = :id", {"id": queued.inbox_id})
    assert (row["person_id"], row["reply_handle"], row["session_id"], row["turn_id"]) == (
        None,
        None,
        None,
        None,
    )
    assert inbox.is_known(tx, message)
    assert lane.waiting(tx, other.session_id) == 1
    assert tx.rows("SELECT * FROM inbox WHERE reply_handle IS NOT NULL") == []


@pytest.mark.parametrize("delete_after_ms", [30 * DAY, None])
def test_replies_to_commands_and_notices_are_removed_after_a_day(tx, delete_after_ms):
    """A /history quotes what its person may have asked to be removed; once sent, it goes whatever is kept else."""
    conversation = arrive(tx)
    claim = claimed(tx, conversation.session_id)
    lane.finish(tx, claim, "completed", NOW, answer="a")
    replies = [("answer", "a", claim.address, NOW)]
    for kind, text, at in (
        ("command", "you: my secret", NOW),
        ("notice", "busy", NOW),
        ("command", "still waits", NOW),
        ("command", "later", NOW + 5),
    ):
        address = inbox.record(tx, incoming(), "command", "history", at, person_id=None)
        replies.append((kind, text, address, at))
    for kind, text, address, at in replies:
        outbox.add(tx, address, kind, [{"text": text}], at, session_id=conversation.session_id)
    for chunk in outbox.waiting(tx, ACCOUNT, CHANNEL):
        if chunk.body["text"] != "still waits":
            outbox.mark_sent(tx, chunk.id, "p", chunk.created_at, body=chunk.body)
    rules = {"expire_after_ms": 0, "delete_after_ms": delete_after_ms}
    assert clean(tx, NOW + DAY, **rules) == []
    assert clean(tx, NOW + DAY + 1, **rules) == [2]
    assert [row["kind"] for row in tx.rows("SELECT kind FROM outbox ORDER BY id")] == [
        "answer",
        "command",
        "command",
    ]
    assert clean(tx, NOW + DAY + 6, **rules) == [1]
    assert [chunk.body["text"] for chunk in outbox.waiting(tx, ACCOUNT, CHANNEL)] == ["still waits"]


# what is due


def test_an_idle_session_with_an_unfinished_task_is_abandoned(tx):
    """Idle for a day: expired, or abandoned if it left a task; both when somebody writes and by the clean-up."""
    idle, busy = session(tx), session(tx, user_id="user-2")
    contents.set_current_task(tx, busy.id, "book a table", NOW)
    assert cleanup.due(tx, NOW + DAY + 1, **RULES) == cleanup.Due(1, 1, 0, 0, 0)
    clean(tx, NOW + DAY + 1)
    assert fresh(tx, idle).end_reason == "expired"
    assert (fresh(tx, busy).end_reason, fresh(tx, busy).current_task) == ("abandoned", "book a table")
    (task,) = contents.tasks(tx, busy.id, EVERYTHING)
    assert (task.outcome, task.ended_at) == ("abandoned", NOW + DAY + 1)
    again = session(tx, user_id="user-2")
    contents.set_current_task(tx, again.id, "another", NOW)
    resolved(tx, incoming(user_id="user-2"), now=NOW + 2 * DAY)
    assert fresh(tx, again).end_reason == "abandoned"


def test_what_is_due_is_what_the_clean_up_does(tx):
    """Counting changes nothing, and each count is what then happens."""
    for number, reason in enumerate(["reset", "completed", "expired"]):
        lifecycle.end(tx, session(tx, user_id=f"old-{number}"), reason, NOW)
    lifecycle.delete(tx, session(tx, user_id="gone"), NOW)
    session(tx, user_id="idle")
    now = NOW + 31 * DAY
    resolved(tx, incoming(user_id="late"), now=now)
    found = cleanup.due(tx, now, **RULES)
    assert found == cleanup.Due(expired=1, abandoned=0, archived=0, deleted=3, removed=1)
    assert cleanup.due(tx, now, **RULES) == found
    assert cleanup.due(tx, now, **(RULES | {"delete_after_ms": None})) == cleanup.Due(1, 0, 3, 0, 1)
    assert cleanup.due(tx, now, **(RULES | {"expire_after_ms": 0})).expired == 0
    clean(tx, now)
    statuses = {
        row["end_reason"]: row["n"]
        for row in tx.rows("SELECT end_reason, COUNT(*) AS n FROM sessions GROUP BY 1")
    }
    assert statuses == {"deleted": 3, "expired": 1, None: 1}
    assert cleanup.due(tx, now, **RULES) == cleanup.Due(0, 0, 0, 0, 0)


# every change leaves a trace


def test_every_change_is_kept_with_its_reason_and_who_made_it(tx):
    """The whole life of a session can be told: when, from what to what, why, by whom."""
    found = session(tx)
    person = lifecycle.Doer("person", found.person_id)
    operator = lifecycle.Doer("operator")
    now = found
    now = lifecycle.pause(tx, now, NOW + 1, by=operator)
    now = lifecycle.resume(tx, now, NOW + 2, by=operator)
    now = lifecycle.end(tx, now, "reset", NOW + 3, by=person)
    now = lifecycle.archive(tx, now, NOW + 4)
    now = lifecycle.resume(tx, now, NOW + 5, by=person)
    lifecycle.delete(tx, now, NOW + 6, by=person)
    told = [
        (e.happened_at - NOW, e.from_status, e.to_status, e.reason, e.made_by, e.person_id)
        for e in lifecycle.events(tx, found.id, EVERYTHING)
    ]
    mine = found.person_id
    assert told == [
        (1, "active", "paused", "requested", "operator", None),
        (2, "paused", "active", "resumed", "operator", None),
        (3, "active", "ended", "reset", "person", mine),
        (4, "ended", "archived", "overdue", "daemon", None),
        (5, "archived", "active", "resumed", "person", mine),
        (6, "active", "ended", "deleted", "person", mine),
    ]


def test_a_deleted_session_is_not_put_away(tx):
    """Who asked for a removal gets it: an archive would keep it."""
    deleted = lifecycle.delete(tx, session(tx), NOW)
    with pytest.raises(IllegalTransition, match="deleted cannot be archived"):
        lifecycle.archive(tx, deleted, NOW)
    clean(tx, NOW + DAY + 1)
    assert count(tx, "sessions") == 0


def test_a_refused_change_leaves_none(tx):
    """What the table does not allow is not in the history either."""
    found = session(tx)
    with pytest.raises(IllegalTransition):
        lifecycle.archive(tx, found, NOW)
    assert lifecycle.events(tx, found.id, EVERYTHING) == []


@pytest.mark.parametrize("store", list(DATABASES))
async def test_a_thousand_callers_get_one_session(store, tmp_path):
    """Get-or-create is idempotent: a thousand at once make one session, and each gets that one; on PostgreSQL from three nodes."""
    message = incoming()

    def get_or_create(tx: Any) -> tuple[str, bool]:
        found, _, is_new = resolved(tx, message)
        return found.id, is_new

    async with DATABASES[store](tmp_path) as open_database:
        nodes = [await open_database() for _ in range(3 if store == "postgresql" else 1)]
        got = await asyncio.gather(
            *(nodes[number % len(nodes)].write(get_or_create) for number in range(1000))
        )
        rows = await nodes[0].read(lambda tx: tx.rows("SELECT id FROM sessions"))
    assert len({session_id for session_id, _ in got}) == 1
    assert sum(is_new for _, is_new in got) == 1
    assert len(rows) == 1


# channels that move

GROUP = {"channel": "g-1", "channel_kind": "group"}


def test_a_moved_channel_takes_everything_along(tx):
    """Sessions of every scope, ended ones too, their keys, waiting replies and the channel's row get the new id."""
    inbox.hear(tx, incoming(watermark="5", channel_title="Chess", **GROUP), NOW)
    shared, _, _ = resolved(tx, incoming(**GROUP), scope="channel")
    topic, _, _ = resolved(tx, incoming(thread="7", **GROUP), scope="channel")
    member, _, _ = resolved(tx, incoming(**GROUP), scope="member")
    bystander, _, _ = resolved(tx, incoming(channel="g-9", channel_kind="group"), scope="channel")
    same_id_elsewhere, _, _ = resolved(
        tx, incoming(account="telegram.other", channel="g-1", channel_kind="group"), scope="channel"
    )
    ended = lifecycle.end(tx, member, "reset", NOW)
    waiting = arrive(tx, incoming("before the move", **GROUP), scope="channel")
    assert lifecycle.move_channel(tx, ACCOUNT, "g-1", "g-2", NOW) == 3
    after = {"channel": "g-2", "channel_kind": "group"}
    assert resolved(tx, incoming(**after), scope="channel")[0].id == shared.id
    assert resolved(tx, incoming(thread="7", **after), scope="channel")[0].id == topic.id
    assert fresh(tx, ended).channel == "g-2"
    assert (
        lifecycle.resume(tx, fresh(tx, ended), NOW).id
        == resolved(tx, incoming(**after), scope="member")[0].id
    )
    assert fresh(tx, bystander) == bystander and fresh(tx, same_id_elsewhere) == same_id_elsewhere
    claim = claimed(tx, waiting.session_id)
    assert (claim.address.channel, claim.address.reply_to) == ("g-2", None)
    assert inbox.known_channels(tx, ACCOUNT) == [("g-2", "group", None)]
    assert tx.row("SELECT title FROM channels WHERE channel = 'g-2'")["title"] == "Chess"


def test_a_direct_session_is_answered_where_the_message_came_from(tx):
    """A person's own session may span channels; each message is answered in its own."""
    first = arrive(tx, incoming(channel="dm-1"))
    second = arrive(tx, incoming(channel="dm-2"))
    assert first.session_id == second.session_id
    for channel in ("dm-1", "dm-2"):
        claim = claimed(tx, first.session_id)
        assert claim.address.channel == channel
        lane.finish(tx, claim, "completed", NOW)


def test_whoever_wrote_in_the_new_channel_first_keeps_its_session(tx):
    """Both ids have a live session: the old one ends, its words stay under the common key, its turns are still answered."""
    old = arrive(tx, incoming("in the old one", **GROUP), scope="channel")
    new = arrive(tx, incoming("in the new one", channel="g-2", channel_kind="group"), scope="channel")
    inbox.hear(tx, incoming(**GROUP), NOW)
    inbox.hear(tx, incoming(channel="g-2", channel_kind="group", watermark="9"), NOW)
    lifecycle.move_channel(tx, ACCOUNT, "g-1", "g-2", NOW)
    assert session_row(tx, old.session_id)["status"] == "ended"
    assert session_row(tx, new.session_id)["status"] == "active"
    key = session_row(tx, new.session_id)["key"]
    assert session_row(tx, old.session_id)["key"] == key
    assert history.page(tx, key, ChannelScope(ACCOUNT, ChannelId("g-2"))).total == 2
    assert inbox.known_channels(tx, ACCOUNT) == [("g-2", "group", "9")]
    claim = claimed(tx, old.session_id)
    assert claim.address.channel == "g-2"


def test_a_move_heard_of_twice_is_one_move(tx):
    """The platform tells it in the channel and again as an error of a send: the second changes nothing."""
    shared, _, _ = resolved(tx, incoming(**GROUP), scope="channel")
    inbox.hear(tx, incoming(**GROUP), NOW)
    assert lifecycle.move_channel(tx, ACCOUNT, "g-1", "g-2", NOW) == 1
    assert lifecycle.move_channel(tx, ACCOUNT, "g-1", "g-2", NOW) == 0
    assert lifecycle.move_channel(tx, ACCOUNT, "g-2", "g-2", NOW) == 0
    assert fresh(tx, shared).channel == "g-2"
    assert inbox.known_channels(tx, ACCOUNT) == [("g-2", "group", None)]


def test_a_channel_may_move_twice(tx):
    """The second move starts where the first ended."""
    queued = arrive(tx, incoming(**GROUP), scope="channel")
    lifecycle.move_channel(tx, ACCOUNT, "g-1", "g-2", NOW)
    lifecycle.move_channel(tx, ACCOUNT, "g-2", "g-3", NOW)
    assert claimed(tx, queued.session_id).address.channel == "g-3"


# counters


def test_counters_are_exact(tx):
    """After turns of every kind each counter of the session is the number of its rows."""
    queued = [arrive(tx) for _ in range(4)]
    session_id = queued[0].session_id
    for number, (status, answer, error) in enumerate(
        [
            ("completed", "a", None),
            ("failed", None, error_record("AAAAAA")),
            ("timeout", "b", error_record("BBBBBB")),
            ("cancelled", None, None),
        ]
    ):
        claim = claimed(tx, session_id)
        for step in range(number):
            lane.record_step(
                tx,
                claim,
                StepRecord(step + 1, "tool_result", {}),
                NOW,
                tool_call=dataclasses.replace(tool_call(step), is_error=step == 0),
            )
        lane.finish(tx, claim, status, NOW, answer=answer, error=error, input_tokens=10, output_tokens=number)
    row = session_row(tx, session_id)
    failed_calls = tx.row("SELECT COUNT(*) AS n FROM tool_calls WHERE outcome = 'error'")["n"]
    assert row["message_count"] == count(tx, "messages") == 6
    assert row["tool_call_count"] == count(tx, "tool_calls") == 6
    assert row["error_count"] == count(tx, "errors") + failed_calls == 5
    assert (row["input_tokens"], row["output_tokens"]) == (40, 6)
    sums = tx.row("SELECT SUM(input_tokens) AS i, SUM(output_tokens) AS o, SUM(tool_calls) AS t FROM turns")
    assert (sums["i"], sums["o"], sums["t"]) == (40, 6, 6)
