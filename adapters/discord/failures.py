"""What an error of the library means for a send or an edit: certainly not sent, perhaps sent, never possible.

Owns the translation into `adapters/errors.py`, and the words that operators read of an error. Decides by class, status and
Discord's error code, never by a text.
"""

from typing import Literal

import aiohttp
import discord

from adapters.discord.rest import BANNED_FOR_S, GloballyRateLimited, retry_after_s
from adapters.errors import DeliveryError, MessageGone, RateLimited, Rejected, Uncertain, Unreachable
from config.names import AccountId

UNKNOWN_MESSAGE = 10008

HINTS = {
    10003: "the channel was deleted",
    50001: "the bot cannot see this channel; give it View Channel there",
    50007: "this person takes no direct messages from the bot",
    50013: "give the bot Send Messages there, and for threads Send Messages in Threads",
    50083: "the thread is locked; unlock it, or write in another",
}
"""What to do about a refusal. Source: Discord reference, JSON Error Codes."""

LONGEST_REASON = 200


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
    said = _answer(status, code, text)
    if status == 429:
        return RateLimited(account, said, wait_s, scope="account")
    if status == 401:
        return Unreachable(account, said)
    if code == UNKNOWN_MESSAGE:
        return MessageGone(account, said)
    return Uncertain(account, said) if status >= 500 else Rejected(account, said)


def is_silence(error: BaseException) -> bool:
    """Discord was not reached or did not answer, which from another place may be different."""
    is_answer = isinstance(error, aiohttp.ClientResponseError)  # a refused handshake is one of them
    return isinstance(error, OSError | aiohttp.ClientError) and not is_answer


def in_words(error: BaseException) -> str:
    """An error as an operator can read it: no representation of requests, no page of a proxy."""
    match error:
        case discord.HTTPException():
            return f"Discord answered {_answer(error.status, error.code, error.text)}"
        case aiohttp.WSServerHandshakeError():
            return f"the gateway answered {error.status}"
        case aiohttp.ClientConnectorError():
            return f"no connection to {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
        case TimeoutError():
            return "no answer in time"
        case discord.RateLimited():
            return f"rate limited for {error.retry_after:.0f} s"
        case _:
            return repr(error)[:LONGEST_REASON]


def _answer(status: int, code: int, text: str) -> str:
    """An answer's status, Discord's own code and words, and what to do. What is no word of Discord's (a page) is left out."""
    words = "" if text.lstrip().startswith("<") else " ".join(text.split())[:LONGEST_REASON]
    facts = " ".join(part for part in (str(status), str(code) if code else "", words) if part)
    return f"{facts}: {HINTS[code]}" if code in HINTS else facts
