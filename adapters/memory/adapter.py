"""`MemoryAdapter`: the shipped double of a platform. Use it to test your own bot, without any account or network.

    adapter = MemoryAdapter.alone()
    ...                                         # give it to the daemon, or call `run` with an Intake of your own
    await adapter.say("hello")                  # ada writes in her direct channel; returns once it is accepted
    print(await adapter.wait_for_reply())       # what she sees
    print(await adapter.ask("/help"))           # both, and waits until nothing more will come

Faults are switched on at `adapter.room`: `lose_next_answer`, `rate_limit_next`, `refuse_next`, `outage`. With
`api_url` set there is no room: the adapter is a bridge to a program of yours (`adapters/memory/bridge.py`).
Owns the run loop and the person's side; what the platform does is the room's or the program's.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from adapters.base import Capabilities, Health, Intake, Receipt, WebhookRoute
from adapters.choices import as_lines
from adapters.errors import AdapterError, MalformedUpdate, StartError, Unreachable
from adapters.handover import hand_over, until_taken
from adapters.memory.bridge import Bridge
from adapters.memory.room import Room, Sent, Shown
from adapters.memory.wire import Arrival, Wire, parse_message
from adapters.messages import Choice, Chunk, CommandSpec, InboundMessage, Sender, Target
from config.names import AccountId, ChannelId, PlatformMessageId, PlatformUserId, ThreadId
from config.settings import AccountSettings

CAPABILITIES = Capabilities(
    max_text=4000, can_edit=True, can_type=True, has_threads=True, is_idempotent=True, preview_interval_s=0.2
)
REPEAT_MARK = "↻ "
"""Stands before a message that may be there already, where the platform cannot tell."""
POLL_S = 20.0
"""How long an empty poll waits; each one that comes back is a proof of hearing."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0

logger = structlog.get_logger()


class MemoryAdapter:
    def __init__(
        self,
        account: AccountId,
        settings: AccountSettings,
        commands: Callable[[str], Sequence[CommandSpec]],
        *,
        language: str = "en",
        capabilities: Capabilities = CAPABILITIES,
        room: Room | None = None,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        """`capabilities` decides what it acts like (`is_idempotent=False`: like Telegram). A given `room` must act alike."""
        self._account = account
        self._capabilities = capabilities
        self._first_retry_s = first_retry_s
        self._health = Health("starting")
        self._room: Room | None = None
        self._wire: Wire
        if settings.api_url is not None:
            token = settings.token.get_secret_value() if settings.token else None
            self._wire = Bridge(account, settings.api_url, token)
        else:
            self._wire = self._room = room or Room(account, is_idempotent=capabilities.is_idempotent)
        self._receipts: dict[int, asyncio.Future[Receipt]] = {}
        self._unsettled: dict[PlatformMessageId, asyncio.Event] = {}
        self._read: dict[ChannelId, int] = {}

    @classmethod
    def alone(
        cls, account: str = "memory.test", *, capabilities: Capabilities = CAPABILITIES
    ) -> "MemoryAdapter":
        """An adapter with a room of its own and no settings, for a test that needs just that."""
        return cls(
            AccountId(account), AccountSettings(platform="memory"), lambda _: (), capabilities=capabilities
        )

    # the port

    @property
    def account(self) -> AccountId:
        return self._account

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def routes(self) -> Sequence[WebhookRoute]:
        return ()

    def health(self) -> Health:
        return self._health

    async def run(self, intake: Intake) -> None:
        """Poll, deliver, and acknowledge with the next poll: what `deliver` has not returned for comes again."""
        logger.info("adapter.started", account=self._account)
        acknowledged = 0
        retry_s = self._first_retry_s
        try:
            while True:
                try:
                    # The first poll does not wait: whether the platform is there is known at once.
                    wait_s = POLL_S if self._health.state == "hearing" else 0
                    arrivals = await self._wire.inbound(acknowledged, wait_s)
                except AdapterError as error:
                    self._note_failure(error, retry_s)
                    await asyncio.sleep(retry_s * random.uniform(0.7, 1))
                    retry_s = min(retry_s * 2, LONGEST_RETRY_S)
                    continue
                if self._health.state != "hearing":
                    logger.info("adapter.connected", account=self._account)
                self._health = Health("hearing", time.time())
                retry_s = self._first_retry_s
                await self._take_in(intake, arrivals)
                acknowledged = max([acknowledged, *(arrival.number for arrival in arrivals)])
        finally:
            self._health = Health("stopped", self._health.last_heard_at)

    def render(self, markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
        """The text as it is, cut at lines where possible; people here read Markdown."""
        text = _storable(as_lines(markdown, choices)).strip()
        return [Chunk(piece) for piece in _cut(text, self._capabilities.max_text)]

    async def send(
        self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool = False
    ) -> PlatformMessageId:
        if is_repeat and not self._capabilities.is_idempotent:
            chunk = replace(chunk, text=REPEAT_MARK + chunk.text)
        return await self._wire.send(target, chunk, key, is_repeat=is_repeat)

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        await self._wire.edit(target, message_id, chunk)

    async def typing(self, target: Target) -> None:
        await self._wire.typing(target)

    async def close(self) -> None:
        await self._wire.close()

    def settled(self, message_id: PlatformMessageId) -> None:
        if (event := self._unsettled.get(message_id)) is not None:
            event.set()

    # the person's side

    @property
    def room(self) -> Room:
        if self._room is None:
            raise RuntimeError(
                f"{self._account} is a bridge (api_url is set): people and messages are on the other side"
            )
        return self._room

    @property
    def sent(self) -> list[Sent]:
        """Every send call that reached the platform, repeats and refused ones included."""
        return self.room.sent

    def messages(self, channel: str = "ada") -> list[str]:
        """What people see from the bot in a channel, in order, edits applied."""
        return [shown.text for shown in self.room.shown(ChannelId(channel))]

    async def say(
        self,
        text: str,
        *,
        person: str = "ada",
        channel: str | None = None,
        group: bool = False,
        mention: bool = False,
        thread: str | None = None,
        reply_to: str | None = None,
        message_id: str | None = None,
        language: str | None = None,
    ) -> Receipt:
        """Somebody writes; returns what became of it. While the bot is away the message waits, and so does this call.

        The direct channel of a person has the person's name; a group is called "group" unless `channel` says otherwise.
        In a group the bot is addressed by `mention`, by a command, and by a reply to a message of its own.
        """
        direct_or_group = ChannelId(channel or ("group" if group else person))
        answers_bot = reply_to in {shown.message_id for shown in self.room.shown(direct_or_group)}
        number = self.room.post(
            InboundMessage(
                account=self._account,
                channel=direct_or_group,
                message_id=PlatformMessageId(message_id or f"m-{self.room.posted + 1}"),
                sender=Sender(PlatformUserId(person), person.capitalize(), person, language),
                text=text,
                sent_at_ms=time.time_ns() // 1_000_000,
                channel_kind="group" if group else "direct",
                channel_title=str(direct_or_group) if group else None,
                thread=ThreadId(thread) if thread else None,
                is_addressed=not group or mention or answers_bot or text.startswith("/"),
                reply_to=PlatformMessageId(reply_to) if reply_to else None,
            )
        )
        self._receipts[number] = asyncio.get_running_loop().create_future()
        try:
            return await self._receipts[number]
        finally:
            del self._receipts[number]

    def say_nonsense(self, raw: bytes = b'{"sender": 1}') -> None:
        """Something arrives that no adapter can parse."""
        self.room.post(raw)

    async def wait_for_reply(self, channel: str = "ada", *, timeout_s: float = 10) -> Shown:
        """The next message of the bot in a channel that this call has not returned before.

        A growing answer is returned as it first appears; `ask` waits for its end.
        Raises: TimeoutError if none comes in time.
        """
        position = self._read.get(ChannelId(channel), 0)
        async with asyncio.timeout(timeout_s):
            while len(shown := self.room.shown(ChannelId(channel))) <= position:
                await self.room.changed()
        self._read[ChannelId(channel)] = position + 1
        return shown[position]

    async def ask(
        self, text: str, *, person: str = "ada", channel: str | None = None, timeout_s: float = 10
    ) -> list[str]:
        """Say something in a direct channel and return everything the bot answers to it.

        Raises: TimeoutError if the daemon has not settled the message in time.
        """
        message_id = PlatformMessageId(f"m-{self.room.posted + 1}")
        where = ChannelId(channel or person)
        before = {shown.message_id for shown in self.room.shown(where)}
        self._unsettled[message_id] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self.say(text, person=person, channel=channel, message_id=message_id)
                await self._unsettled[message_id].wait()
        finally:
            del self._unsettled[message_id]
        return [
            shown.text
            for shown in self.room.shown(where)
            if shown.message_id not in before and shown.target.reply_to in (None, message_id)
        ]

    # hearing

    async def _take_in(self, intake: Intake, arrivals: Sequence[Arrival]) -> None:
        """Deliver a batch: channels beside each other, each channel in order. Returns when all of it is stored."""
        channels: dict[ChannelId, list[tuple[int, InboundMessage]]] = {}
        for arrival in arrivals:
            if isinstance(arrival.content, InboundMessage):
                channels.setdefault(arrival.content.channel, []).append((arrival.number, arrival.content))
                continue
            try:
                message = parse_message(self._account, json.loads(arrival.content))
            except (ValueError, RecursionError, MalformedUpdate) as error:
                await self._quarantine(intake, arrival.content, error)
            else:
                channels.setdefault(message.channel, []).append((arrival.number, message))
        async with asyncio.TaskGroup() as feeds:
            for messages in channels.values():
                feeds.create_task(self._feed(intake, messages))

    async def _feed(self, intake: Intake, messages: Sequence[tuple[int, InboundMessage]]) -> None:
        for number, message in messages:
            receipt = await hand_over(intake, message)
            said = self._receipts.get(number)
            if said is not None and not said.done():
                said.set_result(receipt)

    async def _quarantine(self, intake: Intake, raw: bytes, error: Exception) -> None:
        reason = error.reason if isinstance(error, MalformedUpdate) else "not JSON"
        await until_taken(lambda: intake.quarantine(self._account, raw, reason), self._account)
        logger.warning("adapter.update_quarantined", account=self._account, reason=reason)

    def _note_failure(self, error: AdapterError, retry_s: float) -> None:
        self._health = Health(
            "refused" if isinstance(error, StartError) else "retrying",
            self._health.last_heard_at,
            error.reason,
            is_cut_off=isinstance(error, Unreachable),
        )
        logger.warning(
            "adapter.failed", account=self._account, reason=error.reason, retry_after_s=round(retry_s, 1)
        )


def _storable(text: str) -> str:
    """Without what JSON or a database cannot hold: lone surrogates, NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _cut(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` characters, ended at a line or a word where one ends in the second half."""
    pieces = []
    while len(text) > limit:
        end = (
            max(text.rfind("\n", limit // 2, limit), 0) or max(text.rfind(" ", limit // 2, limit), 0) or limit
        )
        pieces.append(text[:end])
        text = text[end:].lstrip()
    return [piece for piece in (*pieces, text) if piece.strip()]
