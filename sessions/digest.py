"""A digest of a conversation made of its own sentences: those with facts, names, numbers, questions and decisions.

Owns the choice; no model, no chance, the same input always gives the same digest. What makes a sentence worth keeping is told in
any language by its form (a whole statement, figures, names, addresses) and by how little the rest of the conversation is like it,
and by words in English, German, Spanish, Russian and Chinese (`cues.py`).
"""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sessions import tokens
from sessions.cues import COURTESY, DECISION, FACT, HEARSAY, OPEN, Cues

_REPEATED: Final = 1.5
_MOST_CHARS: Final = 6_000
"""Of one message: its beginning and its end."""
_MOST_SENTENCES: Final = 1_500
_FEW: Final = 5
"""Sentences of which each is as new as the others."""
_STATED: Final = 3.0
_WHOLE_SENTENCE: Final = 5
"""Words from which on a sentence says something whole."""
_LONGEST: Final = 280
"""Characters of a kept sentence."""

_END: Final = re.compile(r"(?<=[.!?…])(?<!\b\d\.)(?<!\b\d\d\.)[\"'»”)]*\s+|(?<=[。！？；])[”」』）]*|\n+")
_NUMBER: Final = re.compile(r"\d")
_CODE: Final = re.compile(
    r"\b(?=\w*\d)(?=\w*[^\W\d])[\w-]{3,}\b|https?://\S+|\S+@\S+\.\w+|[€$£¥₽]\s?\d|\d\s?[€$£¥₽%]"
)
_NAME: Final = re.compile(r"(?<=[\w,;:)\"»”] )[«\"„“]?[A-ZÀ-ÖØ-ÞА-ЯЁ][\w'’-]+")
_QUOTED: Final = re.compile(r"[«„“\"「『《]([^»“”\"」』》]{2,60})[»“”\"」』》]")
_WORD: Final = re.compile(r"[\u3400-\u9fff]{2}|[^\W\d_\u3400-\u9fff]{3,}|\d+")
_PART: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_HAN: Final = re.compile("[\u3400-\u9fff]")
_BEGINNING: Final = re.compile("(?=( ..))")
_LINE: Final = re.compile(r"^- (?:(?P<who>[^:\n]{1,40}): )?(?P<text>.+)$")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message, or one line of an earlier digest."""

    who: str
    text: str
    is_person: bool = True


@dataclass(frozen=True, slots=True)
class _Sentence:
    order: int
    who: str
    text: str
    is_person: bool
    message: int


def lines_of(digest: str) -> list[Spoken]:
    """A digest, taken apart again; other texts line by line."""
    found = []
    for line in digest.splitlines():
        if match := _LINE.match(line.strip()):
            who = match["who"] or ""
            found.append(Spoken(who, match["text"], who != BOT))
        elif line.strip():
            found.append(Spoken("", line.strip()))
    return found


BOT: Final = "Bot"


def make_digest(spoken: Sequence[Spoken], limit_tokens: int) -> str:
    """The sentences most worth keeping, in their order, within the limit. Empty if there is nothing to say."""
    sentences = _sentences(spoken)
    if not sentences or limit_tokens <= 0:
        return ""
    parts = [_parts(sentence.text) for sentence in sentences]
    frequency = Counter(part for own in parts for part in own)
    scored = []
    seen: set[str] = set()
    forms: Counter[str] = Counter()
    for sentence in sentences:
        plain = _plain(sentence.text)
        if not plain or plain in seen:
            continue
        seen.add(plain)
        form = "".join(sign for sign in plain if not sign.isdigit())
        # The same words with other figures: an update if somebody told it, but what is asked or explained daily tells little.
        forms[form] += 1
        novelty = _novelty(parts[sentence.order], frequency) if len(sentences) > _FEW else 1.0
        scored.append((_score(sentence, novelty) - _REPEATED * min(3, forms[form] - 1), sentence))
    # What is worth more per token first; a long sentence must earn its place.
    lines = [(_line(sentence), score, sentence) for score, sentence in scored]
    costs = tokens.count_each([line for line, _, _ in lines])
    order = sorted(
        range(len(lines)),
        key=lambda number: (-lines[number][1] / (12 + costs[number]), lines[number][2].order),
    )
    room, chosen = limit_tokens, []
    for number in order:
        cost = costs[number] + 1
        if cost <= room and lines[number][1] > 0:
            room -= cost
            chosen.append(number)
    chosen.sort(key=lambda number: lines[number][2].order)
    digest = "\n".join(lines[number][0] for number in chosen)
    return digest or tokens.cut(lines[0][0] if lines else "", limit_tokens)


def _sentences(spoken: Sequence[Spoken]) -> list[_Sentence]:
    found: list[_Sentence] = []
    for number, one in enumerate(spoken):
        text = one.text
        if len(text) > _MOST_CHARS:
            text = f"{text[: _MOST_CHARS * 2 // 3]}\n{text[-_MOST_CHARS // 3 :]}"
        for piece in _END.split(text):
            piece = " ".join(piece.split()).strip("-–—•*>#| ")
            if any(sign.isalpha() for sign in piece):
                found.append(_Sentence(len(found), one.who, piece[:_LONGEST], one.is_person, number))
        if len(found) > _MOST_SENTENCES:
            break
    return found


def _line(sentence: _Sentence) -> str:
    return f"- {sentence.who}: {sentence.text}" if sentence.who else f"- {sentence.text}"


def _score(sentence: _Sentence, novelty: float) -> float:
    text, heard = sentence.text, _Heard(sentence.text)
    marks = 2.0 * bool(_NUMBER.search(text))
    marks += 2.0 * min(2, len(_CODE.findall(text)))
    marks += 1.2 * min(3, len(_NAME.findall(text)))
    marks += 1.0 * min(2, len(_QUOTED.findall(text)))
    marks += 1.5 * min(1, heard.hits(OPEN))
    told = 4.0 * min(2, heard.hits(FACT))
    told += 4.0 * min(1, heard.hits(DECISION))
    words = _words(text)
    is_question = text.rstrip("\"'»”)").endswith(("?", "？"))
    if sentence.is_person and not is_question:
        # Whoever states something in a whole sentence tells something, whatever the language; what fills a chat is short, asked,
        # or much like what else is said in it.
        told += _STATED * min(1.0, len(words) / _WHOLE_SENTENCE)
    score = 1.0 + told + marks
    score *= 0.25 + 0.75 * novelty
    score *= 0.5 if not sentence.is_person or is_question else 1.6
    if heard.hits(COURTESY) and len(text) < 60:
        score -= 3.0
    if heard.hits(HEARSAY):
        score -= 2.0
    if len(words) < 2:
        score -= 1.5
    return score


def _novelty(parts: Sequence[str], frequency: Counter[str]) -> float:
    """The share of a sentence's words and pairs of words that nothing else in the conversation has, from 0 to 1."""
    return sum(frequency[part] <= 1 for part in parts) / len(parts) if parts else 0.0


def _parts(text: str) -> Sequence[str]:
    """Its pairs of neighbouring words, of characters where words have no spaces between them; each once."""
    words = [word.casefold() for word in _PART.findall(text)]
    return list(dict.fromkeys(map(" ".join, itertools.pairwise(words))) or dict.fromkeys(words))


class _Heard:
    """A sentence in small letters, for looking whether cues are in it: only those that begin as one of its words does."""

    def __init__(self, text: str) -> None:
        self._lower = f" {text.lower()} "
        self._beginnings = set(_BEGINNING.findall(self._lower))
        self._has_han = not self._lower.isascii() and _HAN.search(self._lower) is not None

    def hits(self, cues: Cues) -> int:
        """How many of the cues are there."""
        found = sum(cue in self._lower for cue in cues.han) if self._has_han else 0
        for beginning in self._beginnings & cues.others.keys():
            for cue in cues.others[beginning]:
                found += cue in self._lower
        return found


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _plain(text: str) -> str:
    """For telling repetitions: letters and figures only."""
    return "".join(sign for sign in unicodedata.normalize("NFKC", text).casefold() if sign.isalnum())
