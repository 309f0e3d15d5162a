"""Reading what was said: pages, and the story of one message."""

import pytest

from sessions import history, inbox, lane, lifecycle, outbox
from sessions.models import StepRecord
from sessions.scope import OperatorScope, PersonScope
from tests.sessions.records import (
    ACCOUNT,
    CHANNEL,
    NOW,
    arrive,
    claimed,
    error_record,
    incoming,
    resolved,
    session_row,
    tool_call,
)

EVERYTHING = OperatorScope()


def talk(tx, *texts: str, answer: str = "re {}") -> str:
    """Messages of one person, each answered; gives the session's id."""
    session_id = ""
    for text in texts:
        session_id = arrive(tx, incoming(text)).session_id
        lane.finish(tx, claimed(tx, session_id), "completed", NOW, answer=answer.format(text))
    return session_id


def test_pages_are_counted_from_the_newest_and_read_oldest_first(tx):
    """Page 1 is the end of the conversation; pages neither overlap nor skip; past the end there is nothing."""
    key = session_row(tx, talk(tx, "a", "b", "c"))["key"]
    newest = history.page(tx, key, EVERYTHING, size=4)
    assert [message.content for message in newest.messages] == ["b", "re b", "c", "re c"]
    assert (newest.number, newest.total) == (1, 6)
    assert [message.content for message in history.page(tx, key, EVERYTHING, number=2, size=4).messages] == [
        "a",
        "re a",
    ]
    assert history.page(tx, key, EVERYTHING, number=3, size=4).messages == []


def test_a_page_spans_the_sessions_of_a_key(tx):
    """What was said before a reset stands before what was said after it."""
    talk(tx, "before")
    session, person, _ = resolved(tx, incoming())
    lifecycle.end(tx, session, "reset", NOW)
    resolved(tx, incoming(), now=NOW + 1)
    talk(tx, "after")
    page = history.page(tx, session.key, PersonScope(person.id))
    assert [message.content for message in page.messages] == ["before", "re before", "after", "re after"]
    assert page.total == 4


def tell(tx):
    """A message with all that can happen to it."""
    arrive(tx, incoming("ahead"))
    message = incoming("what is 2+2", message_id="1207")
    queued = arrive(tx, message)
    lane.finish(tx, claimed(tx, queued.session_id, NOW), "completed", NOW + 50, answer="-")
    claim = claimed(tx, queued.session_id, NOW + 50)
    lane.record_step(tx, claim, StepRecord(1, "tool_result", {}), NOW, tool_call=tool_call())
    lane.finish(tx, claim, "failed", NOW + 90, error=error_record())
    outbox.add(tx, claim.address, "error", [{"text": "sorry"}, {"text": "really"}], NOW + 90)
    chunk = outbox.waiting(tx, ACCOUNT, CHANNEL)[0]
    outbox.mark_sent(tx, chunk.id, "p-55", NOW + 99, body=chunk.body)
    return queued


def test_the_story_of_a_message_has_all_its_parts(tx):
    """Inbox, person, session, turn, tool calls, errors, chunks, and how many were ahead of it."""
    queued = tell(tx)
    (row,) = history.find_inbox(tx, ["1207"])
    trace = history.trace(tx, row)
    assert trace.inbox["id"] == queued.inbox_id
    assert (trace.person["display_name"], trace.person["platform_user_id"]) == ("Ada", "user-1")
    assert trace.session["id"] == queued.session_id and trace.turn["id"] == queued.turn_id
    assert [call["name"] for call in trace.tool_calls] == ["calculator"]
    assert [error["ref"] for error in trace.errors] == ["K7Q2MN"]
    assert [chunk["state"] for chunk in trace.chunks] == ["sent", "ready"]
    assert trace.ahead == 1


def test_the_story_of_a_declined_message_is_short(tx):
    """Without a turn there is only what arrived and was decided."""
    inbox.record(tx, incoming(message_id="9"), "declined", "blocked", NOW, person_id=None)
    trace = history.trace(tx, history.find_inbox(tx, ["9"])[0])
    assert (trace.person, trace.session, trace.turn, trace.ahead) == (None, None, None, 0)
    assert trace.tool_calls == trace.errors == trace.chunks == []


@pytest.mark.parametrize(
    "word",
    ["K7Q2MN", "k7q2mn", "ref K7Q2MN", "(ref K7Q2MN)", "(K7Q2MN)", " K7Q2MN. ", "1207", "p-55", "turn"],
)
def test_a_message_is_found_by_whatever_the_operator_has(tx, word):
    """A reference as people copy it, a message's id, the id of the reply, a turn's id."""
    queued = tell(tx)
    (row,) = history.find_inbox(tx, [queued.turn_id if word == "turn" else word])
    assert row["id"] == queued.inbox_id


def test_a_message_is_found_by_its_full_name_with_its_edits(tx):
    """Three words name one message exactly, and its edits with it; characters that LIKE knows are just characters."""
    tell(tx)
    inbox.record(tx, incoming(message_id="1207:99"), "declined", "edited_after_answer", NOW, person_id=None)
    inbox.record(tx, incoming(message_id="1_07"), "declined", "", NOW, person_id=None)
    found = history.find_inbox(tx, [ACCOUNT, CHANNEL, "1207"])
    assert [row["message_id"] for row in found] == ["1207:99", "1207"]
    assert [row["message_id"] for row in history.find_inbox(tx, [ACCOUNT, CHANNEL, "1_07"])] == ["1_07"]
    assert history.find_inbox(tx, [ACCOUNT, "other", "1207"]) == []
    assert history.find_inbox(tx, ["nothing"]) == []
