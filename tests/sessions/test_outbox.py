"""Replies on their way: states of a chunk, order per channel, previews that become answers, holds."""

import pytest

from config.names import AccountId, ChannelId
from sessions import inbox, lane, lifecycle, outbox
from sessions.models import Address, Claim, OutgoingChunk
from tests.sessions.records import ACCOUNT, CHANNEL, NOW, arrive, claimed, count, incoming


def body(text: str) -> dict[str, object]:
    return {"text": text, "markup": None}


def said(tx, channel: str = CHANNEL) -> list[object]:
    return [chunk.body["text"] for chunk in outbox.waiting(tx, ACCOUNT, ChannelId(channel))]


def reply(tx, *texts: str, message=None, kind: str = "answer") -> Address:
    """Queue a reply to a new message that is no turn."""
    address = inbox.record(tx, message or incoming(), "command", "help", NOW, person_id=None)
    outbox.add(tx, address, kind, [body(text) for text in texts], NOW)
    return address


def only(tx, channel: str = CHANNEL) -> OutgoingChunk:
    (chunk,) = outbox.waiting(tx, ACCOUNT, ChannelId(channel))
    return chunk


def row(tx, chunk_id: int):
    return tx.row("SELECT * FROM outbox WHERE id = :id", {"id": chunk_id})


@pytest.fixture
def claim(tx) -> Claim:
    return claimed(tx, arrive(tx).session_id)


# adding


def test_chunks_wait_in_order_and_each_knows_its_question(tx):
    """A reply's chunks go out in their order, replies of a channel in the order they were made; every one names the question."""
    address = reply(tx, "one", "two", message=incoming(thread="7", reply_handle={"t": 1}))
    reply(tx, "three")
    reply(tx, "elsewhere", message=incoming(channel="chat-2"))
    chunks = outbox.waiting(tx, ACCOUNT, CHANNEL)
    assert [chunk.body for chunk in chunks] == [body("one"), body("two"), body("three")]
    assert [chunk.address.reply_to for chunk in chunks][:2] == [address.reply_to] * 2
    first = chunks[0]
    assert (first.state, first.attempts, first.is_final, first.kind, first.part) == (
        "ready",
        0,
        True,
        "answer",
        0,
    )
    assert (first.address.thread, first.address.reply_handle, first.created_at) == ("7", {"t": 1}, NOW)
    assert len(outbox.waiting(tx, ACCOUNT, CHANNEL, limit=2)) == 2
    assert outbox.waiting(tx, AccountId("telegram.other"), CHANNEL) == []


def test_keys_are_the_same_for_each_try_and_short_enough(tx):
    """A key names message, kind and part; an error shares the key of the answer that it replaces."""
    assert outbox.chunk_key(7, "answer", 0) == outbox.chunk_key(7, "error", 0)
    keys = {
        outbox.chunk_key(i, kind, part)
        for i in (7, 71)
        for kind in ("answer", "command", "notice")
        for part in (0, 1)
    }
    assert len(keys) == 12
    assert len(outbox.chunk_key(10**15, "answer", 999)) <= 25


def test_channels_that_wait_are_named_longest_waiting_first(tx):
    """Each waiting channel once; sent, given up and unfinished previews are not waiting."""
    for channel in ("b", "a", "c", "d"):
        reply(tx, "x", "y", message=incoming(channel=channel))
    for chunk in outbox.waiting(tx, ACCOUNT, ChannelId("b")):
        outbox.mark_sent(tx, chunk.id, "m", NOW, body=chunk.body)
    for chunk in outbox.waiting(tx, ACCOUNT, ChannelId("c")):
        outbox.give_up(tx, chunk.id, "failed", "no", NOW)
    claim = claimed(tx, arrive(tx, incoming(channel="p")).session_id)
    outbox.open_preview(tx, claim.address, body("…"), NOW, turn=claim)
    assert outbox.channels_waiting(tx, ACCOUNT) == ["a", "d"]


# the states of a chunk


def test_ready_sending_sent(tx):
    """The way of a chunk that goes well; sent, it waits no more."""
    reply(tx, "hi")
    chunk = only(tx)
    outbox.begin(tx, chunk.id)
    assert only(tx).state == "sending"
    assert outbox.mark_sent(tx, chunk.id, "p-1", NOW + 3, body=chunk.body, waited_ms=20) is True
    assert said(tx) == []
    sent = row(tx, chunk.id)
    assert (sent["state"], sent["platform_message_id"], sent["sent_at"]) == ("sent", "p-1", NOW + 3)
    assert (sent["waited_ms"], sent["repeats"], sent["error"]) == (20, 0, None)
    assert outbox.sent_since(tx, ACCOUNT, NOW) == [(CHANNEL, "direct", NOW + 3)]
    assert outbox.sent_since(tx, ACCOUNT, NOW + 3) == []


def test_put_off_is_tried_again_later(tx):
    """Certainly not sent: ready again, not before the given time, counted as a try only if it was one."""
    reply(tx, "hi")
    chunk = only(tx)
    outbox.begin(tx, chunk.id)
    outbox.put_off(tx, chunk.id, NOW + 1000, "429 " + "x" * 1000, waited_ms=5, counts=False)
    again = only(tx)
    assert (again.state, again.attempts, again.not_before) == ("ready", 0, NOW + 1000)
    assert len(row(tx, chunk.id)["error"]) == 500
    outbox.put_off(tx, chunk.id, NOW + 2000, "no route")
    assert only(tx).attempts == 1
    assert row(tx, chunk.id)["waited_ms"] == 5


def test_a_lost_answer_makes_a_chunk_uncertain_and_repeats_are_counted(tx):
    """Uncertain chunks wait for another try; a success then is marked as a repeat."""
    reply(tx, "hi")
    chunk = only(tx)
    outbox.begin(tx, chunk.id)
    outbox.mark_uncertain(tx, chunk.id, NOW + 50, "timeout")
    again = only(tx)
    assert (again.state, again.attempts, again.not_before) == ("uncertain", 1, NOW + 50)
    outbox.mark_sent(tx, chunk.id, "p", NOW, body=again.body, was_repeat=True)
    assert row(tx, chunk.id)["repeats"] == 1


def test_a_repeat_of_which_nothing_was_heard_is_counted(tx):
    """Each of them may stand in the channel: a repeat whose answer was lost, and one that died with its sender; the first send not."""
    reply(tx, "hi")
    chunk = only(tx)
    outbox.begin(tx, chunk.id)
    outbox.recover(tx, ACCOUNT, shows_repeats=True)
    assert row(tx, chunk.id)["repeats"] == 0
    outbox.begin(tx, chunk.id)
    outbox.recover(tx, ACCOUNT, shows_repeats=True)
    assert row(tx, chunk.id)["repeats"] == 1
    outbox.begin(tx, chunk.id)
    outbox.mark_uncertain(tx, chunk.id, NOW, "timeout", was_repeat=True)
    assert row(tx, chunk.id)["repeats"] == 2
    outbox.begin(tx, chunk.id)
    outbox.recover(tx, ACCOUNT)
    assert row(tx, chunk.id)["repeats"] == 2, "where a repeat replaces the first"


def test_a_chunk_stays_uncertain_until_the_platform_has_it(tx):
    """A later try that certainly failed says nothing about the first: the chunk may still stand in the channel."""
    reply(tx, "hi")
    chunk = only(tx)
    outbox.begin(tx, chunk.id)
    outbox.mark_uncertain(tx, chunk.id, NOW, "timeout")
    for _ in range(2):
        outbox.begin(tx, chunk.id)
        outbox.put_off(tx, chunk.id, NOW, "connection refused", counts=False)
        assert only(tx).state == "uncertain"
    outbox.begin(tx, chunk.id)
    outbox.recover(tx, ACCOUNT)
    outbox.begin(tx, chunk.id)
    outbox.put_off(tx, chunk.id, NOW, "connection refused", counts=False)
    assert only(tx).state == "uncertain"


def test_a_chunk_is_begun_by_one_sender_alone(tx):
    """Two senders of two nodes: only one of them may send it."""
    reply(tx, "hi")
    chunk = only(tx)
    assert [outbox.begin(tx, chunk.id), outbox.begin(tx, chunk.id)] == [True, False]
    outbox.mark_uncertain(tx, chunk.id, NOW, "timeout")
    assert [outbox.begin(tx, chunk.id), outbox.begin(tx, chunk.id)] == [True, False]


def test_a_crash_makes_uncertain_what_was_being_sent(tx):
    """After a crash `sending` is `uncertain`, and nothing else changes."""
    reply(tx, "one", "two", "three")
    chunks = outbox.waiting(tx, ACCOUNT, CHANNEL)
    outbox.begin(tx, chunks[0].id)
    outbox.mark_sent(tx, chunks[1].id, "p", NOW, body=chunks[1].body)
    assert outbox.recover(tx, ACCOUNT) == 1
    assert outbox.recover(tx, ACCOUNT) == 0
    assert [(chunk.body["text"], chunk.state) for chunk in outbox.waiting(tx, ACCOUNT, CHANNEL)] == [
        ("one", "uncertain"),
        ("three", "ready"),
    ]


@pytest.mark.parametrize("state", ["failed", "skipped"])
def test_what_is_given_up_waits_no_more_and_is_not_counted_as_sent(tx, state):
    """Given up: it keeps its reason, and does not count against the pace."""
    reply(tx, "hi")
    chunk = only(tx)
    outbox.give_up(tx, chunk.id, state, "too old", NOW)
    assert said(tx) == []
    assert (row(tx, chunk.id)["state"], row(tx, chunk.id)["error"]) == (state, "too old")
    assert outbox.sent_since(tx, ACCOUNT, 0) == []


@pytest.mark.parametrize("end", ["sent", "failed", "skipped"])
def test_what_is_done_cannot_come_back(tx, end):
    """A late word about a chunk that is sent or given up changes nothing: it would be sent a second time."""
    reply(tx, "hi")
    chunk = only(tx)
    if end == "sent":
        outbox.mark_sent(tx, chunk.id, "p", NOW, body=chunk.body)
    else:
        outbox.give_up(tx, chunk.id, end, "", NOW)
    before = row(tx, chunk.id)
    outbox.begin(tx, chunk.id)
    outbox.put_off(tx, chunk.id, NOW, "late")
    outbox.mark_uncertain(tx, chunk.id, NOW, "late")
    outbox.forget_message(tx, chunk.id)
    outbox.give_up(tx, chunk.id, "failed", "late", NOW + 9)
    outbox.recover(tx, ACCOUNT)
    assert row(tx, chunk.id) == before


def test_a_message_that_is_gone_is_sent_anew(tx, claim):
    """The message to edit was deleted: the chunk goes out as a new one."""
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("…"), NOW, turn=claim)
    outbox.mark_sent(tx, chunk_id, "p-1", NOW)
    outbox.add(tx, claim.address, "answer", [body("done")], NOW)
    assert only(tx).platform_message_id == "p-1"
    outbox.forget_message(tx, chunk_id)
    assert (only(tx).platform_message_id, only(tx).state) == (None, "ready")


# previews


def test_a_preview_becomes_the_answer_by_an_edit(tx, claim):
    """The row of the preview is filled with the final text and waits as an edit of its message; more chunks follow."""
    chunk_id, known = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    assert known is None
    assert row(tx, chunk_id)["state"] == "sending"
    assert said(tx) == []
    outbox.mark_sent(tx, chunk_id, "p-1", NOW)
    assert row(tx, chunk_id)["state"] == "sent"
    outbox.add(
        tx,
        claim.address,
        "answer",
        [body("Four"), body("and more")],
        NOW,
        turn_id=claim.turn_id,
        session_id=claim.session_id,
    )
    first, second = outbox.waiting(tx, ACCOUNT, CHANNEL)
    assert (first.id, first.body, first.platform_message_id, first.state) == (
        chunk_id,
        body("Four"),
        "p-1",
        "ready",
    )
    assert (second.body, second.platform_message_id) == (body("and more"), None)
    assert first.is_final


def test_an_error_takes_the_place_of_a_preview(tx, claim):
    """An answer that failed half-way is replaced by the error's words, in the same message."""
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    outbox.mark_sent(tx, chunk_id, "p-1", NOW)
    outbox.add(tx, claim.address, "error", [body("sorry")], NOW)
    chunk = only(tx)
    assert (chunk.id, chunk.kind, chunk.platform_message_id, chunk.body) == (
        chunk_id,
        "error",
        "p-1",
        body("sorry"),
    )


def test_a_second_run_goes_on_with_the_message_of_the_first(tx, claim):
    """After a crash the preview that stands in the channel is used again instead of a second one."""
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    outbox.mark_sent(tx, chunk_id, "p-1", NOW)
    lane.recover(tx)
    outbox.recover(tx, ACCOUNT)
    again = claimed(tx, claim.session_id)
    assert outbox.open_preview(tx, again.address, body("Fou"), NOW, turn=again) == (chunk_id, "p-1")


def test_a_preview_of_unknown_outcome_is_left_to_the_final_reply(tx, claim):
    """Killed while the preview was being sent: no second preview; the answer goes out as a repeat."""
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    lane.recover(tx)
    outbox.recover(tx, ACCOUNT)
    again = claimed(tx, claim.session_id)
    assert outbox.open_preview(tx, again.address, body("Fo"), NOW, turn=again) is None
    outbox.add(tx, again.address, "answer", [body("Four")], NOW)
    chunk = only(tx)
    assert (chunk.id, chunk.state, chunk.body) == (chunk_id, "uncertain", body("Four"))


def test_a_preview_cut_off_while_it_was_sent_is_uncertain_in_the_answer(tx, claim):
    """No crash, but nobody heard the outcome of the preview's send: the answer must know that it may stand there."""
    outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    outbox.add(tx, claim.address, "answer", [body("Four")], NOW)
    chunk = only(tx)
    assert chunk.state == "uncertain"
    outbox.begin(tx, chunk.id)
    outbox.put_off(tx, chunk.id, NOW, "connection refused")
    assert only(tx).state == "uncertain"


def test_a_preview_that_certainly_failed_leaves_an_ordinary_answer(tx, claim):
    """Refused by the platform: the answer is sent as if there had been no preview."""
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    outbox.put_off(tx, chunk_id, 0, "429", counts=False)
    assert said(tx) == []
    outbox.add(tx, claim.address, "answer", [body("Four")], NOW)
    chunk = only(tx)
    assert (chunk.state, chunk.attempts, chunk.platform_message_id) == ("ready", 0, None)


def test_a_late_word_about_the_preview_does_not_swallow_the_answer(tx, claim):
    """The preview's send is heard of after the answer was put in its place: the answer still goes out, as an edit."""
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    outbox.add(tx, claim.address, "answer", [body("Four")], NOW)
    assert outbox.mark_sent(tx, chunk_id, "p-1", NOW) is False
    chunk = only(tx)
    assert (chunk.state, chunk.platform_message_id, chunk.body) == ("ready", "p-1", body("Four"))


def test_an_older_body_that_was_sent_leaves_the_newer_one_waiting(tx, claim):
    """Sent with words that are no longer the chunk's: it waits as an edit."""
    outbox.add(tx, claim.address, "answer", [body("old")], NOW)
    chunk = only(tx)
    outbox.add(tx, claim.address, "answer", [body("new")], NOW)
    assert outbox.mark_sent(tx, chunk.id, "p-1", NOW, body=chunk.body) is False
    assert (only(tx).body, only(tx).platform_message_id) == (body("new"), "p-1")
    assert outbox.mark_sent(tx, chunk.id, None, NOW, body=only(tx).body) is True
    assert row(tx, chunk.id)["platform_message_id"] == "p-1"


# being settled


def test_a_message_is_settled_once_its_turn_and_all_its_chunks_are_done(tx):
    """Not while the turn waits or runs, not while a chunk waits, whatever its state; then yes."""
    queued = arrive(tx)
    assert not outbox.is_settled(tx, queued.inbox_id)
    claim = claimed(tx, queued.session_id)
    assert not outbox.is_settled(tx, queued.inbox_id)
    lane.finish(tx, claim, "completed", NOW, answer="a")
    outbox.add(tx, claim.address, "answer", [body("a"), body("b")], NOW)
    first, second = outbox.waiting(tx, ACCOUNT, CHANNEL)
    outbox.mark_sent(tx, first.id, "p", NOW, body=first.body)
    assert not outbox.is_settled(tx, queued.inbox_id)
    outbox.mark_uncertain(tx, second.id, NOW, "?")
    assert not outbox.is_settled(tx, queued.inbox_id)
    outbox.give_up(tx, second.id, "failed", "", NOW)
    assert outbox.is_settled(tx, queued.inbox_id)


@pytest.mark.parametrize("state", ["sending", "ready", "uncertain", "sent"])
def test_a_preview_left_behind_by_a_turn_that_says_nothing_settles(tx, claim, state):
    """Stopped without a word after a preview was begun: nothing is waiting any more."""
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    if state == "ready":
        outbox.put_off(tx, chunk_id, 0, "429")
    elif state == "uncertain":
        outbox.mark_uncertain(tx, chunk_id, 0, "?")
    elif state == "sent":
        outbox.mark_sent(tx, chunk_id, "p", NOW)
    lane.finish(tx, claim, "cancelled", NOW)
    assert outbox.is_settled(tx, claim.address.inbox_id)


# channels that move, holds


def test_waiting_chunks_follow_a_channel_that_moved(tx):
    """What waits is readdressed, and answers no message of the old place; what was sent stays where it was."""
    reply(tx, "sent", "waiting")
    sent, _ = outbox.waiting(tx, ACCOUNT, CHANNEL)
    outbox.mark_sent(tx, sent.id, "p", NOW, body=sent.body)
    reply(tx, "first")
    assert outbox.readdress(tx, ACCOUNT, CHANNEL, ChannelId("new")) == 2
    assert said(tx) == [] and said(tx, "new") == ["waiting", "first"]
    assert [chunk.address.reply_to for chunk in outbox.waiting(tx, ACCOUNT, ChannelId("new"))] == [None, None]
    assert row(tx, sent.id)["channel"] == CHANNEL


def test_a_preview_follows_a_channel_that_moved(tx):
    """The answer that takes its place is sent to the new channel."""
    group = incoming(channel="g-1", channel_kind="group")
    claim = claimed(tx, arrive(tx, group, scope="channel").session_id)
    chunk_id, _ = outbox.open_preview(tx, claim.address, body("Fo"), NOW, turn=claim)
    outbox.mark_sent(tx, chunk_id, "p-1", NOW)
    lifecycle.move_channel(tx, ACCOUNT, "g-1", "g-2", NOW)
    outbox.add(tx, claim.address, "answer", [body("Four")], NOW)
    assert said(tx, "g-1") == [] and said(tx, "g-2") == ["Four"]


def test_the_longest_hold_wins_and_passes(tx):
    """A shorter word does not shorten a hold; what has passed is forgotten; other accounts have their own."""
    outbox.hold(tx, ACCOUNT, CHANNEL, NOW + 100)
    outbox.hold(tx, ACCOUNT, CHANNEL, NOW + 50)
    outbox.hold(tx, ACCOUNT, ChannelId(""), NOW + 10)
    outbox.hold(tx, AccountId("telegram.other"), CHANNEL, NOW + 500)
    assert sorted(outbox.holds(tx, ACCOUNT, NOW)) == [("", NOW + 10), (CHANNEL, NOW + 100)]
    outbox.hold(tx, ACCOUNT, CHANNEL, NOW + 200)
    assert outbox.holds(tx, ACCOUNT, NOW + 10) == [(CHANNEL, NOW + 200)]
    assert outbox.holds(tx, ACCOUNT, NOW + 200) == []
    assert count(tx, "holds") == 1
