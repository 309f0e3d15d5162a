"""Messages taken in once, turns claimed in order by one at a time, and results stored only by whoever holds the claim."""

import dataclasses

import pytest

from config.names import AccountId, ChannelId, PersonId
from sessions import addresses, cleanup, contents, inbox, lane, lifecycle, outbox, people
from sessions.errors import SessionClosed, StaleClaim
from sessions.hot import tail_after
from sessions.models import StepRecord
from tests.sessions.records import (
    ACCOUNT,
    CHANNEL,
    NOW,
    answer_step,
    arrive,
    claimed,
    count,
    error_record,
    incoming,
    resolved,
    session_row,
    tool_call,
    turn_row,
)

# taking in


def test_an_accepted_message_becomes_one_row_one_turn_and_one_message(tx):
    """What `accept` returns is what it stored, and the session counts it."""
    message = incoming("hi", thread="7", origin={"chat": 1}, attachments=[{"kind": "image"}])
    queued = arrive(tx, message)
    row = tx.row("SELECT * FROM inbox WHERE id = :id", {"id": queued.inbox_id})
    assert (row["outcome"], row["session_id"], row["turn_id"]) == (
        "accepted",
        queued.session_id,
        queued.turn_id,
    )
    turn = turn_row(tx, queued.turn_id)
    assert (turn["status"], turn["position"], turn["epoch"], turn["attempts"]) == ("queued", 1, 0, 0)
    (said,) = lane.conversation_until(tx, queued.session_id, 1, 10)
    assert (said.role, said.content, said.author, said.part) == ("user", "hi", "Ada", 0)
    assert said.metadata == {"origin": {"chat": 1}}
    assert said.attachments == [{"kind": "image"}]
    assert session_row(tx, queued.session_id)["message_count"] == 1


def test_a_message_is_known_once_it_was_taken_in_whatever_became_of_it(tx):
    """Accepted, declined and commands are all known by (account, channel, id); nothing else is."""
    for outcome in ("accepted", "command", "declined"):
        message = incoming(message_id=f"m-{outcome}")
        assert not inbox.is_known(tx, message)
        inbox.record(tx, message, outcome, "", NOW, person_id=None)
        assert inbox.is_known(tx, message)
        assert not inbox.is_known(tx, dataclasses.replace(message, account=AccountId("telegram.other")))
        assert not inbox.is_known(tx, dataclasses.replace(message, channel=ChannelId("chat-2")))
        assert not inbox.is_known(tx, dataclasses.replace(message, dedupe_id="m-x"))
        assert not inbox.is_known(tx, dataclasses.replace(message, dedupe_id=f"m-{outcome}:5"))


def test_the_unique_key_refuses_what_the_question_missed(tx):
    """Even if nobody asked `is_known`: a second row for the same message raises, and the session is not counted up."""
    message = incoming()
    queued = arrive(tx, message)
    tx.execute("SAVEPOINT second")
    with pytest.raises(Exception, match=r"(?i)unique"):
        arrive(tx, message)
    tx.execute("ROLLBACK TO SAVEPOINT second")
    assert count(tx, "turns") == 1
    assert session_row(tx, queued.session_id)["message_count"] == 1


@pytest.mark.parametrize("ended", [lifecycle.end, lifecycle.pause, lifecycle.delete])
def test_a_session_that_is_not_active_takes_no_message(tx, ended):
    """Ended, paused and deleted sessions refuse, whatever the caller believes; nothing is stored."""
    message = incoming()
    session, person, _ = resolved(tx, message)
    ended(tx, session, *(["reset"] if ended is lifecycle.end else []), NOW)
    with pytest.raises(SessionClosed):
        inbox.accept(tx, message, session, person, NOW, ahead=0)
    assert count(tx, "inbox") == count(tx, "turns") == count(tx, "messages") == 0


def test_hearing_keeps_the_channel_and_the_farthest_watermark(tx):
    """The channel's row follows title and watermark; a message without either takes nothing away."""
    inbox.hear(tx, incoming(channel_title="Chess", watermark="10"), NOW)
    inbox.hear(tx, incoming(), NOW + 100_000)
    assert inbox.known_channels(tx, ACCOUNT) == [(CHANNEL, "direct", "10")]
    inbox.hear(tx, incoming(channel_title="Chess club", watermark="12"), NOW + 100_001)
    inbox.hear(tx, incoming(channel="chat-2", channel_kind="group"), NOW + 200_000)
    assert inbox.known_channels(tx, ACCOUNT) == [("chat-2", "group", None), (CHANNEL, "direct", "12")]
    assert tx.row("SELECT title FROM channels WHERE channel = :c", {"c": CHANNEL})["title"] == "Chess club"
    assert inbox.known_channels(tx, AccountId("telegram.other")) == []


def test_a_title_that_changes_within_the_minute_is_kept(tx):
    """The row is not written for each message, but a new title never waits."""
    inbox.hear(tx, incoming(channel_title="Chess"), NOW)
    inbox.hear(tx, incoming(channel_title="Go"), NOW + 1)
    assert tx.row("SELECT title FROM channels")["title"] == "Go"


def test_cursors_are_kept_per_account_and_name(tx):
    """A cursor is what was set last, None before, and nobody else's."""
    assert inbox.cursor(tx, ACCOUNT, "offset") is None
    inbox.set_cursor(tx, ACCOUNT, "offset", "1", NOW)
    inbox.set_cursor(tx, ACCOUNT, "offset", "2", NOW)
    inbox.set_cursor(tx, ACCOUNT, "other", "9", NOW)
    assert inbox.cursor(tx, ACCOUNT, "offset") == "2"
    assert inbox.cursor(tx, AccountId("telegram.other"), "offset") is None


def test_what_nobody_can_parse_is_kept_within_bounds(tx):
    """An unreadable update is kept with its reason; one of 100 MB does not fill the disk."""
    first = inbox.quarantine(tx, ACCOUNT, b"\xff\x00{", "not JSON", NOW)
    second = inbox.quarantine(tx, ACCOUNT, b"x" * 5_000_000, "y" * 5_000, NOW)
    rows = tx.rows("SELECT * FROM quarantine ORDER BY id")
    assert [row["id"] for row in rows] == [first, second]
    assert bytes(rows[0]["raw"]) == b"\xff\x00{"
    assert len(rows[1]["raw"]) == 1_000_000 and len(rows[1]["reason"]) == 1000


@pytest.mark.parametrize("half", ["\ud83d", "a\ude00b"])
def test_half_a_character_poisons_nothing(tx, half):
    """Text with half a surrogate pair, anywhere a platform or a model can put one, is stored mended."""
    queued = arrive(
        tx,
        incoming(
            half,
            display_name=half,
            origin={"x": half},
            attachments=[{"name": half}],
            reply_handle={"t": half},
        ),
    )
    claim = claimed(tx, queued.session_id)
    lane.record_step(
        tx,
        claim,
        StepRecord(1, "tool_result", {"content": half}),
        NOW,
        tool_call=dataclasses.replace(tool_call(), result=half, arguments={"q": half}),
    )
    lane.finish(
        tx,
        claim,
        "failed",
        NOW,
        answer=half,
        error=dataclasses.replace(error_record(), message=half),
        metadata={"m": half},
    )
    contents.set_variable(tx, queued.session_id, "name", half, NOW)
    outbox.add(tx, claim.address, "answer", [{"text": half, "markup": None}], NOW)
    said = lane.conversation_until(tx, queued.session_id, 5, 10)
    mended = half.replace("\ud83d", "\ufffd").replace("\ude00", "\ufffd")
    assert [message.content for message in said] == [mended, mended]
    assert outbox.waiting(tx, ACCOUNT, CHANNEL)[0].body == {"text": mended, "markup": None}


def test_numbers_larger_than_64_bits_in_arguments_are_kept(tx):
    """A model may call a tool with any number; recording the call does not fail for it."""
    queued = arrive(tx)
    call = dataclasses.replace(tool_call(), arguments={"n": 2**80})
    lane.record_step(tx, claimed(tx, queued.session_id), answer_step(), NOW, tool_call=call)
    assert str(2**80) in tx.row("SELECT arguments FROM tool_calls")["arguments"]


# edits


def test_an_edit_before_the_turn_begins_replaces_the_words(tx):
    """The new text is what the agent gets; what else is known of the message stays."""
    message = incoming("frist", origin={"chat": 1})
    queued = arrive(tx, message)
    edit = dataclasses.replace(message, text="first", dedupe_id=f"{message.message_id}:9")
    assert inbox.replace_text(tx, edit, NOW + 5) == "replaced"
    (said,) = claimed(tx, queued.session_id).messages
    assert said.content == "first"
    assert said.metadata == {"origin": {"chat": 1}, "edited_at": NOW + 5}


def test_an_edit_of_a_turn_that_has_begun_changes_nothing(tx):
    """Running, finished: the words that were answered stay."""
    message = incoming("first")
    queued = arrive(tx, message)
    claim = claimed(tx, queued.session_id)
    edit = dataclasses.replace(message, text="second")
    assert inbox.replace_text(tx, edit, NOW) == "answered"
    lane.finish(tx, claim, "completed", NOW, answer="ok")
    assert inbox.replace_text(tx, edit, NOW) == "answered"
    assert lane.conversation_until(tx, queued.session_id, 1, 10)[0].content == "first"


def test_an_edit_of_an_unknown_message_is_told_apart(tx):
    """Messages never accepted (declined, commands, other channels) cannot be edited."""
    message = incoming("x")
    inbox.record(tx, message, "declined", "", NOW, person_id=None)
    assert inbox.replace_text(tx, message, NOW) == "unknown"
    arrive(tx, incoming("kept", message_id="m"))
    other = incoming("changed", message_id="m", channel="chat-2")
    assert inbox.replace_text(tx, other, NOW) == "unknown"


# claiming


def test_turns_are_claimed_in_the_order_of_acceptance_one_at_a_time(tx):
    """A lane gives its first waiting turn, and none while one is running."""
    queued = [arrive(tx, incoming(str(number))) for number in range(5)]
    session_id = queued[0].session_id
    assert {turn.session_id for turn in queued} == {session_id}
    assert [turn.ahead for turn in queued] == [0, 1, 2, 3, 4]
    for number, turn in enumerate(queued):
        claim = claimed(tx, session_id)
        assert (claim.turn_id, claim.position, claim.epoch, claim.attempts) == (
            turn.turn_id,
            number + 1,
            1,
            1,
        )
        assert claim.messages[-1].content == str(number)
        assert lane.claim(tx, session_id, NOW, context_messages=5) is None
        assert lane.waiting(tx, session_id) == 5 - number
        lane.finish(tx, claim, "completed", NOW, answer=f"re {number}")
    assert lane.claim(tx, session_id, NOW, context_messages=5) is None
    assert lane.waiting(tx, session_id) == 0


def test_sessions_do_not_wait_for_one_another(tx):
    """A running turn holds up its own session alone."""
    one, other = arrive(tx), arrive(tx, incoming(user_id="user-2"))
    assert one.session_id != other.session_id
    claimed(tx, one.session_id)
    claimed(tx, other.session_id)


def test_two_running_turns_of_a_session_cannot_be_stored(tx):
    """Should a claim ever be made in error, the database itself refuses a second running turn."""
    first, second = arrive(tx), arrive(tx)
    claimed(tx, first.session_id)
    tx.execute("SAVEPOINT wrong")
    with pytest.raises(Exception, match=r"(?i)unique"):
        tx.execute("UPDATE turns SET status = 'running' WHERE id = :id", {"id": second.turn_id})
    tx.execute("ROLLBACK TO SAVEPOINT wrong")


def test_a_claim_carries_all_that_the_turn_needs(tx):
    """Address, person, persona, conversation: one read gives them all."""
    handle = {"token": "t"}
    message = incoming("hi", thread="7", reply_handle=handle)
    queued = arrive(tx, message, persona="bard")
    claim = claimed(tx, queued.session_id)
    assert (claim.person_name, claim.language, claim.persona, claim.is_shared) == ("Ada", "en", "bard", False)
    address = claim.address
    assert (address.account, address.channel, address.thread) == (ACCOUNT, CHANNEL, "7")
    assert (address.reply_to, address.reply_handle, address.inbox_id) == (
        message.message_id,
        handle,
        queued.inbox_id,
    )
    assert claim.queued_at == NOW and not claim.is_cancelled and claim.steps == []
    shared = arrive(tx, incoming(channel="g", channel_kind="group"), scope="channel")
    assert claimed(tx, shared.session_id).is_shared


def _accepted_and_claimed(tx, message, **how):
    session, person, _ = resolved(tx, message)
    return inbox.accept_and_claim(tx, message, session, person, NOW, context_messages=50, **how)


def test_claiming_with_the_acceptance_is_accepting_and_then_claiming(tx):
    """The same claim and the same rows, in whichever of the two ways a turn came to run."""
    said = {
        "thread": "7",
        "origin": {"chat": 1},
        "attachments": [{"kind": "image"}],
        "reply_handle": {"t": 1},
    }
    one = incoming("hi \ud83d", user_id="one", **said)
    apart = claimed(tx, arrive(tx, one).session_id)
    other = incoming("hi \ud83d", user_id="other", **said)
    at_once = _accepted_and_claimed(tx, other)
    same = dict.fromkeys(["turn_id", "session_id", "person_id", "address", "messages", "steps", "msg_id"])
    assert dataclasses.replace(at_once, **same) == dataclasses.replace(apart, **same)
    for claim, message in ((apart, one), (at_once, other)):
        ids = {"inbox_id": 0, "reply_to": None}
        assert dataclasses.replace(claim.address, **ids) == dataclasses.replace(apart.address, **ids)
        assert claim.address.reply_to == message.message_id and not claim.steps
        assert list(claim.messages) == lane.conversation_until(tx, claim.session_id, claim.position, 50)
    own = {"id", "session_id", "inbox_id"}
    rows = [turn_row(tx, claim.turn_id) for claim in (apart, at_once)]
    assert rows[0].keys() - own == {name for name in rows[0] if rows[0][name] == rows[1][name]} - own
    assert lane.claim(tx, at_once.session_id, NOW, context_messages=5) is None
    lane.finish(tx, at_once, "completed", NOW, answer="yes")
    with pytest.raises(StaleClaim):
        lane.finish(tx, at_once, "completed", NOW, answer="again")


@pytest.mark.parametrize("is_gap", [False, True], ids=["the next turn", "a turn unseen in between"])
def test_a_turn_claimed_with_its_acceptance_goes_on_from_what_is_remembered(tx, is_gap):
    """The remembered end and the message itself, and what was said in between if anything was: never a hole, never twice."""
    first = _accepted_and_claimed(tx, incoming("q0"))
    lane.finish(tx, first, "completed", NOW, answer="a0")
    recent = tail_after(first, "a0", {}, NOW, 50)
    if is_gap:
        lane.finish(tx, _accepted_and_claimed(tx, incoming("unseen")), "completed", NOW, answer="b")
    claim = _accepted_and_claimed(tx, incoming("q1"), recent=recent)
    assert claim.is_from_memory
    assert list(claim.messages) == lane.conversation_until(tx, claim.session_id, claim.position, 50)


def test_the_end_of_a_turn_tells_whether_any_were_queued_behind_it(tx):
    """So that nobody asks for the next one where none can be."""
    first, second = arrive(tx), arrive(tx)
    assert lane.finish(tx, claimed(tx, first.session_id), "completed", NOW)
    assert not lane.finish(tx, claimed(tx, second.session_id), "completed", NOW)


def test_the_conversation_ends_with_the_message_to_answer(tx):
    """What came later is not seen, however long the lane; the newest of what came before is kept."""
    queued = [arrive(tx, incoming(f"q{number}")) for number in range(6)]
    session_id = queued[0].session_id
    for number in range(3):
        lane.finish(tx, claimed(tx, session_id), "completed", NOW, answer=f"a{number}")
    claim = lane.claim(tx, session_id, NOW, context_messages=4)
    assert [message.content for message in claim.messages] == ["a1", "q2", "a2", "q3"]
    assert [message.role for message in claim.messages] == ["assistant", "user", "assistant", "user"]
    everything = lane.conversation_until(tx, session_id, claim.position, 100)
    assert [message.content for message in everything] == ["q0", "a0", "q1", "a1", "q2", "a2", "q3"]


def test_sessions_with_work_are_those_with_queued_turns_longest_waiting_first(tx):
    """Who waits longest comes first; whose turns run or have ended is not named."""
    late = arrive(tx, incoming(user_id="late"), now=NOW + 5)
    early = arrive(tx, incoming(user_id="early"), now=NOW + 1)
    done = arrive(tx, incoming(user_id="done"))
    arrive(tx, incoming(user_id="early"), now=NOW + 9)
    running = arrive(tx, incoming(user_id="running"))
    lane.finish(tx, claimed(tx, done.session_id), "completed", NOW)
    claimed(tx, running.session_id)
    assert lane.sessions_with_work(tx) == [early.session_id, late.session_id]


# crash and fence


def test_ids_begin_at_the_present_time_and_never_go_back(tx):
    """A new or restored database does not use ids (and so keys) that another one gave a moment ago."""
    inbox.advance_ids(tx, NOW)
    first = arrive(tx, incoming("one")).inbox_id
    inbox.advance_ids(tx, NOW - 60_000)
    second = arrive(tx, incoming("two", message_id="2", dedupe_id="2")).inbox_id
    inbox.advance_ids(tx, NOW + 60_000)
    third = arrive(tx, incoming("three", message_id="3", dedupe_id="3")).inbox_id
    assert NOW < first < second <= NOW + 60_000 < third


def test_recovery_puts_running_turns_back_in_their_place(tx):
    """After a crash what ran is queued again, at the head of its lane, with its steps; only `attempts` and `epoch` grew."""
    first = arrive(tx)
    arrive(tx)
    finished = arrive(tx, incoming(user_id="user-2"))
    lane.finish(tx, claimed(tx, finished.session_id), "completed", NOW)
    claim = claimed(tx, first.session_id)
    lane.record_step(tx, claim, answer_step(1, "thinking"), NOW)
    lane.record_step(tx, claim, StepRecord(2, "tool_result", {"content": "4"}), NOW, tool_call=tool_call(2))
    assert lane.recover(tx) == 1
    assert lane.recover(tx) == 0
    again = claimed(tx, first.session_id)
    assert (again.turn_id, again.epoch, again.attempts) == (claim.turn_id, 2, 2)
    assert [(step.number, step.kind, step.payload) for step in again.steps] == [
        (1, "answer", {"text": "thinking"}),
        (2, "tool_result", {"content": "4"}),
    ]
    assert turn_row(tx, finished.turn_id)["status"] == "completed"


@pytest.mark.parametrize("meanwhile", ["recovered", "claimed anew", "finished", "purged"])
def test_a_stale_claim_can_store_nothing(tx, meanwhile):
    """Whoever lost the turn stores no step, no result and opens no preview, and leaves every counter as it was."""
    queued = arrive(tx)
    stale = claimed(tx, queued.session_id)
    if meanwhile == "finished":
        lane.finish(tx, stale, "completed", NOW, answer="first")
    elif meanwhile == "purged":
        cleanup.purge(tx, queued.session_id)
    else:
        lane.recover(tx)
        if meanwhile == "claimed anew":
            claimed(tx, queued.session_id)
    tables = ("turns", "messages", "sessions", "steps", "tool_calls", "errors", "outbox")
    before = [tx.rows(f"SELECT * FROM {table}") for table in tables]
    with pytest.raises(StaleClaim):
        lane.record_step(tx, stale, answer_step(), NOW, tool_call=tool_call())
    with pytest.raises(StaleClaim):
        lane.finish(
            tx,
            stale,
            "completed",
            NOW,
            answer="late",
            input_tokens=5,
            error=error_record(),
            last_step=answer_step(),
        )
    with pytest.raises(StaleClaim):
        lane.check_claim(tx, stale)
    with pytest.raises(StaleClaim):
        outbox.open_preview(tx, stale.address, {"text": "x"}, NOW, turn=stale)
    assert [tx.rows(f"SELECT * FROM {table}") for table in tables] == before


def test_a_step_stored_twice_counts_once(tx):
    """A write repeated because its acknowledgement was lost adds no second tool call and counts nothing twice."""
    queued = arrive(tx)
    claim = claimed(tx, queued.session_id)
    for _ in range(3):
        lane.record_step(
            tx, claim, StepRecord(1, "tool_result", {"content": "4"}), NOW, tool_call=tool_call(is_error=True)
        )
    assert count(tx, "steps") == count(tx, "tool_calls") == 1
    session = session_row(tx, queued.session_id)
    assert (session["tool_call_count"], session["error_count"]) == (1, 1)
    assert turn_row(tx, queued.turn_id)["tool_calls"] == 1


# results


@pytest.mark.parametrize("status", ["completed", "failed", "timeout", "cancelled"])
def test_finishing_stores_everything_of_a_turn_at_once(tx, status):
    """Status, answer, counters, last step, error and its reference: all of one `finish`."""
    queued = arrive(tx)
    claim = claimed(tx, queued.session_id)
    lane.record_step(tx, claim, StepRecord(1, "tool_result", {}), NOW, tool_call=tool_call())
    lane.finish(
        tx,
        claim,
        status,
        NOW + 7,
        answer="four",
        agent="scripted",
        input_tokens=10,
        output_tokens=3,
        error=error_record(),
        metadata={"tools_used": ["calculator"]},
        last_step=answer_step(2),
    )
    turn = turn_row(tx, queued.turn_id)
    assert (turn["status"], turn["finished_at"], turn["agent"]) == (status, NOW + 7, "scripted")
    assert (turn["input_tokens"], turn["output_tokens"], turn["tool_calls"]) == (10, 3, 1)
    assert turn["error_ref"] == "K7Q2MN"
    session = session_row(tx, queued.session_id)
    assert (session["message_count"], session["tool_call_count"], session["error_count"]) == (2, 1, 1)
    assert (session["input_tokens"], session["output_tokens"]) == (10, 3)
    assert session["last_activity_at"] == NOW + 7
    error = tx.row("SELECT * FROM errors")
    assert (error["ref"], error["turn_id"], error["session_id"]) == (
        "K7Q2MN",
        queued.turn_id,
        queued.session_id,
    )
    answer = lane.conversation_until(tx, queued.session_id, 2, 10)[-1]
    assert (answer.role, answer.content, answer.part) == ("assistant", "four", 1)
    assert answer.metadata == {"tools_used": ["calculator"]}
    assert count(tx, "steps") == 2


def test_a_turn_without_an_answer_adds_no_message(tx):
    """Failed and cancelled turns may say nothing; the conversation then holds the question alone."""
    queued = arrive(tx)
    lane.finish(tx, claimed(tx, queued.session_id), "failed", NOW, error=error_record())
    assert session_row(tx, queued.session_id)["message_count"] == 1
    assert count(tx, "messages") == 1


def test_two_errors_with_the_same_reference_are_both_kept(tx):
    """References are short and may meet again; the later error is not lost for it."""
    for user in ("user-1", "user-2"):
        queued = arrive(tx, incoming(user_id=user))
        lane.finish(tx, claimed(tx, queued.session_id), "failed", NOW, error=error_record("SAMEAA"))
    assert count(tx, "errors") == 2


def test_positions_are_never_given_twice(tx):
    """Positions grow by one per accepted message, over finished and cancelled turns alike."""
    session_id = arrive(tx).session_id
    for status in ("completed", "cancelled", "failed"):
        lane.finish(tx, claimed(tx, session_id), status, NOW)
        arrive(tx)
    rows = tx.rows("SELECT position FROM turns WHERE session_id = :id ORDER BY position", {"id": session_id})
    assert [row["position"] for row in rows] == [1, 2, 3, 4]


# stopping


def test_a_stop_asks_the_running_turn_and_if_told_so_the_waiting_ones(tx):
    """A stop is a mark on the row; who runs the turn ends it. Each turn is asked once."""
    turns = [arrive(tx) for _ in range(3)]
    session_id = turns[0].session_id
    claimed(tx, session_id)
    assert lane.request_cancel(tx, [session_id], NOW, with_queued=False) == [turns[0].turn_id]
    assert lane.request_cancel(tx, [session_id], NOW, with_queued=False) == []
    rest = lane.request_cancel(tx, [session_id], NOW, with_queued=True)
    assert sorted(rest) == sorted(turn.turn_id for turn in turns[1:])
    assert [turn_row(tx, turn.turn_id)["status"] for turn in turns] == ["running", "queued", "queued"]
    assert lane.request_cancel(tx, [], NOW, with_queued=True) == []


def test_a_stop_may_be_of_one_persons_turns_only(tx):
    """Among the turns of many, a person's stop reaches and counts those of their own messages."""
    group = {"channel": "g-1", "channel_kind": "group"}
    bobs = incoming(user_id="bob", display_name="Bob", **group)
    first = arrive(tx, incoming(**group), scope="channel")
    second = arrive(tx, bobs, scope="channel")
    bob = people.meet(tx, bobs, NOW).id
    claimed(tx, first.session_id)
    assert lane.waiting(tx, first.session_id) == 2
    assert lane.waiting(tx, first.session_id, person_id=bob) == 1
    session = [first.session_id]
    assert lane.request_cancel(tx, session, NOW, with_queued=False, person_id=bob) == []
    assert lane.request_cancel(tx, session, NOW, with_queued=True, person_id=bob) == [second.turn_id]
    assert lane.request_cancel(tx, session, NOW, with_queued=True) == [first.turn_id]


def test_a_stop_survives_a_crash(tx):
    """Asked to stop, then killed: the next claim of that turn knows it was asked."""
    queued = arrive(tx)
    assert not claimed(tx, queued.session_id).is_cancelled
    lane.request_cancel(tx, [queued.session_id], NOW, with_queued=False)
    lane.recover(tx)
    assert claimed(tx, queued.session_id).is_cancelled


def test_finished_turns_cannot_be_stopped(tx):
    """A stop that comes too late marks nothing."""
    queued = arrive(tx)
    lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW)
    assert lane.request_cancel(tx, [queued.session_id], NOW, with_queued=True) == []


def test_unfinished_sessions_of_a_key_include_ended_ones(tx):
    """/stop reaches the turns of a session that /reset ended while they waited, and of no other key."""
    message = incoming()
    queued = arrive(tx, message)
    session, _, _ = resolved(tx, message)
    arrive(tx, incoming(user_id="user-2"))
    lifecycle.end(tx, session, "reset", NOW)
    new = arrive(tx)
    assert set(lane.unfinished_sessions(tx, session.key)) == {queued.session_id, new.session_id}
    lane.finish(tx, claimed(tx, queued.session_id), "completed", NOW)
    assert lane.unfinished_sessions(tx, session.key) == [new.session_id]


# telling about the wait


def test_a_waiting_turn_is_told_about_once_with_how_many_are_ahead(tx):
    """The notice goes where the message came from, once; a turn that runs or has ended needs none."""
    first, _, third = (arrive(tx) for _ in range(3))
    claimed(tx, first.session_id)
    ahead, address = lane.mark_noticed(tx, third.turn_id, NOW)
    assert (ahead, address.inbox_id) == (2, third.inbox_id)
    assert lane.mark_noticed(tx, third.turn_id, NOW) is None
    assert lane.mark_noticed(tx, first.turn_id, NOW) is None
    assert lane.mark_noticed(tx, "no such turn", NOW) is None


def test_a_person_is_told_once_a_wait_however_much_they_write(tx):
    """Further messages of somebody who was told earn no further note; others in the channel, and the next wait, do."""
    group = {"channel": "g-1", "channel_kind": "group"}
    ada = {"user_id": "user-1", **group}
    running, told, also, other = (
        arrive(tx, incoming(**fields), scope="channel")
        for fields in (ada, ada, ada, {"user_id": "user-2", **group})
    )
    turn = claimed(tx, running.session_id)
    assert lane.mark_noticed(tx, told.turn_id, NOW)[0] == 1
    assert lane.mark_noticed(tx, also.turn_id, NOW) is None
    assert lane.mark_noticed(tx, other.turn_id, NOW)[0] == 3
    for _ in range(3):
        lane.finish(tx, turn, "completed", NOW)
        turn = claimed(tx, running.session_id)
    later = arrive(tx, incoming(**ada), scope="channel")
    assert lane.mark_noticed(tx, later.turn_id, NOW)[0] == 1


def test_the_notice_follows_a_channel_that_moved(tx):
    """A wait told after a group got another id is told in the new one, and answers no message there."""
    group = {"channel": "g-1", "channel_kind": "group"}
    first = arrive(tx, incoming(**group), scope="channel")
    second = arrive(tx, incoming(**group), scope="channel")
    claimed(tx, first.session_id)
    lifecycle.move_channel(tx, ACCOUNT, "g-1", "g-2", NOW)
    _, address = lane.mark_noticed(tx, second.turn_id, NOW)
    assert (address.channel, address.reply_to) == ("g-2", None)


def test_an_address_is_found_again_by_the_row_of_the_inbox(tx):
    """`address_of` gives where replies go, None for a row that is not there."""
    message = incoming(thread="7", reply_handle={"a": 1})
    queued = arrive(tx, message)
    assert addresses.address_of(tx, queued.inbox_id) == claimed(tx, queued.session_id).address
    assert addresses.address_of(tx, 12345) is None


def test_an_edit_is_answered_under_the_id_that_its_platform_knows(tx):
    """An edit's row has an id of our own; replies name the message that was edited."""
    edit = incoming(message_id="123", dedupe_id=f"123:{NOW}")
    address = inbox.record(tx, edit, "declined", "too_long", NOW, person_id=None)
    assert address.reply_to == "123"
    assert addresses.address_of(tx, address.inbox_id) == address


# forgetting


def test_old_declined_messages_are_forgotten_in_small_batches(tx):
    """Only declined rows, only old ones, only so many at a time."""
    for number in range(5):
        inbox.record(
            tx, incoming(message_id=f"old-{number}"), "declined", "blocked", NOW - 10, person_id=None
        )
    inbox.record(tx, incoming(message_id="new"), "declined", "blocked", NOW, person_id=None)
    inbox.record(tx, incoming(message_id="command"), "command", "help", NOW - 10, person_id=None)
    arrive(tx, incoming(message_id="accepted"), now=NOW - 10)
    assert inbox.forget_declined(tx, NOW, batch=3) == 3
    assert inbox.forget_declined(tx, NOW, batch=3) == 2
    assert inbox.forget_declined(tx, NOW, batch=3) == 0
    kept = {row["message_id"] for row in tx.rows("SELECT message_id FROM inbox")}
    assert kept == {"new", "command", "accepted"}


def test_people_are_not_needed_to_record_a_message(tx):
    """A message may be written down before anybody is known behind it, and with one."""
    person = people.meet(tx, incoming(), NOW)
    inbox.record(tx, incoming(), "declined", "", NOW, person_id=None)
    inbox.record(tx, incoming(), "declined", "", NOW, person_id=PersonId(person.id))
    assert count(tx, "inbox") == 2


def test_an_edit_that_waited_is_answered_under_its_message(tx):
    """An edit is kept under an id of its own; the reply names the message, which is all that the platform knows."""
    first = arrive(tx, incoming("before it"))
    arrive(tx, incoming("now for you", message_id="m-1", dedupe_id=f"m-1:{NOW}"))
    lane.finish(tx, claimed(tx, first.session_id), "completed", NOW)
    assert claimed(tx, first.session_id).address.reply_to == "m-1"
