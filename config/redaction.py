"""What must never be shown: the secrets of a configuration, and how text that may hold them is cleaned.

Owns the rules for every place that shows something: `config/report.py`, `config/checks.py`, `config/logging.py`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from pydantic import SecretStr

from config import tree
from config.settings import Settings

HIDDEN = "[secret]"

MIN_SECRET_LENGTH = 8
"""Shorter values are not searched for in text: `EMPTY` or `none`, put where a local model wants some key, would
otherwise blot ordinary words out of every line."""

_TELEGRAM_TOKEN = re.compile(r"\d+:(\S{20,})")
_SECRET_PARAMETER = re.compile(r"(?i)([?&;][^=&;#]*(?:pass|secret|token|key|auth|sig)[^=&;#]*=)[^&;#]*")
_NAME = re.compile(r"[\w.%-]+")


def _is_name(scheme: str, userinfo: str) -> bool:
    """Whether what stands alone before the `@` is a user rather than a token, as it is with a database."""
    return scheme in ("postgresql", "postgres") and bool(_NAME.fullmatch(userinfo))


def redact_url(url: str) -> str:
    """`url` without its userinfo's password and without query values that are named like secrets.

    Over-cautious on purpose: a password may hold `@`, `/` or `?` that should have been escaped, so everything up to
    the last `@` counts as userinfo.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    userinfo, at, address = rest.rpartition("@")
    if at and not _is_name(scheme, userinfo):
        user, colon, _ = userinfo.partition(":")
        is_named = bool(colon) and bool(_NAME.fullmatch(user))
        userinfo = f"{user}:***" if is_named else "***"
    address = _SECRET_PARAMETER.sub(r"\1***", address)
    return f"{scheme}://{userinfo}{at}{address}"


def secrets_in_url(url: str) -> Iterator[str]:
    """The password of `url` (its user too, when that is all the userinfo there is), as written and unescaped."""
    scheme, _, rest = url.partition("://")
    userinfo, at, _ = rest.rpartition("@")
    if at and not _is_name(scheme, userinfo):
        user, colon, password = userinfo.partition(":")
        yield from {password if colon else user, unquote(password if colon else user)}
    for match in _SECRET_PARAMETER.finditer(url):
        value = match.group(0)[len(match.group(1)) :]
        yield from {value, unquote(value)}


def secret_values(value: Any) -> Iterator[str]:
    """Every secret in one value of the settings: the whole of a SecretStr, the password in a URL."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        yield secret
        if match := _TELEGRAM_TOKEN.fullmatch(secret):
            yield match.group(1)
    elif isinstance(value, str) and "://" in value:
        yield from secrets_in_url(value)


def secrets_of(settings: Settings) -> set[str]:
    """Every secret of a configuration."""
    return {secret for _, value in tree.values(settings) for secret in secret_values(value) if secret}


def spellings(secret: str) -> set[str]:
    """The ways a secret may be written in text: plain, in a URL, inside JSON, inside a Python literal."""
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    }


def pattern_of(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """One pattern for all spellings of all `secrets` that are long enough; the longest is tried first."""
    found = {
        spelling for secret in secrets if len(secret) >= MIN_SECRET_LENGTH for spelling in spellings(secret)
    }
    return (
        re.compile("|".join(re.escape(text) for text in sorted(found, key=len, reverse=True)))
        if found
        else None
    )


def scrub(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret replaced by `[secret]`."""
    pattern = pattern_of(secrets)
    return pattern.sub(HIDDEN, text) if pattern else text
