"""`Daemon`: the real `palaver run` as a process of its own, on a configuration and a database in a folder of the test.

Owns starting it with a clean environment, waiting until it is ready, the signals, its log, and its end: nothing started here
outlives the `async with`. What is right or wrong about what it did is `invariants.py`.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

SCRIPT: Final = Path(sys.executable).with_name("palaver")
PROJECT: Final = Path(__file__).resolve().parents[2]
_KEPT: Final = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""What a daemon gets of the tester's environment; tokens and PALAVER_ variables are not among it."""
LEASE_S: Final = 2.0
"""Short, as whoever starts after a crash on a server waits until the dead one's leases are over."""


class NotReady(AssertionError):
    """The daemon did not do in time what was waited for; the text ends with its log."""


def clean_environment(home: Path) -> dict[str, str]:
    """An environment in which nobody has configured anything."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "xdg"), "PYTHONUNBUFFERED": "1"}


def as_toml(tree: Mapping[str, Any], prefix: str = "") -> str:
    """Nested mappings of plain values as TOML."""
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in tree.items() if not isinstance(value, Mapping)
    ]
    text = "\n".join(lines) + "\n"
    for name, value in tree.items():
        if isinstance(value, Mapping):
            text += f"[{prefix}{name}]\n{as_toml(value, f'{prefix}{name}.')}"
    return text


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`other` laid over `one`, table by table."""
    result = dict(one)
    for name, value in other.items():
        known = result.get(name)
        result[name] = (
            merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
        )
    return result


def quick_settings(
    database: Path,
    accounts: Mapping[str, Mapping[str, Any]],
    *,
    server: str | None = None,
    lease_s: float = LEASE_S,
) -> dict[str, Any]:
    """A daemon that echoes, at a pace that does not hold a test up; on a file, or on the database of a `server`."""
    fast = {
        "per_account_per_s": 1000.0,
        "per_direct_channel_per_s": 1000.0,
        "per_group_channel_per_min": 60000.0,
    }
    return ({"node": {"lease_s": lease_s}} if server is not None else {}) | {
        "database_url": server or f"sqlite:{database}",
        "shutdown_after_s": 5,
        "agent": {"kind": "scripted"},
        "delivery": {"preview_after_s": 0.05},
        "turns": {"max_attempts": 1000, "queue_notice_after_s": 0},
        "http": {"port": 0},
        "accounts": {name: {"pace": fast, **account} for name, account in accounts.items()},
    }


async def eventually(
    claim: Callable[[], Awaitable[Any]], *, timeout_s: float, what: str, every_s: float = 0.02
) -> Any:
    """The first true result of `claim`. Raises: NotReady."""
    deadline = time.monotonic() + timeout_s
    while not (result := await claim()):
        if time.monotonic() > deadline:
            raise NotReady(f"{what}: not within {timeout_s:g} s")
        await asyncio.sleep(every_s)
    return result


class Daemon:
    """One daemon's folder, and its process as often as it is started."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, name: str = "palaver") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / f"{name}.toml"
        self.log = folder / f"{name}.log"
        self.starts = 0
        self.port = 0
        self._log_from = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(settings)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """For the next start."""
        self.settings = settings
        self.config.touch(mode=0o600)
        self.config.write_text(as_toml(settings))

    @property
    def database(self) -> Any:
        """The file, or the URL of a server: what `invariants.read_rows` takes."""
        url = str(self.settings["database_url"])
        return Path(url.removeprefix("sqlite:")) if url.startswith("sqlite:") else url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    # its life

    def launch(self, *arguments: str, command: Sequence[str] = (), **environment: str) -> None:
        """Start it and do not wait for anything."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        self._reap()
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        self.port = 0
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*(command or (str(SCRIPT),)), "run", "--config", str(self.config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=PROJECT if command else self.folder,
                env=clean_environment(self.folder) | environment,
                start_new_session=True,
            )

    async def start(self, *, timeout_s: float = 30, **launching: Any) -> float:
        """Start it and wait until /readyz says so. Gives the seconds that took."""
        began = time.monotonic()
        self.launch(**launching)
        await self.wait_ready(timeout_s=timeout_s)
        return time.monotonic() - began

    async def wait_ready(self, *, timeout_s: float = 30) -> None:
        async def ready() -> bool:
            if not self.is_running:
                raise NotReady(f"it ended with {self.returncode}:\n{self.tail()}")
            return await self.status("/readyz") == 200

        try:
            await eventually(ready, timeout_s=timeout_s, what="ready")
        except NotReady as error:
            raise NotReady(f"{error}\n{self.tail()}") from None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self.send(signal.SIGKILL)
        self._reap()

    async def stop(self, *, timeout_s: float = 30) -> int:
        """SIGTERM. Gives the exit code."""
        self.send(signal.SIGTERM)
        return await self.ended(timeout_s=timeout_s)

    async def ended(self, *, timeout_s: float = 30) -> int:
        """Wait for its end. Gives the exit code."""

        async def is_over() -> bool:
            return not self.is_running

        try:
            await eventually(is_over, timeout_s=timeout_s, what="its end")
        except NotReady as error:
            raise NotReady(f"{error}\n{self.tail()}") from None
        assert self.returncode is not None
        return self.returncode

    def end(self) -> None:
        """Whatever its state: it is gone when this returns."""
        if self.is_running:
            self.send(signal.SIGCONT)
        self.kill()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=30)

    # what it says

    def lines(self, *, since_start: bool = False) -> list[dict[str, Any]]:
        """Its log events; a line that is none (a traceback from outside of the log) is an event called `text`."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(self._log_from if since_start else 0)
            content = log.read()
        events = []
        for line in content.decode(errors="replace").splitlines():
            event: Any = None
            with contextlib.suppress(ValueError):
                event = json.loads(line)
            events.append(event if isinstance(event, dict) else {"event": "text", "text": line})
        return events

    def said(self, event: str, *, since_start: bool = True) -> list[dict[str, Any]]:
        return [line for line in self.lines(since_start=since_start) if line.get("event") == event]

    def tail(self, count: int = 15) -> str:
        return "\n".join(json.dumps(line)[:600] for line in self.lines()[-count:])

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nobody listens."""
        if not self.port:
            started = self.said("http.started")
            if not started:
                return 0, ""
            self.port = int(started[-1]["port"])
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{self.port}{path}")

    async def status(self, path: str) -> int:
        return (await self.get(path))[0]

    async def hears(self) -> bool:
        """Whether all its accounts are heard by it; on a server it is ready before, and another node may have them."""
        accounts = (await self.readiness()).get("accounts", {})
        return bool(accounts) and all(one["state"] == "hearing" for one in accounts.values())

    async def readiness(self) -> dict[str, Any]:
        """What /readyz tells, ready or not."""
        _, body = await self.get("/readyz")
        return dict(json.loads(body)) if body else {}


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
