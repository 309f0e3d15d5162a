"""The memory adapter's worlds: a room in the process, acting like Telegram or like Discord, and a bridge over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from adapters.memory import MemoryAdapter, Room
from adapters.memory.adapter import CAPABILITIES
from adapters.messages import InboundMessage, Sender, Target
from config.names import AccountId, ChannelId, PlatformMessageId, PlatformUserId
from config.settings import AccountSettings
from tests.conformance.adapter_worlds import QuietWire
from tests.fakes.memory import Counterparty, serve

ACCOUNT = AccountId("memory.main")
DIRECT = ChannelId("ada")
GROUP = ChannelId("group")
FIRST_RETRY_S = 0.05
SUPPORTS = frozenset({"lose_answer", "rate_limit", "refuse", "outage", "edit", "group", "poison", "typing"})


@dataclass
class RoomWorld(QuietWire):
    name: str
    room: Room
    adapter: MemoryAdapter
    target: Target = Target(ACCOUNT, DIRECT)  # noqa: RUF009 -- frozen
    supports: frozenset[str] = SUPPORTS

    async def say(self, text: str, *, direct: bool = True, mention: bool = False) -> PlatformMessageId:
        message_id = PlatformMessageId(f"m-{self.room.posted + 1}")
        self.room.post(
            InboundMessage(
                account=ACCOUNT,
                channel=DIRECT if direct else GROUP,
                message_id=message_id,
                sender=Sender(PlatformUserId("ada"), "Ada"),
                text=text,
                sent_at_ms=1,
                channel_kind="direct" if direct else "group",
                is_addressed=direct or mention,
            )
        )
        return message_id

    async def visible(self, *, direct: bool = True) -> list[str]:
        return [shown.text for shown in self.room.shown(DIRECT if direct else GROUP)]

    async def lose_next_answer(self) -> None:
        self.room.lose_next_answer()

    async def rate_limit_next(self, retry_after_s: float) -> None:
        self.room.rate_limit_next(retry_after_s)

    async def refuse_next(self) -> None:
        self.room.refuse_next()

    async def outage(self, on: bool) -> None:
        self.room.outage(on)

    async def poison(self) -> None:
        self.adapter.say_nonsense()


@asynccontextmanager
async def memory_world(*, is_idempotent: bool = False) -> AsyncIterator[RoomWorld]:
    """A platform without idempotent sends, as Telegram is."""
    room = Room(ACCOUNT, is_idempotent=is_idempotent)
    adapter = MemoryAdapter(
        ACCOUNT,
        AccountSettings(platform="memory"),
        lambda _: (),
        capabilities=replace(CAPABILITIES, is_idempotent=is_idempotent),
        room=room,
        first_retry_s=FIRST_RETRY_S,
    )
    yield RoomWorld("memory", room, adapter)


@asynccontextmanager
async def idempotent_memory_world() -> AsyncIterator[RoomWorld]:
    """A platform that shows a key once, as Discord does."""
    async with memory_world(is_idempotent=True) as world:
        yield world


@dataclass
class BridgeWorld(QuietWire):
    counterparty: Counterparty
    adapter: MemoryAdapter
    name: str = "memory-http"
    target: Target = Target(ACCOUNT, DIRECT)  # noqa: RUF009 -- frozen
    supports: frozenset[str] = SUPPORTS

    async def say(self, text: str, *, direct: bool = True, mention: bool = False) -> PlatformMessageId:
        return PlatformMessageId(self.counterparty.say(text, group=not direct, mention=mention))

    async def visible(self, *, direct: bool = True) -> list[str]:
        return self.counterparty.visible(DIRECT if direct else GROUP)

    async def lose_next_answer(self) -> None:
        self.counterparty.faults.lose_answers += 1

    async def rate_limit_next(self, retry_after_s: float) -> None:
        self.counterparty.faults.rate_limits.append(retry_after_s)

    async def refuse_next(self) -> None:
        self.counterparty.faults.refusals += 1

    async def outage(self, on: bool) -> None:
        self.counterparty.set_outage(on)

    async def poison(self) -> None:
        self.counterparty.poison()


@asynccontextmanager
async def http_memory_world() -> AsyncIterator[BridgeWorld]:
    counterparty = Counterparty()
    async with serve(counterparty) as url:
        settings = AccountSettings(platform="memory", api_url=url)
        adapter = MemoryAdapter(ACCOUNT, settings, lambda _: (), first_retry_s=FIRST_RETRY_S)
        yield BridgeWorld(counterparty, adapter)
