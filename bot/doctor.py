"""`palaver doctor`: looks at what a daemon would need, without being one, and says what to do.

Owns the list of examinations and what each finding means. It changes nothing but what opening a database changes: no
message is taken from a platform, and no model is asked a question. What a platform is asked is its adapter's `checkup`.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from adapters import registry
from adapters.errors import StartError, Unreachable
from adapters.registry import AdapterUnavailable
from bot import app, stores
from bot.agents.base import AgentError
from bot.reports import counted
from bot.web.app import PortTaken
from config import report
from config.names import AccountId
from config.settings import AccountSettings, Settings
from config.sources import Loaded
from sessions import fleet
from sessions.database.base import Row, RowSecurity
from sessions.errors import NothingStored, StoreError, in_one_line
from sessions.fleet import Fleet
from sessions.leases import LeaseName

_PORT_TIMEOUT_S: Final = 2.0
_VERBS: Final = {"hear": "hears", "send": "sends for", "run": "runs turns", "upkeep": "cleans up"}
"""What a node does, by the kind of the lease."""


@dataclass(frozen=True, slots=True)
class Finding:
    is_good: bool
    subject: str
    text: str
    hint: str = ""

    def line(self, width: int = 12) -> str:
        """What was found, and under it what to do; `width` is the widest subject's."""
        mark = "ok  " if self.is_good else "BAD "
        return f"{mark} {self.subject:<{width}}  {self.text}" + (
            f"\n{'':{width + 7}}{self.hint}" if self.hint else ""
        )


async def examine(loaded: Loaded) -> list[Finding]:
    """All findings, good ones too."""
    settings = loaded.settings
    findings = [Finding(True, "config", str(loaded.config_file or "no file; environment and defaults"))]
    findings += [Finding(True, "config", notice) for notice in loaded.notices]
    findings += [Finding(False, "packages", clash) for clash in report.name_clashes()]
    if stores.is_sqlite(settings.database_url):
        findings.append(await _file(loaded))
    else:
        findings += await _server(loaded)
    findings += await asyncio.gather(
        *(_account(account, configured) for account, configured in app.accounts_of(settings).items()),
        _agent(settings),
    )
    if settings.http.enabled:
        findings.append(await _port(settings.http.host, settings.http.port))
    return findings


async def _account(account: AccountId, configured: AccountSettings) -> Finding:
    subject = str(account)
    try:
        check_up = registry.load_checkup(configured.platform)
        if check_up is None:
            where = f"configured for {configured.api_url}" if configured.api_url else "needs nothing"
            return Finding(True, subject, where)
        return Finding(True, subject, await check_up(account, configured))
    except StartError as error:
        return Finding(False, subject, error.reason, error.hint)
    except Unreachable as error:
        hint = "Is this machine online, and is the account's api_url right?"
        return Finding(False, subject, f"the platform is not reached: {error.reason}", hint)
    except AdapterUnavailable as error:
        return Finding(False, subject, error.reason)


async def _agent(settings: Settings) -> Finding:
    match settings.agent.kind:
        case "llm":
            return await _model(settings)
        case "scripted":
            return Finding(True, "agent", "plays a script")
    return Finding(True, "agent", "the built-in agent (no model connected)")


async def _model(settings: Settings) -> Finding:
    try:
        return Finding(True, "agent", await app.look_at_model(settings))
    except ValueError as error:
        return Finding(False, "agent", str(error))
    except AgentError as error:
        hint = "Is agent.base_url right, and does the server run?"
        if error.kind == "refused_key":
            hint = "Set agent.api_key, or the variable of the model's provider, to a valid key."
        return Finding(False, "agent", error.detail, hint)


async def _file(loaded: Loaded) -> Finding:
    path = stores.sqlite_path(loaded.settings.database_url)
    if not path.exists():
        above = next((folder for folder in path.parents if folder.exists()), Path("/"))
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            return Finding(
                False,
                "database",
                f"{path} cannot be made: {above} is {'not writable' if above.is_dir() else 'a file'}",
                "Make the folder writable for the user that runs Palaver, or set database_url to another place.",
            )
        try:
            stores.encryption_keys(loaded.settings)
        except StoreError as error:
            return Finding(False, "database", error.reason, error.hint)
        return Finding(True, "database", f"{path} will be made at the first start")
    try:
        database = await stores.open_beside(loaded.settings)
        try:
            damage = await database.read(lambda tx: tx.row("PRAGMA integrity_check(1)"))
            free = database.free_bytes()
        finally:
            await database.close()
    except StoreError as error:
        return Finding(False, "database", error.reason, error.hint)
    verdict = str(next(iter(damage.values()))) if damage else "ok"
    if verdict != "ok":
        return Finding(
            False,
            "database",
            f"{path} is damaged: {in_one_line(verdict)}",
            "Stop the daemon and put back a backup.",
        )
    reserve = loaded.settings.store.reserve_bytes
    if free is not None and free < reserve:
        return Finding(
            False,
            "database",
            f"the disk of {path} has {free:,} bytes free; below {reserve:,} nothing is taken in",
            "Free some space there, or set store.reserve_bytes.",
        )
    return Finding(True, "database", f"{path} is sound")


async def _server(loaded: Loaded) -> list[Finding]:
    """What a database server says of itself, how far away it is, and which nodes work there."""
    try:
        database = await stores.open_beside(loaded.settings)
        try:
            started = time.monotonic()
            about = await database.read(
                lambda tx: tx.row(
                    "SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,"
                    " current_database() AS name, pg_is_in_recovery() AS is_standby,"
                    " current_setting('default_transaction_read_only') AS read_only"
                )
            )
            took_ms = 1000 * (time.monotonic() - started)
            nodes = await database.read(fleet.look)
            security = database.row_security
        finally:
            await database.close()
    except NothingStored as error:
        return [Finding(True, "database", error.reason, error.hint)]
    except StoreError as error:
        return [Finding(False, "database", error.reason, error.hint)]
    assert about is not None
    accounts = [account for account in app.accounts_of(loaded.settings) if account != app.TERMINAL]
    return [_of_server(about, security, took_ms), *_fleet(nodes, accounts)]


def _of_server(about: Row, security: RowSecurity, took_ms: float) -> Finding:
    what = f"PostgreSQL {about['version']}, database {about['name']!r}"
    if security.is_on:
        what, hint = f"{what} under row security ({security.role})", ""
    else:
        what = f"{what} without row security ({security.reason})"
        hint = "People are kept apart by the filter of each read alone; docs/howto/postgresql.md says how to have both."
    if about["is_standby"]:
        return Finding(
            False, "database", f"{what} is a standby and read-only", "Point database_url at the primary."
        )
    if about["read_only"] == "on":
        hint = "Whoever set default_transaction_read_only for it or for this user has to take that back."
        return Finding(False, "database", f"{what} is read-only", hint)
    if about["fsync"] != "on":
        hint = "Set fsync = on in postgresql.conf: without it a power cut loses what was accepted."
        return Finding(False, "database", f"{what} does not wait for its disk", hint)
    return Finding(True, "database", f"{what} has today's schema and answers in {took_ms:.0f} ms", hint)


def _fleet(nodes: Fleet, accounts: Sequence[AccountId]) -> list[Finding]:
    """A line for each node that is there, one for what waits, and one for each duty that is nobody's."""
    findings = [
        Finding(True, "node", f"{node}: {_duties(nodes.names_held_by(node))}") for node in nodes.nodes
    ]
    turns = "no turn waits"
    if nodes.waiting_since is not None:
        since_s = max(0, round(time.time() - nodes.waiting_since / 1000))
        turns = f"{counted(nodes.turns_waiting, 'turn')} waiting, the first for {since_s} s"
    replies = counted(nodes.replies_waiting, "reply", "replies")
    findings.append(Finding(True, "queue", f"{turns}; {nodes.turns_running} running; {replies} to be sent"))
    if not nodes.nodes:
        return [Finding(True, "node", "none works on this database just now"), *findings]
    findings += [
        Finding(False, str(account), f"no node {_VERBS[kind]} it", f"Start one with the role {role}.")
        for kind, role in (("hear", "intake"), ("send", "delivery"))
        for account in accounts
        if (kind, account) not in {(name.kind, name.account) for name in nodes.holders}
    ]
    if not any(name.kind == "run" for name in nodes.holders):
        findings.append(Finding(False, "queue", "no node runs turns", "Start one with the role turns."))
    return findings


def _duties(names: Sequence[LeaseName]) -> str:
    told = []
    for kind, verb in _VERBS.items():
        if held := [name.account for name in names if name.kind == kind]:
            told.append(f"{verb} {', '.join(held)}" if kind in ("hear", "send") else verb)
    return "; ".join(told) or "has no duty just now"


async def _port(host: str, port: int) -> Finding:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and await _is_palaver(host, port):
            return Finding(True, "http", f"a Palaver runs and serves {host}:{port}")
        taken = PortTaken(host, port, error)
        return Finding(False, "http", str(taken), taken.hint)
    return Finding(True, "http", f"{host}:{port} is free")


async def _is_palaver(host: str, port: int) -> bool:
    """Whether it is one of us who answers there."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - nothing is bound here
    url = f"http://{f'[{near}]' if ':' in near else near}:{port}/healthz"
    try:
        async with httpx2.AsyncClient(timeout=_PORT_TIMEOUT_S, trust_env=False) as client:
            answer = (await client.get(url)).json()
    except (httpx2.HTTPError, OSError, ValueError):
        return False
    return isinstance(answer, dict) and answer.get("name") == "palaver"
