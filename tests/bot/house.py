"""A whole daemon in the test's process: the real store, gateway, lanes, turns and delivery, on a memory platform.

Owns wiring and waiting. What people write and see is the memory adapter's; what went wrong inside is in the store's rows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from adapters.base import Capabilities
from adapters.memory import MemoryAdapter, Room
from adapters.memory.adapter import CAPABILITIES
from adapters.messages import InboundMessage, Sender
from bot import catalogue, stores
from bot.agents.base import Agent, AgentContext, Event, Toolbox
from bot.agents.scripted import Script, ScriptedAgent
from bot.delivery import Delivery
from bot.gateway import Gateway
from bot.governor import Governor
from bot.lanes import Lanes
from bot.nodes import Duty, Node, name_of
from bot.summarising import Summariser
from bot.tools.builtin import builtin_tools
from bot.tools.registry import Tool, ToolRegistry
from bot.turns import Turns
from config.names import AccountId, ChannelId, PlatformMessageId, PlatformUserId
from config.settings import AccountSettings, Settings
from sessions.database.base import Database, Transaction
from sessions.errors import StoreUnavailable
from sessions.hot import HotSessions
from sessions.leases import Lease, LeaseName
from sessions.semantic import Encoder

T = TypeVar("T")
ACCOUNT = AccountId("memory.main")
LIKE_TELEGRAM = replace(CAPABILITIES, is_idempotent=False)
"""A platform that takes no idempotency key."""


class MovingClock:
    """Milliseconds since the epoch, moved by hand."""

    def __init__(self, start: int = 1_800_000_000_000) -> None:
        self.ms = start

    def __call__(self) -> int:
        return self.ms

    def advance(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)


class SwitchedDatabase:
    """The real database behind two switches: a disk that fills up, and a store that refuses to write."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.free: int | None = None
        self.is_refusing = False
        self.mixed: list[bool] = []
        """Of each write with a key: whether it may mix."""

    @property
    def dialect(self) -> Any:
        return self._inner.dialect

    async def write(self, work: Callable[[Transaction], T], *, key: str = "", may_mix: bool = False) -> T:
        if self.is_refusing:
            raise StoreUnavailable("no room left on the disk", "Free some space.")
        if key:
            self.mixed.append(may_mix)
        return await self._inner.write(work, key=key, may_mix=may_mix)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._inner.read(work)

    def free_bytes(self) -> int | None:
        return self._inner.free_bytes() if self.free is None else self.free

    async def close(self) -> None:
        await self._inner.close()


class House:
    """One daemon. `async with house.running()` hears, answers and sends; the room and the database outlive it.

    On PostgreSQL it is a node like any other, with leases and a queue; nobody else happens to be there.
    """

    def __init__(
        self,
        url: str,
        *,
        agent: Agent | Mapping[str, Any] | None = None,
        script: Script | None = None,
        tools: Sequence[Tool] = builtin_tools(),
        capabilities: Capabilities = CAPABILITIES,
        account: Mapping[str, Any] | None = None,
        room: Room | None = None,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
        governor: Governor | None = None,
        adapter: Callable[..., MemoryAdapter] = MemoryAdapter,
        typing_every_s: float = 4.0,
        **sections: Any,
    ) -> None:
        self.url = url
        self.account = AccountSettings(platform="memory", **(account or {}))
        self.settings = Settings.model_validate(
            {
                "database_url": url,
                "accounts": {"main": self.account.model_dump()},
                "delivery": {"preview": False},
                **({"agent": agent} if isinstance(agent, Mapping) else {}),
                **sections,
            }
        )
        self.capabilities = capabilities
        self.room = room or Room(ACCOUNT, is_idempotent=capabilities.is_idempotent)
        self.agents: dict[str | None, Agent] = {
            None: ScriptedAgent(script) if agent is None or isinstance(agent, Mapping) else agent
        }
        self.tools = ToolRegistry(tools)
        self.now = now
        self.governor = governor or Governor(probe_first_s=0.1)
        self.make_adapter = adapter
        self.typing_every_s = typing_every_s
        self.adapter: MemoryAdapter
        self.database: SwitchedDatabase
        self.node: Node
        self.gateway: Gateway
        self.lanes: Lanes
        self.turns: Turns
        self.hot: HotSessions
        self.summariser: Summariser
        self.summary_agent: Agent | None = None
        """The model that writes summaries; without one they are digests."""
        self.delivery: Delivery
        self.encoder: Encoder | None = None

    def _agent_for(self, persona: str | None) -> Agent:
        return self.agents.get(persona) or self.agents[None]

    async def open(self) -> None:
        """Wire everything; nothing is taken up yet."""
        self.database = SwitchedDatabase(await stores.open_database(self.settings))
        leases = await stores.open_leases(self.settings)
        self._leases = None if leases is None else SwitchedDatabase(leases)
        self.node = Node(self._leases, name_of("house"), lease_s=self.settings.node.lease_s)
        node = None if self.node.is_alone else self.node.name
        self._run_name = LeaseName("run", AccountId(self.node.name))
        accounts = {ACCOUNT: self.account}
        texts = catalogue.load(self.settings.language, self.settings.texts)
        self.adapter = self.make_adapter(
            ACCOUNT, self.account, lambda _: (), capabilities=self.capabilities, room=self.room
        )
        self.delivery = Delivery(
            self.database,
            self.settings,
            accounts,
            {ACCOUNT: self.adapter},
            texts,
            self.governor,
            node=self.node,
            typing_every_s=self.typing_every_s,
            uncertain_first_s=0.1,
            now=self.now,
        )
        self.hot = HotSessions(self.settings.store.hot_bytes)
        self.summariser = Summariser(
            self.database, self.settings, lambda _persona: self.summary_agent, now=self.now
        )
        self.turns = Turns(
            self.database,
            self.settings,
            texts,
            self.delivery,
            self.tools,
            self._agent_for,
            now=self.now,
            hot=self.hot,
            on_due=self.summariser.notify,
            node=node,
        )
        self.lanes = Lanes(
            self.database,
            self.turns,
            max_running=self.settings.turns.max_running,
            context_messages=self.settings.agent.context_messages,
            notice_after_s=self.settings.turns.queue_notice_after_s,
            now=self.now,
            hot=self.hot,
            node=node,
            may_run=lambda: self.node.is_alone or self.node.holds(self._run_name),
            lease_s=self.settings.node.lease_s,
            lease_database=self._leases,
        )
        self.gateway = Gateway(
            self.database,
            self.settings,
            accounts,
            texts,
            self.lanes,
            self.delivery,
            agent_name=lambda persona: self._agent_for(persona).name,
            must_greet=lambda _: self.capabilities.must_greet,
            now=self.now,
            hot=self.hot,
            node=node,
            encoder=self.encoder,
        )

    @asynccontextmanager
    async def running(
        self, *, drain_s: float = 5, send_s: float = 5, dies: bool = False
    ) -> AsyncIterator["House"]:
        """From start-up recovery to an orderly end. `drain_s=0` cuts running turns off, `send_s=0` replies.

        With `dies` it gives nothing back to other nodes either, as if it had been killed: what it held is its own until the end
        of its lease, for which `node={"lease_s": 1}` is short.
        """
        await self.open()
        if self.node.is_alone:
            await self.delivery.recover()
            await self.lanes.recover()
        else:
            await self.lanes.prepare()
        duties = self._duties()
        await self.node.start(duties)
        try:
            yield self
        finally:
            if dies:
                drain_s = 0
                if self._leases is not None:
                    self._leases.is_refusing = True
            await self.gateway.close("test is over")
            await self.node.give_back([name for name in duties if name.kind == "hear"])
            await self.lanes.drain(drain_s)
            await self.summariser.close()
            await self.delivery.close(send_s)
            await self.node.close()
            await self.adapter.close()
            await self.database.close()

    def _duties(self) -> dict[LeaseName, Duty]:
        """As `bot/app.py` has them."""

        async def hear(_lease: Lease | None) -> None:
            await self.adapter.run(self.gateway)

        duties: dict[LeaseName, Duty] = {LeaseName("hear", ACCOUNT): hear}
        if not self.node.is_alone:
            duties[LeaseName("send", ACCOUNT)] = partial(self.delivery.own, ACCOUNT)
            duties[self._run_name] = lambda _lease: self.lanes.share()
        return duties

    # what a test does

    async def deliver(self, text: str = "hello", **fields: Any) -> Any:
        """Hand a message to the gateway as an adapter does, and return the receipt."""
        return await self.gateway.deliver(inbound(text, **fields))

    async def rows(self, sql: str, **parameters: object) -> list[Mapping[str, Any]]:
        return list(await self.database.read(lambda tx: tx.rows(sql, parameters)))

    async def until(self, holds: Callable[[], Any], timeout_s: float = 10) -> None:
        """Wait until something is so; `holds` may be a coroutine function."""
        async with asyncio.timeout(timeout_s):
            while True:
                result = holds()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return
                await asyncio.sleep(0.005)

    async def until_quiet(self, timeout_s: float = 10) -> None:
        """Wait until no turn is unfinished and nothing waits to be sent."""

        async def is_quiet() -> bool:
            found = await self.rows(
                "SELECT (SELECT COUNT(*) FROM turns WHERE status IN ('queued', 'running'))"
                " + (SELECT COUNT(*) FROM outbox WHERE state IN ('ready', 'sending', 'uncertain') AND is_final = 1) AS n"
            )
            return found[0]["n"] == 0

        await self.until(is_quiet, timeout_s)

    async def until_sending(self) -> None:
        """Wait until replies go out. On PostgreSQL what is unsent, and how long to keep quiet, is read after the lease has come."""
        await self.until(lambda: self.delivery._may_send(ACCOUNT))

    async def until_running(self, count: int = 1) -> None:
        async def is_running() -> bool:
            return len(await self.rows("SELECT 1 AS x FROM turns WHERE status = 'running'")) == count

        await self.until(is_running)

    async def statuses(self) -> list[str]:
        """The status of every turn, in order of acceptance."""
        return [row["status"] for row in await self.rows("SELECT status FROM turns ORDER BY inbox_id")]

    def shown(self, channel: str = "ada") -> list[str]:
        return [shown.text for shown in self.room.shown(ChannelId(channel))]


_numbers = iter(range(1, 10**9))


def inbound(text: str = "hello", *, person: str = "ada", **fields: Any) -> InboundMessage:
    """A message as an adapter would parse it."""
    defaults: dict[str, Any] = {
        "account": ACCOUNT,
        "channel": ChannelId(person),
        "message_id": PlatformMessageId(f"in-{next(_numbers)}"),
        "sender": Sender(
            PlatformUserId(person),
            person.capitalize(),
            person,
            fields.pop("language", None),
            is_bot=fields.pop("is_bot", False),
        ),
        "text": text,
        "sent_at_ms": 1_800_000_000_000,
    }
    return InboundMessage(**{**defaults, **fields})


SHORT_LEASE = {"lease_s": 1}
"""For a house that dies: others need not wait long for what it held."""


class GatedAgent:
    """Says what it begins, then waits until the test lets it go on; answers with the message."""

    name = "gated"

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.contexts: list[AgentContext] = []
        self.gate = asyncio.Event()

    async def run(self, context: AgentContext, tools: Toolbox) -> AsyncIterator[Event]:
        self.begun.append(context.messages[-1].content)
        self.contexts.append(context)
        await self.gate.wait()
        async for event in ScriptedAgent().run(context, tools):
            yield event

    async def close(self) -> None:
        """Nothing to close."""


def contents(rows: Sequence[Mapping[str, Any]], column: str) -> Iterator[Any]:
    return (row[column] for row in rows)
