"""The requests on a slash command's answer: show "is thinking…", look at it, fill it, edit it, take it away.

Owns the wire and its errors; when to do what is `interactions`' and `sending`'s. These requests need no login, only the
interaction's own token, so they work after a restart; they go to the account's own API root. A token is never logged.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from adapters.discord.failures import from_status
from adapters.errors import Uncertain, Unreachable
from config.names import AccountId, Json

DEFERRED = 5
"""Callback type: answer later, show "is thinking…" meanwhile. Source: Discord reference, Interaction Callback Type."""

EPHEMERAL = 1 << 6
"""Flag of a message that only who used the command sees. Source: Discord reference, Message Flags."""

LOADING = 1 << 7
"""Flag of the message that stands for an answer not given yet."""

SPENT_CODES = frozenset({10008, 10015, 10062, 50027})
"""Unknown message, unknown webhook, unknown interaction, invalid webhook token: nothing can be done with it any more."""

ALREADY_ACKNOWLEDGED = 40060


class TokenSpent(Exception):
    """The interaction's token can no longer be used for this: too old, never answered, or its message was deleted."""


@dataclass(frozen=True, slots=True)
class Handle:
    """What is needed to answer one interaction; kept in the message's `reply_handle`."""

    application_id: str
    token: str
    interaction_id: str
    expires_at_ms: int

    @classmethod
    def read(cls, stored: Mapping[str, Json] | None) -> "Handle | None":
        """None if there is none or it is not ours."""
        try:
            return (
                None
                if stored is None
                else cls(
                    str(int(stored["application_id"])),
                    str(stored["token"]),
                    str(int(stored["interaction_id"])),
                    int(stored["expires_at_ms"]),
                )
            )
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def is_expired(self) -> bool:
        # a little early, so that a request under way does not lose the race
        return time.time() * 1000 > self.expires_at_ms - 5000


class Answers:
    """The requests on an interaction's answer.

    Raises (all of them): TokenSpent, or a `DeliveryError`.
    """

    def __init__(self, account: AccountId, api_url: str, *, request_timeout_s: float) -> None:
        self._account = account
        self._api_url = api_url
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def defer(self, handle: Handle, *, is_private: bool = False) -> None:
        """Show "is thinking…"; what fills it later is seen by whoever sees this."""
        path = f"/interactions/{handle.interaction_id}/{handle.token}/callback"
        private: dict[str, Json] = {"data": {"flags": EPHEMERAL}} if is_private else {}
        await self._request("POST", path, {"type": DEFERRED} | private)

    async def look(self, handle: Handle) -> dict[str, Any]:
        """The answer's message as it stands."""
        return await self._request("GET", self._path(handle, "@original"))

    async def write(self, handle: Handle, message_id: str, text: str, components: Sequence[Json] = ()) -> str:
        """Put `text` into the answer (or another message of this interaction); gives the message's real id."""
        body = _body(text, components)
        return str((await self._request("PATCH", self._path(handle, message_id), body))["id"])

    async def follow_up(
        self, handle: Handle, text: str, components: Sequence[Json] = (), *, is_private: bool = False
    ) -> str:
        """A further message; takes no nonce, so it is the last resort, and the only way to one that others do not see."""
        body = _body(text, components) | ({"flags": EPHEMERAL} if is_private else {})
        return str(
            (await self._request("POST", f"/webhooks/{handle.application_id}/{handle.token}", body))["id"]
        )

    async def remove(self, handle: Handle) -> None:
        await self._request("DELETE", self._path(handle, "@original"))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _path(self, handle: Handle, message_id: str) -> str:
        return f"/webhooks/{handle.application_id}/{handle.token}/messages/{message_id}"

    async def _request(self, method: str, path: str, body: Json = None) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.request(method, self._api_url + path, json=body) as response:
                if response.status == 204:
                    return {}
                text = await response.text(errors="replace")
                answer: Any = None
                with suppress(ValueError):
                    answer = await response.json(content_type=None)
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(self._account, f"no connection: {error.os_error!r}") from error
        except (aiohttp.ClientError, OSError) as error:
            # the exception's own text may hold the address, and with it the token
            raise Uncertain(self._account, f"no usable answer: {type(error).__name__}") from None
        facts = answer if isinstance(answer, dict) else {}
        if response.status < 300:
            if "id" not in facts and not path.endswith("/callback"):
                raise Uncertain(self._account, "no usable answer: not JSON")
            return facts
        code = facts.get("code")
        code = code if isinstance(code, int) else 0
        if code == ALREADY_ACKNOWLEDGED:
            return {}
        if code in SPENT_CODES or response.status in (401, 404):
            raise TokenSpent(f"{response.status} {code}")
        retry_after_s = facts.get("retry_after")
        wait_s = float(retry_after_s) if isinstance(retry_after_s, int | float) else 60.0
        raise from_status(self._account, response.status, code, text, wait_s)


def _body(text: str, components: Sequence[Json]) -> dict[str, Json]:
    body: dict[str, Json] = {"content": text, "allowed_mentions": {"parse": []}}
    return body | {"components": list(components)} if components else body
