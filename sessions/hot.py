"""Hot sessions: the ends of the conversations that are going on, in memory, so that a turn need not read them again.

Owns the cache and its bound in bytes. It is filled only with what was committed, and nothing in it is believed: a claim takes an
end only if the session's revision, read in the same transaction, is the one it was kept with, and reads what was added
since. So another process, a failed commit or an erased message cannot make it stale.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Final

from config.names import Json, SessionId
from sessions.models import Claim, Message, Summary

_PER_RECORD: Final = 400
"""Bytes of a record besides its text."""
_PER_SESSION: Final = 400


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a conversation, up to and with the turn at `position`."""

    revision: int
    position: int
    asked: int
    """How many messages were asked for: a tail that has fewer begins where the conversation does."""
    since: int
    """It has only what came after this position."""
    messages: Sequence[Message]
    summaries: Sequence[Summary] = ()
    """In force as far as `since`."""


def tail_after(claim: Claim, answer: str | None, metadata: Mapping[str, Json], now: int, asked: int) -> Tail:
    """The end of the conversation once this turn has ended with this answer."""
    messages = tuple(claim.messages)
    if answer is not None:
        messages += (
            Message(
                claim.session_id,
                claim.position,
                1,
                "assistant",
                answer,
                None,
                now,
                claim.turn_id,
                (),
                metadata,
            ),
        )
    return Tail(
        claim.window.revision,
        claim.position,
        asked,
        claim.window.summarised_to,
        messages[-asked:],
        claim.summaries,
    )


class HotSessions:
    """A cache for one daemon. Read in the store's threads, filled in the loop's."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tails: OrderedDict[SessionId, tuple[Tail, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    @property
    def bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._tails)

    @property
    def hit_rate(self) -> float:
        """Share of claims that found an end worth believing; 0 before the first."""
        looked = self.hits + self.misses
        return self.hits / looked if looked else 0.0

    def tail(self, session_id: SessionId) -> Tail | None:
        """What is kept of a session. Changes nothing: work in a transaction may run twice."""
        found = self._tails.get(session_id)
        return found[0] if found is not None else None

    def keep(self, session_id: SessionId, tail: Tail) -> None:
        """Keep an end that was committed; the ones not used for longest make room."""
        texts = [message.content for message in tail.messages] + [one.content for one in tail.summaries]
        size = _PER_SESSION + _PER_RECORD * len(texts) + sum(map(getsizeof, texts))
        if not self._max_bytes:
            return
        with self._lock:
            self._drop(session_id)
            if size > self._max_bytes // 4:
                return  # one giant must not push out everybody
            self._tails[session_id] = (tail, size)
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._tails)))

    def count(self, claim: Claim) -> None:
        """Note whether a claim that is carried out was helped."""
        if claim.is_from_memory:
            self.hits += 1
        else:
            self.misses += 1

    def forget(self, session_id: SessionId) -> None:
        with self._lock:
            self._drop(session_id)

    def _drop(self, session_id: SessionId) -> None:
        found = self._tails.pop(session_id, None)
        if found is not None:
            self._bytes -= found[1]
