"""Formatting and cutting: what people see of a reply, whatever the agent wrote."""

import json
import re

import pytest
import telegramify_markdown
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.telegram import render as rendering
from adapters.telegram.entities import utf16_length, utf16_offsets
from adapters.telegram.render import (
    MAX_TEXT_UTF16,
    REPEAT_MARK_UTF16,
    clean_text,
    formatted,
    is_visible,
    render,
)
from adapters.telegram.sending import REPEAT_MARKS
from adapters.telegram.split import MAX_ENTITIES, is_grapheme_boundary, split

WORDS = st.sampled_from(
    [
        "word",
        "ünï",
        "😀",
        "👩\u200d👩\u200d👧",
        "🇩🇪🇫🇷",
        "é",
        "\u200b",
        "x" * 500,
        "a.b. c",
        "日本語。",
        " ",
        "  ",
        "\n",
        "\n\n",
        "`",
        "``",
        "```",
        "```py\n",
        "~~~\n",
        "**",
        "*",
        "_",
        "~~",
        "||",
        "[",
        "](https://e.org)",
        "](/x)",
        "<b>",
        "</b>",
        "<br>",
        "<!-- ",
        "List<String>",
        "> ",
        "> > ",
        "- ",
        "1. ",
        "- [ ] ",
        "# ",
        "| a | b |\n|---|---|\n| c || d |\n",
        "$x$",
        "$5",
        "\\(\\alpha\\)",
        "\\",
        "\r\n",
        "\t",
        "    code\n",
        "&lt;",
        "![i](https://e.org/p.png)",
        "\x00",
        "\ud800",
    ]
)
MARKDOWN = st.one_of(
    st.text(max_size=300),
    st.lists(WORDS, max_size=60).map("".join),
    st.lists(WORDS, max_size=12).map(lambda w: "".join(w) * 40),
)
NESTABLE = {
    "bold",
    "italic",
    "underline",
    "strikethrough",
    "spoiler",
    "blockquote",
    "text_link",
    "pre",
    "code",
}


def check_chunk(chunk):
    """One chunk as Telegram takes it."""
    length = utf16_length(chunk.text)
    assert 0 < length <= MAX_TEXT_UTF16 - REPEAT_MARK_UTF16
    assert is_visible(chunk.text)
    chunk.text.encode()
    json.dumps(chunk.markup)
    places = set(utf16_offsets(chunk.text))
    spans = []
    for entity in chunk.markup or []:
        start, end = entity["offset"], entity["offset"] + entity["length"]
        assert entity["type"] in NESTABLE
        assert entity["length"] > 0
        assert {start, end} <= places
        spans.append((start, end, entity["type"]))
    assert len(spans) <= MAX_ENTITIES
    for number, (start, end, kind) in enumerate(spans):
        for other_start, other_end, other_kind in spans[number + 1 :]:
            if start < other_end and other_start < end:
                inside = start <= other_start and other_end <= end
                around = other_start <= start and end <= other_end
                assert inside or around, "entities cross"
                styled = {kind, other_kind} & {"code", "pre"}
                assert not styled or {kind, other_kind} & {"blockquote"}, "code with a style or link"
                assert kind != other_kind, "a kind within itself"


@settings(max_examples=400, deadline=None)
@given(MARKDOWN)
@example("```py\n" + "x = 1\n" * 2000 + "```")
@example("`a` " * 500)
@example("**bold `code` [`l`](https://e.org) _it_** " * 200)
@example("🇩🇪" * 3000)
@example("👩‍👩‍👧" * 2000)
@example("> " * 300 + "deep")
def test_every_text_can_be_sent(markdown):
    """Chunks fit, their entities are in range and well nested, nothing visible is lost, and the result is always the same."""
    chunks = render(markdown)
    for chunk in chunks:
        check_chunk(chunk)
    assert bool(chunks) == is_visible(clean_text(markdown))
    assert render(markdown) == chunks
    text, _ = formatted(clean_text(markdown))
    whole = text if is_visible(text) else clean_text(markdown)
    assert visible("".join(chunk.text for chunk in chunks)) == visible(whole)


def visible(text):
    return "".join(character for character in text if is_visible(character))


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=80).map("".join), st.integers(4, 60))
def test_cutting_keeps_all_but_white_space(text, limit):
    """Whatever the limit, the pieces are the text, without some white space at the cuts."""
    text = clean_text(text)
    pieces = split(text, [], limit)
    assert all(0 < utf16_length(piece.text) <= limit for piece in pieces)
    rest = text
    for piece in pieces:
        at = rest.index(piece.text)
        assert not rest[:at].strip()
        rest = rest[at + len(piece.text) :]
    assert not rest.strip()


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.sampled_from("ae\u0301😀👩👧\u200d🇩🇪\ufe0f🏽\r\n각"), min_size=30, max_size=90),
    st.integers(24, 40),
)
def test_cuts_keep_characters_whole(text, limit):
    """A cut comes inside what a reader sees as one character only if there is no other place for it."""
    offset = 0
    for piece in split(text, [], limit)[:-1]:
        start = text.index(piece.text, offset)
        offset = start + len(piece.text)
        boundaries = [at for at in range(start + 1, offset + 1) if is_grapheme_boundary(text, at)]
        blank = len(text[offset:]) - len(text[offset:].lstrip())
        cuts = range(offset, offset + blank + 1)
        assert any(is_grapheme_boundary(text, cut) for cut in cuts) or not boundaries


def test_a_code_block_continues_as_one():
    """A fence cut in two is closed and opened again, with its language, at the end of a line."""
    chunks = render("Intro.\n\n```rust\n" + "let x = 1;\n" * 900 + "```\n\nThe end.")
    assert len(chunks) == 3
    for chunk in chunks:
        (entity,) = chunk.markup
        assert (entity["type"], entity["language"]) == ("pre", "rust")
        assert chunk.text.splitlines()[2:4] == ["let x = 1;", "let x = 1;"]
    assert chunks[0].text.startswith("Intro.")
    assert chunks[-1].text.endswith("The end.")
    assert "".join(chunk.text for chunk in chunks).count("let x = 1;") == 900


def test_code_that_fits_is_not_cut():
    """A block that would fall into two messages begins the next one instead."""
    code = "```\n" + "a line of code\n\n" * 100 + "```"
    first, second = render("word " * 600 + "\n\n" + code)
    assert "line of code" not in first.text
    assert second.text.count("a line of code") == 100


@pytest.mark.parametrize(
    ("unit", "end"),
    [
        ("A sentence, and more of it\n\n", "of it"),
        ("A line, and more of it\n", "of it"),
        ("A sentence, and more of it. ", "of it."),
        ("word ", "word"),
    ],
)
def test_cuts_come_where_a_reader_would_cut(unit, end):
    """Paragraphs, lines, sentences and words are kept together, in this order."""
    chunks = render(unit * 1000)
    assert len(chunks) > 1
    for chunk in chunks:
        assert chunk.text.endswith(end)
    for chunk in chunks[:-1]:
        assert utf16_length(chunk.text) > MAX_TEXT_UTF16 / 3


def test_a_paragraph_is_worth_more_than_a_line():
    """Where both would do, the cut is between paragraphs, though a later line would fill the message better."""
    text = "p\n" * 1200 + "\n" + "q\n" * 1500
    assert render(text)[1].text.startswith("q")


@pytest.mark.parametrize(
    ("markdown", "text", "marks"),
    [
        ("**bold** and _italic_", "bold and italic", ["bold:bold", "italic:italic"]),
        ("# Title", "Title", ["bold:Title", "underline:Title"]),
        ("run `make` **now**", "run make now", ["code:make", "bold:now"]),
        ("**run `make` now**", "run make now", ["bold:run ", "code:make", "bold: now"]),
        ("[a](https://e.org)", "a", ["text_link:a"]),
        ("[`a`](https://e.org)", "a", ["text_link:a"]),
        ("[a](relative/path)", "a", []),
        ("[a](javascript:alert(1))", "a", []),
        ("> quoted", "quoted", ["blockquote:quoted"]),
        ("> a\n> > b", "a\nb", ["blockquote:a\nb"]),
        ("- a\n- b", "• a\n• b", []),
        ("- [ ] a\n- [x] b", "☐ a\n✅ b", []),
        ("use List<String> here", "use List<String> here", []),
        ("<div>\nhello **you**\n</div>", "<div>\nhello you\n</div>", ["bold:you"]),
        ("<!-- note -->", "<!-- note -->", []),
        ("one<br>two", "one\ntwo", []),
        ("a || b || c", "a || b || c", []),
        ("`a || b || c`", "a || b || c", ["code:a || b || c"]),
        (r"a \|| b", "a || b", []),
        ("```c++ title=x\nint a;\n```", "int a;", ["pre:int a;"]),
        ("[x]: https://e.org", "[x]: https://e.org", []),
        ("1 < 2 && 3 > 2", "1 < 2 && 3 > 2", []),
        ("costs $5 or $6", "costs $5 or $6", []),
        ("~5 minutes~", "~5 minutes~", []),
        ("😀 **b**", "😀 b", ["bold:b"]),
        ("2*3*4 = *24*", "2*3*4 = 24", ["italic:24"]),
        ("f = x*y*z, (a+b)*c*(d)", "f = x*y*z, (a+b)*c*(d)", []),
        ("2**3**2 but a**b**c", "2**3**2 but abc", ["bold:b"]),
        ("| 2*3*4 |\n|---|\n| `2*3*4` |", "2*3*4\n-----\n2*3*4", ["pre:2*3*4\n-----\n2*3*4"]),
        (r"`\(\alpha\)` and \[", r"\(\alpha\) and [", [r"code:\(\alpha\)"]),
    ],
)
def test_formatting(markdown, text, marks):
    """What is written in Markdown shows as meant, and what only looks like it shows as written."""
    (chunk,) = render(markdown)
    assert chunk.text == text
    units = chunk.text.encode("utf-16-le")
    found = [
        f"{e['type']}:{units[2 * e['offset'] : 2 * (e['offset'] + e['length'])].decode('utf-16-le')}"
        for e in chunk.markup or []
    ]
    assert found == marks


def test_a_table_with_an_empty_cell_stays_one():
    """Two bars in a row part the cells of a table, and nothing is hidden as a spoiler."""
    (chunk,) = render("|a||b|\n|-|-|-|\n|1||3|")
    (entity,) = chunk.markup
    assert entity["type"] == "pre"
    assert re.fullmatch(r"a \| +\| b\n[-+]+\n1 \| +\| 3", chunk.text)


@pytest.mark.parametrize("markdown", ["", " \n\t", "\u200b", "\u2800 \u200b"])
def test_nothing_to_see_is_no_message(markdown):
    """A text without anything visible makes no message, which Telegram would refuse."""
    assert render(markdown) == []


class Panic(BaseException):
    """What a panic in the parser's Rust looks like from Python."""


@pytest.mark.parametrize("error", [ValueError("bug"), RecursionError(), Panic("index out of bounds")])
def test_a_formatter_that_fails_leaves_the_text(monkeypatch, error):
    """Whatever the library raises, the reply goes out as it was written."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(rendering.telegramify_markdown, "convert", fail)
    (chunk,) = render("**hello** `you`")
    assert (chunk.text, chunk.markup) == ("**hello** `you`", None)


def test_entities_that_telegram_refuses_are_left_out(monkeypatch):
    """Entities out of range, inside a character, crossing, unknown or without a usable address are dropped."""
    bad = [
        ("bold", 0, 99, {}),
        ("bold", 1, 1, {}),
        ("bold", 3, 0, {}),
        ("bold", -1, 3, {}),
        ("text_link", 0, 2, {"url": ""}),
        ("hologram", 0, 2, {}),
        ("italic", 3, 4, {}),
        ("bold", 5, 4, {}),
    ]
    entities = [
        telegramify_markdown.MessageEntity(kind, at, length, **more) for kind, at, length, more in bad
    ]
    monkeypatch.setattr(rendering.telegramify_markdown, "convert", lambda *_, **__: ("😀 abcdefgh", entities))
    (chunk,) = render("x")
    assert chunk.markup == [{"type": "italic", "offset": 3, "length": 4}]


def test_the_repeat_mark_fits():
    """The room left in every chunk is enough for the mark in each language."""
    assert all(utf16_length(mark) <= REPEAT_MARK_UTF16 for mark in REPEAT_MARKS.values())


def test_more_marks_than_telegram_takes_are_spread():
    """Telegram ignores marks beyond the hundredth, so a message never has more."""
    chunks = render("`a` " * 250)
    assert sum(len(chunk.markup or []) for chunk in chunks) == 250
