"""What of a stream people see."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.agents.llm.text import AnswerText, Preview


def _feed(pieces: list[str]) -> tuple[str, str]:
    """What was shown and what the text is."""
    answer = AnswerText()
    shown = [answer.feed(piece) for piece in pieces]
    shown.append(answer.finish())
    return "".join(shown), answer.text


def _cut(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_ordinary_text_is_untouched(text: str, cuts: list[int]) -> None:
    """However a text without thinking is cut, it arrives whole; only white space around it goes."""
    text = text.replace("<think>", "").replace("\x00", "")
    shown, whole = _feed(_cut(text, cuts))
    assert whole == text.strip()
    assert shown.strip() == whole


@given(st.text(alphabet="ab<>/think "), st.text(alphabet="abc<> "), st.lists(st.integers(0, 1000)))
def test_thinking_is_never_shown(thought: str, text: str, cuts: list[int]) -> None:
    """However the tags are cut, nothing between them is seen."""
    thought = thought.replace("</think>", "").replace("</think", "")
    _, whole = _feed(_cut(f"<think>{thought}</think>\n{text}", cuts))
    assert whole == text.strip()


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["<think>never closed"], ""),
        (["<thi", "nk>x</thi", "nk>y"], "y"),
        (["<", "b>bold"], "<b>bold"),
        (["<thi"], "<thi"),
        (["<think>a</think><think>b</think>c"], "c"),
        (["use <think> tags"], "use <think> tags"),
        (["\ud83c", "\udf89"], "🎉"),
        (["a\ud83c"], "a\ufffd"),
        (["a\x00b"], "ab"),
    ],
)
def test_edges(pieces: list[str], whole: str) -> None:
    """Tags and characters in pieces."""
    assert _feed(pieces)[1] == whole


def test_a_retry_goes_on_where_the_first_try_was_cut() -> None:
    """The same beginning is not shown again."""
    preview = Preview()
    assert [preview.show(piece) for piece in ("Hel", "lo w")] == ["Hel", "lo w"]
    preview.restart()
    assert [preview.show(piece) for piece in ("He", "llo", " world", "!")] == ["", "", "orld", "!"]


def test_a_retry_that_differs_shows_nothing_more() -> None:
    """A second try with other words leaves the preview as it is; a third may fit again."""
    preview = Preview()
    preview.show("Hello w")
    preview.restart()
    assert [preview.show(piece) for piece in ("Hello", " there", "w")] == ["", "", ""]
    preview.restart()
    assert preview.show("Hello world") == "orld"
