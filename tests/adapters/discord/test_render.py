"""What agents write, as Discord shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.discord.render import MAX_TEXT, ROOM_FOR_MARK, render, to_discord
from adapters.text import open_fence


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("**bold** and [a link](https://e.org)", "**bold** and [a link](https://e.org)"),
        ("# One\n### Three\n#### Four ##", "# One\n### Three\n**Four**"),
        ("![a cat](https://e.org/cat.png)", "[a cat](https://e.org/cat.png)"),
        ("![](https://e.org/cat.png)", "https://e.org/cat.png"),
        ("`![a](b)` ![a](b)", "`![a](b)` [a](b)"),
        ("~~~python\nx\n~~~", "```python\nx\n```"),
        ("````md\n```py\nx\n```\n````", "```md\n`\u200b`\u200b`py\nx\n`\u200b`\u200b`\n```"),
        ("#hashtag", "#hashtag"),
        ("a\r\nb\rc\0", "a\nb\nc"),
        ("half \ud800", "half ?"),
    ],
)
def test_markdown_of_discord(markdown, shown):
    """What Discord lacks is rewritten; what it has stays."""
    assert to_discord(markdown) == shown


def test_tables_become_aligned_code():
    """A table is shown in a fixed-width block with its columns aligned, wide letters counted twice."""
    table = "| Name | Ort |\n|:--|--:|\n| Ada | 東京 |\n| Bo\\|b | x |\nafter"
    assert to_discord(table) == "```\nName  Ort\n----  ----\nAda   東京\nBo|b  x\n```\nafter"


def test_tables_in_code_stay():
    """Inside a code block nothing is rewritten."""
    code = "```\n| a | b |\n|---|---|\n#### x ![a](b)\n```"
    assert to_discord(code) == code


def test_long_code_keeps_its_fence_in_every_message():
    """A long code block goes on in its language in each further message, within the limit."""
    chunks = render("Look:\n\n```python\n" + "x = 'a line of code'\n" * 300 + "```\nDone.")
    assert len(chunks) > 2
    for chunk in chunks:
        assert len(chunk.text) <= MAX_TEXT - ROOM_FOR_MARK
        assert open_fence(chunk.text) is None
        assert chunk.text.count("```") == 2
    assert all(chunk.text.startswith("```python\nx") for chunk in chunks[1:])


@given(st.text(max_size=400))
def test_rendering_is_total_and_deterministic(text):
    """Whatever the text, it renders, the same each time."""
    assert render(text) == render(text)


@pytest.mark.parametrize(
    "text",
    [
        "`" * 100_000,
        "![" * 50_000,
        "#### " + " " * 100_000 + "x",
        "a|b\n" + " " * 100_000 + "-x",
        "[" * 100_000,
    ],
)
def test_odd_texts_do_not_explode(text):
    """No text makes the rewriting quadratic (then the suite's deadline would pass many times over)."""
    assert render(text)
