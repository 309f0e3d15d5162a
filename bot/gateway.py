"""What happens to a message that arrives: inbound → policy → accepted, declined or a command. Where platforms meet sessions.

Owns the one transaction that takes a message in; when `deliver` returns, the outcome is on disk and the adapter may tell its
platform. Running turns is `bot/lanes.py`, sending replies is `bot/delivery.py`; both are only woken from here.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, TypeVar

import structlog

from adapters.base import IntakeClosed, KnownChannel, Receipt
from adapters.messages import Choice, InboundMessage
from bot import commands, policy
from bot.catalogue import Catalogue
from bot.commands import filters
from config.names import AccountId, ChannelId, Json, PlatformMessageId, SessionId, TurnId
from config.settings import AccountSettings, Settings
from sessions import addresses, inbox, lifecycle, outbox, people
from sessions.database.base import Database, Transaction
from sessions.errors import StoreError
from sessions.hot import HotSessions
from sessions.keys import choose_scope, session_key
from sessions.models import Address, Claim, Incoming, Person, ReplyKind
from sessions.scope import ChannelScope, PersonScope
from sessions.semantic import Encoder

log = structlog.get_logger()

T = TypeVar("T")

_ROOM_CHECK_S = 1.0
_FLOOD_LOOK = 1000
_DISK_FULL = "the disk of the database is nearly full"
_DISK_FULL_HINT = (
    "Free some space there, and it goes on by itself. store.reserve_bytes is how much must be free."
)


class LanesPort(Protocol):
    """What the gateway asks of the lanes."""

    def reserve(self) -> bool: ...
    def release(self) -> None: ...
    def start(self, claim: Claim) -> None: ...
    def notify(self, session_id: SessionId) -> None: ...
    def wait_notice(self, turn_id: TurnId, language: str | None) -> None: ...
    def stop(self, turn_ids: Sequence[TurnId]) -> None: ...


class DeliveryPort(Protocol):
    """What the gateway asks of the delivery."""

    def render(
        self, account: AccountId, text: str, choices: Sequence[Choice] = ()
    ) -> list[Mapping[str, Json]]: ...
    def notify(self, account: AccountId, channel: ChannelId) -> None: ...
    def settle(self, account: AccountId, message_id: PlatformMessageId) -> None: ...
    def move(self, account: AccountId, old: ChannelId, new: ChannelId) -> None: ...


@dataclass(frozen=True, slots=True)
class _Taken:
    """What the transaction decided, for what is to be done after it."""

    receipt: Receipt
    turn_id: TurnId | None = None
    session_id: SessionId | None = None
    ahead: int = 0
    claim: Claim | None = None
    language: str | None = None
    has_reply: bool = False
    stop_turns: Sequence[TurnId] = ()
    wake_sessions: Sequence[SessionId] = ()
    is_new_session: bool = False
    is_under_way: bool = False
    """The message was taken in before and is still being answered: it is settled when that is over, not now."""


class Gateway:
    """The daemon's `Intake`."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        accounts: Mapping[AccountId, AccountSettings],
        catalogue: Catalogue,
        lanes: LanesPort,
        delivery: DeliveryPort,
        *,
        agent_name: Callable[[str | None], str],
        must_greet: Callable[[AccountId], bool] = lambda _account: False,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
        count: Callable[[str, str], None] = lambda _account, _outcome: None,
        hot: HotSessions | None = None,
        node: str | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """With an encoder, /search goes by meaning as well as by words."""
        self._node = node
        self._database = database
        self._hot = HotSessions(0) if hot is None else hot
        self._settings = settings
        self._accounts = accounts
        self._catalogue = catalogue
        self._lanes = lanes
        self._delivery = delivery
        self._agent_name = agent_name
        self._must_greet = must_greet
        self._now = now
        self._count = count
        self._encoder = encoder
        self._under_way: set[asyncio.Task[Receipt]] = set()
        self._closed_because: str | None = None
        self._room_checked_at = float("-inf")
        self._has_room = True

    async def close(self, reason: str, timeout_s: float | None = None) -> None:
        """Take nothing in any more; what is being taken in is finished, unless the store hangs for so long."""
        self._closed_because = reason
        if self._under_way:
            await asyncio.wait(list(self._under_way), timeout=timeout_s)

    async def deliver(self, message: InboundMessage) -> Receipt:
        self._check_open()
        # Shielded: if the adapter is cancelled after the commit, the turn must still be started and the reply sent.
        work = asyncio.create_task(self._deliver(message))
        self._under_way.add(work)
        work.add_done_callback(self._taken_in)
        return await asyncio.shield(work)

    def _taken_in(self, work: asyncio.Task[Receipt]) -> None:
        self._under_way.discard(work)
        if not work.cancelled():
            work.exception()  # its adapter may have been cancelled: nobody else hears of it then

    async def _deliver(self, message: InboundMessage) -> Receipt:
        may_claim = self._lanes.reserve()
        taken: _Taken | None = None
        try:
            meaning = await self._meaning_of(message)
            taken = await self._write(
                lambda tx: self._take_in(tx, message, may_claim=may_claim, meaning=meaning),
                key=message.channel,
                may_mix=_only_asks(message),
            )
        except IntakeClosed:
            raise
        except Exception as error:
            # A message that nobody can take in (a fault of ours, text that no database holds) must not hold up its feed.
            log.exception("gateway.intake_faulted", account=message.account, message_id=message.message_id)
            await self._set_aside(message, f"{type(error).__name__}: {error}")
            self._delivery.settle(message.account, message.message_id)
            return Receipt("declined", "quarantined")
        finally:
            if may_claim and (taken is None or taken.claim is None):
                self._lanes.release()
        self._follow_up(message, taken)
        return taken.receipt

    async def quarantine(self, account: AccountId, raw: bytes, reason: str) -> None:
        self._check_open()
        await self._quarantine(account, raw, reason)

    async def _set_aside(self, message: InboundMessage, reason: str) -> None:
        raw = json.dumps(asdict(message), default=str).encode()
        await self._quarantine(message.account, raw, reason.encode("utf-8", "replace").decode())

    async def _quarantine(self, account: AccountId, raw: bytes, reason: str) -> None:
        number = await self._write(lambda tx: inbox.quarantine(tx, account, raw, reason, self._now()))
        self._count(account, "quarantined")
        log.warning("gateway.update_quarantined", account=account, number=number, reason=reason)

    async def move_channel(self, account: AccountId, old: ChannelId, new: ChannelId) -> None:
        moved = await self._write(lambda tx: lifecycle.move_channel(tx, account, old, new, self._now()))
        self._delivery.move(account, old, new)
        log.info("gateway.channel_moved", account=account, old=old, new=new, sessions=moved)

    async def cursor(self, account: AccountId, name: str) -> str | None:
        return await self._database.read(lambda tx: inbox.cursor(tx, account, name))

    async def set_cursor(self, account: AccountId, name: str, value: str) -> None:
        await self._write(lambda tx: inbox.set_cursor(tx, account, name, value, self._now()))

    async def known_channels(self, account: AccountId) -> Sequence[KnownChannel]:
        rows = await self._database.read(lambda tx: inbox.known_channels(tx, account))
        return [KnownChannel(channel, kind, watermark) for channel, kind, watermark in rows]

    def _check_open(self) -> None:
        if self._closed_because is not None:
            raise IntakeClosed(self._closed_because)
        if not self._check_room():
            raise IntakeClosed(_DISK_FULL, retry_after_s=5)

    def closed_because(self) -> str | None:
        """Why nothing is taken in at the moment; None while messages are."""
        return self._closed_because or (None if self._check_room() else _DISK_FULL)

    def _check_room(self) -> bool:
        """Whether the disk has room for more; looked at once a second."""
        now = time.monotonic()
        if now - self._room_checked_at > _ROOM_CHECK_S:
            self._room_checked_at = now
            free = self._database.free_bytes()
            has_room = free is None or free >= self._settings.store.reserve_bytes
            if has_room != self._has_room:
                if has_room:
                    log.warning("gateway.intake_resumed", free_bytes=free)
                else:
                    log.warning(
                        "gateway.intake_stopped", reason=_DISK_FULL, free_bytes=free, hint=_DISK_FULL_HINT
                    )
            self._has_room = has_room
        return self._has_room

    async def _write(self, work: Callable[[Transaction], T], *, key: str = "", may_mix: bool = False) -> T:
        try:
            return await self._database.write(work, key=key, may_mix=may_mix)
        except StoreError as error:
            log.error("gateway.intake_failed", reason=error.reason, hint=error.hint)
            raise IntakeClosed(error.reason) from error

    async def _meaning_of(self, message: InboundMessage) -> bytes | None:
        """The vector of what somebody searches for: made before the transaction, where nobody waits for it."""
        if self._encoder is None:
            return None
        call = commands.parse(message.text) if not message.attachments else None
        if call is None or call.name != "search" or not call.argument:
            return None
        words = filters.read(call.argument).words
        try:
            return (await asyncio.to_thread(self._encoder.encode, [words]))[0]
        except Exception:  # words are found without it
            log.exception("gateway.encoding_failed", account=message.account)
            return None

    def _take_in(
        self, tx: Transaction, message: InboundMessage, *, may_claim: bool, meaning: bytes | None
    ) -> _Taken:
        incoming = _as_incoming(message)
        if inbox.is_known(tx, incoming):
            return _Taken(Receipt("duplicate"), is_under_way=not outbox.is_message_settled(tx, incoming))
        now = self._now()
        account = self._accounts[message.account]
        inbox.hear(tx, incoming, now)
        person = people.meet(tx, incoming, now)
        access = policy.access_for(self._settings, account)
        decision = policy.decide(message, person, access, self._settings.turns.max_message_chars)
        if not decision.is_accepted:
            taken = self._decline(tx, message, incoming, person, decision, now)
            is_under_way = message.is_edit and not outbox.is_message_settled(tx, incoming)
            return replace(taken, is_under_way=is_under_way)
        if person.was_told_declined:
            people.forget_declined(tx, incoming.platform, incoming.user_id)
        call = commands.parse(message.text) if not message.attachments else None
        if call is not None and call.name == "ask" and call.argument:
            incoming, call = replace(incoming, text=call.argument), None
        if message.is_edit and not (
            message.channel_kind == "group" and inbox.was_for_others(tx, incoming)
        ):  # else the mention came with the edit, and the message begins to be one for us
            return self._take_edit(tx, incoming, person, now)
        if call is not None and message.is_bare_command and not commands.is_for_us(call.name):
            decision = policy.Decision("unknown_command")
            return self._decline(tx, message, incoming, person, decision, now)
        if call is not None:
            return self._run_command(tx, incoming, person, call, now, meaning)
        return self._accept(tx, message, incoming, person, now, may_claim=may_claim)

    def _accept(
        self,
        tx: Transaction,
        message: InboundMessage,
        incoming: Incoming,
        person: Person,
        now: int,
        *,
        may_claim: bool,
    ) -> _Taken:
        resolved = self._resolve(tx, incoming, person, now)
        session = resolved.session
        if session.status == "paused":
            return self._decline(
                tx, message, incoming, person, policy.Decision("session_paused", "paused"), now
            )
        waiting = resolved.waiting
        if waiting >= self._settings.turns.max_waiting:
            decision = policy.Decision("queue_full", "queue_full")
            return self._decline(tx, message, incoming, person, decision, now, count=waiting)
        is_first = (
            resolved.is_new
            and message.channel_kind == "direct"
            and self._must_greet(message.account)
            and inbox.is_first_contact(tx, incoming)
        )
        if may_claim and waiting == 0:
            claim = inbox.accept_and_claim(
                tx,
                incoming,
                session,
                person,
                now,
                context_messages=self._settings.agent.context_messages,
                recent=self._hot.tail(session.id),
                node=self._node,
                lease_ms=round(self._settings.node.lease_s * 1000),
            )
            turn_id, inbox_id = claim.turn_id, claim.address.inbox_id
        else:
            claim = None
            queued = inbox.accept(tx, incoming, session, person, now, ahead=waiting)
            turn_id, inbox_id = queued.turn_id, queued.inbox_id
        has_greeting = is_first and self._greet(tx, inbox_id, person, now)
        return _Taken(
            Receipt("accepted"),
            turn_id=turn_id,
            session_id=session.id,
            ahead=waiting,
            claim=claim,
            language=person.language,
            has_reply=has_greeting,
            is_new_session=resolved.is_new,
        )

    def _greet(self, tx: Transaction, inbox_id: int, person: Person, now: int) -> bool:
        """What /start says, as a message of its own ahead of the answer."""
        address = addresses.address_of(tx, inbox_id)
        if address is None:
            return False
        text = self._catalogue.say("start", person.language, name=person.display_name)
        # the place of a slash command's "is thinking…", and the reply to the question, belong to the answer
        apart = replace(address, reply_to=None, reply_handle=None)
        return self._reply(tx, apart, "notice", text, now)

    def _decline(
        self,
        tx: Transaction,
        message: InboundMessage,
        incoming: Incoming,
        person: Person,
        decision: policy.Decision,
        now: int,
        **values: object,
    ) -> _Taken:
        address = inbox.record(tx, incoming, "declined", decision.reason, now, person_id=person.id)
        receipt = Receipt("declined", decision.reason)
        if decision.text is None:
            return _Taken(receipt)
        if decision.reason == "queue_full" and _is_told(tx, incoming):
            return _Taken(receipt)
        if decision.is_told_once and not people.tell_declined_once(
            tx, incoming.platform, incoming.user_id, now
        ):
            return _Taken(receipt)
        account = self._accounts[message.account]
        limit: object = self._settings.turns.max_message_chars
        if message.unsupported == "too_large":
            limit = f"{account.max_attachment_bytes // (1024 * 1024)} MB"
        text = self._catalogue.say(
            decision.text,
            person.language,
            user=incoming.user_id,
            contact=policy.access_for(self._settings, account).contact,
            limit=limit,
            **values,
        )
        return _Taken(receipt, has_reply=self._reply(tx, address, "notice", text, now))

    def _take_edit(self, tx: Transaction, incoming: Incoming, person: Person, now: int) -> _Taken:
        outcome = inbox.replace_text(tx, incoming, now)
        if outcome == "replaced":
            inbox.record(tx, incoming, "accepted", "edit", now, person_id=person.id)
            return _Taken(Receipt("accepted", "edit"), is_under_way=True)
        inbox.record(tx, incoming, "declined", "edited_after_answer", now, person_id=person.id)
        return _Taken(
            Receipt("declined", "edited_after_answer"),
            is_under_way=not outbox.is_message_settled(tx, incoming),
        )

    def _resolve(self, tx: Transaction, incoming: Incoming, person: Person, now: int) -> lifecycle.Resolved:
        """The live session that a message belongs to, made if there is none."""
        account = self._accounts[incoming.account]
        scope = policy.scope_for(self._settings, account, incoming.channel)
        return lifecycle.resolve(
            tx,
            incoming,
            person,
            choose_scope(incoming.channel_kind, scope.direct, scope.group),
            separate_threads=scope.separate_threads,
            expire_after_ms=int(self._settings.sessions.expire_after.total_seconds() * 1000),
            persona=account.persona,
            now=now,
        )

    def _run_command(
        self,
        tx: Transaction,
        incoming: Incoming,
        person: Person,
        call: commands.CommandCall,
        now: int,
        meaning: bytes | None,
    ) -> _Taken:
        account = self._accounts[incoming.account]
        scope = policy.scope_for(self._settings, account, incoming.channel)
        shared = choose_scope(incoming.channel_kind, scope.direct, scope.group)
        thread = incoming.thread if scope.separate_threads else None
        key = session_key(shared, incoming.account, incoming.channel, thread, person.id)
        session = lifecycle.find_live(tx, key)
        result = commands.run(
            commands.CommandContext(
                tx=tx,
                message=incoming,
                person=person,
                key=key,
                session=session,
                begin=lambda: self._resolve(tx, incoming, person, now).session,
                scope=ChannelScope(incoming.account, incoming.channel, thread)
                if shared == "channel"
                else PersonScope(person.id),
                catalogue=self._catalogue,
                language=self._catalogue.language(person.language),
                now=now,
                agent=self._agent_name(account.persona),
                settings=self._settings,
                meaning=meaning,
            ),
            call,
        )
        address = inbox.record(
            tx,
            incoming,
            "command",
            call.name,
            now,
            person_id=person.id,
            session_id=session.id if session else None,
        )
        has_reply = self._reply(
            tx,
            address,
            "command",
            result.text,
            now,
            session_id=session.id if session else None,
            choices=result.choices,
        )
        return _Taken(
            Receipt("accepted", "command"),
            has_reply=has_reply,
            stop_turns=result.stop_turns,
            wake_sessions=result.wake_sessions,
        )

    def _reply(
        self,
        tx: Transaction,
        address: Address,
        kind: ReplyKind,
        text: str,
        now: int,
        *,
        session_id: SessionId | None = None,
        choices: Sequence[Choice] = (),
    ) -> bool:
        """False if there is nothing to be seen in the text: an operator's own file may silence a sentence."""
        chunks = self._delivery.render(address.account, text, choices)
        outbox.add(tx, address, kind, chunks, now, session_id=session_id)
        return bool(chunks)

    def _follow_up(self, message: InboundMessage, taken: _Taken) -> None:
        receipt = taken.receipt
        self._count(message.account, receipt.outcome)
        log.info(
            "gateway.message_received",
            account=message.account,
            channel=message.channel,
            message_id=message.message_id,
            outcome=receipt.outcome,
            reason=receipt.reason,
            session_id=taken.session_id,
            turn_id=taken.turn_id,
        )
        if taken.is_new_session:
            log.info("session.created", account=message.account, session_id=taken.session_id)
        if taken.claim is not None:
            self._lanes.start(taken.claim)
        elif taken.session_id is not None:
            self._lanes.notify(taken.session_id)
        if taken.turn_id is not None and taken.ahead:
            self._lanes.wait_notice(taken.turn_id, taken.language)
        if taken.stop_turns:
            self._lanes.stop(taken.stop_turns)
        for session_id in taken.wake_sessions:
            self._lanes.notify(session_id)
        if taken.has_reply:
            self._delivery.notify(message.account, message.channel)
        elif taken.turn_id is None and not taken.is_under_way:
            self._delivery.settle(message.account, message.message_id)


def _is_told(tx: Transaction, message: Incoming) -> bool:
    """A notice is on its way already: a flood must not earn a flood of answers, behind which the real ones would wait."""
    waiting = outbox.waiting(tx, message.account, message.channel, limit=_FLOOD_LOOK)
    return any(chunk.kind == "notice" for chunk in waiting)


def _only_asks(message: InboundMessage) -> bool:
    """Neither a command nor an edit: those read and then write what is not theirs alone."""
    return not message.is_edit and (bool(message.attachments) or commands.parse(message.text) is None)


def _as_incoming(message: InboundMessage) -> Incoming:
    """The adapter's message in the store's words."""
    return Incoming(
        platform=message.account.partition(".")[0],
        account=message.account,
        channel=message.channel,
        channel_kind=message.channel_kind,
        message_id=message.message_id,
        dedupe_id=f"{message.message_id}:{message.sent_at_ms}" if message.is_edit else message.message_id,
        user_id=message.sender.user_id,
        display_name=message.sender.display_name,
        username=message.sender.username,
        language=message.sender.language,
        text=message.text,
        sent_at=message.sent_at_ms,
        channel_title=message.channel_title,
        thread=message.thread,
        attachments=[
            {
                "kind": attachment.kind,
                "reference": attachment.reference,
                "name": attachment.name,
                "media_type": attachment.media_type,
                "size_bytes": attachment.size_bytes,
            }
            for attachment in message.attachments
        ],
        reply_handle=message.reply_handle,
        watermark=message.watermark,
        origin=message.origin,
    )
