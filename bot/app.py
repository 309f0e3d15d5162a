"""The composition root: makes every part, connects them, runs them and takes them down in order.

The only module that names concrete adapters (through their registry), agents and stores. Reads top to bottom: what is wired,
how it starts, how it stops.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import structlog

from adapters import registry
from adapters.base import Adapter
from bot import catalogue, commands
from bot.agents.base import Agent
from bot.delivery import Delivery
from bot.gateway import Gateway
from bot.governor import Governor
from bot.health import HealthCheck, notify_systemd
from bot.lanes import Lanes
from bot.telemetry import Telemetry
from bot.tools.builtin import builtin_tools
from bot.tools.registry import ToolRegistry
from bot.turns import Turns
from bot.web.app import WebServer, build
from config.names import AccountId
from config.settings import AccountSettings, Settings
from sessions import inbox, lifecycle
from sessions.database.base import Database
from sessions.database.sqlite import SqliteDatabase
from sessions.errors import StoreError, StoreUnavailable

log = structlog.get_logger()

TERMINAL: Final = AccountId("terminal.local")
"""The account of the chat in the terminal, which needs no configuration."""

_ADAPTER_RESTART_S: Final = 5.0
_DECLINED_KEPT_MS: Final = 7 * 24 * 3600 * 1000


def sqlite_path(database_url: str) -> Path:
    """The file that a sqlite URL names: `sqlite:///absolute/path`, `sqlite:relative/path`."""
    rest = database_url.removeprefix("sqlite:")
    if rest.startswith("//"):
        parts = urlsplit(database_url)
        rest = f"{parts.netloc}{parts.path}"
    return Path(unquote(rest)).expanduser().absolute()


async def open_database(settings: Settings) -> Database:
    """Raises: StoreError."""
    if not settings.database_url.startswith("sqlite:"):
        raise StoreUnavailable(
            "this Palaver stores in SQLite only", 'Set database_url = "sqlite:///var/lib/palaver/palaver.db".'
        )
    return await SqliteDatabase.open(
        sqlite_path(settings.database_url),
        readers=settings.store.readers,
        busy_timeout_s=settings.store.busy_timeout_s,
    )


class App:
    """One daemon."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        accounts: Mapping[AccountId, AccountSettings],
        *,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """Raises: catalogue.CatalogueError, registry.AdapterUnavailable, ValueError for unknown tools."""
        self.settings = settings
        self.database = database
        self._now = now
        self._stop = asyncio.Event()
        self._interrupted = False
        self._agents: dict[str | None, Agent] = {}
        self._running: list[asyncio.Task[None]] = []
        self.telemetry = Telemetry()
        self.catalogue = catalogue.load(settings.language, settings.texts)
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
            now=now,
            count=self.telemetry.count_chunk,
        )
        self.turns = Turns(
            database,
            settings,
            self.catalogue,
            self.delivery,
            ToolRegistry(builtin_tools()),
            self._agent_for,
            now=now,
            observe=self.telemetry.observe_turn,
        )
        self.lanes = Lanes(
            database,
            self.turns,
            max_running=settings.turns.max_running,
            context_messages=settings.agent.context_messages,
            notice_after_s=settings.turns.queue_notice_after_s,
            now=now,
        )
        self.gateway = Gateway(
            database,
            settings,
            accounts,
            self.catalogue,
            self.lanes,
            self.delivery,
            agent_name=lambda persona: self._agent_for(persona).name,
            now=now,
            count=self.telemetry.count_message,
        )
        self.health = HealthCheck(database, self.adapters)
        self.web: WebServer | None = None
        if settings.http.enabled:
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

    def stop(self) -> None:
        """Begin the orderly end; the second call ends the process at once."""
        if self._stop.is_set():
            os._exit(130)
        self._stop.set()

    async def start(self) -> None:
        """Take up what the last process left, and begin to hear. Raises: PortTaken, StoreError."""
        if self.web is not None:
            await self.web.start()
        waiting = await self.delivery.recover()
        sessions = await self.lanes.recover()
        for account in self.adapters:
            self._running.append(asyncio.create_task(self._hear(account), name=f"adapter-{account}"))
        self._running.append(asyncio.create_task(self._clean_up(), name="clean-up"))
        log.info(
            "daemon.started",
            accounts=list(self.adapters),
            sessions_with_work=sessions,
            channels_with_replies=waiting,
        )
        notify_systemd("READY=1")

    async def wait(self) -> None:
        """Until somebody stops the daemon, or every adapter's input has ended (a chat in the terminal that is over)."""
        hearing = [task for task in self._running if task.get_name().startswith("adapter-")]
        stopping = asyncio.create_task(self._stop.wait())
        ended = asyncio.create_task(asyncio.wait(hearing))
        await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
        self._interrupted = not ended.done()
        stopping.cancel()
        ended.cancel()

    async def close(self) -> None:
        """Intake first, then running turns, then replies, then connections and the store; what is left stays as rows."""
        notify_systemd("STOPPING=1")
        self.health.is_stopping = True
        deadline = time.monotonic() + self.settings.shutdown_after_s
        log.info("daemon.stopping", turns_running=self.lanes.running)
        await self.gateway.close("shutting down")
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        cut_off = await self.lanes.drain(max(0.0, deadline - time.monotonic()))
        unsent = await self.delivery.close(max(0.5, deadline - time.monotonic()))
        for account, adapter in self.adapters.items():
            try:
                async with asyncio.timeout(5):
                    await adapter.close()
            except Exception as error:  # one adapter's end must not keep the others from theirs
                log.warning("adapter.close_failed", account=account, error=f"{type(error).__name__}: {error}")
        for agent in self._agents.values():
            await agent.close()
        if self.web is not None:
            await self.web.stop()
        await self.database.close()
        log.info("daemon.stopped", turns_cut_off=cut_off, channels_unsent=unsent)

    async def _hear(self, account: AccountId) -> None:
        """Run an adapter; a fault in it takes down this adapter alone, and it comes back."""
        while True:
            try:
                await self.adapters[account].run(self.gateway)
            except Exception:
                log.exception("adapter.failed", account=account, restarts_in_s=_ADAPTER_RESTART_S)
                await asyncio.sleep(_ADAPTER_RESTART_S)
            else:
                return

    async def _clean_up(self) -> None:
        """Expire, archive and remove in small batches between which people get the store."""
        rules = self.settings.sessions
        deletes_after = rules.delete_after
        while True:
            await asyncio.sleep(rules.cleanup_interval.total_seconds())
            try:
                touched = 0
                while batch := await self.database.write(
                    lambda tx: lifecycle.clean_up(
                        tx,
                        self._now(),
                        expire_after_ms=int(rules.expire_after.total_seconds() * 1000),
                        archive_after_ms=int(rules.archive_after.total_seconds() * 1000),
                        delete_after_ms=int(deletes_after.total_seconds() * 1000) if deletes_after else None,
                    )
                ):
                    touched += batch
                    await asyncio.sleep(0.02)
                while await self.database.write(
                    lambda tx: inbox.forget_declined(tx, self._now() - _DECLINED_KEPT_MS)
                ):
                    await asyncio.sleep(0.02)
                log.info("sessions.cleaned_up", sessions=touched)
            except StoreError as error:
                log.error("sessions.cleanup_failed", reason=error.reason, hint=error.hint)

    def agent_name(self) -> str:
        """What answers where no persona is set."""
        return self._agent_for(None).name

    def _agent_for(self, persona: str | None) -> Agent:
        """One agent serves all sessions of a persona."""
        if persona not in self._agents:
            self._agents[persona] = make_agent(self.settings, persona)
        return self._agents[persona]


def make_agent(settings: Settings, persona: str | None) -> Agent:
    """The agent that the settings name, with the persona's model in the place of the general one."""
    match settings.agent.kind:
        case "scripted":
            from bot.agents.scripted import ScriptedAgent

            return ScriptedAgent()
        case "llm":
            from bot.agents.llm import LlmAgent  # a second and thirty megabytes, for those who use it

            own = settings.personas.get(persona) if persona else None
            agent = settings.agent
            if own is not None and own.model is not None:
                agent = agent.model_copy(update={"model": own.model})
            return LlmAgent(agent, environ=os.environ)
        case _:
            from bot.agents.offline import OfflineAgent

            return OfflineAgent()


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
    on_started: Callable[[App], None] = lambda app: None,
) -> None:
    """Run a daemon until it is stopped. Raises: StoreError, PortTaken and what `App` raises."""
    store = database or await open_database(settings)
    try:
        app = App(settings, store, accounts)
    except BaseException:
        await store.close()
        raise
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    try:
        await app.start()
        on_started(app)
        await app.wait()
    finally:
        await app.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
