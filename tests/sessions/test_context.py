"""What the model sees: the newest that fits, and always the message to answer."""

from hypothesis import given
from hypothesis import strategies as st

from sessions.context import estimate_tokens, fit
from sessions.models import Message


def said(*texts: str) -> list[Message]:
    return [Message("s", number, 0, "user", text, None, 0) for number, text in enumerate(texts)]


@given(texts=st.lists(st.text(max_size=200), max_size=20), limit=st.integers(0, 400))
def test_what_fits_is_the_longest_end_within_the_budget(texts, limit):
    """An end of the conversation, within the budget unless it is the last message alone, and the longest such end."""
    messages = said(*texts)
    kept = fit(messages, limit)
    assert kept == messages[len(messages) - len(kept) :]

    def cost(some):
        return sum(estimate_tokens(message.content) + 4 for message in some)

    assert bool(kept) == bool(messages)
    assert len(kept) <= 1 or cost(kept) <= limit
    longer = messages[max(0, len(messages) - len(kept) - 1) :]
    assert len(longer) == len(kept) or cost(longer) > limit


def test_the_message_to_answer_is_always_there():
    """However long it is, and however small the budget."""
    messages = said("short", "long " * 10_000)
    assert fit(messages, 1) == messages[1:]
    assert fit([], 10) == []


@given(text=st.text(max_size=300), more=st.text(max_size=50))
def test_estimates_are_positive_and_grow_with_the_text(text, more):
    """More text never weighs less, and even no text costs something."""
    assert 1 <= estimate_tokens(text) <= estimate_tokens(text + more)


def test_dense_scripts_weigh_more_than_latin_letters():
    """The same number of characters: Chinese and emoji cost several times English."""
    english, chinese, emoji = (estimate_tokens(sign * 400) for sign in ("a", "漢", "😀"))
    assert 90 <= english <= 110
    assert chinese > 2.5 * english
    assert emoji > 1.5 * chinese
