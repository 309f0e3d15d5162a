"""How a reply looks at a prompt: Markdown with colours, behind the bot's name, fit to the terminal's width.

Control characters are taken out first: a model must not be able to drive somebody's terminal.
"""

import io
import re
import textwrap

from markdown_it import MarkdownIt
from rich.console import Console
from rich.markdown import Markdown
from rich.segment import Segment, Segments
from rich.style import Style

LEAST_COLUMNS = 20
_CONTROL = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_LIST_MARKER = re.compile(r"(\d{1,9})([.)])(?=\s|$)")
_HEADING = re.compile(r" +\S+ {2,}")
_parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


def without_control(text: str) -> str:
    """Text without escape sequences' beginnings and other control characters, line breaks and tabs kept."""
    return text.translate(_CONTROL)


def format_reply(markdown: str, name: str, columns: int) -> str:
    """Lines with terminal colours; `name` stands before the first, the others are indented as far."""
    text = without_control(markdown)
    console = Console(
        file=io.StringIO(), force_terminal=True, width=max(columns, LEAST_COLUMNS), legacy_windows=False
    )
    options = console.options.update(width=max(columns - len(name), LEAST_COLUMNS - len(name)))
    lines = [_without_tail(line) for line in console.render_lines(_parse(text), options, pad=False)]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    if not lines:  # nothing that Markdown shows (a link definition, say): show what was written
        lines = [[Segment(line)] for line in text.strip().split("\n")]
    segments = []
    for number, line in enumerate(lines):
        if line:
            segments += [Segment(name, Style(bold=True)) if number == 0 else Segment(" " * len(name)), *line]
        segments.append(Segment.line())
    with console.capture() as capture:
        console.print(Segments(segments), end="", crop=False)
    return capture.get()


def wrapped(line: str, columns: int) -> list[str]:
    """A line in lines that fit. What stands in a second column ("  log        …") goes on under it; a path stays whole."""
    heading = _HEADING.match(line)
    indent = heading.end() if heading and heading.end() <= columns // 2 else 2
    return textwrap.wrap(
        line,
        max(columns, LEAST_COLUMNS),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _parse(text: str) -> Markdown:
    """As people write in a chat: a line break is one, `<b>` is text, headings stand left, "42. Yes" is no list."""
    document = Markdown(text, hyperlinks=False)
    document.parsed = _parser.parse(_escape_lone_numbers(text))
    for token in document.parsed:
        if token.tag in ("h1", "h2"):
            token.tag = "h3"
        for child in token.children or ():
            if child.type == "softbreak":
                child.type, child.tag = "hardbreak", "br"
    return document


def _escape_lone_numbers(text: str) -> str:
    """A sentence that begins with a number reads as a list of one item, whose dot (or more) rich would leave out."""
    lines = text.split("\n")
    tokens = _parser.parse(text)
    for position, token in enumerate(tokens):
        if token.type != "ordered_list_open" or token.map is None:
            continue
        end = next(
            i
            for i in range(position, len(tokens))
            if tokens[i].level == token.level and tokens[i].nesting < 0
        )
        items = sum(t.type == "list_item_open" and t.level == token.level + 1 for t in tokens[position:end])
        if items == 1:
            lines[token.map[0]] = _LIST_MARKER.sub(r"\1\\\2", lines[token.map[0]], count=1)
    return "\n".join(lines)


def _without_tail(line: list[Segment]) -> list[Segment]:
    """The line without the spaces that fill it up, unless they are coloured (a code block's background)."""
    segments = list(line)
    while segments:
        text, style, control = segments[-1]
        if style is not None and style.bgcolor is not None:
            break
        segments.pop()
        if text.rstrip():
            segments.append(Segment(text.rstrip(), style, control))
            break
    return segments
