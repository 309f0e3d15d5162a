"""The SDK objects of one account, and what each of their failures means for a message.

Owns connection pools, time-outs, raw `getUpdates` and the translation of exceptions. Does not retry and does not know
what is being sent.
"""

import functools
import json
import logging
import re
import ssl
from typing import Any

import telegram
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Forbidden,
    InvalidToken,
    NetworkError,
    TelegramError,
)
from telegram.request import BaseRequest, HTTPXRequest

from adapters.errors import (
    DeliveryError,
    MessageGone,
    Moved,
    RateLimited,
    Rejected,
    Uncertain,
    Unreachable,
)
from config.names import AccountId, ChannelId, Json

PUBLIC_API_URL = "https://api.telegram.org"

NEVER_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL"}
)
"""httpx failures that come before a byte of the request went out. By name: PTB is about to change to httpx2, which
keeps the names."""

SILENT_429_S = 5.0
"""Wait after a 429 that does not say how long."""

# httpx logs each URL at INFO, and the token is part of it; PTB logs texts and the token at DEBUG. Neither may reach a log
# whatever level the operator chooses.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("telegram").setLevel(logging.INFO)


class FloodWait(TelegramError):
    """429. Not PTB's RetryAfter: reading that one's delay warns of a change to come."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many requests, wait {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class GarbledAnswer(TelegramError):
    """An answer that is no JSON: not the Bot API's own words."""

    def __init__(self, payload: bytes) -> None:
        super().__init__("the answer is not JSON")
        self.payload = payload


class Request(HTTPXRequest):
    """PTB's HTTP client that tells apart what the delivery semantics need told apart."""

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: telegram.request.RequestData | None = None,
        read_timeout: Any = BaseRequest.DEFAULT_NONE,
        write_timeout: Any = BaseRequest.DEFAULT_NONE,
        connect_timeout: Any = BaseRequest.DEFAULT_NONE,
        pool_timeout: Any = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        status, payload = await super().do_request(
            url, method, request_data, read_timeout, write_timeout, connect_timeout, pool_timeout
        )
        if status == 429:
            raise FloodWait(_retry_after_s(payload))
        return status, payload

    @staticmethod
    def parse_json_payload(payload: bytes) -> Any:
        """As PTB's, but it does not log the payload, and too deep a nesting is an answer like any other bad one."""
        try:
            return json.loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise GarbledAnswer(payload) from None


class Bot(telegram.Bot):
    """PTB's bot, asked for raw updates without its advice to ask for parsed ones."""

    async def raw_updates(
        self, *, offset: int | None, limit: int, timeout_s: int, allowed_updates: list[str]
    ) -> Json:
        """Whatever `getUpdates` gave, undecoded beyond JSON: PTB's own parser stops for good at a malformed update."""
        return await self.do_api_request(
            "getUpdates",
            api_kwargs={
                "offset": offset,
                "limit": limit,
                "timeout": timeout_s,
                "allowed_updates": allowed_updates,
            },
            read_timeout=timeout_s + 10,
        )

    async def raw_call(self, method: str, **parameters: object) -> Json:
        """What the Bot API answered to a method, undecoded beyond JSON.

        An answer tells of the message replied to as well, and PTB's parser refuses what Telegram has added since: a message
        that is out would then count as perhaps lost, and be sent again.
        """
        return await self.do_api_request(method, api_kwargs=parameters)

    @classmethod
    def _warn(cls, message: Any, category: type[Warning] = UserWarning, stacklevel: int = 0) -> None:
        if "do_api_request" not in str(message):
            super()._warn(message, category, stacklevel + 1)


def open_bot(token: str, api_url: str | None) -> tuple[Bot, tuple[Request, Request]]:
    """A bot and its two connection pools (polls, everything else), so that a held poll never keeps a reply waiting."""
    root = api_url or PUBLIC_API_URL
    verify = {"verify": _tls()}
    polls = Request(4, read_timeout=35, connect_timeout=10, pool_timeout=10, httpx_kwargs=verify)
    others = Request(
        64, read_timeout=20, write_timeout=10, connect_timeout=10, pool_timeout=5, httpx_kwargs=verify
    )
    bot = Bot(
        token,
        base_url=f"{root}/bot",
        base_file_url=f"{root}/file/bot",
        request=others,
        get_updates_request=polls,
    )
    return bot, (polls, others)


def meaning(error: Exception, account: AccountId, channel: ChannelId) -> DeliveryError:
    """The delivery error that an exception of a call stands for; chain it with `from`.

    What is not known to have stayed here counts as perhaps sent.
    """
    reason = plain_reason(error)
    if is_strangers_answer(error):
        return Uncertain(account, f"somebody other than Telegram answered: {reason}")
    match error:
        case FloodWait():
            return RateLimited(account, reason, error.retry_after_s)
        case ChatMigrated():
            return Moved(account, f"{channel} moved", ChannelId(str(error.new_chat_id)))
        case InvalidToken():
            # the operator can still mend this, and then the reply should go out
            return Unreachable(account, "the token is refused")
        case BadRequest() if says(
            error, "message to edit not found", "message can't be edited", "MESSAGE_ID_INVALID"
        ):
            return MessageGone(account, reason)
        case BadRequest() | Forbidden():
            return Rejected(account, reason)
        case NetworkError() if _is_never_sent(error):
            return Unreachable(account, reason)
    return Uncertain(account, reason)


def is_strangers_answer(error: Exception) -> bool:
    """Whether a refusal came without the Bot API's JSON: a proxy's or a login page's word, not Telegram's."""
    cause = error.__cause__
    if isinstance(cause, InvalidToken):  # PTB's words around the refusal of a raw call
        cause = cause.__cause__
    return isinstance(cause, GarbledAnswer)


def says(error: TelegramError, *phrases: str) -> bool:
    """Whether the refusal contains one of the phrases: the Bot API has no error codes finer than the HTTP status."""
    message = error.message.lower()
    return any(phrase.lower() in message for phrase in phrases)


def plain_reason(error: BaseException) -> str:
    """The error in words, without a token that some library may have put there."""
    text = f"{type(error).__name__}: {error}" if not isinstance(error, TelegramError) else error.message
    return re.sub(r"\b\d+:[A-Za-z0-9_-]{8,}", "<token>", text)[:300]


def _is_never_sent(error: NetworkError) -> bool:
    return any(cls.__name__ in NEVER_SENT for cls in type(error.__cause__).__mro__)


def _retry_after_s(payload: bytes) -> float:
    try:
        seconds = float(json.loads(payload)["parameters"]["retry_after"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return SILENT_429_S
    return seconds if 0 < seconds < 7 * 24 * 3600 else SILENT_429_S


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all accounts: loading the certificates takes tens of milliseconds and a megabyte."""
    import httpx

    return httpx.create_ssl_context()


__all__ = [
    "Bot",
    "FloodWait",
    "GarbledAnswer",
    "Request",
    "is_strangers_answer",
    "meaning",
    "open_bot",
    "plain_reason",
    "says",
]
