"""What somebody searches for, as terms, and where the terms stand in a text.

Owns reading a person's words (plain, "in quotes", -excluded, begin*), comparing them with a text as the indexes do (no case, no
accents on Latin letters, punctuation parts words), and excerpts. No database syntax: that is `search.py`, and a person's
words never become part of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from unicodedata import normalize

MOST_TERMS: Final = 12
MOST_CHARS: Final = 500
LEAST_PREFIX: Final = 2
LEAST_WIDENED: Final = 4
"""Letters of a word that may be taken as a beginning; of fewer there are too many words."""

_PIECE = re.compile(r'(-?)(?:"([^"]*)(?:"|\Z)|([^\s"]+))')
_WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f])+")
_NO_SPACES = re.compile(
    # Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, kana, Han. Looked for as letters in a row.
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
)


def _folding() -> dict[int, str | None]:
    """Latin letters with accents as small letters without; accents that stand alone go."""
    table: dict[int, str | None] = dict.fromkeys(range(0x300, 0x370))
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        base = normalize("NFD", chr(code))[0].lower()
        if "a" <= base <= "z":
            table[code] = base
    return table


_FOLDING: Final = _folding()


@dataclass(frozen=True, slots=True)
class Term:
    """One thing to look for: a word, words in a row, or letters in a row."""

    text: str
    """As it was written, without quotes; never empty."""
    words: tuple[str, ...]
    """Folded; several are a phrase. Empty for letters in a row."""
    is_excluded: bool = False
    is_prefix: bool = False
    """The last word may go on."""

    @property
    def is_literal(self) -> bool:
        """To be found as letters in a row: scripts without spaces, emoji and signs."""
        return not self.words


def fold(text: str) -> str:
    """As texts are compared: small letters, Latin ones without accents."""
    return text.translate(_FOLDING).lower()


def read(text: str) -> list[Term]:
    """The terms in what a person typed. Any text is a search; what holds nothing to look for gives no term."""
    found: list[Term] = []
    for minus, quoted, plain in _PIECE.findall(text.replace("\0", " ")[:MOST_CHARS]):
        written = (quoted or plain).strip()
        is_prefix = bool(plain) and len(plain) > 1 and plain.endswith("*")
        written = written.rstrip("*") if is_prefix else written
        if not written or (len(found) == MOST_TERMS):
            continue
        words = () if _NO_SPACES.search(written) else tuple(fold(word) for word in _WORD.findall(written))
        words = tuple(word for word in words if word)
        is_literal = not words
        if is_literal and minus and not quoted and not _NO_SPACES.search(written) and written.isascii():
            minus, written = "", minus + written  # `->` is something to look for
        term = Term(written, words, bool(minus), is_prefix and bool(words) and len(words[-1]) >= LEAST_PREFIX)
        if term not in found:
            found.append(term)
    return found


def widened(terms: Sequence[Term]) -> list[Term]:
    """The same, but every word of four letters or more may go on: `meeting` finds `meetings`."""
    return [
        replace(term, is_prefix=True)
        if not term.is_excluded and term.words and len(term.words[-1]) >= LEAST_WIDENED
        else term
        for term in terms
    ]


def matches(text: str, terms: Sequence[Term]) -> bool:
    """Whether a text holds all the terms and none of the excluded."""
    words = f" {' '.join(fold(word) for word in _WORD.findall(text))} "
    small = text.lower()
    for term in terms:
        if term.is_literal:
            is_there = term.text.lower() in small
        else:
            is_there = f" {' '.join(term.words)}{'' if term.is_prefix else ' '}" in words
        if is_there == term.is_excluded:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The part of a text where the terms stand."""

    text: str
    marks: Sequence[tuple[int, int]]
    """Start and end of each found word within `text`."""

    def marked(self, before: str, after: str) -> str:
        """With something put around each found word."""
        parts, last = [], 0
        for start, end in self.marks:
            parts += [self.text[last:start], before, self.text[start:end], after]
            last = end
        return "".join([*parts, self.text[last:]])


def excerpt(text: str, terms: Sequence[Term], max_chars: int = 160) -> Excerpt:
    """At most about `max_chars` of a text, where most of the found words are; cut ends get an ellipsis, line breaks a space."""
    spots = _spots(text, [term for term in terms if not term.is_excluded])
    start, end = _window(text, spots, max_chars)
    head, tail = ("…" if start else ""), ("…" if end < len(text) else "")
    shift = len(head) - start
    shown = "".join(" " if character.isspace() else character for character in text[start:end])
    return Excerpt(
        head + shown + tail,
        [(first + shift, min(last, end) + shift) for first, last in spots if first >= start and first < end],
    )


def _spots(text: str, terms: Sequence[Term]) -> list[tuple[int, int]]:
    """Where the terms stand, in order and without overlap."""
    spots: list[tuple[int, int]] = []
    words = [(fold(word[0]), word.start(), word.end()) for word in _WORD.finditer(text)]
    for term in terms:
        if term.is_literal:
            spots += [
                (found.start(), found.end())
                for found in re.finditer(re.escape(term.text), text, re.IGNORECASE)
            ]
            continue
        length = len(term.words)
        for place in range(len(words) - length + 1):
            run = [word for word, _, _ in words[place : place + length]]
            is_same_end = run[-1].startswith(term.words[-1]) if term.is_prefix else run[-1] == term.words[-1]
            if is_same_end and run[:-1] == list(term.words[:-1]):
                spots.append((words[place][1], words[place + length - 1][2]))
    apart: list[tuple[int, int]] = []
    for spot in sorted(spots):
        if not apart or spot[0] >= apart[-1][1]:
            apart.append(spot)
    return apart


def _window(text: str, spots: Sequence[tuple[int, int]], max_chars: int) -> tuple[int, int]:
    """The piece to show, cut between words where there are any."""
    if len(text) <= max_chars:
        return 0, len(text)
    most, start = 0, 0
    for first, _ in spots[:100]:
        inside = sum(first <= other and end <= first + max_chars - 40 for other, end in spots[:100])
        if inside > most:
            most, start = inside, first
    start = max(0, min(start - 30, len(text) - max_chars))
    end = min(len(text), start + max_chars)
    if start and (space := text.find(" ", start, start + 25)) >= 0:
        start = space + 1
    if end < len(text) and (space := text.rfind(" ", end - 25, end)) > start:
        end = space
    return start, end
