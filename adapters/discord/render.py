"""From the CommonMark that agents write to the Markdown that Discord shows, in messages that fit.

Owns what Discord lacks (tables, small headings, images by Markdown, long or tilde fences). Cutting is `adapters/text.py`;
mentions need no care here because nothing is ever sent with mentions allowed.
"""

import re
import unicodedata
from collections.abc import Sequence

from adapters.choices import as_lines, divide, shortened
from adapters.messages import Choice, Chunk
from adapters.text import Fence, after_line, split_markdown

MAX_TEXT = 2000
"""Longest message content. Source: Discord reference, Create Message."""

ROOM_FOR_MARK = 100
"""Kept free in every message, so that one that may be a repetition can say so."""

ACTION_ROW, BUTTON, GREY = 1, 2, 2
MAX_ROWS, ROW_LENGTH = 5, 5
MAX_LABEL = 80
"""Source: Discord reference, Component Reference: an action row holds five buttons, a message five rows."""

# Lengths are bounded so that no text, however odd, makes these slow.
_CODE_SPAN = re.compile(r"(?<!`)`++[^`\n]++`++")
_IMAGE = re.compile(r"!\[([^\]\n]{0,300})\]\(([^()\s]{1,2000})(?:\s{1,5}\"[^\"\n]{0,300}\")?\)")
_SMALL_HEADING = re.compile(r"#{4,6}\s+(?P<title>\S.*)")
_TABLE_RULE = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?")
_CELL_BREAK = re.compile(r"(?<!\\)\|")
_BREAKING_RUN = "`\u200b`\u200b`"
"""Three backticks that do not end a code block: zero-width spaces between them."""


def render(markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
    """Messages for a reply, in order, the last one with buttons for the choices; none only if nothing is visible in it."""
    buttons, lines = divide(_distinct(choices), MAX_ROWS * ROW_LENGTH)
    text = to_discord(as_lines(markdown, lines, first=len(buttons) + 1))
    chunks = [Chunk(piece) for piece in split_markdown(text, MAX_TEXT - ROOM_FOR_MARK)]
    if chunks and buttons:
        chunks[-1] = Chunk(chunks[-1].text, {"components": _components(buttons)})
    return chunks


def _distinct(choices: Sequence[Choice]) -> list[Choice]:
    """One choice for each command: Discord refuses a message with two buttons that say the same."""
    return list({choice.command: choice for choice in choices}.values())


def _components(choices: Sequence[Choice]) -> list[dict[str, object]]:
    """Rows of buttons, up to five in each; few long labels stand one below the other."""
    buttons = [
        {
            "type": BUTTON,
            "style": GREY,
            "label": shortened(choice.label, MAX_LABEL),
            "custom_id": choice.command.encode("utf-8", "replace").decode(),
        }
        for choice in choices
    ]
    is_list = len(buttons) <= MAX_ROWS and any(len(str(button["label"])) > 20 for button in buttons)
    length = 1 if is_list else ROW_LENGTH
    return [
        {"type": ACTION_ROW, "components": buttons[start : start + length]}
        for start in range(0, len(buttons), length)
    ]


def to_discord(markdown: str) -> str:
    """The whole text as Discord should get it, uncut."""
    # half of a surrogate pair can be neither stored nor sent
    storable = markdown.encode("utf-8", "replace").decode()
    lines = storable.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").split("\n")
    done: list[str] = []
    fence: Fence | None = None
    at = 0
    while at < len(lines):
        line = lines[at]
        before, fence = fence, after_line(fence, line)
        if before is None and fence is None:
            rows = _table_at(lines, at)
            if rows:
                done += ["```", *_aligned(lines[at : at + rows]), "```"]
                at += rows
                continue
            done.append(_prose(line))
        elif before is None and fence is not None:
            indent = line[: len(line) - len(line.lstrip())]
            done.append(f"{indent}```{fence.info}")
        elif fence is None:
            done.append(line.replace(line.strip(), "```"))
        else:
            done.append(line.replace("```", _BREAKING_RUN))
        at += 1
    return "\n".join(done)


def _prose(line: str) -> str:
    heading = _SMALL_HEADING.fullmatch(line)
    if heading is not None:
        title = heading["title"].rstrip().rstrip("#").replace("**", "").strip()
        return f"**{title}**" if title else line
    parts: list[str] = []
    end = 0
    for span in _CODE_SPAN.finditer(line):
        parts += [_IMAGE.sub(_image_link, line[end : span.start()]), span[0]]
        end = span.end()
    return "".join([*parts, _IMAGE.sub(_image_link, line[end:])])


def _image_link(image: re.Match[str]) -> str:
    """Discord shows no image for `![…](…)`; a link it does."""
    return f"[{image[1]}]({image[2]})" if image[1].strip() else image[2]


def _table_at(lines: list[str], at: int) -> int:
    """How many lines of a table begin here; 0 if none does."""
    if at + 1 >= len(lines) or "|" not in lines[at] or "-" not in lines[at + 1]:
        return 0
    rule = lines[at + 1]
    if not _TABLE_RULE.fullmatch(rule.strip()) or len(_cells(rule)) != len(_cells(lines[at])):
        return 0
    end = at + 2
    while end < len(lines) and "|" in lines[end] and after_line(None, lines[end]) is None:
        end += 1
    return end - at


def _cells(row: str) -> list[str]:
    bare = row.strip().removeprefix("|")
    if bare.endswith("|") and not bare.endswith("\\|"):
        bare = bare[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _CELL_BREAK.split(bare)]


def _aligned(rows: list[str]) -> list[str]:
    """A table's rows with columns of one width, for a fixed-width font; the rule becomes dashes."""
    table = [[cell.replace("```", _BREAKING_RUN) for cell in _cells(row)] for row in rows]
    columns = max(len(row) for row in table)
    body = [row + [""] * (columns - len(row)) for index, row in enumerate(table) if index != 1]
    widths = [max(_columns_wide(row[column]) for row in body) for column in range(columns)]

    def padded(row: list[str]) -> str:
        cells = (cell + " " * (width - _columns_wide(cell)) for cell, width in zip(row, widths, strict=True))
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * max(width, 1) for width in widths)
    return [padded(body[0]), rule, *(padded(row) for row in body[1:])]


def _columns_wide(text: str) -> int:
    """Width in a fixed-width font: East Asian wide characters take two columns, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
