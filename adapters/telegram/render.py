"""CommonMark in, Telegram messages out: `render` formats a whole reply and cuts it.

Owns what `telegramify-markdown` is given and what is believed of its answer. Measured on 1.4.1, it drops HTML and
everything that looks like it (`List<String>` outside code), reads `||` as a spoiler, gives entities that overlap or that
Telegram refuses, and may raise; hence the escaping before and the sieve after it. Where to cut is `split`'s affair.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import pyromark
import telegramify_markdown

from adapters.choices import as_lines, divide, shortened
from adapters.messages import Choice, Chunk
from adapters.telegram.entities import clean_text, index_at, utf16_offsets
from adapters.telegram.split import Piece, Span, split

MAX_TEXT_UTF16 = 4096
REPEAT_MARK_UTF16 = 120
"""Room left in every chunk for the line that marks a possible repeat."""

MAX_BUTTONS = 24
"""Buttons under one message; Telegram takes a hundred, but nobody reads them."""

MAX_LABEL = 60
"""Characters of a button's label; a phone shows about half of that."""

MAX_FORMATTED = 100_000
"""Longest text that is formatted, in characters; a longer one is a file by nature and goes out plain, quickly."""

PARSER = (
    pyromark.Options.ENABLE_TABLES
    | pyromark.Options.ENABLE_STRIKETHROUGH
    | pyromark.Options.ENABLE_TASKLISTS
    | pyromark.Options.ENABLE_MATH
)
"""What telegramify-markdown parses with, so that both see the same code, HTML and text."""

STYLES = frozenset({"bold", "italic", "underline", "strikethrough", "spoiler"})
CODE = frozenset({"code", "pre"})
QUOTES = frozenset({"blockquote", "expandable_blockquote"})
LINE_BREAK = re.compile(rb"<br\s*/?>", re.IGNORECASE)
INSIDE_WORD = re.compile(rb"[0-9A-Za-z)]\*[0-9A-Za-z(]")
INSIDE_POWER = re.compile(rb"[0-9]\*\*[0-9A-Za-z(]")
LINK_URL = re.compile(r"(?:https?://|tg://|mailto:)\S+", re.IGNORECASE)
INVISIBLE = frozenset("\u2800")
"""A symbol by category, blank to the eye."""


def render(markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
    """The messages that show this text, the last one with buttons for the choices; empty only if nothing is visible.

    Never raises. What fits no button is a line below the text.
    """
    buttons, lines = divide(choices, MAX_BUTTONS)
    chunks = _messages(as_lines(markdown, lines, first=len(buttons) + 1))
    if chunks and buttons:
        chunks[-1] = _with_buttons(chunks[-1], buttons)
    return chunks


def _messages(markdown: str) -> list[Chunk]:
    source = clean_text(markdown)
    text, spans = formatted(source)
    if not is_visible(text):
        text, spans = source, []
    pieces = split(text, spans, MAX_TEXT_UTF16 - REPEAT_MARK_UTF16)
    return [_chunk(piece) for piece in pieces if is_visible(piece.text)]


def formatted(source: str) -> tuple[str, list[Span]]:
    """The whole text as Telegram shows it, with its entities; the source itself where formatting fails."""
    if len(source) > MAX_FORMATTED:
        return source, []
    try:
        escaped = _escape_lookalikes(source)
        text, entities = telegramify_markdown.convert(
            escaped, latex_escape=_may_hold_latex(source), config=_CONFIG
        )
        text = clean_text(text)
        return text, sieve(text, [asdict(entity) for entity in entities])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - the parser is Rust, whose panics are no Exception; a reply must go out anyway
        return source, []


def is_visible(text: str) -> bool:
    """Whether there is anything to see; Telegram refuses a message without."""
    return any(
        character not in INVISIBLE and not character.isspace() and unicodedata.category(character)[0] != "C"
        for character in text
    )


def sieve(text: str, entities: list[dict[str, Any]]) -> list[Span]:
    """The entities that Telegram will take: known, within the text, on whole characters, and well nested.

    Styles make room for code inside them, links keep their address rather than a fixed width, and what crosses an
    earlier one is dropped; its text is not.
    """
    offsets = utf16_offsets(text)
    spans = [span for span in (_span(offsets, entity) for entity in entities) if span is not None]
    kept: list[Span] = []
    around: list[Span] = []  # of the span looked at, outermost first; no kind twice, so it stays short
    for span in sorted(spans, key=lambda span: (span.start, -span.end, span.kind in CODE)):
        while around and around[-1].end <= span.start:
            around.pop()
        outer = {_family(other) for other in around}
        if around and (span.end > around[-1].end or _family(span) in outer or "code" in outer):
            continue
        if span.kind in CODE and "text_link" in outer:
            continue
        around.append(span)
        kept.append(span)
    code = [span for span in kept if span.kind in CODE]
    starts = [span.start for span in code]
    apart = [
        part
        for span in kept
        for part in (
            _without(span, code[bisect_left(starts, span.start) :]) if span.kind in STYLES else [span]
        )
    ]
    return sorted(apart, key=lambda span: (span.start, -span.end, span.kind))


def _family(span: Span) -> str:
    """What may not stand inside its like: Telegram takes no quote in a quote, nor bold in bold."""
    if span.kind in CODE:
        return "code"
    return "quote" if span.kind in QUOTES else span.kind


def _without(span: Span, holes: list[Span]) -> list[Span]:
    """What is left of a span around the holes, which are in order and begin behind its start."""
    parts, start = [], span.start
    for hole in holes:
        if hole.start >= span.end:
            break
        if start < hole.start:
            parts.append(replace(span, start=start, end=hole.start))
        start = hole.end
    return [*parts, replace(span, start=start)] if start < span.end else parts


class _Edit(NamedTuple):
    """Bytes of the source to be replaced."""

    start: int
    end: int
    text: bytes


def _escape_lookalikes(source: str) -> str:
    """Take HTML, `||` and the stars of 2*3*4 for what a person sees in them: text. Code stays as it is.

    Escaping the first bracket of an HTML block may lay bare more of it, hence the rounds; each escapes at least one
    bracket more, and almost always one is enough. Stars may find other partners likewise.
    """
    data = source.encode()
    for _ in range(50):
        edits = _html_edits(data) or _star_edits(data)
        if not edits:
            break
        data = _apply(data, edits)
    else:
        raise ValueError("this text's HTML does not come to rest")
    if b"||" in data:
        data = _apply(data, _pipe_edits(data))
    return data.decode()


def _html_edits(data: bytes) -> list[_Edit]:
    if b"<" not in data:
        return []
    edits: list[_Edit] = []
    is_table = False
    for event, place in pyromark.events_with_range(data.decode(), options=PARSER):
        if not isinstance(event, dict):
            continue
        edge = event.get("Start", event.get("End"))
        if edge == "Table" or (isinstance(edge, dict) and "Table" in edge):
            is_table = "Start" in event
        elif "Html" in event or "InlineHtml" in event:
            start, end = place["start"], place["end"]
            if LINE_BREAK.fullmatch(data[start:end]):
                edits.append(_Edit(start, end, b" " if is_table else b"\\\n"))
                continue
            edits += [
                _Edit(start + at, start + at, b"\\")
                for at, byte in enumerate(data[start:end])
                if byte == ord("<")
            ]
    return edits


def _star_edits(data: bytes) -> list[_Edit]:
    """Stars that open inside a word multiply: `2*3*4`, `(a+b)*c*d`; so do doubled ones after a digit, `2**3**2`."""
    if b"*" not in data:
        return []
    edits: list[_Edit] = []
    for event, place in pyromark.events_with_range(data.decode(), options=PARSER):
        opened = event.get("Start") if isinstance(event, dict) else None
        start, end = place["start"], place["end"]
        if opened == "Emphasis" and start > 0 and INSIDE_WORD.match(data, start - 1):
            width = 1
        elif opened == "Strong" and start > 0 and INSIDE_POWER.match(data, start - 1):
            width = 2
        else:
            continue
        stars = (*range(start, start + width), *range(end - width, end))
        edits += [_Edit(at, at, b"\\") for at in stars]
    return sorted(edits)


def _pipe_edits(data: bytes) -> list[_Edit]:
    """`||` in text becomes two escaped bars; between the cells of a table the bars are put apart."""
    code, text = bytearray(len(data)), bytearray(len(data))
    for event, place in pyromark.events_with_range(data.decode(), options=PARSER):
        if not isinstance(event, dict):
            continue
        start, end = place["start"], place["end"]
        opened = event.get("Start")
        if "Code" in event or (isinstance(opened, dict) and "CodeBlock" in opened):
            code[start:end] = b"\1" * (end - start)
        elif "Text" in event:
            text[start:end] = b"\1" * (end - start)
    return [
        _Edit(at + 1, at + 1, b"\\" if text[at] and text[at + 1] else b" ")
        for at in range(len(data) - 1)
        if data[at : at + 2] == b"||" and not code[at] and not code[at + 1]
    ]


def _apply(data: bytes, edits: list[_Edit]) -> bytes:
    parts, done = [], 0
    for edit in edits:
        parts += [data[done : edit.start], edit.text]
        done = edit.end
    return b"".join([*parts, data[done:]])


def _may_hold_latex(source: str) -> bool:
    r"""Whether `\(…\)` may be turned into symbols. Not beside code, where the library would do the same; and not where
    so many open brackets would keep it searching.
    """
    return "`" not in source and "\t" not in source and "    " not in source and source.count("\\") < 500


def _span(offsets: list[int], entity: dict[str, Any]) -> Span | None:
    kind, offset, length = entity["type"], entity["offset"], entity["length"]
    start, end = index_at(offsets, offset), index_at(offsets, offset + length)
    if start is None or end is None or length <= 0:
        return None
    if kind == "text_link":
        url = entity["url"] or ""
        return Span(kind, start, end, url=url) if LINK_URL.fullmatch(url) else None
    if kind == "pre":
        return Span(kind, start, end, language=_language(entity["language"]))
    return Span(kind, start, end) if kind in STYLES | QUOTES | CODE else None


def _language(info: str | None) -> str | None:
    """The language of a fence's info string (`python title=x`): its first word, if it is one."""
    found = re.match(r"[\w+#.-]{1,40}", info or "")
    return found[0] if found else None


def _chunk(piece: Piece) -> Chunk:
    offsets = utf16_offsets(piece.text)
    markup = [
        {"type": span.kind, "offset": offsets[span.start], "length": offsets[span.end] - offsets[span.start]}
        | ({"url": span.url} if span.url else {})
        | ({"language": span.language} if span.language else {})
        for span in piece.spans
    ]
    return Chunk(piece.text, markup or None)


def _with_buttons(chunk: Chunk, choices: Sequence[Choice]) -> Chunk:
    """A button for each choice, one to a line; two short ones (pages, yes and no) side by side."""
    buttons = [
        {"text": clean_text(shortened(choice.label, MAX_LABEL)), "data": clean_text(choice.command)}
        for choice in choices
    ]
    is_short = len(buttons) == 2 and all(len(button["text"]) <= 20 for button in buttons)
    rows = [buttons] if is_short else [[button] for button in buttons]
    return Chunk(chunk.text, {"entities": chunk.markup or [], "buttons": rows})


def _make_config() -> telegramify_markdown.RenderConfig:
    """Plain symbols: the reply is the agent's, not the formatter's, and headings are bold anyway."""
    config = telegramify_markdown.RenderConfig.isolated()
    config.cite_expandable = (
        False  # a quote that folds itself once it is long jumps about in a growing answer
    )
    symbols = config.markdown_symbol
    symbols.heading_level_1 = symbols.heading_level_2 = symbols.heading_level_3 = symbols.heading_level_4 = ""
    symbols.unordered_list_item = "•"
    symbols.task_uncompleted = "☐"
    return config


_CONFIG = _make_config()
