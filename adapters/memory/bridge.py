"""`Bridge`: the memory adapter's wire to a program of yours, over HTTP. The smallest way to bring a platform to Palaver.

The program at `api_url` serves:

    GET  /inbound?after=N&wait=S   {"messages": [{"number": 7, "message": {…}}, …]}
         Everything numbered above N, waiting up to S seconds for the first. `after` also acknowledges: what is
         numbered N or less is stored here and need not be kept. A restarted Palaver begins with 0, which means
         everything not acknowledged yet. `message` has the fields of `InboundMessage` without `account`.
    POST /sent     {"key", "text", "markup", "is_repeat", "target": {…}}  ->  {"message_id": "…"}
         Show a message, once per key however often it comes.
    POST /edited   {"message_id", "text", "markup", "target"}             410 when that message is gone
    POST /typing   {"target"}

Answers: 2xx done · 429 with Retry-After: not done, later · 401, 503: not done, try again · 410, other 4xx: never ·
other 5xx, or no answer: perhaps done. With a token, requests carry `Authorization: Bearer …`.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import NoReturn

import httpx2

from adapters.errors import MessageGone, RateLimited, Rejected, StartError, Uncertain, Unreachable
from adapters.memory.wire import Arrival
from adapters.messages import Chunk, Target
from config.names import AccountId, Json, PlatformMessageId

ANSWER_TIMEOUT_S = 10.0
LEAST_EMPTY_POLL_S = 0.5
"""An empty answer that comes sooner is waited out, so that a program which does not wait is not hammered."""
DEFAULT_RETRY_AFTER_S = 1.0


class Bridge:
    def __init__(
        self,
        account: AccountId,
        api_url: str,
        token: str | None = None,
        *,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self.account = account
        self._client = httpx2.AsyncClient(
            base_url=api_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx2.Timeout(answer_timeout_s),
        )
        self._answer_timeout_s = answer_timeout_s

    async def inbound(self, after: int, wait_s: float) -> Sequence[Arrival]:
        began = time.monotonic()
        timeout = httpx2.Timeout(self._answer_timeout_s, read=wait_s + self._answer_timeout_s)
        try:
            response = await self._client.get(
                "/inbound", params={"after": after, "wait": wait_s}, timeout=timeout
            )
        except httpx2.RequestError as error:
            raise Unreachable(self.account, type(error).__name__) from error
        if response.status_code in (401, 403):
            raise StartError(
                self.account, f"refused ({response.status_code})", "Check the account's token and api_url."
            )
        if not response.is_success:
            raise Unreachable(self.account, f"answered {response.status_code}")
        arrivals = self._parse_arrivals(response.content, after)
        if not arrivals:
            await asyncio.sleep(max(0.0, min(wait_s, LEAST_EMPTY_POLL_S) - (time.monotonic() - began)))
        return arrivals

    async def send(self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool) -> PlatformMessageId:
        body = {"key": key, "text": chunk.text, "markup": chunk.markup, "is_repeat": is_repeat}
        answer = await self._post("/sent", body, target)
        message_id = answer.get("message_id") if isinstance(answer, dict) else None
        if not isinstance(message_id, str) or not message_id:
            raise Uncertain(self.account, "the answer has no message_id")
        return PlatformMessageId(message_id)

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        await self._post(
            "/edited", {"message_id": message_id, "text": chunk.text, "markup": chunk.markup}, target
        )

    async def typing(self, target: Target) -> None:
        await self._post("/typing", {}, target)

    async def close(self) -> None:
        await self._client.aclose()

    def _parse_arrivals(self, body: bytes, after: int) -> list[Arrival]:
        """Items that have a number; what is inside them is looked at one by one, so that one bad one stops nobody."""
        try:
            items = json.loads(body)["messages"]
            numbered = [(int(item["number"]), json.dumps(item.get("message")).encode()) for item in items]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Unreachable(self.account, "the answer is not a list of numbered messages") from error
        return [Arrival(number, raw) for number, raw in sorted(numbered) if number > after]

    async def _post(self, path: str, body: dict[str, Json], target: Target) -> Json:
        """The answer to a call that changes something; whatever went wrong is raised as what it means for sending."""
        body["target"] = asdict(target) | {
            "reply_handle": None if target.reply_handle is None else dict(target.reply_handle)
        }
        try:
            response = await self._client.post(
                path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            raise Unreachable(self.account, type(error).__name__) from error
        except httpx2.RequestError as error:
            raise Uncertain(self.account, type(error).__name__) from error
        if not response.is_success:
            self._raise_for(response)
        try:
            return json.loads(response.content or b"null")
        except ValueError as error:
            raise Uncertain(self.account, "the answer is not JSON") from error

    def _raise_for(self, response: httpx2.Response) -> NoReturn:
        status = response.status_code
        reason = f"answered {status}"
        if status == 429:
            raise RateLimited(self.account, reason, _retry_after_s(response))
        if status in (401, 503):
            raise Unreachable(self.account, reason)
        if status == 410:
            raise MessageGone(self.account, reason)
        if status >= 500:
            raise Uncertain(self.account, reason)
        raise Rejected(self.account, reason)


def _retry_after_s(response: httpx2.Response) -> float:
    """Seconds from the Retry-After header; a date or nonsense counts as the default."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", DEFAULT_RETRY_AFTER_S)))
    except ValueError:
        return DEFAULT_RETRY_AFTER_S
