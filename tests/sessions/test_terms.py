"""Reading what a person types into a search, and finding it in a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.terms import MOST_TERMS, Term, excerpt, fold, matches, read, widened

anything = st.text(
    alphabet=st.one_of(st.sampled_from("\"-*():^+{}'\\ab é漢😀\0\n AND OR NOT NEAR"), st.characters())
)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("red apples", [Term("red", ("red",)), Term("apples", ("apples",))]),
        ('"red apples"', [Term("red apples", ("red", "apples"))]),
        ('"never closed', [Term("never closed", ("never", "closed"))]),
        ("-pears", [Term("pears", ("pears",), is_excluded=True)]),
        ('-"green pears"', [Term("green pears", ("green", "pears"), is_excluded=True)]),
        ("meet*", [Term("meet", ("meet",), is_prefix=True)]),
        ("don't", [Term("don't", ("don", "t"))]),
        ("Größe CAFÉ", [Term("Größe", ("große",)), Term("CAFÉ", ("cafe",))]),
        ("漢字", [Term("漢字", ())]),
        ("😀", [Term("😀", ())]),
        ("->", [Term("->", ())]),
        ("twice twice", [Term("twice", ("twice",))]),
        ('"" - * "  "', [Term("-", ()), Term("*", ())]),
        ("", []),
    ],
)
def test_what_is_typed_becomes_terms(text, terms):
    """Words, phrases, exclusion, beginnings and letters in a row."""
    assert read(text) == terms


@given(anything)
def test_any_text_can_be_read(text):
    """Nothing that can be typed raises, and no term is empty."""
    terms = read(text)
    assert len(terms) <= MOST_TERMS
    assert all(term.text.strip() and (term.words or term.is_literal) for term in terms)
    matches(text, terms)
    excerpt(text, terms)


@pytest.mark.parametrize(
    ("words", "is_there"),
    [
        ("APPLES", True),
        ("apple", False),
        ("apple*", True),
        ('"red apples"', True),
        ('"apples red"', False),
        ("apples -pears", False),
        ("apples -plums", True),
        ("naive", True),
        ("りんご", True),
    ],
)
def test_a_text_is_compared_by_its_words(words, is_there):
    """Case and Latin accents do not count; beginnings count only where they are asked for; scripts without spaces by letters."""
    assert matches("Red apples, naïve pears: 赤いりんごです", read(words)) == is_there


def test_widening_takes_words_as_beginnings_but_not_exclusions():
    """`meeting -note` widened finds `meetings`, and still only leaves out the very word `note`."""
    terms = widened(read("meeting -note a 漢"))
    assert [(term.text, term.is_prefix) for term in terms] == [
        ("meeting", True),
        ("note", False),
        ("a", False),
        ("漢", False),
    ]


def test_an_excerpt_is_cut_where_the_words_are():
    """The part of a long text with most of the found words is shown, the words marked, the ends cut between words."""
    text = (
        "apples first. "
        + "filler words here " * 40
        + "then red apples\nand more Apples. "
        + "and so on " * 40
    )
    shown = excerpt(text, read("red apples"), 100)
    assert shown.text.startswith("…") and shown.text.endswith("…")
    assert len(shown.text) <= 102 and "\n" not in shown.text
    assert [shown.text[start:end] for start, end in shown.marks] == ["red", "apples", "Apples"]
    assert "[red] [apples] and more [Apples]." in shown.marked("[", "]")


@given(
    st.text(alphabet="ab é\n漢", max_size=400),
    st.text(alphabet='ab"é *漢', max_size=12),
    st.integers(60, 200),
)
def test_marks_always_lie_within_the_excerpt_and_apart(text, words, size):
    """Whatever the text: marks are in order, do not overlap, lie inside, and the excerpt is not longer than asked for."""
    shown = excerpt(text, read(words), size)
    assert len(shown.text) <= size + 2
    last = 0
    for start, end in shown.marks:
        assert last <= start < end <= len(shown.text)
        last = end


def test_folding_keeps_letters_that_are_letters_of_their_own():
    """Accents on Latin letters go; й, ё, ß and ø are letters, not accents."""
    assert fold("ÀÉïǖ Ệ") == "aeiu e"
    assert fold("ЙЁ ß ø") == "йё ß ø"
    assert fold("e\u0301") == "e"
