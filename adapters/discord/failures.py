"""What an error of the library means for a send or an edit: certainly not sent, perhaps sent, never possible.

Owns the translation into `adapters/errors.py`. Decides by class, status and Discord's error code, never by a text.
"""

from typing import Literal

import aiohttp
import discord

from adapters.discord.rest import BANNED_FOR_S, GloballyRateLimited, retry_after_s
from adapters.errors import DeliveryError, MessageGone, RateLimited, Rejected, Uncertain, Unreachable
from config.names import AccountId

UNKNOWN_MESSAGE = 10008


class NotConnected(Exception):
    """Nobody is logged in just now, so nothing was sent."""


def translate(error: Exception, account: AccountId) -> DeliveryError:
    """The delivery error that `error` stands for; to be raised `from` it."""
    match error:
        case DeliveryError():
            return error
        case NotConnected():
            return Unreachable(account, "not logged in to Discord")
        case discord.RateLimited():
            scope: Literal["account", "channel"] = (
                "account" if isinstance(error, GloballyRateLimited) else "channel"
            )
            return RateLimited(account, "rate limited", error.retry_after, scope=scope)
        case discord.HTTPException():
            return from_status(account, error.status, error.code, error.text, retry_after_s(error))
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Unreachable(account, f"no connection: {error!r}")
        case _:
            # reset, timeout, an answer nobody can read: the request may have been carried out
            return Uncertain(account, f"no usable answer: {error!r}")


def from_status(
    account: AccountId, status: int, code: int, text: str, wait_s: float = BANNED_FOR_S
) -> DeliveryError:
    """The error for an HTTP status with Discord's own code."""
    said = f"{status} {code} {text:.200}".strip()
    if status == 429:
        return RateLimited(account, said, wait_s, scope="account")
    if status == 401:
        return Unreachable(account, said)
    if code == UNKNOWN_MESSAGE:
        return MessageGone(account, said)
    return Uncertain(account, said) if status >= 500 else Rejected(account, said)
