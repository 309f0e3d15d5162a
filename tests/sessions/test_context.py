"""What the model sees: one choice for turns and for those who ask, within its limit whatever the conversation is made of."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.settings import Settings
from sessions import context, lane, lifecycle, summaries, tokens, window
from sessions.context import StepText, build_context, compose
from sessions.hot import tail_after
from sessions.models import Message, Summary, Window
from sessions.scope import OperatorScope
from tests.sessions.records import NOW, arrive, claimed, incoming


def said(*texts: str, first: int = 1) -> list[Message]:
    """A conversation: person and bot in turn, ending with the person."""
    roles = ["user" if (len(texts) - number) % 2 else "assistant" for number in range(len(texts))]
    return [
        Message("s", number, 0, role, text, None, 0)
        for number, (text, role) in enumerate(zip(texts, roles, strict=True), first)
    ]


def summary(text: str = "- Ada: the code is 7741", version: int = 1) -> Summary:
    return Summary(version, 1, version, version, text, 10, "digest", 0)


MESSY = st.one_of(
    st.text(max_size=80),
    st.sampled_from(["word " * 3000, "漢字" * 2000, "😀" * 900, "", "a" * 9000, "?" * 50, "1 2 3\n" * 400]),
)


@example(  # frames alone, of tools' results that say nothing, are more than a small window holds
    texts=["0:\x810\U00010000", "0" * 40],
    notes=[],
    outputs=[("", True)] * 3,
    limit=201,
    ratio=3.0,
    instructions="",
    tool_tokens=500,
)
@settings(max_examples=60)
@given(
    texts=st.lists(MESSY, min_size=1, max_size=24),
    notes=st.lists(MESSY, max_size=4),
    outputs=st.lists(st.tuples(MESSY, st.just(True)), max_size=5),
    limit=st.integers(201, 3000),
    ratio=st.floats(0.5, 3.0),
    instructions=st.sampled_from(["", "Answer briefly.", "rule " * 60]),
    tool_tokens=st.sampled_from([0, 40, 500, 5000]),
)
def test_any_mixture_ends_within_the_limit(texts, notes, outputs, limit, ratio, instructions, tool_tokens):
    """Huge messages, summaries and tool output in any mixture: within the limit, the message to answer there, nothing raised."""
    messages = said(*texts)
    seen = compose(
        messages,
        [summary(text, number) for number, text in enumerate(notes, 1)],
        instructions=instructions,
        limit_tokens=limit,
        ratio=ratio,
        steps=[StepText(text, is_output) for text, is_output in outputs],
        tool_tokens=tool_tokens,
    )
    beside = max(limit, seen.parts.instructions + seen.parts.tools + limit // 4)
    # What stays whatever happens: the least of the message to answer, and of each output itself or the mark that it was left out,
    # with what frames it.
    mark = tokens.count("[left out: too long for the model]")
    least = sum(int((min(tokens.count(text), mark) + tokens.PER_MESSAGE) * ratio) + 1 for text, _ in outputs)
    assert seen.parts.total <= beside + int(24 * ratio) + 1 + least
    assert seen.instructions == instructions
    assert len(seen.steps) == len(outputs)
    last = seen.messages[-1]
    assert (last.position, last.role) == (messages[-1].position, messages[-1].role)
    assert seen.is_cut == (last.content != messages[-1].content)
    positions = [message.position for message in seen.messages]
    assert positions == sorted(positions)
    assert len(seen.messages) + seen.left_out == len(messages)


@settings(max_examples=40)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=20))
def test_what_fits_is_seen_as_it_was_said(texts):
    """Nothing is touched while there is room."""
    messages = said(*texts)
    seen = compose(messages, [summary()], instructions="Be kind.", limit_tokens=20_000)
    assert list(seen.messages) == messages
    assert seen.left_out == 0
    assert seen.is_within
    assert not seen.is_cut
    assert seen.parts.total == (
        seen.parts.instructions
        + seen.parts.tools
        + seen.parts.summaries
        + seen.parts.messages
        + seen.parts.tool_output
    )


def test_the_last_question_of_the_bot_and_the_last_message_are_always_kept():
    """Everything else goes before them: older messages, notes and tool output."""
    messages = said(*["chatter " * 200 for _ in range(10)], "Which of the two do you want?", "the first")
    seen = compose(
        messages,
        [summary("- note " * 300)],
        limit_tokens=220,
        steps=[StepText("output " * 2000, is_tool_output=True)],
    )
    assert [message.content for message in seen.messages] == ["Which of the two do you want?", "the first"]
    assert seen.is_within
    assert not seen.is_cut


def test_short_tool_output_is_not_replaced_by_a_longer_note_about_it():
    """To say that an output is left out must not take more room than the output."""
    seen = compose(
        said("word " * 3000),
        [],
        limit_tokens=201,
        steps=[StepText(text, is_tool_output=True) for text in ["42"] * 40 + ["output " * 2000]],
    )
    assert list(seen.steps[:40]) == ["42"] * 40
    assert len(seen.steps[40]) < 2000


def test_the_question_at_the_end_of_a_long_answer_stays():
    """When even the last answer must be cut, its end is what remains."""
    seen = compose(said("long " * 3000 + "Shall I go on?", "yes"), limit_tokens=300)
    assert seen.messages[0].content.endswith("Shall I go on?")
    assert seen.messages[1].content == "yes"
    assert not seen.is_cut


def test_a_message_that_is_too_long_alone_keeps_both_ends():
    """Hard cut: beginning and end are there, and it is marked, so that the person can be told."""
    seen = compose(
        said("Please read this: " + "filler " * 5000 + " and tell me the total."), limit_tokens=400
    )
    assert seen.is_cut
    assert seen.is_within
    assert seen.messages[0].content.startswith("Please read this:")
    assert seen.messages[0].content.endswith("tell me the total.")
    assert "[…]" in seen.messages[0].content


def test_the_rungs_are_taken_in_order():
    """Messages are left out before tool output is shortened, tool output before a message is cut."""
    messages = said(*[f"message {number} " * 30 for number in range(9)])
    steps = [StepText("result " * 300, is_tool_output=True)]
    whole = compose(messages, steps=steps, limit_tokens=5000)
    fewer = compose(messages, steps=steps, limit_tokens=700)
    shorter = compose(messages, steps=steps, limit_tokens=300)
    cut = compose(said("message " * 900), steps=steps, limit_tokens=300)
    assert (whole.left_out, whole.steps[0]) == (0, steps[0].text)
    assert fewer.left_out > 0
    assert fewer.steps[0] == steps[0].text
    assert shorter.left_out == 7
    assert len(shorter.steps[0]) < len(steps[0].text)
    assert not shorter.is_cut
    assert cut.is_cut


def test_what_is_left_out_is_told_by_a_digest():
    """A fact in a message for which there is no room stands in the notes."""
    messages = said("My name is Morwenna.", *["idle talk about nothing " * 40 for _ in range(10)])
    seen = compose(messages, limit_tokens=600)
    assert seen.left_out
    assert "Morwenna" not in "".join(message.content for message in seen.messages)
    assert "Morwenna" in seen.notes


def test_an_answer_of_the_model_in_a_step_is_never_changed():
    """Only tool output is shortened: the model's own words must stay what they were."""
    steps = [StepText("thinking " * 200, is_tool_output=False), StepText("out " * 900, is_tool_output=True)]
    seen = compose(said("hello"), limit_tokens=500, steps=steps)
    assert seen.steps[0] == steps[0].text
    assert len(seen.steps[1]) < len(steps[1].text)


def test_the_provider_corrects_the_count():
    """With a ratio of two, half as much fits, and the parts are told in the provider's tokens."""
    messages = said(*["word " * 50 for _ in range(8)])
    plain = compose(messages, limit_tokens=600)
    corrected = compose(messages, limit_tokens=600, ratio=2.0)
    assert plain.left_out == 0
    assert corrected.left_out > 0
    assert compose(messages, limit_tokens=10**6, ratio=2.0).parts.messages == 2 * plain.parts.messages


# from the store


def talk(tx, turns: int, *, channel: str = "chat-1", words: str = "") -> str:
    session_id = ""
    for number in range(turns):
        queued = arrive(tx, incoming(f"question {number} {words}", channel=channel))
        session_id = queued.session_id
        lane.finish(tx, claimed(tx, session_id), "completed", NOW, answer=f"answer {number} {words}")
    return session_id


def session_of(tx, session_id):
    return lifecycle.find(tx, session_id, OperatorScope())


def test_build_context_is_what_the_turn_gets(tx):
    """The same messages, notes and counts as composed from the claim of the next turn."""
    session_id = talk(tx, 12)
    made = summaries.Made(1, 1, 4, "- Ada: question 0", 5, "digest")
    plan = summaries.plan(tx, session_id, Settings())
    assert summaries.store(tx, plan, [made], [], NOW)
    arrive(tx, incoming("and now?"))
    shown = build_context(tx, session_of(tx, session_id), 20, limit_tokens=4000, instructions="Be kind.")
    claim = claimed(tx, session_id)
    own = compose(
        claim.messages[-20:],
        claim.summaries,
        instructions="Be kind.",
        limit_tokens=4000,
        ratio=claim.window.ratio,
    )
    assert shown == own
    assert shown.messages[-1].content == "and now?"
    assert shown.messages[0].position == 5
    assert "question 0" in shown.notes
    assert shown.parts.total <= shown.parts.limit


def test_no_more_messages_than_asked_for(tx):
    """The newest twenty of a long conversation, and not one more."""
    session_id = talk(tx, 30)
    seen = build_context(tx, session_of(tx, session_id), limit_tokens=100_000)
    assert len(seen.messages) == 20
    assert seen.messages[-1].content.startswith("answer 29")


def test_the_limit_nearest_to_the_session_counts(tx):
    """Session before channel before account before the general one; a learned limit of the same agent lowers any."""
    configured = Settings.model_validate(
        {
            "agent": {"context_tokens": 5000},
            "accounts": {
                "main": {
                    "platform": "telegram",
                    "context": {"tokens": 3000, "channels": {"chat-9": {"tokens": 2000}}},
                },
                "other": {"platform": "telegram"},
            },
        }
    )

    def limit(account, channel, state=Window(), agent=None):
        return window.limit_of(configured, account, channel, state, agent)

    assert limit("telegram.other", "x") == 5000
    assert limit("terminal.local", "x") == 5000
    assert limit("telegram.main", "x") == 3000
    assert limit("telegram.main", "chat-9") == 2000
    assert limit("telegram.main", "chat-9", Window(own_tokens=900)) == 900
    learned = Window(learned_tokens=700, learned_for="openai:small")
    assert limit("telegram.main", "x", learned, "openai:small") == 700
    assert limit("telegram.main", "x", learned, "openai:large") == 3000


def test_a_session_has_a_limit_of_its_own_and_learns(tx):
    """Set, told by build_context's callers, taken away again; lessons are kept; nonsense is refused."""
    session_id = talk(tx, 1)
    session = session_of(tx, session_id)
    window.set_limit(tx, session_id, 1200)
    assert context.see_session(tx, session, Settings()).parts.limit == 1200
    window.set_limit(tx, session_id, None)
    assert context.see_session(tx, session, Settings()).parts.limit == 4000
    with pytest.raises(ValueError, match="200"):
        window.set_limit(tx, session_id, 200)
    window.learn(tx, session_id, ratio=1.234, tokens=800, agent="openai:small")
    state = context.read_window(tx, session)
    assert (state.ratio, state.learned_tokens, state.learned_for) == (1.234, 800, "openai:small")


def test_the_ratio_is_smoothed_and_bounded():
    """Repeated reports lead to the provider's count; a wild one moves it a little and never beyond the bounds."""
    ratio = 1.0
    for _ in range(30):
        ratio = window.corrected(ratio, 1000, 1400) or ratio
    assert 1.3 < ratio <= 1.4
    assert window.corrected(1.0, 1000, 1_000_000) == pytest.approx(1.6)
    assert window.corrected(1.0, 1000, 1) == pytest.approx(0.85)
    assert window.corrected(1.0, 1000, 1010) is None
    assert window.corrected(1.0, 0, 10) is None
    for _ in range(100):
        ratio = window.corrected(ratio, 1, 10**9) or ratio
    assert ratio <= window.HIGHEST_RATIO


# remembered ends of conversations


def claim_with(tx, session_id, recent):
    claim = lane.claim(tx, session_id, NOW, context_messages=20, recent=recent)
    assert claim is not None
    return claim


def tail_of(claim, answer="answer"):
    return tail_after(claim, answer, {}, NOW, 20)


def finished(tx, claim, answer="answer"):
    lane.finish(tx, claim, "completed", NOW, answer=answer, metadata={})
    return tail_of(claim, answer)


def test_a_remembered_end_gives_the_claim_that_reading_gives(tx):
    """Turn after turn, with messages that queued meanwhile: the same messages, and the claim says that it was helped."""
    tail = None
    session_id = ""
    for number in range(15):
        for _ in range(1 + number % 3):
            session_id = arrive(tx, incoming(f"message {number}")).session_id
        while True:
            claim = lane.claim(tx, session_id, NOW, context_messages=20, recent=tail)
            if claim is None:
                break
            assert list(claim.messages) == lane.conversation_until(tx, session_id, claim.position, 20)
            assert claim.is_from_memory == (tail is not None)
            tail = finished(tx, claim)
    assert tail is not None
    assert len(tail.messages) == 20


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM messages WHERE session_id = :id AND position = 1",
        "UPDATE messages SET content = 'rewritten' WHERE session_id = :id AND position = 2",
    ],
)
def test_an_end_is_not_believed_once_messages_changed(tx, change):
    """A message that was erased or rewritten behind the cache's back: the next claim reads anew."""
    session_id = talk(tx, 3)
    arrive(tx, incoming("one"))
    tail = finished(tx, claim_with(tx, session_id, None))
    tx.execute(change, {"id": session_id})
    arrive(tx, incoming("two"))
    claim = claim_with(tx, session_id, tail)
    assert not claim.is_from_memory
    assert list(claim.messages) == lane.conversation_until(tx, session_id, claim.position, 20)


def test_an_end_that_is_too_short_or_too_new_is_not_believed(tx):
    """Fewer messages than are wanted now, or a turn that is run again: read from the store."""
    session_id = talk(tx, 2)
    arrive(tx, incoming("now"))
    claim = claim_with(tx, session_id, None)
    tail = tail_of(claim)
    lane.recover(tx)
    assert not claim_with(tx, session_id, tail).is_from_memory
    lane.recover(tx)
    before = replace(tail, position=claim.position - 1, messages=tail.messages[:-2], asked=5)
    assert not claim_with(tx, session_id, before).is_from_memory


def test_summaries_move_the_beginning_of_a_remembered_end(tx):
    """What a summary covers meanwhile is no more among the messages, and the summary is there."""
    session_id = talk(tx, 11)
    arrive(tx, incoming("now"))
    tail = finished(tx, claim_with(tx, session_id, None))
    plan = summaries.plan(tx, session_id, Settings())
    assert summaries.store(tx, plan, [summaries.Made(1, 1, plan.to_position, "- x", 2, "digest")], [], NOW)
    arrive(tx, incoming("then"))
    claim = claim_with(tx, session_id, tail)
    assert claim.is_from_memory
    assert claim.messages[0].position == plan.to_position + 1
    assert [one.content for one in claim.summaries] == ["- x"]
