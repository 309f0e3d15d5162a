"""The growing answer on a person's screen, and the typing indicator before it.

Owns one turn's preview: a message that is sent once the answer takes a while and then edited gently. It is never the
truth: the last edit, made by `bot/delivery.py` from the outbox, is the whole, well-formed text. A preview that fails is
simply left out.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import orjson
import structlog

from adapters.base import Adapter
from adapters.errors import DeliveryError, RateLimited, Uncertain
from adapters.messages import Chunk, Target
from bot.governor import Governor
from config.names import ChannelId, PlatformMessageId
from sessions import outbox
from sessions.database.base import Database, Transaction
from sessions.errors import StoreError
from sessions.leases import Lease
from sessions.models import Address, Claim

T = TypeVar("T")
log = structlog.get_logger()

_STOP_GRACE_S = (
    10.0  # a send under way is waited for: not knowing its outcome would mean sending the answer twice
)
_TRY_AGAIN_S = 0.3  # after a moment in which nothing could be shown
_TYPING_AFTER_S = 0.1
"""Still at once to a person; an answer that is quicker costs no call to the platform, of which it takes only so many."""


class NoPreview:
    """For accounts that are gone."""

    text = ""
    is_begun = False

    def feed(self, text: str) -> None: ...
    def restart(self) -> None: ...
    async def stop(self) -> None: ...


class DistantPreview(NoPreview):
    """For turns that run on another node than the one that sends: that one shows the typing indicator, the answer comes whole."""

    def __init__(self, hint: Callable[[str, str], None], address: Address, *, every_s: float) -> None:
        self._hint = hint
        self._detail = orjson.dumps(
            [address.account, address.channel, address.channel_kind, address.thread]
        ).decode()
        self._every_s = every_s
        self._timer: asyncio.TimerHandle | None = None
        self._type()

    def _type(self) -> None:
        self._hint("typing", self._detail)
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._type)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def typing_target(detail: str) -> Target | None:
    """Where a distant preview types; None for what a node of another version says otherwise."""
    try:
        account, channel, channel_kind, thread = orjson.loads(detail)
    except (ValueError, TypeError):
        return None
    return Target(account, channel, channel_kind, thread)


class Preview:
    def __init__(
        self,
        database: Database,
        adapter: Adapter,
        governor: Governor,
        claim: Claim,
        *,
        target: Target,
        after_s: float,
        is_shown: bool,
        is_clear: Callable[[], bool],
        typing_every_s: float,
        now: Callable[[], int],
        may_send: Callable[[], bool] = lambda: True,
        may_type: Callable[[], bool] = lambda: True,
        lease: Callable[[], Lease | None] = lambda: None,
    ) -> None:
        """`is_clear`: nothing earlier is still on its way to the channel, which a preview must not overtake.

        `may_send`: this node sends for the account, by `lease`. When that ends, the preview does. `may_type`: it also knows by now
        how long the platform wants quiet.
        """
        self._may_send = may_send
        self._may_type = may_type
        self._lease = lease
        self._database = database
        self._adapter = adapter
        self._governor = governor
        self._claim = claim
        self._target = target
        self._after_s = after_s
        self._is_shown = is_shown
        self._is_clear = is_clear
        self._typing_every_s = typing_every_s
        self._now = now
        self.text = ""
        self._shown: Chunk | None = None
        self.is_begun = False
        """Something may stand on the screen by now, which the turn's reply has to replace."""
        self._message_id: PlatformMessageId | None = None
        self._started = time.monotonic()
        self._edited_at = float("-inf")
        self._sending: asyncio.Task[None] | None = None
        self._typing_timer: asyncio.TimerHandle | None = None
        self._showing_timer: asyncio.TimerHandle | None = None
        self._typing: asyncio.Task[None] | None = None
        self._is_stopped = False
        if adapter.capabilities.can_type:
            self._typing_timer = asyncio.get_running_loop().call_later(_TYPING_AFTER_S, self._type)

    def feed(self, text: str) -> None:
        self.text += text
        if self._showing_timer is None:
            now = time.monotonic()
            self._show_in(
                max(
                    self._started + self._after_s - now,
                    self._edited_at + self._adapter.capabilities.preview_interval_s - now,
                    0,
                )
            )

    def restart(self) -> None:
        self.text = ""

    async def stop(self) -> None:
        self._is_stopped = True
        for timer in (self._typing_timer, self._showing_timer):
            if timer is not None:
                timer.cancel()
        if self._typing is not None:
            self._typing.cancel()
        sending = self._sending
        if sending is None or sending.done():
            return
        await asyncio.wait([sending], timeout=_STOP_GRACE_S)
        if not sending.done():
            sending.cancel()
            await asyncio.wait([sending], timeout=1)

    def _show_in(self, wait_s: float) -> None:
        if self._is_shown and not self._is_stopped:
            self._showing_timer = asyncio.get_running_loop().call_later(wait_s, self._start_showing)

    def _start_showing(self) -> None:
        self._showing_timer = None
        if self._sending is not None and not self._sending.done():
            # One call at a time: a second one would overtake the first, or show the answer twice.
            self._show_in(_TRY_AGAIN_S)
        elif self.text.strip():
            self._sending = asyncio.create_task(self._show())

    def _type(self) -> None:
        self._typing_timer = asyncio.get_running_loop().call_later(self._typing_every_s, self._type)
        account = self._claim.address.account
        if (
            not self._may_type()
            or self._governor.is_down(account)
            or self._governor.held_s(account, self._claim.address.channel) > 0
        ):
            return
        if self._typing is None or self._typing.done():
            self._typing = asyncio.create_task(self._call_typing())

    async def _call_typing(self) -> None:
        try:
            await self._adapter.typing(self._target)
        except RateLimited as error:
            await self._hold(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the answer matters more
            log.debug("preview.typing_failed", account=self._claim.address.account, reason=str(error))

    async def _show(self) -> None:
        address = self._claim.address
        try:
            chunks = self._adapter.render(self.text)
            if not chunks or chunks[0] == self._shown:
                return
            may_begin = self._message_id is not None or self._is_clear()
            if not self._may_send():
                self._is_shown = False
                return
            if not may_begin or not self._governor.try_acquire(
                address.account, address.channel, address.channel_kind
            ):
                if self._showing_timer is None:
                    self._show_in(_TRY_AGAIN_S)
                return
            chunk = chunks[0]
            self._edited_at = time.monotonic()
            if self._message_id is not None:
                await self._adapter.edit(self._target, self._message_id, chunk)
            elif not await self._send_first(chunk):
                return
            self._shown = chunk
        except RateLimited as error:
            await self._hold(error)
        except Exception as error:  # noqa: BLE001 - a fault of an adapter costs the preview, not the answer
            # The final reply will tell what is wrong with the platform; a preview is not worth a second try.
            self._is_shown = False
            log.info("preview.given_up", account=address.account, reason=type(error).__name__)

    async def _send_first(self, chunk: Chunk) -> bool:
        """Bring the preview onto the screen. False if it may not stand there now."""
        account, channel = self._claim.address.account, self._claim.address.channel
        body = {"text": chunk.text, "markup": chunk.markup}
        self.is_begun = True
        row = await self._write(
            lambda tx: outbox.open_preview(
                tx, self._claim.address, body, self._now(), turn=self._claim, lease=self._lease()
            )
        )
        if (
            row is None
        ):  # an earlier run of this turn left a send of unknown outcome: the final reply settles that
            self._is_shown = False
            return False
        chunk_id, known = row
        if self._governor.held_s(account, channel) > 0:  # asked for quiet while the mark was written
            if known is None:
                await self._write(
                    lambda tx: outbox.put_off(tx, chunk_id, 0, "held before it went out", counts=False)
                )
            if self._showing_timer is None:
                self._show_in(_TRY_AGAIN_S)
            return False
        self._edited_at = time.monotonic()  # the store may have taken its time
        if known is not None:
            self._message_id = known
            await self._adapter.edit(self._target, known, chunk)
            return True
        try:
            sent = await self._adapter.send(
                self._target, chunk, outbox.chunk_key(self._claim.address.inbox_id, "answer", 0)
            )
        except Uncertain:
            await self._write(lambda tx: outbox.mark_uncertain(tx, chunk_id, 0, "preview's answer was lost"))
            raise
        except DeliveryError as error:
            reason = error.reason
            await self._write(lambda tx: outbox.put_off(tx, chunk_id, 0, reason, counts=False))
            raise
        self._message_id = sent
        with contextlib.suppress(StoreError):
            await self._write(lambda tx: outbox.mark_sent(tx, chunk_id, sent, self._now()))
        return True

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        """Write about the channel, in one order with its turn and what is sent there."""
        return await self._database.write(work, key=self._claim.address.channel, may_mix=True)

    async def _hold(self, error: RateLimited) -> None:
        """Keep quiet for as long as the platform asks, over a restart as well."""
        account = self._claim.address.account
        channel = ChannelId("") if error.scope == "account" else self._claim.address.channel
        self._governor.hold(account, channel or None, error.retry_after_s)
        until = self._now() + round(error.retry_after_s * 1000)
        with contextlib.suppress(StoreError):
            await self._database.write(lambda tx: outbox.hold(tx, account, channel, until))
