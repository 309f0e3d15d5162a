"""Failures on demand and Telegram's flood limits: decides which call suffers what, and counts the impolite ones.

It decides only; cutting connections and answering is `server`'s part.
"""

from __future__ import annotations

import fnmatch
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .records import Refusal

FaultKind = Literal["429", "400", "403", "500", "502", "hang", "reset", "answer_lost", "slow", "garbage"]
DONE_BY_DEFAULT = frozenset({"answer_lost", "slow", "garbage"})


@dataclass
class Fault:
    id: int
    kind: FaultKind
    method: str
    remaining: int | None
    probability: float
    random: random.Random
    skip: int
    chat_id: int | None
    retry_after: int
    delay_s: float
    done: bool
    """Whether the call takes effect before it fails."""
    hits: int = 0

    def applies(self, method: str, chat_id: Any) -> bool:
        if self.remaining == 0 or not fnmatch.fnmatchcase(method.lower(), self.method.lower()):
            return False
        if self.chat_id is not None and chat_id != self.chat_id:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        return self.probability >= 1 or self.random.random() < self.probability


class FaultPlan:
    def __init__(self) -> None:
        self.faults: dict[int, Fault] = {}
        self._hits: dict[int, int] = {}
        self._next_id = 1

    def add(
        self,
        kind: FaultKind,
        method: str,
        *,
        count: int | None,
        probability: float,
        seed: int,
        skip: int,
        chat_id: int | None,
        retry_after: int,
        delay_s: float,
        done: bool | None,
    ) -> int:
        if retry_after < 1:
            raise ValueError("retry_after counts whole seconds from 1; clients take 0 for 'none given'")
        fault = Fault(
            id=self._next_id,
            kind=kind,
            method=method,
            remaining=count,
            probability=probability,
            random=random.Random(seed),
            skip=skip,
            chat_id=chat_id,
            retry_after=retry_after,
            delay_s=delay_s,
            done=kind in DONE_BY_DEFAULT if done is None else done,
        )
        self._next_id += 1
        self.faults[fault.id] = fault
        self._hits[fault.id] = 0
        return fault.id

    def clear(self, fault_id: int | None) -> None:
        if fault_id is None:
            self.faults.clear()
        else:
            self.faults.pop(fault_id, None)

    def hits(self, fault_id: int) -> int:
        return self._hits[fault_id]

    def pick(self, method: str, chat_id: Any) -> Fault | None:
        """The first fault, in order of adding, that strikes this call."""
        for fault in self.faults.values():
            if fault.applies(method, chat_id):
                self._hits[fault.id] += 1
                if fault.remaining is not None:
                    fault.remaining -= 1
                return fault
        return None


@dataclass(frozen=True)
class FloodReport:
    accepted: int
    refused: int
    """Answered 429, by limit or by an injected fault."""
    calls_inside_penalty: int
    """Calls made before a retry_after had passed: what earns a bot its ban."""
    longest_penalty_s: float


@dataclass
class FloodLimits:
    """Telegram's published limits (core.telegram.org/bots/faq): 30/s, 1/s per chat, 20/min per group."""

    enabled: bool = False
    bot_per_s: float = 30
    private_per_s: float = 1
    private_burst: int = 3
    group_per_window: int = 20
    group_window_s: float = 60
    extension_s: float = 1
    """By how much every call inside a penalty lengthens it."""
    clock: Callable[[], float] = time.monotonic
    accepted: int = 0
    refused: int = 0
    calls_inside_penalty: int = 0
    longest_penalty_s: float = 0
    _penalty_end: dict[int | None, float] = field(default_factory=dict)
    """By chat; None is the whole bot."""
    _sent: dict[int | None, deque[float]] = field(default_factory=dict)

    def limits(self, method: str) -> bool:
        """Sending and editing count. Chat actions, drafts and answers to buttons do not."""
        name = method.lower()
        return name.startswith(("send", "edit")) and name not in ("sendchataction", "sendmessagedraft")

    def admit(self, chat_id: Any, *, is_group: bool) -> bool:
        """Counts one call; True if it came inside a penalty.

        Raises: Refusal 429 if enabled and the call is inside a penalty or exceeds a limit.
        """
        now = self.clock()
        scopes = (None, chat_id if isinstance(chat_id, int) else 0)
        inside = [scope for scope in scopes if self._penalty_end.get(scope, 0) > now]
        if inside:
            self.calls_inside_penalty += 1
            if not self.enabled:
                return True
            for scope in inside:
                self._penalty_end[scope] += self.extension_s
            self._refuse(max(self._penalty_end[scope] for scope in inside) - now)
        if self.enabled:
            private_window = self.private_burst / self.private_per_s
            room = (
                (self.group_per_window, self.group_window_s)
                if is_group
                else (self.private_burst, private_window)
            )
            for scope, (most, window_s) in zip(scopes, ((self.bot_per_s, 1.0), room), strict=True):
                sent = self._sent.setdefault(scope, deque())
                while sent and sent[0] <= now - window_s:
                    sent.popleft()
                if len(sent) >= most:
                    retry_after = math.ceil(max(sent[0] + window_s - now, 0.001))
                    self.penalize(scope, retry_after)
                    self._refuse(retry_after)
            for scope in scopes:
                self._sent[scope].append(now)
        self.accepted += 1
        return False

    def penalize(self, scope: int | None, retry_after: int) -> None:
        """Opens a penalty, also after an injected 429."""
        self._penalty_end[scope] = max(self._penalty_end.get(scope, 0), self.clock() + retry_after)
        self.longest_penalty_s = max(self.longest_penalty_s, retry_after)

    def _refuse(self, left_s: float) -> None:
        self.refused += 1
        self.longest_penalty_s = max(self.longest_penalty_s, left_s)
        raise too_many_requests(max(1, math.ceil(left_s)))

    def report(self) -> FloodReport:
        return FloodReport(self.accepted, self.refused, self.calls_inside_penalty, self.longest_penalty_s)


def too_many_requests(retry_after: int) -> Refusal:
    description = f"Too Many Requests: retry after {retry_after}"
    return Refusal(429, description, retry_after=retry_after)
