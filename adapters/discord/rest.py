"""discord.py's REST client, for one account: its own address, its own patience with rate limits.

Owns where a request goes and how long it may wait. The library knows only one address for all (`Route.BASE`), and waits
out rate limits inside the call, up to half a minute.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import discord
from discord.http import HTTPClient, Route

PATIENCE_S = 1.0
"""Longest wait for a rate limit inside a request."""

BANNED_FOR_S = 60.0
"""Wait after a 429 that names no time: it came from the proxy in front of Discord, not from Discord."""

EVERYTHING = ""
"""Stands for all routes among those held back."""


class GloballyRateLimited(discord.RateLimited):
    """Every request of this account has to wait, not only those of one channel."""


@dataclass(slots=True)
class Seen:
    """What one request's answers said beside what the library tells."""

    is_global: bool = False


async def _look_at_answer(_session: Any, context: Any, ended: aiohttp.TraceRequestEndParams) -> None:
    seen = context.trace_request_ctx
    if isinstance(seen, Seen):
        seen.is_global = "X-RateLimit-Global" in ended.response.headers


class AccountHttp(HTTPClient):
    """The library's REST client for one account's own root.

    The library waits out a rate limit inside the call, up to half a minute. Here a wait longer than `PATIENCE_S` is
    raised as `discord.RateLimited`, so that whoever sends can do something else meanwhile, and until it is over no
    further request of that kind goes out.
    """

    def __init__(self, *, api_url: str, request_timeout_s: float) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_look_at_answer)
        super().__init__(asyncio.get_running_loop(), http_trace=trace)
        # decides only what becomes of a 429; set here because the constructor takes nothing below 30 s
        self.max_ratelimit_timeout = PATIENCE_S
        self._api_url = api_url
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_s)
        self._held_until: dict[str, float] = {}

    def get_ratelimit(self, key: str) -> Any:
        # a bucket with a limit on its waiting forgets what it knows when that is exceeded: ours have none
        limit, self.max_ratelimit_timeout = self.max_ratelimit_timeout, None
        try:
            return super().get_ratelimit(key)
        finally:
            self.max_ratelimit_timeout = limit

    async def request(self, route: Route, **arguments: Any) -> Any:
        if route.url.startswith(Route.BASE):
            route.url = self._api_url + route.url[len(Route.BASE) :]
        kind = f"{route.key}:{route.major_parameters}"
        await self._wait(route, kind)
        seen = Seen()
        # the timeout is per try; the library's own is five minutes
        arguments.setdefault("timeout", self._timeout)
        arguments["trace_request_ctx"] = seen
        try:
            return await super().request(route, **arguments)
        except discord.RateLimited as limited:
            self._hold(EVERYTHING if seen.is_global else kind, limited.retry_after)
            if seen.is_global:
                raise GloballyRateLimited(limited.retry_after) from limited
            raise
        except discord.HTTPException as error:
            if error.status == 429:
                # refused by the proxy in front of Discord, for every route
                self._hold(EVERYTHING, retry_after_s(error))
            raise

    def _hold(self, kind: str, wait_s: float) -> None:
        now = time.monotonic()
        self._held_until = {one: until for one, until in self._held_until.items() if until > now}
        self._held_until[kind] = now + wait_s

    async def _wait(self, route: Route, kind: str) -> None:
        now = time.monotonic()
        for held, error in ((EVERYTHING, GloballyRateLimited), (kind, discord.RateLimited)):
            wait_s = self._held_until.get(held, 0.0) - now
            if wait_s > PATIENCE_S:
                raise error(wait_s)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
        known = self._bucket_hashes.get(route.key, route.key)
        bucket = self._buckets.get(f"{known}:{route.major_parameters}")
        if bucket is not None and bucket.remaining <= 0 and bucket.expires is not None:
            wait_s = bucket.expires - asyncio.get_running_loop().time()
            if wait_s > PATIENCE_S:
                raise discord.RateLimited(wait_s)


def retry_after_s(error: discord.HTTPException) -> float:
    """How long to wait after a 429 that the library does not explain."""
    try:
        return float(error.response.headers.get("Retry-After", BANNED_FOR_S))
    except ValueError:
        return BANNED_FOR_S
