"""Cutting Markdown: within the limit, fences whole, nothing lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.text import MAX_MARKER, MIN_LIMIT, open_fence, split_markdown

FRAGMENTS = st.sampled_from(
    [
        "```",
        "```python",
        "````",
        "~~~",
        "\n",
        "\n\n",
        "    ",
        "- item",
        "word ",
        "Sentence. ",
        "```` x` ",
        "é",
        "👩‍💻",
        "a`b",
    ]
)
TEXTS = st.lists(
    st.one_of(FRAGMENTS, st.text(max_size=30), st.text("ab .`~\n", max_size=300)), max_size=60
).map("".join)
LIMITS = st.integers(MIN_LIMIT, 400)


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def bare(text: str) -> str:
    """The text without white space and without lines that could be fences (the splitter adds such lines)."""
    kept = (
        line for line in text.replace("\r", "\n").split("\n") if not re.match(r"[ \t]*(`{3,}|~{3,})", line)
    )
    return re.sub(r"\s", "", "".join(kept))


@given(TEXTS, LIMITS)
def test_every_piece_fits_and_is_whole(text: str, limit: int) -> None:
    """Pieces stay within the limit, are never empty, and leave no code block open."""
    pieces = split_markdown(text, limit)
    assert all(0 < len(piece) <= limit and piece.strip() for piece in pieces)
    assert all(open_fence(piece) is None for piece in pieces)
    assert bool(pieces) == bool(text.strip())
    assert pieces == split_markdown(text, limit)


@given(TEXTS, LIMITS)
def test_limit_counts_as_the_caller_measures(text: str, limit: int) -> None:
    """With UTF-16 as the measure every piece fits in UTF-16 units."""
    assert all(utf16(piece) <= limit for piece in split_markdown(text, limit, utf16))


@given(st.lists(st.text("abcdefg .,!éß\n", max_size=400), max_size=8), LIMITS)
def test_nothing_is_lost_in_prose_and_code(parts: list[str], limit: int) -> None:
    """Prose and code blocks in turn come out with every visible character, in order."""
    text = "\n".join(part if index % 2 == 0 else f"```py\n{part}\n```" for index, part in enumerate(parts))
    assert bare("\n".join(split_markdown(text, limit))) == bare(text)


@given(st.text("`~ \nab", max_size=600), LIMITS)
def test_backticks_are_not_lost(text: str, limit: int) -> None:
    """Letters survive, in order, whatever runs of backticks stand around them (a language name may be repeated)."""
    remaining = iter("".join(split_markdown(text, limit)))
    assert all(letter in remaining for letter in text if letter in "ab")


def test_code_is_reopened_with_its_language() -> None:
    """A block longer than a message is closed and goes on, in its language, in the next."""
    code = "\n".join(f"line {number}" for number in range(60))
    pieces = split_markdown(f"Before.\n\n```python\n{code}\n```\n\nAfter.", 200)
    assert pieces[0].startswith("Before.\n\n```python\nline 0\n")
    assert all(piece.endswith("\n```") for piece in pieces[:-1])
    assert all(piece.startswith("```python\nline ") for piece in pieces[1:])
    assert pieces[-1].endswith("line 59\n```\n\nAfter.")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a" * 40 + "\n\n" + "b" * 80, "a" * 40),
        ("a" * 40 + "\n" + "b" * 80, "a" * 40),
        ("a" * 40 + ". " + "b" * 80, "a" * 40 + "."),
        ("a" * 40 + " " + "b" * 80, "a" * 40),
        ("a" * 120, "a" * 100),
        ("a" * 40 + "\n```\n" + "b" * 80 + "\n```", "a" * 40),
        ("a" * 99 + "e\u0301" + "b" * 40, "a" * 99),
    ],
    ids=["paragraph", "line", "sentence", "word", "anywhere", "before code", "not inside a letter"],
)
def test_boundaries_are_preferred_in_order(text: str, first: str) -> None:
    """The cut falls at the best boundary that fills enough of the message."""
    assert split_markdown(text, 100)[0] == first


def test_short_text_stays_as_it_is() -> None:
    """What fits is one piece; what is invisible is none."""
    assert split_markdown("  indented\n\nhello  ", 100) == ["  indented\n\nhello"]
    assert split_markdown(" \n\n ", 100) == []


def test_an_open_block_is_closed() -> None:
    """A block that the text leaves open (an answer still growing) is closed at its end."""
    assert split_markdown("```py\nx = 1", 100) == ["```py\nx = 1\n```"]


def test_limit_has_a_floor() -> None:
    """Too small a limit is an error, not an endless loop."""
    with pytest.raises(ValueError, match="at least"):
        split_markdown("x", MIN_LIMIT - 1)


def test_long_runs_are_text() -> None:
    """A run longer than any sensible fence opens nothing."""
    assert open_fence("`" * (MAX_MARKER + 1)) is None
