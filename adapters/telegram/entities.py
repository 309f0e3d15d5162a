"""Telegram's way of marking text: entities, counted in UTF-16 code units. Shared by parsing and formatting.

Owns the arithmetic between UTF-16 units and Python indices. What a mark means is its reader's business.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from config.names import Json


@dataclass(frozen=True, slots=True)
class Mark:
    """One entity of a text that came in. `start` and `end` are Python indices."""

    kind: str
    start: int
    end: int
    text: str
    user_id: int | None = None
    """Whom a `text_mention` names."""


def clean_text(text: str) -> str:
    """The text without what databases and UTF-8 refuse (lone surrogates, NUL), of the same length in UTF-16."""
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def utf16_length(text: str) -> int:
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)


def utf16_offsets(text: str) -> list[int]:
    """The UTF-16 offset of each character, and of the end."""
    return list(accumulate((2 if character > "\uffff" else 1 for character in text), initial=0))


def index_at(offsets: list[int], unit: int) -> int | None:
    """The index of the character at a UTF-16 offset; None inside a surrogate pair or outside the text."""
    low, high = 0, len(offsets) - 1
    while low < high:
        middle = (low + high) // 2
        if offsets[middle] < unit:
            low = middle + 1
        else:
            high = middle
    return low if offsets[low] == unit else None


def marks_of(text: str, entities: Json) -> list[Mark]:
    """The entities of a text, in its order.

    Raises: ValueError for anything that is not a list of entities within the text.
    """
    if not isinstance(entities, list):
        raise ValueError("entities are no list")
    offsets = utf16_offsets(text) if entities else []
    return sorted((_mark(text, offsets, entity) for entity in entities), key=lambda mark: mark.start)


def _mark(text: str, offsets: list[int], entity: Any) -> Mark:
    kind, offset, length = entity["type"], entity["offset"], entity["length"]
    if not isinstance(kind, str) or type(offset) is not int or type(length) is not int or length < 0:
        raise ValueError("an entity lacks type, offset or length")
    start, end = index_at(offsets, offset), index_at(offsets, offset + length)
    if start is None or end is None:
        raise ValueError("an entity is not within the text")
    user_id = entity["user"]["id"] if kind == "text_mention" else None
    return Mark(kind, start, end, text[start:end], user_id)
