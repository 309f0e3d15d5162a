"""The digest: the same for the same input, within its limit, with the facts in it, in five languages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import tokens
from sessions.digest import BOT, Spoken, lines_of, make_digest
from tests.sessions.recall import CHATS, recall
from tests.sessions.recall_held_out import HELD_OUT

TUNED_FLOOR, HELD_OUT_FLOOR = 1.0, 0.8
"""Of all facts in each language. Measured: all of both sets; where small talk is new in four words of five, 67 % and more."""


@settings(max_examples=60)
@given(
    said=st.lists(st.tuples(st.sampled_from(["Ada", "", BOT]), st.text(max_size=400)), max_size=12),
    limit=st.integers(0, 300),
)
def test_a_digest_is_the_same_each_time_and_within_its_limit(said, limit):
    """No chance, no clock; never longer than allowed, whatever is said."""
    spoken = [Spoken(who, text, who != BOT) for who, text in said]
    digest = make_digest(spoken, limit)
    assert digest == make_digest(spoken, limit)
    assert tokens.count(digest) <= limit


def test_a_digest_taken_apart_and_made_again_is_itself():
    """A digest of a digest that fits loses nothing: names, figures and who said it."""
    spoken = [
        Spoken("Ada", "My name is Morwenna."),
        Spoken(BOT, "The train leaves at 9:40.", is_person=False),
    ]
    digest = make_digest(spoken, 200)
    assert digest == "- Ada: My name is Morwenna.\n- Bot: The train leaves at 9:40."
    assert lines_of(digest) == spoken
    assert make_digest(lines_of(digest), 200) == digest


def test_facts_come_before_small_talk():
    """With room for one line, it is the fact."""
    spoken = [
        Spoken("Ada", "Hello! How are you? Nice to see you again."),
        Spoken("Ada", "The code for the gate is 7741."),
        Spoken(BOT, "Thanks! Let me know if you need anything else.", is_person=False),
    ]
    assert make_digest(spoken, 16) == "- Ada: The code for the gate is 7741."


def test_a_date_is_not_torn_apart():
    """A number with a full stop before a month is no end of a sentence."""
    assert "14. März" in make_digest([Spoken("", "Der Geburtstag ist am 14. März.")], 60)


def test_a_giant_message_is_read_at_both_ends():
    """The work is bounded; what stands first and last is looked at."""
    text = "The code is 1234. " + "bla bla blub. " * 100_000 + "We agreed on Ghent."
    digest = make_digest([Spoken("Ada", text)], 100)
    assert "1234" in digest
    assert "Ghent" in digest


@pytest.mark.parametrize("language", list(CHATS))
async def test_facts_survive_a_long_conversation(language, tmp_path):
    """Four hundred messages and dozens of summaries later, facts told early are still in front of the model, marked as such or not."""
    found = await recall(language, tmp_path)
    print(f"{language}: marked {found.marked:.0%}, plain {found.plain:.0%}, lost {found.lost}")
    assert found.rounds >= 20
    assert found.percent <= 70
    assert min(found.marked, found.plain) >= TUNED_FLOOR


@pytest.mark.parametrize("language", list(HELD_OUT))
async def test_so_do_facts_that_nothing_was_tuned_on(language, tmp_path):
    """Other people's facts, in other small talk, are kept as well."""
    found = await recall(language, tmp_path, chat=HELD_OUT[language])
    assert min(found.marked, found.plain) >= HELD_OUT_FLOOR


async def test_most_facts_survive_small_talk_that_never_repeats_itself(tmp_path):
    """Where hardly two words of the small talk come again, form alone tells a fact from it: most are kept over all languages."""
    found = [await recall(one, tmp_path, chat=HELD_OUT[one], is_new=True) for one in HELD_OUT]
    shares = [one.plain for one in found]
    print(f"plain facts kept: {shares}")
    assert sum(shares) / len(shares) >= HELD_OUT_FLOOR
    assert all(one.marked == 1 for one in found)


@pytest.mark.parametrize(
    ("fact", "talk"),
    [
        ("Der Ersatzschlüssel hängt hinter dem Heizkessel.", "Na ja."),
        ("El coro ensaya en el molino viejo.", "¿Y cuánto tiempo viven los pulpos gigantes?"),
        ("合唱团在老磨坊排练。", "那它们到底能活多久呢？"),
        ("Соседи строят в сарае сауну.", "А сколько же они живут?"),
    ],
)
def test_a_statement_comes_before_a_question_and_a_word_in_passing(fact, talk):
    """With nothing else to tell them apart, and room for one, what somebody says whole is kept, in any language."""
    spoken = [Spoken("Ada", talk), Spoken("Ada", fact), Spoken("Ada", talk.replace("?", "!"))]
    assert make_digest(spoken, tokens.count(f"- Ada: {fact}") + 2) == f"- Ada: {fact}"
