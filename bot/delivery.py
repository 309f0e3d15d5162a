"""Outbox → governor → adapter: sends every chunk in order per channel, and keeps what the platform said about each.

Owns the sender, one task per channel that has something waiting, and the policy for what an error means. Pace is
`bot/governor.py`, the growing answer `bot/preview.py`, the rows `sessions/outbox.py`.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import structlog

from adapters.base import Adapter, Pace
from adapters.choices import as_lines
from adapters.errors import DeliveryError, MessageGone, Moved, RateLimited, Rejected, Uncertain, Unreachable
from adapters.messages import Choice, Chunk, Target
from adapters.settling import Settling
from bot.catalogue import Catalogue
from bot.governor import Governor
from bot.nodes import Node
from bot.preview import DistantPreview, NoPreview, Preview, typing_target
from config.names import AccountId, ChannelId, Json, PlatformMessageId
from config.settings import AccountSettings, Settings
from sessions import lifecycle, outbox
from sessions.database.base import Database, Transaction
from sessions.errors import StaleLease, StoreError
from sessions.leases import Lease, LeaseName
from sessions.models import Address, Claim, OutgoingChunk

T = TypeVar("T")
log = structlog.get_logger()

_STORE_RETRY_S: Final = 1.0
_LOOK_S: Final = 1.0
"""How often the owner of an account looks for what other nodes have queued; a hint comes sooner, but may be lost."""
_UNCERTAIN_FIRST_S: Final = 1.0
_UNCERTAIN_LONGEST_S: Final = 60.0
_SEND_TIMEOUT_S: Final = 60.0
"""An adapter that does not come back by then counts as an answer lost."""


class Quiet:
    """A mark that no sender has run for a channel since it was given."""

    __slots__ = ("__weakref__",)


class Delivery:
    def __init__(
        self,
        database: Database,
        settings: Settings,
        accounts: Mapping[AccountId, AccountSettings],
        adapters: Mapping[AccountId, Adapter],
        catalogue: Catalogue,
        governor: Governor,
        *,
        node: Node | None = None,
        typing_every_s: float = 4.0,
        uncertain_first_s: float = _UNCERTAIN_FIRST_S,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
        count: Callable[[str, str], None] = lambda _account, _outcome: None,
    ) -> None:
        """Without a node, or with one that is alone, it sends for every account."""
        self._node = None if node is None or node.is_alone else node
        self._database = database
        self._settings = settings
        self._accounts = accounts
        self._adapters = adapters
        self._catalogue = catalogue
        self._governor = governor
        self._typing_every_s = typing_every_s
        self._uncertain_first_s = uncertain_first_s
        self._now = now
        self._count = count
        self._settling = {
            account: adapter for account, adapter in adapters.items() if isinstance(adapter, Settling)
        }
        self._senders: dict[tuple[AccountId, ChannelId], asyncio.Task[None]] = {}
        self._quiet: WeakValueDictionary[tuple[AccountId, ChannelId], Quiet] = WeakValueDictionary()
        self._again: set[tuple[AccountId, ChannelId]] = set()
        self._moved: set[tuple[AccountId, ChannelId]] = set()
        """Channels whose rows were readdressed under their sender's hands."""
        self._taken: set[AccountId] = set()
        """Accounts of which this node has read, since it got the lease, what is unsent and how long the platform wants quiet."""
        self._is_closed = False
        self._is_draining = False
        self._typing: set[asyncio.Task[None]] = set()
        self._recording: set[tuple[AccountId, ChannelId]] = set()
        """Channels whose sender writes down what the platform said: not to be cut off, whoever sends next."""
        self.shows_tools_on: set[AccountId] = set()
        for account, adapter in adapters.items():
            governor.add(account, _pace(adapter.capabilities.pace, accounts[account]))

    @property
    def channels_busy(self) -> int:
        return len(self._senders)

    def is_down(self, account: AccountId) -> bool:
        """Whether the platform did not answer when something was last sent for the account."""
        return self._governor.is_down(account)

    async def recover(self) -> int:
        """Take up what the last process left unsent, and the holds it was told. Gives the number of channels."""
        for account in self._adapters:
            await self._database.write(self._doubt(account))
        return sum([await self._recover(account) for account in self._adapters])

    async def own(self, account: AccountId, lease: Lease | None) -> None:
        """Send for an account while its lease is held: a duty, see `bot/nodes.py`. What other nodes queue is looked for as well."""
        try:
            while recording := [
                task
                for place, task in self._senders.items()
                if place in self._recording and place[0] == account
            ]:  # what they know must not be overwritten with doubt
                await asyncio.wait(recording, timeout=_STORE_RETRY_S)
            self._governor.add(account, self._pace_of(account))
            await self._durably(lambda: self._database.write(self._doubt(account, lease)))
            waiting = await self._durably(lambda: self._recover(account))
            log.info("delivery.account_taken", account=account, channels_waiting=waiting)
            while True:
                await asyncio.sleep(_LOOK_S)
                await self.look(account)
        except StaleLease:
            return  # the next look at the leases says so as well
        finally:
            for place, task in list(self._senders.items()):
                if place[0] == account and place not in self._recording:
                    task.cancel()
            self._taken.discard(account)

    async def look(self, account: AccountId) -> None:
        """Whether another node has queued something for an account that this one sends for."""
        if self._is_closed or self._is_draining or not self._may_send(account):
            return
        with contextlib.suppress(StoreError):  # the next look is soon
            for channel in await self._database.read(lambda tx: outbox.channels_waiting(tx, account)):
                if (account, channel) not in self._senders:
                    self.notify(account, channel)

    def _owns(self, account: AccountId) -> bool:
        return self._node is None or self._node.holds(LeaseName("send", account))

    def _may_send(self, account: AccountId) -> bool:
        """Its lease alone is not enough: what goes out at once could fall into a wait that the former owner was told."""
        return self._node is None or (account in self._taken and self._owns(account))

    def _lease(self, account: AccountId) -> Lease | None:
        """What a send is fenced with; None only where there are no other nodes. Raises: StaleLease."""
        if self._node is None:
            return None
        lease = self._node.lease(LeaseName("send", account))
        if lease is None:  # it ended a moment ago: without a fence nothing may begin
            raise StaleLease(f"send {account} is not this node's any more")
        return lease

    def _doubt(self, account: AccountId, lease: Lease | None = None) -> Callable[[Transaction], int]:
        """Whatever the last sender of an account had under way: it may be out."""
        shows_repeats = not self._adapters[account].capabilities.is_idempotent
        return lambda tx: outbox.recover(tx, account, lease, shows_repeats=shows_repeats)

    def _pace_of(self, account: AccountId) -> Pace:
        return _pace(self._adapters[account].capabilities.pace, self._accounts[account])

    async def _recover(self, account: AccountId) -> int:
        now = self._now()
        for channel, until in await self._database.write(lambda tx: outbox.holds(tx, account, now)):
            self._governor.hold(account, channel or None, (until - now) / 1000)
        recent = await self._database.read(lambda tx: outbox.sent_since(tx, account, now - 60_000))
        self._governor.remember(account, [(channel, kind, (now - at) / 1000) for channel, kind, at in recent])
        self._taken.add(
            account
        )  # before the look at what waits: who queues something after that look finds it said
        channels = await self._database.read(lambda tx: outbox.channels_waiting(tx, account))
        for channel in channels:
            self.notify(account, channel)
        return len(channels)

    def render(
        self, account: AccountId, text: str, choices: Sequence[Choice] = ()
    ) -> list[Mapping[str, Json]]:
        """A reply as the chunks of the account's platform, ready for the outbox."""
        adapter = self._adapters.get(account)
        if adapter is None:  # its account was taken out of the settings while a turn was waiting
            return [{"text": as_lines(text, choices), "markup": None}]
        return [{"text": chunk.text, "markup": chunk.markup} for chunk in adapter.render(text, choices)]

    def shows_tools(self, account: AccountId) -> bool:
        return self._settings.delivery.show_tools or account in self.shows_tools_on

    def watch(self, account: AccountId, channel: ChannelId) -> Quiet | None:
        """A mark that lasts until a sender runs for this channel; None while one does."""
        place = (account, channel)
        if place in self._senders:
            return None
        quiet = self._quiet.get(place)
        if quiet is None:
            quiet = self._quiet[place] = Quiet()
        return quiet

    def notify(
        self,
        account: AccountId,
        channel: ChannelId,
        *,
        waiting: Sequence[OutgoingChunk] = (),
        since: Quiet | None = None,
    ) -> None:
        """Something may be waiting for this channel.

        `waiting` is what a transaction found there that began after the mark `since` was given: as long as the mark lasts,
        nobody has touched it, and the sender need not read it again.
        """
        place = (account, channel)
        if not self._owns(account):
            self._tell_owner(account)
        elif not self._may_send(account):
            return  # the look that follows finds it
        elif place in self._senders:
            self._again.add(place)
        elif not self._is_closed and account in self._adapters:
            is_fresh = since is not None and self._quiet.get(place) is since
            self._quiet.pop(place, None)
            task = asyncio.create_task(
                self._send_all(account, channel, waiting if is_fresh else ()),
                name=f"sender-{account}-{channel}",
                context=Context(),  # it serves many turns: its log lines must not name the one that woke it
            )
            self._senders[place] = task
            task.add_done_callback(lambda task: self._ended(place, task))

    def _tell_owner(self, account: AccountId) -> None:
        """Another node sends for this account; it finds the rows by itself within a second, or when it hears of it."""
        if self._node is not None:
            self._node.hint("outbox", account)

    async def type(self, detail: str) -> None:
        """A turn runs on another node: show that an answer is being written, if this one sends for the account."""
        target = typing_target(detail)
        adapter = None if target is None else self._adapters.get(target.account)
        if target is None or adapter is None or not adapter.capabilities.can_type:
            return
        account = target.account
        if not self._may_send(account) or self._governor.is_down(account):
            return
        if self._governor.held_s(account, target.channel) == 0:
            task = asyncio.create_task(self._type(adapter, target))
            self._typing.add(task)
            task.add_done_callback(self._typing.discard)

    async def _type(self, adapter: Adapter, target: Target) -> None:
        try:
            await adapter.typing(target)
        except RateLimited as error:
            held = None if error.scope == "account" else target.channel
            self._governor.hold(target.account, held, error.retry_after_s)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the answer matters more
            log.debug("preview.typing_failed", account=target.account, reason=str(error))

    def move(self, account: AccountId, old: ChannelId, new: ChannelId) -> None:
        """A channel got another id; what waits for it was readdressed."""
        sender = self._senders.get((account, old))
        if sender is None:
            self.notify(account, new)
        else:  # it may be sending one of those rows right now: two senders would send it twice
            self._moved.add((account, old))
            sender.add_done_callback(lambda _: self.notify(account, new))

    def settle(self, account: AccountId, message_id: PlatformMessageId) -> None:
        """Nothing (more) will be sent for this message."""
        adapter = self._settling.get(account)
        if adapter is not None:
            try:
                adapter.settled(message_id)
            except Exception:  # it is told of what has happened; its fault must not undo that
                log.exception("delivery.settling_failed", account=account)

    def open_preview(self, claim: Claim) -> "Preview | NoPreview | DistantPreview":
        """The growing answer and the typing indicator of a turn."""
        adapter = self._adapters.get(claim.address.account)
        if adapter is None:
            return NoPreview()
        if self._node is not None and not self._owns(claim.address.account):
            return DistantPreview(self._node.hint, claim.address, every_s=self._typing_every_s)
        place = (claim.address.account, claim.address.channel)
        return Preview(
            self._database,
            adapter,
            self._governor,
            claim,
            target=target_of(claim.address),
            after_s=self._settings.delivery.preview_after_s,
            is_shown=self._settings.delivery.preview and adapter.capabilities.can_edit,
            is_clear=lambda: self._may_send(place[0]) and place not in self._senders,
            may_send=lambda: self._owns(place[0]),
            may_type=lambda: self._may_send(place[0]),
            lease=lambda: self._lease(place[0]),
            typing_every_s=self._typing_every_s,
            now=self._now,
        )

    async def close(self, timeout_s: float) -> int:
        """Send what is waiting for as long as allowed; the rest stays as rows. Gives how many channels were cut off."""
        self._is_draining = True  # what other nodes queue from now on is for the next owner
        deadline = time.monotonic() + timeout_s
        while self._senders and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(
                list(self._senders.values()), timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
        self._is_closed = True
        cut_off = list(self._senders.values())
        for task in cut_off:
            task.cancel()
        if cut_off:
            await asyncio.wait(cut_off, timeout=5)
        return len(cut_off)

    def _ended(self, place: tuple[AccountId, ChannelId], task: asyncio.Task[None]) -> None:
        self._senders.pop(place, None)
        self._moved.discard(place)
        self._recording.discard(place)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery.sender_failed", account=place[0], channel=place[1], exc_info=error)
            asyncio.get_running_loop().call_later(_STORE_RETRY_S, self.notify, *place)
        elif place in self._again:
            self._again.discard(place)
            self.notify(*place)

    async def _send_all(
        self, account: AccountId, channel: ChannelId, known: Sequence[OutgoingChunk] = ()
    ) -> None:
        while self._may_send(account):
            if not known:  # else a notice may have come after it was found, and stands
                self._again.discard((account, channel))
            chunks = known or await self._durably(
                lambda: self._database.read(lambda tx: outbox.waiting(tx, account, channel))
            )
            known = ()
            if not chunks:
                return
            for chunk in chunks:
                try:
                    is_done = await self._send(chunk)
                except StaleLease:
                    log.info("delivery.send_refused", account=account, channel=channel, key=chunk.key)
                    return
                finally:
                    self._recording.discard((account, channel))
                if not is_done:
                    break  # order: nothing overtakes a chunk that has to wait
                if (account, channel) in self._moved:
                    self._moved.discard((account, channel))
                    break
            else:
                if len(chunks) < outbox.LARGEST_BATCH and (account, channel) not in self._again:
                    return

    async def _send(self, chunk: OutgoingChunk) -> bool:
        """Try one chunk. True once it is done with, sent or not."""
        account, channel = chunk.address.account, chunk.address.channel
        adapter = self._adapters[account]
        if (wait_ms := chunk.not_before - self._now()) > 0:
            await asyncio.sleep(wait_ms / 1000)
        is_late = self._now() - chunk.created_at > self._settings.delivery.max_age.total_seconds() * 1000
        if is_late or chunk.attempts >= self._settings.delivery.max_attempts:
            return await self._give_up(chunk, "too old" if is_late else "too many tries")
        is_repeat = _may_be_out(chunk)
        if self._shows_twice(chunk):
            policy = self._accounts[account].on_uncertain
            if policy != "resend":
                # Asking about the question itself could go on for ever.
                return await self._leave(chunk, asks=policy == "ask" and chunk.kind != "notice")
        waited_ms = round(1000 * await self._governor.acquire(account, channel, chunk.address.channel_kind))
        if not self._may_send(account):  # the lease has ended while it waited
            self._governor.unused(account)
            return False
        needs_mark = not adapter.capabilities.is_idempotent or adapter.capabilities.forgets_keys
        if needs_mark and chunk.platform_message_id is None and chunk.state != "sending":
            if not await self._mark_begun(chunk):
                self._governor.unused(account)
                return False
            if not self._may_send(account):  # as good as sent: the next owner finds the mark
                self._governor.unused(account)
                return False
            if self._governor.held_s(account, channel) > 0:
                # The platform asked for quiet while the mark was written: nothing went out, so the mark comes off again.
                self._governor.unused(account)
                await self._put_off(chunk, self._now(), "held before it went out", waited_ms, counts=False)
                return False
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                message_id = await self._put_out(adapter, chunk, is_repeat=is_repeat)
        except TimeoutError:
            return await self._handle(
                chunk, Uncertain(account, f"no answer within {_SEND_TIMEOUT_S:g} s"), waited_ms
            )
        except DeliveryError as error:
            return await self._handle(chunk, error, waited_ms)
        except asyncio.CancelledError:
            self._governor.answered(account)
            raise
        except (
            Exception
        ) as error:  # a fault of an adapter must not stop the channel; what happened is unknown
            log.exception("delivery.adapter_failed", account=account, channel=channel)
            return await self._handle(
                chunk, Uncertain(account, f"{type(error).__name__}: {error}"), waited_ms
            )
        self._governor.answered(account)
        self._recording.add((account, channel))
        await self._mark_sent(chunk, message_id, waited_ms, was_repeat=self._shows_twice(chunk))
        return True

    def _shows_twice(self, chunk: OutgoingChunk) -> bool:
        """Sent (again), people may see it twice."""
        return _may_be_out(chunk) and not self._adapters[chunk.address.account].capabilities.is_idempotent

    async def _mark_begun(self, chunk: OutgoingChunk) -> bool:
        """False if another has done something to it since it was read."""
        try:
            lease = self._lease(chunk.address.account)
            return await self._store(chunk.address.channel, lambda tx: outbox.begin(tx, chunk.id, lease))
        except BaseException:
            self._governor.unused(
                chunk.address.account
            )  # or a probe that never went out would keep all others waiting
            raise

    async def _put_out(self, adapter: Adapter, chunk: OutgoingChunk, *, is_repeat: bool) -> PlatformMessageId:
        target = target_of(chunk.address, chunk.part)
        content = Chunk(chunk.body["text"], chunk.body["markup"])
        if chunk.platform_message_id is not None:
            await adapter.edit(target, chunk.platform_message_id, content)
            return chunk.platform_message_id
        message_id = await adapter.send(target, content, chunk.key, is_repeat=is_repeat)
        if is_repeat and adapter.capabilities.is_idempotent and adapter.capabilities.can_edit:
            # The earlier send may have been a preview: the platform then gave us that one, with its older words.
            await adapter.edit(target, message_id, content)
        return message_id

    async def _mark_sent(
        self, chunk: OutgoingChunk, message_id: PlatformMessageId, waited_ms: int, *, was_repeat: bool
    ) -> None:
        is_settling = chunk.address.account in self._settling

        def mark(tx: Transaction) -> bool:
            outbox.mark_sent(
                tx,
                chunk.id,
                message_id,
                self._now(),
                body=chunk.body,
                waited_ms=waited_ms,
                was_repeat=was_repeat,
            )
            return is_settling and outbox.is_settled(tx, chunk.address.inbox_id)

        settled = await self._store(chunk.address.channel, mark)
        self._count(chunk.address.account, "repeated" if was_repeat else "sent")
        log.debug(
            "delivery.chunk_sent",
            account=chunk.address.account,
            channel=chunk.address.channel,
            key=chunk.key,
            turn_id=chunk.turn_id,
            message_id=message_id,
            waited_ms=waited_ms,
            is_repeat=was_repeat,
        )
        if settled:
            self._settle_answered(chunk)

    async def _handle(self, chunk: OutgoingChunk, error: DeliveryError, waited_ms: int) -> bool:
        """What an error means for the chunk. True once it is done with."""
        account, channel = chunk.address.account, chunk.address.channel
        now = self._now()
        log.warning(
            "delivery.chunk_failed",
            account=account,
            channel=channel,
            key=chunk.key,
            turn_id=chunk.turn_id,
            kind=type(error).__name__,
            reason=error.reason,
        )
        match error:
            case RateLimited():
                self._governor.answered(account)
                held = ChannelId("") if error.scope == "account" else channel
                until = now + round(error.retry_after_s * 1000)
                self._governor.hold(account, held or None, error.retry_after_s)

                def hold(tx: Transaction) -> None:
                    outbox.hold(tx, account, held, until)
                    _put_off(tx, chunk, until, error.reason, waited_ms + until - now, counts=False)

                await self._store(channel, hold)
                return False
            case Unreachable():
                self._governor.failed(account)
                await self._put_off(chunk, now, error.reason, waited_ms, counts=False)
                return False
            case Moved():
                self._governor.answered(account)
                await self._store(
                    channel, lambda tx: lifecycle.move_channel(tx, account, channel, error.channel, now)
                )
                await self._put_off(chunk, now, error.reason, waited_ms, counts=True)
                self.move(account, channel, error.channel)
                return False
            case MessageGone():
                self._governor.answered(account)

                def send_anew(tx: Transaction) -> None:
                    outbox.put_off(tx, chunk.id, now, error.reason, waited_ms=waited_ms)
                    outbox.forget_message(tx, chunk.id)

                await self._store(channel, send_anew)
                return False
            case Rejected():
                self._governor.answered(account)
                return await self._give_up(chunk, error.reason)
            case Uncertain() if chunk.platform_message_id is not None:  # an edit can be repeated
                self._governor.failed(account)
                await self._put_off(chunk, now, error.reason, waited_ms, counts=True)
                return False
            case _:
                self._governor.failed(account)
                pause = min(_UNCERTAIN_LONGEST_S, self._uncertain_first_s * 2 ** min(10, chunk.attempts))
                until = now + round(1000 * pause)
                await self._store(
                    channel,
                    lambda tx: outbox.mark_uncertain(
                        tx, chunk.id, until, error.reason, was_repeat=self._shows_twice(chunk)
                    ),
                )
                self._count(account, "uncertain")
                return False

    async def _put_off(
        self, chunk: OutgoingChunk, until: int, reason: str, waited_ms: int, *, counts: bool
    ) -> None:
        await self._store(
            chunk.address.channel, lambda tx: _put_off(tx, chunk, until, reason, waited_ms, counts=counts)
        )

    async def _leave(self, chunk: OutgoingChunk, *, asks: bool) -> bool:
        """The operator does not want uncertain sends repeated: leave it, and tell the person if so set."""

        def leave(tx: Transaction) -> bool:
            outbox.give_up(tx, chunk.id, "skipped", "may have been sent before an interruption", self._now())
            if asks:
                text = self._catalogue.say("repeat_ask")
                outbox.add(
                    tx,
                    chunk.address,
                    "notice",
                    self.render(chunk.address.account, text),
                    self._now(),
                    first_part=9,
                )
            return outbox.is_settled(tx, chunk.address.inbox_id)

        settled = await self._store(chunk.address.channel, leave)
        self._count(chunk.address.account, "skipped")
        self.notify(chunk.address.account, chunk.address.channel)
        if settled:
            self._settle_answered(chunk)
        return True

    async def _give_up(self, chunk: OutgoingChunk, reason: str) -> bool:
        def give_up(tx: Transaction) -> bool:
            outbox.give_up(tx, chunk.id, "failed", reason, self._now())
            return outbox.is_settled(tx, chunk.address.inbox_id)

        settled = await self._store(chunk.address.channel, give_up)
        self._count(chunk.address.account, "failed")
        log.error(
            "delivery.chunk_given_up",
            account=chunk.address.account,
            channel=chunk.address.channel,
            key=chunk.key,
            turn_id=chunk.turn_id,
            reason=reason,
        )
        if settled:
            self._settle_answered(chunk)
        return True

    def _settle_answered(self, chunk: OutgoingChunk) -> None:
        if chunk.address.reply_to is not None:
            self.settle(chunk.address.account, chunk.address.reply_to)

    async def _store(self, channel: ChannelId, work: Callable[[Transaction], T]) -> T:
        """Write about a channel, waiting for as long as the store cannot."""
        return await self._durably(lambda: self._database.write(work, key=channel, may_mix=True))

    async def _durably(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do it, waiting for as long as the store cannot."""
        while True:
            try:
                return await step()
            except StoreError as error:
                log.error("delivery.store_waited", reason=error.reason, hint=error.hint)
                await asyncio.sleep(_STORE_RETRY_S)


def _may_be_out(chunk: OutgoingChunk) -> bool:
    """An earlier try was begun and never heard of again."""
    return chunk.state in ("sending", "uncertain") and chunk.platform_message_id is None


def _put_off(
    tx: Transaction, chunk: OutgoingChunk, until: int, reason: str, waited_ms: int, *, counts: bool
) -> None:
    """This try was certainly not sent; whether an earlier one was stays as open as it is."""
    outbox.put_off(tx, chunk.id, until, reason, waited_ms=waited_ms, counts=counts)
    if chunk.state == "sending":
        outbox.begin(tx, chunk.id)


def target_of(address: Address, part: int = 0) -> Target:
    """The store's address in the adapter's words. Only a reply's first chunk refers to the question; the others follow it."""
    return Target(
        account=address.account,
        channel=address.channel,
        channel_kind=address.channel_kind,
        thread=address.thread,
        reply_to=address.reply_to if part == 0 else None,
        answers=address.reply_to,
        reply_handle=address.reply_handle,
    )


def _pace(platform: Pace, account: AccountSettings) -> Pace:
    """The operator's limits where there are any, else the platform's."""
    own = account.pace
    return Pace(
        own.per_account_per_s or platform.per_account_per_s,
        own.per_direct_channel_per_s or platform.per_direct_channel_per_s,
        own.per_group_channel_per_min or platform.per_group_channel_per_min,
    )
