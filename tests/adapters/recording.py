"""`RecordingIntake`: the daemon's side of the port, kept in memory, for tests that drive one adapter.

It behaves as the gateway does where an adapter can notice: duplicates are refused by (account, channel, message id),
watermarks are kept per channel, and what was delivered counts only once `deliver` has returned. It decides nothing
about policy and runs no turns.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adapters.base import IntakeClosed, KnownChannel, Receipt
from adapters.messages import ChannelKind, InboundMessage
from config.names import AccountId, ChannelId, PlatformMessageId


@dataclass
class RecordingIntake:
    """What an adapter handed in, in order. Switches make it refuse, fail or hold.

    `settled` stands for the daemon's word that everything for a message was sent; it is called after `deliver` has
    returned (see `adapters/settling.py`).
    """

    messages: list[InboundMessage] = field(default_factory=list)
    duplicates: list[InboundMessage] = field(default_factory=list)
    quarantined: list[tuple[AccountId, bytes, str]] = field(default_factory=list)
    moves: list[tuple[AccountId, ChannelId, ChannelId]] = field(default_factory=list)
    cursors: dict[tuple[AccountId, str], str] = field(default_factory=dict)
    channels: dict[tuple[AccountId, ChannelId], KnownChannel] = field(default_factory=dict)
    refusals: int = 0
    """Calls that were answered with IntakeClosed or an error."""
    receipt: Receipt = field(default_factory=lambda: Receipt("accepted"))
    """What `deliver` answers for a new message."""
    settled: Callable[[PlatformMessageId], None] | None = None

    def __post_init__(self) -> None:
        self._known: set[tuple[object, ...]] = set()
        self._closed: IntakeClosed | None = None
        self._failures: list[Exception] = []
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        self._changed = asyncio.Event()

    # switches

    def close(self, retry_after_s: float = 0.02) -> None:
        """Nothing can be stored from now on."""
        self._closed = IntakeClosed("closed by the test", retry_after_s)

    def open(self) -> None:
        self._closed = None

    def fail_next(self, *errors: Exception) -> None:
        """The next messages and quarantines raise these before anything is stored (default: one RuntimeError).

        Cursors are left alone: adapters write them when they like, and the failure would hit one of those by chance.
        """
        self._failures.extend(errors or (RuntimeError("the store stumbled"),))

    def hold(self) -> None:
        """Calls wait from now on, before anything is stored, until `release`."""
        self._open_gate.clear()

    def release(self) -> None:
        self._open_gate.set()

    def know_channel(
        self,
        account: AccountId,
        channel: ChannelId,
        kind: ChannelKind = "direct",
        watermark: str | None = None,
    ) -> None:
        """As if the bot had met this channel in an earlier life."""
        self.channels[account, channel] = KnownChannel(channel, kind, watermark)

    # what tests read

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    async def wait_for(self, count: int, timeout_s: float = 10) -> list[InboundMessage]:
        """The first `count` messages, as soon as there are so many."""
        await self.wait_until(lambda: len(self.messages) >= count, timeout_s)
        return self.messages[:count]

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        """Return once the condition holds; looked at after each call an adapter made.

        Raises: TimeoutError naming what had come in by then.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            came = f"{self.texts!r}, {len(self.quarantined)} quarantined, {self.refusals} refused"
            raise TimeoutError(f"waited {timeout_s} s; came in: {came}") from None

    # the port

    async def deliver(self, message: InboundMessage) -> Receipt:
        await self._admit()
        key = (message.account, message.channel, message.message_id, message.is_edit and message.sent_at_ms)
        if key in self._known:
            self.duplicates.append(message)
            self._changed.set()
            return Receipt("duplicate", "known id")
        self._known.add(key)
        self.messages.append(message)
        earlier = self.channels.get((message.account, message.channel))
        watermark = message.watermark or (earlier.watermark if earlier else None)
        self.know_channel(message.account, message.channel, message.channel_kind, watermark)
        self._changed.set()
        if self.settled is not None:
            asyncio.get_running_loop().call_soon(self.settled, message.message_id)
        return self.receipt

    async def quarantine(self, account: AccountId, raw: bytes, reason: str) -> None:
        await self._admit()
        self.quarantined.append((account, raw, reason))
        self._changed.set()

    async def move_channel(self, account: AccountId, old: ChannelId, new: ChannelId) -> None:
        await self._admit()
        self.moves.append((account, old, new))
        self._changed.set()

    async def cursor(self, account: AccountId, name: str) -> str | None:
        return self.cursors.get((account, name))

    async def set_cursor(self, account: AccountId, name: str, value: str) -> None:
        await self._admit(is_cursor=True)
        self.cursors[account, name] = value
        self._changed.set()

    async def known_channels(self, account: AccountId) -> Sequence[KnownChannel]:
        return [known for (owner, _), known in self.channels.items() if owner == account]

    async def _admit(self, *, is_cursor: bool = False) -> None:
        """Let a call in, or answer it with the refusal that the test asked for."""
        await self._open_gate.wait()
        error = self._failures.pop(0) if self._failures and not is_cursor else self._closed
        if error is not None:
            self.refusals += 1
            self._changed.set()
            raise error
