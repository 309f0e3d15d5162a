"""What a session holds: variables, notebooks, integrations, its task, title, metadata; and the view of its exchanges."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import contents, lane, lifecycle
from sessions.errors import SessionNotFound
from sessions.models import Session, StepRecord
from sessions.scope import ChannelScope, OperatorScope, PersonScope, SessionOnly
from tests.sessions.records import (
    ACCOUNT,
    CHANNEL,
    NOW,
    arrive,
    claimed,
    error_record,
    incoming,
    resolved,
    tool_call,
)

EVERYTHING = OperatorScope()


def session(tx, **changes: Any) -> Session:
    return resolved(tx, incoming(**changes))[0]


def fresh(tx, stale: Session) -> Session:
    return lifecycle.find(tx, stale.id, EVERYTHING)


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "漢字 😀", [1, [None]], {"a": {"b": []}}])
def test_variables_hold_any_json_value(tx, value):
    """Set, set anew, read, deleted; another session's variable of the same name is another."""
    one, other = session(tx), session(tx, user_id="user-2")
    contents.set_variable(tx, one.id, "x", "before", NOW)
    contents.set_variable(tx, one.id, "x", value, NOW)
    contents.set_variable(tx, one.id, "y", 2, NOW)
    contents.set_variable(tx, other.id, "x", "other", NOW)
    assert contents.variables(tx, one.id, SessionOnly(one.id)) == {"x": value, "y": 2}
    assert contents.variables(tx, one.id, SessionOnly(one.id), "x") == {"x": value}
    assert contents.variables(tx, one.id, SessionOnly(one.id), "z") == {}
    assert contents.variables(tx, one.id, SessionOnly(other.id)) == {}
    assert contents.delete_variable(tx, one.id, "x") is True
    assert contents.delete_variable(tx, one.id, "x") is False
    assert contents.variables(tx, other.id, SessionOnly(other.id)) == {"x": "other"}


def test_what_belongs_to_no_session_cannot_be_set(tx):
    """Variables and metadata of a session that is gone raise SessionNotFound."""
    with pytest.raises(SessionNotFound):
        contents.set_variable(tx, "gone", "x", 1, NOW)
    with pytest.raises(SessionNotFound):
        contents.merge_metadata(tx, "gone", {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


def rfc_7396(target: Any, patch: Any) -> Any:
    """MergePatch, written down from the RFC's own pseudo-code."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    target = dict(target)
    for name, value in patch.items():
        if value is None:
            if name in target:
                del target[name]
        else:
            target[name] = rfc_7396(target.get(name), value)
    return target


@given(patches=st.lists(OBJECTS, min_size=1, max_size=4))
def test_metadata_follows_the_rules_of_merge_patch(patches):
    """Any row of patches leaves what RFC 7396 says, as returned and as stored."""
    from tests.sessions.stores import TRANSACTIONS

    for transaction in TRANSACTIONS.values():
        with transaction() as tx:
            found = session(tx)
            expected: Any = {}
            for patch in patches:
                expected = rfc_7396(expected, patch)
                assert contents.merge_metadata(tx, found.id, patch) == expected
            assert fresh(tx, found).metadata == expected


# notebooks and integrations


@pytest.mark.parametrize("kind", ["notebook", "integration"])
def test_links_are_added_once_and_removed(tx, kind):
    """Added in order, a second time not again, removed once; another session's, and the other kind, are others."""
    one, other = session(tx), session(tx, user_id="user-2")
    assert contents.add_link(tx, one.id, kind, "gmail", NOW) is True
    assert contents.add_link(tx, one.id, kind, "  gmail ", NOW + 1) is False
    assert contents.add_link(tx, one.id, kind, "a shop", NOW + 2) is True
    assert contents.links(tx, one.id, SessionOnly(one.id), kind) == ["gmail", "a shop"]
    assert contents.links(tx, other.id, EVERYTHING, kind) == []
    different = "integration" if kind == "notebook" else "notebook"
    assert contents.links(tx, one.id, EVERYTHING, different) == []
    assert contents.remove_link(tx, one.id, kind, "gmail") is True
    assert contents.remove_link(tx, one.id, kind, "gmail") is False
    assert contents.links(tx, one.id, EVERYTHING, kind) == ["a shop"]


@pytest.mark.parametrize("name", ["", " ", "\n", "\u200b"])
def test_a_link_without_a_name_is_refused(tx, name):
    """Nothing that cannot be seen becomes a notebook."""
    with pytest.raises(ValueError, match="nothing"):
        contents.add_link(tx, session(tx).id, "notebook", name, NOW)


# the task


def test_tasks_are_kept_with_their_outcome(tx):
    """Set, replaced, done: the current one is the session's, the others are its history, the latest first."""
    found = session(tx)
    assert contents.clear_current_task(tx, found.id, NOW) is False
    contents.set_current_task(tx, found.id, "book a table", NOW)
    contents.set_current_task(tx, found.id, "find a hotel", NOW + 1)
    assert fresh(tx, found).current_task == "find a hotel"
    assert contents.clear_current_task(tx, found.id, NOW + 2) is True
    assert fresh(tx, found).current_task is None
    contents.set_current_task(tx, found.id, "call Bob", NOW + 3)
    told = [
        (one.task, one.set_at, one.ended_at, one.outcome)
        for one in contents.tasks(tx, found.id, PersonScope(found.person_id))
    ]
    assert told == [
        ("call Bob", NOW + 3, None, None),
        ("find a hotel", NOW + 1, NOW + 2, "done"),
        ("book a table", NOW, NOW + 1, "replaced"),
    ]
    assert contents.tasks(tx, found.id, PersonScope("somebody else")) == []


# title and description


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("hello", "hello"),
        ("\n\n  what   is\tthis? \nsecond line", "what is this?"),
        ("# Heading\ntext", "Heading"),
        ("- item", "item"),
        ("---", "---"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        (
            "please explain to me how the whole of the internet works, in one sentence",
            "please explain to me how the whole of the internet works…",
        ),
        ("", None),
        (" \n ", None),
    ],
)
def test_a_title_is_made_of_the_first_message(text, title):
    """The first line with something in it, short and the same each time; none of nothing."""
    assert contents.title_from(text) == title


@given(text=st.text(max_size=300))
def test_any_text_makes_one_short_line_or_none(text):
    """No title is longer than a line on a button, has a line break or is blank."""
    title = contents.title_from(text)
    if title is not None:
        assert 1 <= len(title) <= 60
        assert title.strip()
        assert len(title.splitlines()) == 1


def test_a_conversation_that_begins_with_a_picture_is_called_by_its_first_words(tx):
    """A message without words gives no title and hides none."""
    for text in ("", "what is on it?"):
        queued = arrive(tx, incoming(text))
        lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer="a cat")
    assert contents.titles(tx, [queued.session_id], EVERYTHING) == {queued.session_id: "what is on it?"}


def test_titles_are_given_or_made_within_the_scope(tx):
    """A session is called by its first question until somebody names it; taking the name away gives that back."""
    queued = arrive(tx, incoming("a trip to Rome"))
    lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer="gladly")
    found = session(tx)
    scope = PersonScope(found.person_id)
    silent = session(tx, user_id="user-2")
    assert contents.titles(tx, [found.id, silent.id], EVERYTHING) == {found.id: "a trip to Rome"}
    assert contents.set_title(tx, found.id, "  Rome\n2027 ") == "Rome 2027"
    assert contents.titles(tx, [found.id], scope) == {found.id: "Rome 2027"}
    assert contents.titles(tx, [found.id], PersonScope(silent.person_id)) == {}
    assert len(contents.set_title(tx, found.id, "x" * 500)) == contents.MAX_TITLE
    contents.set_title(tx, found.id, None)
    assert contents.titles(tx, [found.id], scope) == {found.id: "a trip to Rome"}
    with pytest.raises(ValueError, match="nothing"):
        contents.set_title(tx, found.id, " \n")


def test_a_description_is_set_and_taken_away(tx):
    """Any text, or none."""
    found = session(tx)
    contents.set_description(tx, found.id, "what we plan")
    assert fresh(tx, found).description == "what we plan"
    contents.set_description(tx, found.id, None)
    assert fresh(tx, found).description is None


def test_nothing_is_written_into_a_session_that_is_gone(tx):
    """Every write to an unknown session raises, and stores nothing."""
    writes = [
        lambda: contents.add_link(tx, "gone", "notebook", "x", NOW),
        lambda: contents.set_current_task(tx, "gone", "x", NOW),
        lambda: contents.set_title(tx, "gone", "x"),
        lambda: contents.set_description(tx, "gone", "x"),
    ]
    for write in writes:
        with pytest.raises(SessionNotFound):
            write()


# exchanges


def test_an_exchange_tells_how_its_answer_came_about(tx):
    """Question, answer, tools, time, device; a failed one its error and reference; what waits has neither."""
    message = incoming("two and two?", origin={"client": "prompt", "device": "laptop"})
    queued = arrive(tx, message)
    claim = claimed(tx, queued.session_id)
    step = StepRecord(1, "tool_result", {"content": "4"})
    lane.record_step(tx, claim, step, NOW, tool_call=tool_call())
    lane.finish(
        tx,
        claim,
        "completed",
        NOW + 900,
        answer="four",
        input_tokens=120,
        output_tokens=7,
        metadata={"tools_used": ["calculator"], "processing_ms": 850},
    )
    arrive(tx, incoming("and now?", origin={"device": "phone"}))
    failed = claimed(tx, queued.session_id, NOW + 1000)
    lane.finish(tx, failed, "timeout", NOW + 3000, error=error_record("K7Q2MN"))
    arrive(tx, incoming("still there?"))
    scope = PersonScope(session(tx).person_id)
    first, second, third = contents.exchanges(tx, queued.session_id, scope)
    assert (first.question, first.answer, first.author, first.device) == (
        "two and two?",
        "four",
        "Ada",
        "laptop",
    )
    assert (first.tools_used, first.processing_ms, first.error) == (["calculator"], 850, None)
    assert (first.input_tokens, first.output_tokens, second.input_tokens) == (120, 7, 0)
    assert (second.answer, second.status, second.processing_ms) == (None, "timeout", 2000)
    assert (second.error_kind, second.error, second.error_ref) == (
        "timeout",
        "no answer within 60 s",
        "K7Q2MN",
    )
    assert (third.status, third.answered_at, third.origin, third.device) == ("queued", None, {}, None)
    assert contents.devices(tx, queued.session_id, scope) == ["phone", "laptop"]
    assert [one.question for one in contents.exchanges(tx, queued.session_id, scope, limit=1)] == [
        "still there?"
    ]
    earlier = contents.exchanges(tx, queued.session_id, scope, before=second.position)
    assert [one.question for one in earlier] == ["two and two?"]


def test_nothing_of_a_session_is_read_outside_its_scope(tx):
    """Every read here gives nothing to another person, to the channel, and for a deleted session."""
    queued = arrive(tx, incoming("secret"))
    found = session(tx)
    contents.set_variable(tx, found.id, "x", 1, NOW)
    contents.add_link(tx, found.id, "notebook", "diary", NOW)
    contents.set_current_task(tx, found.id, "hide", NOW)
    contents.set_title(tx, found.id, "mine")
    reads = {
        "variables": lambda scope: contents.variables(tx, found.id, scope),
        "links": lambda scope: contents.links(tx, found.id, scope, "notebook"),
        "tasks": lambda scope: contents.tasks(tx, found.id, scope),
        "titles": lambda scope: contents.titles(tx, [found.id], scope),
        "exchanges": lambda scope: contents.exchanges(tx, found.id, scope),
        "events": lambda scope: lifecycle.events(tx, found.id, scope),
    }
    owner = PersonScope(found.person_id)
    lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW, answer="a")
    paused = lifecycle.pause(tx, fresh(tx, found), NOW)
    assert all(read(owner) for read in reads.values())
    for stranger in (PersonScope("other"), ChannelScope(ACCOUNT, CHANNEL), SessionOnly("other")):
        assert {name: bool(read(stranger)) for name, read in reads.items()} == dict.fromkeys(reads, False)
    lifecycle.delete(tx, paused, NOW)
    assert {name: bool(read(owner)) for name, read in reads.items()} == dict.fromkeys(reads, False)
