"""`Room`: a chat platform in the process, with the faults that real ones have.

Owns what people wrote and have not been heard yet, what the bot sent, what people see of it, and the fault switches.
It outlives the adapters connected to it, as a platform outlives a bot's restart: give the same room to the next one.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from adapters.errors import MessageGone, RateLimited, Rejected, Uncertain, Unreachable
from adapters.memory.wire import Arrival
from adapters.messages import Chunk, InboundMessage, Target
from config.names import AccountId, ChannelId, PlatformMessageId


@dataclass(frozen=True, slots=True)
class Sent:
    """One send call that reached the platform, whatever became of it."""

    target: Target
    chunk: Chunk
    key: str
    is_repeat: bool
    at_s: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A message of the bot as people see it now."""

    message_id: PlatformMessageId
    target: Target
    text: str
    edits: int = 0


class Room:
    def __init__(
        self, account: AccountId, *, is_idempotent: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self.account = account
        self.is_idempotent = is_idempotent
        self.sent: list[Sent] = []
        self.typing_targets: list[Target] = []
        self._clock = clock
        self._waiting: list[Arrival] = []
        self._arrivals = 0
        self._shown: dict[PlatformMessageId, Shown] = {}
        self._by_channel: dict[ChannelId, list[PlatformMessageId]] = {}
        self._by_key: dict[str, PlatformMessageId] = {}
        self._faults: list[Callable[[], None]] = []
        self._answers_lost = 0
        self._is_down = False
        self._changed = asyncio.Event()

    # people

    def post(self, content: InboundMessage | bytes) -> int:
        """Somebody writes. The message waits here until an adapter has heard it; returns its number."""
        self._arrivals += 1
        self._waiting.append(Arrival(self._arrivals, content))
        self._note_change()
        return self._arrivals

    @property
    def posted(self) -> int:
        """How many messages people have written so far."""
        return self._arrivals

    @property
    def unheard(self) -> int:
        """Messages no adapter has acknowledged."""
        return len(self._waiting)

    def shown(self, channel: ChannelId | None = None) -> list[Shown]:
        """What people see from the bot, in order, edits applied."""
        if channel is None:
            return list(self._shown.values())
        return [self._shown[message_id] for message_id in self._by_channel.get(channel, ())]

    def delete(self, message_id: PlatformMessageId) -> None:
        """Somebody deletes a message of the bot."""
        self._by_channel[self._shown.pop(message_id).target.channel].remove(message_id)
        self._note_change()

    async def changed(self) -> None:
        """Return after the next change of anything."""
        await self._changed.wait()

    # faults

    def lose_next_answer(self) -> None:
        """The next send is done, but the adapter never learns of it."""
        self._answers_lost += 1

    def rate_limit_next(self, retry_after_s: float) -> None:
        def fault() -> None:
            raise RateLimited(self.account, "asked to wait", retry_after_s)

        self._faults.append(fault)

    def refuse_next(self, reason: str = "refused") -> None:
        def fault() -> None:
            raise Rejected(self.account, reason)

        self._faults.append(fault)

    def outage(self, on: bool) -> None:
        """While on, nothing goes in or out; what people write waits."""
        self._is_down = on
        self._note_change()

    # the wire

    async def inbound(self, after: int, wait_s: float) -> Sequence[Arrival]:
        self._waiting = [arrival for arrival in self._waiting if arrival.number > after]
        try:
            async with asyncio.timeout(wait_s):
                while not self._waiting and not self._is_down:
                    await self._changed.wait()
        except TimeoutError:
            pass
        self._check_reachable()
        return tuple(self._waiting)

    async def send(self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool) -> PlatformMessageId:
        self._check_reachable()
        self.sent.append(Sent(target, chunk, key, is_repeat, self._clock()))
        if self._faults:
            self._faults.pop(0)()
        message_id = self._by_key.get(key) if self.is_idempotent else None
        if message_id is None:
            message_id = PlatformMessageId(f"bot-{len(self.sent)}")
            self._by_key[key] = message_id
            self._shown[message_id] = Shown(message_id, target, chunk.text)
            self._by_channel.setdefault(target.channel, []).append(message_id)
        self._note_change()
        if self._answers_lost:
            self._answers_lost -= 1
            raise Uncertain(self.account, "the answer was lost")
        return message_id

    async def edit(
        self,
        target: Target,
        message_id: PlatformMessageId,
        chunk: Chunk,
    ) -> None:
        self._check_reachable()
        shown = self._shown.get(message_id)
        if shown is None:
            raise MessageGone(self.account, "no such message")
        if shown.text != chunk.text:
            self._shown[message_id] = replace(shown, text=chunk.text, edits=shown.edits + 1)
            self._note_change()

    async def typing(self, target: Target) -> None:
        self._check_reachable()
        self.typing_targets.append(target)
        self._note_change()

    async def close(self) -> None:
        """Nothing to let go of: the room stays."""

    def _check_reachable(self) -> None:
        if self._is_down:
            raise Unreachable(self.account, "the platform is down")

    def _note_change(self) -> None:
        """Wake everybody who waits; each wait is for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()
