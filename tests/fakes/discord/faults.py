"""Faults and rate limits of the fake's REST side: which request meets which, and who called inside a penalty window.

Decides only; carrying a fault out (waiting, resetting the connection, answering) is ``rest``'s work. A route is written
``"METHOD /path"`` with ``*`` wildcards and is matched against the template (``POST /channels/{channel_id}/messages``) and
against the path as called (``POST /channels/123/messages``).
"""

import math
import random
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Literal, get_args

from tests.fakes.discord.clock import Clock

FaultKind = Literal[
    "status",  # refused with ``status`` (500, 502, 503, 504 …) and a proxy's text page; nothing done
    "rate_limit",  # 429 of this bucket
    "global_rate_limit",  # 429 for every route of the bot
    "cloudflare",  # 429 without Via, as text/html: a ban before Discord is reached
    "hang",  # no answer until the client gives up; nothing done
    "reset",  # connection reset before the request is handled
    "lost_answer",  # handled, then the connection is reset instead of the answer
    "late_answer",  # handled at once, answered after ``delay_s``
    "slow",  # handled after ``delay_s``
    "garbage",  # 200 with a proxy's HTML page; nothing done
    "garbled_answer",  # handled, then 200 with cut-off JSON
]
FAULT_KINDS: frozenset[str] = frozenset(get_args(FaultKind))


@dataclass
class Fault:
    """One rule; ``left`` counts down (None: for ever), ``hits`` counts up."""

    route: str
    kind: FaultKind
    left: int | None
    probability: float
    status: int
    delay_s: float
    retry_after_s: float
    hits: int = 0


@dataclass(frozen=True)
class Limit:
    route: str
    requests: int
    per_s: float
    bucket: str


@dataclass
class Window:
    used: int = 0
    ends_at_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What the limits say of one request: headers for its answer, and how long to wait if it is refused."""

    headers: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    is_global: bool = False
    in_penalty: bool = False


def matches(pattern: str, method: str, template: str, path: str) -> bool:
    return fnmatchcase(f"{method} {template}", pattern) or fnmatchcase(f"{method} {path}", pattern)


class Faults:
    """Rules for failures on demand; the first that matches and wins its draw is used."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.rules: list[Fault] = []

    def add(
        self,
        route: str,
        kind: FaultKind,
        *,
        count: int | None,
        probability: float,
        status: int,
        delay_s: float,
        retry_after_s: float,
    ) -> Fault:
        if kind not in FAULT_KINDS:
            raise ValueError(f"unknown fault {kind!r}; one of {sorted(FAULT_KINDS)}")
        if " " not in route:
            raise ValueError(f"route {route!r} must be 'METHOD /path', with * as a wildcard")
        if not 0 < probability <= 1:
            raise ValueError(f"probability must be above 0 and at most 1, not {probability!r}")
        fault = Fault(route, kind, count, probability, status, delay_s, retry_after_s)
        self.rules.append(fault)
        return fault

    def draw(self, method: str, template: str, path: str) -> Fault | None:
        for fault in self.rules:
            if fault.left == 0 or not matches(fault.route, method, template, path):
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            if fault.left is not None:
                fault.left -= 1
            fault.hits += 1
            return fault
        return None

    def clear(self) -> None:
        self.rules.clear()


class RateLimits:
    """Fixed windows per bucket and major parameter, a global window, and the penalties that 429 answers impose."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits: list[Limit] = []
        self._global: Limit | None = None
        self._windows: dict[str, Window] = {}
        self._penalties: dict[str, float] = {}
        self.violations = 0

    def limit(self, route: str, requests: int, per_s: float) -> None:
        if requests < 1 or per_s <= 0:
            raise ValueError(
                f"a limit needs at least 1 request and a time above 0, not {requests!r} per {per_s!r} s"
            )
        if route == "*":
            self._global = Limit(route, requests, per_s, "global")
            return
        self._limits = [known for known in self._limits if known.route != route]
        self._limits.append(Limit(route, requests, per_s, sha256(route.encode()).hexdigest()[:32]))

    def clear(self) -> None:
        self._limits.clear()
        self._global = None
        self._windows.clear()
        self._penalties.clear()

    def penalise(
        self, method: str, template: str, major: str, retry_after_s: float, *, everywhere: bool
    ) -> None:
        """From now on every request on this route (or any) is refused, and counted, until the time is over."""
        key = "global" if everywhere else f"{method} {template} {major}"
        self._penalties[key] = self._clock.now_s() + retry_after_s

    def judge(self, method: str, template: str, path: str, major: str) -> Verdict:
        now_s = self._clock.now_s()
        for key, is_global in ((f"{method} {template} {major}", False), ("global", True)):
            ends_at_s = self._penalties.get(key, 0.0)
            if ends_at_s > now_s:
                self.violations += 1
                return Verdict(retry_after_s=ends_at_s - now_s, is_global=is_global, in_penalty=True)
        limit = next((known for known in self._limits if matches(known.route, method, template, path)), None)
        headers: dict[str, str] = {}
        if self._global is not None:
            window = self._open("global", self._global, now_s)
            if window.used >= self._global.requests:
                self._penalties["global"] = window.ends_at_s
                return Verdict(retry_after_s=window.ends_at_s - now_s, is_global=True)
            window.used += 1
        if limit is not None:
            window = self._open(f"{limit.bucket} {major}", limit, now_s)
            refused = window.used >= limit.requests
            window.used = min(window.used + 1, limit.requests)
            headers = {
                "X-RateLimit-Limit": str(limit.requests),
                "X-RateLimit-Remaining": str(limit.requests - window.used),
                "X-RateLimit-Reset": f"{window.ends_at_s:.3f}",
                "X-RateLimit-Reset-After": f"{math.ceil((window.ends_at_s - now_s) * 1000) / 1000:.3f}",
                "X-RateLimit-Bucket": limit.bucket,
            }
            if refused:
                self._penalties[f"{method} {template} {major}"] = window.ends_at_s
                return Verdict(headers=headers, retry_after_s=window.ends_at_s - now_s)
        return Verdict(headers=headers)

    def _open(self, key: str, limit: Limit, now_s: float) -> Window:
        window = self._windows.setdefault(key, Window())
        if now_s >= window.ends_at_s:
            window.used = 0
            window.ends_at_s = now_s + limit.per_s
        return window
