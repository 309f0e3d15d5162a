"""How many tokens a text has: counted offline with OpenAI's newest vocabulary, or weighed by script where that cannot be had.

Owns the count and cutting a text to one. For models of other makers the count is an estimate; what a provider reports corrects it
(`sessions/context.py`).
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Final, Protocol

PER_MESSAGE: Final = 4
"""Role and separators, as chat formats add them."""

_ENCODING: Final = "o200k_base"
_SAMPLE: Final = "Hello, world! Привет, мир! 你好，世界！ ¿Qué tal? Straße 😀"
_SAMPLE_TOKENS: Final = 20
_LONGEST_CHARACTER: Final = 4
"""Tokens: a character has at most four bytes, and no token is less than a byte."""
_CUT_MARK: Final = "\n[…]\n"
_MOST_KNOWN: Final = 20_000
_known: dict[tuple[int, int], int] = {}
"""Length and hash of a text → its tokens. Not the text: what people asked to be forgotten must not stay here."""


class _Vocabulary(Protocol):
    def batch_count(self, texts: Sequence[str], encoding: str, threads: int) -> list[int]: ...


def count(text: str) -> int:
    """Tokens of one text; an empty one has none."""
    return count_each([text])[0]


def count_each(texts: Sequence[str]) -> list[int]:
    """Tokens of each text: one call for many is much cheaper than many calls."""
    return counter()(texts) if texts else []


def count_known(texts: Sequence[str]) -> list[int]:
    """As `count_each`, remembered: most messages of a conversation that goes on were counted for the turn before."""
    keys = [(len(text), hash(text)) for text in texts]
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in _known}
    if new:
        if len(_known) + len(new) > _MOST_KNOWN:
            _known.clear()
            new = dict(zip(keys, texts, strict=True))
        _known.update(zip(new, count_each(list(new.values())), strict=True))
    return [_known[key] for key in keys]


@lru_cache(maxsize=64)
def count_often(text: str) -> int:
    """As `count`, remembered: for the few texts that come with every request."""
    return count(text)


@cache
def counter() -> Callable[[Sequence[str]], list[int]]:
    """The exact counter if it is there and counts a known text right; else the weights."""
    try:
        import toktok  # type: ignore[import-untyped]  # it ships no marker

        return checked(toktok)
    except Exception:  # noqa: BLE001 - a compiled module may fail to load in ways of its own; the weights always work
        return weigh_each


def is_exact() -> bool:
    """Whether the vocabulary is used, not the weights."""
    return counter() is not weigh_each


def checked(vocabulary: _Vocabulary) -> Callable[[Sequence[str]], list[int]]:
    """A counter of this vocabulary. Raises: ValueError if it does not count the known sample right."""
    found = vocabulary.batch_count([_SAMPLE], _ENCODING, threads=1)
    if found != [_SAMPLE_TOKENS]:
        raise ValueError(f"the vocabulary counts {found} for a text of {_SAMPLE_TOKENS} tokens")

    def count_all(texts: Sequence[str]) -> list[int]:
        try:
            return vocabulary.batch_count(texts, _ENCODING, threads=1)
        except UnicodeError:  # half a character, which only a text from outside the store can have
            whole = [text.encode("utf-8", "replace").decode() for text in texts]
            return vocabulary.batch_count(whole, _ENCODING, threads=1)

    return count_all


def weigh_each(texts: Sequence[str]) -> list[int]:
    """About how many tokens each text has, by script: dense scripts and emoji weigh more than Latin letters."""
    return [_weigh(text) for text in texts]


def _weigh(text: str) -> int:
    if text.isascii():
        return -(-len(text) // 4)
    weight = 0.0
    for character in text:
        code = ord(character)
        if code < 0x80:
            weight += 0.25
        elif code < 0x0600:
            weight += 0.3
        elif code >= 0x1F000:
            weight += 1.6
        else:
            weight += 0.8
    return int(weight) + 1


def cut(text: str, limit: int, *, end_share: float = 0.3) -> str:
    """The text within so many tokens: its beginning and, by `end_share`, its end, with a mark between them.

    A text that fits is given back as it is. Ends after a few counts, whatever the text is made of.
    """
    if limit <= 0:
        return ""
    size = count(text)
    if size <= limit:
        return text
    mark = _CUT_MARK if limit > 4 * count_often(_CUT_MARK) else ""
    keep = len(text)
    for _ in range(6):
        keep = min(keep - 1, max(0, int(keep * (limit - count_often(mark)) / size * 0.97)))
        candidate = _ends(text, keep, end_share, mark)
        size = count(candidate)
        if size <= limit:
            return candidate
    return _ends(text, (limit - count_often(mark)) // _LONGEST_CHARACTER, end_share, mark)


def _ends(text: str, keep: int, end_share: float, mark: str) -> str:
    end = int(keep * end_share)
    begin = keep - end
    return text[:begin] + mark + (text[-end:] if end else "")
