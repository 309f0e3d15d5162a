"""Counting tokens: exact where the vocabulary is there, weighed where it is not; and cutting that ends within the limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import tokens

SAMPLES = {  # counts by tiktoken 0.14 with o200k_base
    "hello world": 2,
    "": 0,
}


def test_the_vocabulary_is_installed_and_counts_right():
    """The exact counter is in use here, and known texts have their known counts."""
    assert tokens.is_exact()
    assert {text: tokens.count(text) for text in SAMPLES} == SAMPLES
    assert tokens.count_each(list(SAMPLES)) == list(SAMPLES.values())
    assert tokens.count_each([]) == []


def test_counts_are_remembered_and_right(monkeypatch):
    """A text that was counted is not counted again, also after the memory was full; the texts themselves are not kept."""
    monkeypatch.setattr(tokens, "_MOST_KNOWN", 40)
    tokens._known.clear()
    texts = [f"word {number} " * number for number in range(30)] + ["", "hello world"]
    assert tokens.count_known(texts) == tokens.count_each(texts)
    with monkeypatch.context() as patched:
        patched.setattr(tokens, "count_each", lambda _: pytest.fail("counted again"))
        assert tokens.count_known(texts[::-1]) == tokens.counter()(texts[::-1])
    for first in range(0, 120, 10):
        more = [f"other {number}" for number in range(first, first + 20)] + texts[:5]
        assert tokens.count_known(more) == tokens.count_each(more)
        assert len(tokens._known) <= 40
    assert all(isinstance(part, int) for key in tokens._known for part in key)


def test_a_vocabulary_that_counts_wrong_is_refused():
    """A build that gives other counts for the known sample must not be used."""

    class Broken:
        def batch_count(self, texts, encoding, threads):
            return [len(text) for text in texts]

    with pytest.raises(ValueError, match="20 tokens"):
        tokens.checked(Broken())


@pytest.mark.parametrize("failure", [ImportError("no wheel"), OSError("bad binary"), ValueError("wrong")])
def test_without_the_vocabulary_the_weights_count(monkeypatch, failure):
    """Import, load or check fails: counting goes on with the table."""
    tokens.counter.cache_clear()

    def fail(_module):
        raise failure

    monkeypatch.setattr(tokens, "checked", fail)
    try:
        assert tokens.counter() is tokens.weigh_each
        assert not tokens.is_exact()
        assert tokens.count("word " * 100) == 125
    finally:
        tokens.counter.cache_clear()


@given(text=st.text(max_size=300), more=st.text(max_size=50))
def test_weights_grow_with_the_text(text, more):
    """More text never weighs less."""
    short, long = tokens.weigh_each([text, text + more])
    assert 0 <= short <= long


def test_dense_scripts_weigh_more_than_latin_letters():
    """The same number of characters: Chinese and emoji cost several times English."""
    english, chinese, emoji = tokens.weigh_each(["a" * 400, "漢" * 400, "😀" * 400])
    assert english == 100
    assert chinese > 2.5 * english
    assert emoji > 1.5 * chinese


@pytest.mark.parametrize("is_exact", [True, False])
@given(
    text=st.one_of(
        st.text(max_size=500), st.sampled_from(["a" * 9000, "漢" * 900, "😀👨‍👩‍👧" * 300, "word " * 2000])
    ),
    limit=st.integers(-1, 200),
    end_share=st.floats(0, 1),
)
def test_what_is_cut_is_within_the_limit(is_exact, text, limit, end_share):
    """Whatever the text: no more tokens than allowed, and a text that fits is not touched."""
    with pytest.MonkeyPatch.context() as patch:
        if not is_exact:
            patch.setattr(tokens, "counter", lambda: tokens.weigh_each)
        tokens.count_often.cache_clear()
        cut = tokens.cut(text, limit, end_share=end_share)
        assert tokens.count(cut) <= max(0, limit)
        if limit > 0 and tokens.count(text) <= limit:
            assert cut == text
    tokens.count_often.cache_clear()


def test_half_a_character_does_not_break_counting():
    """A lone surrogate from outside is counted like any character."""
    assert tokens.count("ab\ud800cd") > 0
