"""`palaver doctor`: looks at what a daemon would need, without being one, and says what to do.

Owns the list of examinations. It changes nothing but what opening a database changes.
"""

import socket
from dataclasses import dataclass

from bot import app
from config import report
from config.sources import Loaded
from sessions.errors import StoreError


@dataclass(frozen=True, slots=True)
class Finding:
    is_good: bool
    subject: str
    text: str
    hint: str = ""

    def line(self) -> str:
        mark = "ok  " if self.is_good else "BAD "
        return f"{mark} {self.subject:<12} {self.text}" + (
            f"\n                  {self.hint}" if self.hint else ""
        )


async def examine(loaded: Loaded) -> list[Finding]:
    """All findings, good ones too."""
    settings = loaded.settings
    findings = [Finding(True, "config", str(loaded.config_file or "no file; environment and defaults"))]
    findings += [Finding(False, "packages", clash) for clash in report.name_clashes()]
    findings.append(await _database(loaded))
    accounts = app.accounts_of(settings)
    findings += [
        Finding(
            True, str(account), f"configured for {configured.api_url or 'the public address of the platform'}"
        )
        for account, configured in accounts.items()
    ]
    findings.append(Finding(True, "agent", f"{settings.agent.kind} {settings.agent.model or ''}".rstrip()))
    if settings.http.enabled:
        findings.append(_port(settings.http.host, settings.http.port))
    return findings


async def _database(loaded: Loaded) -> Finding:
    path = app.sqlite_path(loaded.settings.database_url)
    if not path.exists():
        return Finding(True, "database", f"{path} will be made at the first start")
    try:
        database = await app.open_beside(loaded.settings)
        try:
            damage = await database.read(lambda tx: tx.row("PRAGMA integrity_check(1)"))
        finally:
            await database.close()
    except StoreError as error:
        return Finding(False, "database", error.reason, error.hint)
    verdict = str(next(iter(damage.values()))) if damage else "ok"
    if verdict != "ok":
        return Finding(
            False, "database", f"{path} is damaged: {verdict}", "Stop the daemon and put back a backup."
        )
    return Finding(True, "database", f"{path} is sound")


def _port(host: str, port: int) -> Finding:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return Finding(
            False,
            "http",
            f"cannot listen on {host}:{port}: {error.strerror}",
            "A running Palaver, or set http.port to a free one.",
        )
    return Finding(True, "http", f"{host}:{port} is free")
