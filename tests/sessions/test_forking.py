"""Forks: a new session that begins with the messages of another, which stays as it was."""

from itertools import pairwise
from typing import Any

import pytest

from config.names import ChannelId, PersonId
from sessions import cleanup, contents, forking, history, lane, lifecycle
from sessions.lifecycle import Doer
from sessions.models import Session
from sessions.scope import OperatorScope, PersonScope
from tests.sessions.records import DAY, NOW, arrive, claimed, count, incoming, resolved, session_row

EVERYTHING = OperatorScope()


def talk(tx, *texts: str, **changes: Any) -> Session:
    for text in texts:
        queued = arrive(tx, incoming(text, **changes))
        lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer=f"re: {text}")
    return resolved(tx, incoming(**changes))[0]


def said(tx, session: Session) -> list[str]:
    messages = lane.conversation_until(tx, session.id, 2**62, 1000)
    return [message.content for message in messages]


@pytest.mark.parametrize(
    ("last", "taken"),
    [
        (None, ["a", "re: a", "b", "re: b"]),
        (1, ["re: b"]),
        (3, ["re: a", "b", "re: b"]),
        (4, ["a", "re: a", "b", "re: b"]),
        (99, ["a", "re: a", "b", "re: b"]),
    ],
)
def test_a_fork_begins_with_the_last_messages(tx, last, taken):
    """As many as asked for, all of them without a number; the original has lost nothing."""
    original = talk(tx, "a", "b")
    made = forking.fork(tx, original, NOW + 1, last=last, by=Doer("person", original.person_id))
    assert said(tx, made.session) == taken
    assert made.copied == made.session.message_count == len(taken)
    assert said(tx, original) == ["a", "re: a", "b", "re: b"]
    assert (made.session.status, made.session.forked_from, made.session.key) == (
        "active",
        original.id,
        original.key,
    )
    old = lifecycle.find(tx, original.id, EVERYTHING)
    assert (old.status, old.end_reason) == ("ended", "completed")
    (event,) = lifecycle.events(tx, original.id, EVERYTHING)
    assert (event.reason, event.made_by, event.person_id) == ("forked", "person", original.person_id)


def test_both_go_on_by_themselves(tx):
    """New messages in the fork are not the original's, and the other way round after going back."""
    original = talk(tx, "a")
    made = forking.fork(tx, original, NOW + 1).session
    talk(tx, "in the fork")
    lifecycle.resume(tx, lifecycle.find(tx, original.id, EVERYTHING), NOW + 2)
    talk(tx, "in the original")
    assert said(tx, made) == ["a", "re: a", "in the fork", "re: in the fork"]
    assert said(tx, original) == ["a", "re: a", "in the original", "re: in the original"]


def test_what_a_session_holds_goes_along(tx):
    """Variables, notebooks, title, metadata and the task under way are the fork's too, and then apart."""
    original = talk(tx, "a")
    contents.set_variable(tx, original.id, "city", "Rome", NOW)
    contents.add_link(tx, original.id, "notebook", "diary", NOW)
    contents.set_current_task(tx, original.id, "book a table", NOW)
    contents.set_title(tx, original.id, "Rome")
    contents.merge_metadata(tx, original.id, {"k": 1})
    made = forking.fork(tx, original, NOW + 1).session
    contents.set_variable(tx, original.id, "city", "Milan", NOW)
    assert contents.variables(tx, made.id, EVERYTHING) == {"city": "Rome"}
    assert contents.links(tx, made.id, EVERYTHING, "notebook") == ["diary"]
    assert [one.task for one in contents.tasks(tx, made.id, EVERYTHING)] == ["book a table"]
    assert (made.title, made.current_task, made.metadata) == ("Rome", "book a table", {"k": 1})
    assert (made.tool_call_count, made.error_count, made.input_tokens) == (0, 0, 0)


def test_a_task_that_was_abandoned_and_taken_up_again_goes_along(tx):
    """A session that was idle with a task, and was resumed, still works on it; so does its fork, where the list says so too."""
    original = talk(tx, "one")
    contents.set_current_task(tx, original.id, "book a table", NOW)
    lifecycle.expire(tx, lifecycle.find(tx, original.id, EVERYTHING), NOW + DAY)
    resumed = lifecycle.resume(tx, lifecycle.find(tx, original.id, EVERYTHING), NOW + 2 * DAY)
    made = forking.fork(tx, resumed, NOW + 2 * DAY).session
    assert made.current_task == "book a table"
    assert [one.task for one in contents.tasks(tx, made.id, EVERYTHING)] == ["book a table"]


def test_unfinished_turns_stay_with_the_original(tx):
    """Nothing that waits for an answer is copied, and nothing said after it."""
    original = talk(tx, "a")
    arrive(tx, incoming("running"))
    claim = claimed(tx, original.id)
    arrive(tx, incoming("waiting"))
    made = forking.fork(tx, original, NOW + 1)
    assert said(tx, made.session) == ["a", "re: a"]
    assert lane.waiting(tx, made.session.id) == 0
    lane.finish(tx, claim, "completed", NOW + 2, answer="late")
    assert said(tx, original) == ["a", "re: a", "running", "late", "waiting"]


def test_a_fork_of_nothing_is_an_empty_session(tx):
    """A session in which nothing was said yet can be forked, and the fork can be talked in."""
    original = resolved(tx, incoming())[0]
    made = forking.fork(tx, original, NOW + 1)
    assert (made.copied, made.session.message_count) == (0, 0)
    assert said(tx, talk(tx, "first")) == ["first", "re: first"]
    assert session_row(tx, made.session.id)["message_count"] == 2


def test_an_old_session_is_forked_over_the_live_one(tx):
    """Forking an ended one ends whichever is live under the key: one live session, always."""
    old = talk(tx, "old")
    ended = lifecycle.end(tx, old, "reset", NOW)
    live = talk(tx, "new")
    made = forking.fork(tx, ended, NOW + 1)
    assert said(tx, made.session) == ["old", "re: old"]
    assert lifecycle.find(tx, live.id, EVERYTHING).status == "ended"
    assert lifecycle.find_live(tx, old.key).id == made.session.id


def test_history_shows_what_was_copied_once(tx):
    """All that was said under the key, each message where it was said; from the fork when the original is gone."""
    original = talk(tx, "a", "b")
    forking.fork(tx, original, NOW + 1)
    talk(tx, "c")
    scope = PersonScope(original.person_id)

    def shown() -> list[str]:
        return [message.content for message in history.page(tx, original.key, scope, size=50).messages]

    assert shown() == ["a", "re: a", "b", "re: b", "c", "re: c"]
    assert history.page(tx, original.key, scope).total == 6
    lifecycle.delete(tx, lifecycle.find(tx, original.id, EVERYTHING), NOW)
    assert shown() == ["a", "re: a", "b", "re: b", "c", "re: c"]
    cleanup.purge(tx, original.id)
    assert shown() == ["a", "re: a", "b", "re: b", "c", "re: c"]


def test_a_fork_is_of_whom_the_original_was(tx):
    """A shared session's fork is shared by the same channel; nobody's own sees it."""
    group = {"channel": ChannelId("g"), "channel_kind": "group"}
    shared, person, _ = resolved(tx, incoming("hello", **group), scope="channel")
    made = forking.fork(tx, shared, NOW).session
    assert (made.person_id, made.channel, made.scope) == (None, "g", "channel")
    assert lifecycle.list_sessions(tx, PersonScope(person.id)) == []


def test_a_long_fork_is_removed_in_slices(tx):
    """A session of many messages is not removed in one go, and is hidden from its person from the beginning."""
    original = talk(tx, *(f"m{number}" for number in range(cleanup.SLICE)))
    made = forking.fork(tx, original, NOW).session
    for one in (made, original):
        lifecycle.delete(tx, lifecycle.find(tx, one.id, EVERYTHING), NOW)
    rules = {"expire_after_ms": DAY, "archive_after_ms": DAY, "delete_after_ms": 30 * DAY}
    left = [count(tx, "messages")]
    while cleanup.clean_up(tx, NOW + 2 * DAY, **rules):
        left.append(count(tx, "messages"))
        assert lifecycle.list_sessions(tx, PersonScope(original.person_id)) == []
    assert left[0] == 4 * cleanup.SLICE
    assert left[-1] == 0
    assert max(before - after for before, after in pairwise(left)) <= 2 * cleanup.SLICE
    for table in ("sessions", "turns", "session_events", "outbox", "errors"):
        assert count(tx, table) == 0, table


def test_summaries_go_along_with_a_whole_copy(tx):
    """A copy of everything has the current summaries and its limit; one of the last messages begins without any."""
    original = talk(tx, "a", "b", "c")
    tx.execute(
        "UPDATE sessions SET context_tokens = 900, summarised_to = 2 WHERE id = :id", {"id": original.id}
    )
    for version, replaced_by in ((1, 2), (2, None)):
        tx.execute(
            "INSERT INTO summaries (session_id, version, from_position, to_position, content, tokens, made_by, created_at,"
            " replaced_by, input_tokens) VALUES (:id, :version, 1, 2, 'notes', 3, 'digest', 0, :replaced, 70)",
            {"id": original.id, "version": version, "replaced": replaced_by},
        )
    whole = forking.fork(tx, original, NOW + 1).session
    copies = tx.rows("SELECT * FROM summaries WHERE session_id = :id", {"id": whole.id})
    assert [(row["version"], row["content"], row["input_tokens"]) for row in copies] == [(2, "notes", 0)]
    row = session_row(tx, whole.id)
    assert (row["context_tokens"], row["summarised_to"]) == (900, 2)
    part = forking.fork(tx, whole, NOW + 2, last=1).session
    assert tx.rows("SELECT * FROM summaries WHERE session_id = :id", {"id": part.id}) == []
    assert session_row(tx, part.id)["summarised_to"] == 0


def test_a_copy_without_a_question_is_called_as_its_original(tx):
    """One that begins with an answer alone has no line of its own to be named after; of an original that is gone it takes none."""
    original = talk(tx, "a trip to Lisbon")
    made = forking.fork(tx, original, NOW + 1, last=1).session
    again = forking.fork(tx, made, NOW + 2, last=1).session
    person = PersonScope(original.person_id)
    for session in (made, again):
        assert contents.titles(tx, [session.id], person) == {session.id: "a trip to Lisbon"}
    assert contents.titles(tx, [made.id], PersonScope(PersonId("somebody"))) == {}
    lifecycle.delete(tx, lifecycle.find(tx, original.id, EVERYTHING), NOW + 3)
    assert contents.titles(tx, [made.id, again.id], person) == {}
