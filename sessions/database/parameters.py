"""Named parameters as our SQL writes them, `:name`, as PostgreSQL numbers them, `$1`, and SQLite, `?1`.

Owns the translation of a statement's text and nothing else. Values never become part of the text.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

_TOKEN = re.compile(
    r"""
      [eE]'(?:[^'\\]|\\.|'')*'                    # an escape string: a backslash hides what follows
    | '(?:[^']|'')*'                              # a string
    | "(?:[^"]|"")*"                              # a quoted name
    | (?<![\w$])\$(?P<tag>[^\W\d]\w*|)\$.*?\$(?P=tag)\$   # a dollar-quoted string
    | --[^\n]*                                    # a comment
    | /\*.*?\*/                                   # a comment
    | ::                                          # a cast
    | [eE](?!')\w* | [^\W\deE][\w$]*              # a word, whole, so that no letter of it begins an escape string
    | :(?P<name>[^\W\d]\w*)                       # what this is about
    """,
    re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=1024)
def numbered(sql: str, sign: str = "$") -> tuple[str, tuple[str, ...]]:
    """The statement with `$1`, `$2`, … and the names in that order; a name used twice keeps its number."""
    numbers: dict[str, int] = {}

    def number(token: re.Match[str]) -> str:
        name = token["name"]
        return token[0] if name is None else f"{sign}{numbers.setdefault(name, len(numbers) + 1)}"

    return _TOKEN.sub(number, sql), tuple(numbers)


def in_order(names: tuple[str, ...], parameters: Mapping[str, object]) -> list[object]:
    """The values in the order of the numbers. Raises: LookupError for a name that was not given."""
    try:
        return [parameters[name] for name in names]
    except KeyError as error:
        raise LookupError(f"the statement has a parameter :{error.args[0]}, which was not given") from None
