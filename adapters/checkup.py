"""One short question to a platform: what the adapters' `checkup` modules share.

Owns the request and its failures. Which address is asked and what the answer means is each platform's. Nothing here
consumes what waits for a bot.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from adapters.errors import Unreachable
from config.names import AccountId

TIMEOUT_S: Final = 5.0

# It logs each URL at INFO, and Telegram's have the token in them.
logging.getLogger("httpx2").setLevel(logging.WARNING)


async def get_json(
    account: AccountId,
    url: str,
    *,
    secret: str,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> tuple[int, Any]:
    """The status and the JSON of an answer; `secret` is kept out of what an error says.

    Raises: Unreachable for no answer in time, or one that is not JSON.
    """
    try:
        async with httpx2.AsyncClient(
            timeout=timeout_s,
            headers=headers,
            # A server on this machine is never behind the proxy that HTTP_PROXY names.
            mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
        ) as client:
            response = await client.get(url)
            return response.status_code, response.json()
    except ValueError as error:
        raise Unreachable(
            account, "who answers there does not speak JSON: a proxy or a login page?"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise Unreachable(account, reason.replace(secret, "<token>")) from None
