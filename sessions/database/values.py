"""What a database can hold of what came from outside: text without halves of characters, and JSON as text.

Owns these two conversions. Platforms and models send JSON in which an emoji may be cut in two; no database takes that.
"""

import json

import orjson

from config.names import Json


def storable(text: str) -> str:
    """The text with each surrogate pair as the character it means, and U+FFFD for a half that is alone."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_json(value: Json) -> str:
    """A value as JSON. Halves of characters are mended, and integers may have more than 64 bits.

    Raises: TypeError, ValueError for what JSON cannot hold.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return storable(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def escape_like(text: str) -> str:
    """As LIKE takes it, with '!' before what has a meaning there."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
