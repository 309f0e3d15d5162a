"""Cuts a formatted text into pieces that fit one message each, where a reader would cut it.

Owns the choice of the cut and what becomes of the marks on both sides: a mark that spans the cut is closed before it and
opened again after it, so a code block continues as a code block of the same language. Knows no Markdown and no wire.
"""

import unicodedata
from dataclasses import dataclass, replace

from adapters.telegram.entities import utf16_offsets

MAX_ENTITIES = 100
"""Telegram ignores those beyond, silently. Source: Bot API, formatting options."""

LONGEST_GRAPHEME = 64
"""How far back a cut may move to keep a character and what combines with it together."""

Endings = tuple[str, ...]
PARAGRAPH_ENDS: Endings = ("\n\n",)
LINE_ENDS: Endings = ("\n",)
WORD_ENDS: Endings = (" ", "\t")
SENTENCE_ENDS: Endings = (". ", "! ", "? ", "… ", ".\n", "\u3002", "\uff01", "\uff1f")


@dataclass(frozen=True, slots=True)
class Span:
    """A mark over text[start:end], in Python indices."""

    kind: str
    start: int
    end: int
    url: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    spans: tuple[Span, ...]


def split(text: str, spans: list[Span], limit_utf16: int) -> list[Piece]:
    """Pieces of at most `limit_utf16` units, in order. Only white space at the cuts and ends is left out.

    Linear in the text: each cut looks back over one piece at most.
    """
    offsets = utf16_offsets(text)
    pieces: list[Piece] = []
    start = _skip_newlines(text, 0)
    while start < len(text):
        most = _furthest(offsets, start, limit_utf16)
        most = _before_too_many(spans, start, most)
        cut = len(text) if most == len(text) else _cut(text, spans, start, most)
        piece = _piece(text, spans, start, cut)
        if piece.text:
            pieces.append(piece)
        start = _skip_newlines(text, cut)
    return pieces


def is_grapheme_boundary(text: str, at: int) -> bool:
    """Whether a reader sees two characters meet here: not inside what combines, joins or pairs."""
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if before in "\r\n" or after in "\r\n":
        return not (before == "\r" and after == "\n")
    if "\u200d" in (before, after) or unicodedata.category(after)[0] == "M":
        return False
    if (
        "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f"
    ):  # skin tones, flags' tags
        return False
    if _is_regional(before) and _is_regional(after):
        first = at
        while first > 0 and _is_regional(text[first - 1]) and at - first < LONGEST_GRAPHEME:
            first -= 1
        return (at - first) % 2 == 0
    return not (
        "\u1100" <= before <= "\u11ff" and "\u1160" <= after <= "\u11ff"
    )  # Hangul put together from parts


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _furthest(offsets: list[int], start: int, limit_utf16: int) -> int:
    most = min(len(offsets) - 1, start + limit_utf16)
    while offsets[most] - offsets[start] > limit_utf16:
        # every character takes two units at most, so this halves the excess each time
        most -= max(1, (offsets[most] - offsets[start] - limit_utf16) // 2)
    return max(most, start + 1)


def _before_too_many(spans: list[Span], start: int, most: int) -> int:
    inside = [span for span in spans if span.start < most and span.end > start]
    if len(inside) <= MAX_ENTITIES:
        return most
    beginning = inside[MAX_ENTITIES].start
    return beginning if beginning > start else most


def _cut(text: str, spans: list[Span], start: int, most: int) -> int:
    """The best place in (start, most]: between paragraphs, lines, sentences, words, characters, in this order.

    A better kind of place is worth up to half of the piece; code is entered only if it does not fit otherwise.
    """
    code = [span for span in spans if span.kind == "pre" and span.start < most and span.end > start]
    middle = start + (most - start) // 2

    def last(endings: Endings, least: int) -> int | None:
        found = -1
        for ending in endings:
            at = text.rfind(ending, least, most)
            while at >= 0 and _inside_any(code, at + len(ending)):
                at = text.rfind(ending, least, at + len(ending) - 1)
            if at >= 0:
                found = max(found, at + len(ending))
        return found if start < found <= most else None

    for endings in (PARAGRAPH_ENDS, LINE_ENDS):
        place = last(endings, middle)
        if place is not None:
            return place
    if code:
        newline = text.rfind("\n", middle, most)
        if newline >= 0:
            return newline + 1
    for endings in (SENTENCE_ENDS, WORD_ENDS):
        place = last(endings, middle)
        if place is not None:
            return place
    for at in range(most, max(start, most - LONGEST_GRAPHEME), -1):
        if is_grapheme_boundary(text, at):
            return at
    return most


def _inside_any(spans: list[Span], at: int) -> bool:
    return any(span.start < at < span.end for span in spans)


def _skip_newlines(text: str, at: int) -> int:
    while at < len(text) and text[at] in "\n\r":
        at += 1
    return at


def _piece(text: str, spans: list[Span], start: int, cut: int) -> Piece:
    end = start + len(text[start:cut].rstrip())
    inside = tuple(
        replace(span, start=max(span.start, start) - start, end=min(span.end, end) - start)
        for span in spans
        if span.start < end and span.end > start
    )
    return Piece(text[start:end], inside)
