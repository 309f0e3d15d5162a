"""`Nursery`: daemons that start in a tenth of the time, forked from one process that has imported the program already.

Used where hundreds of starts are needed and the start is not what is tested. See `crashing.py` for what such a daemon can do.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.process.daemon import PROJECT, Daemon, clean_environment


class Nursery:
    def __init__(self, folder: Path, tree: Path = PROJECT) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.crashing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tree,
            env=clean_environment(folder),
            text=True,
        )
        assert self._read() == {"ready": True}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class _Child:
    """What `Daemon` needs of a `Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._nursery.ask(poll=self.pid)["code"]
        return self._code

    def wait(self, timeout: float) -> int:
        import time

        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("palaver", timeout)
            time.sleep(0.005)
        return code


class NurseryDaemon(Daemon):
    """A daemon born in a nursery; `launch(CRASH_AT="7")` starts one that dies there."""

    def __init__(self, nursery: Nursery, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._nursery = nursery

    def launch(self, *arguments: str, command: Sequence[str] = (), **environment: str) -> None:
        if command:  # another program than the nursery has
            super().launch(*arguments, command=command, **environment)
            return
        self._reap()
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        self.port = 0
        self.starts += 1
        born = self._nursery.ask(
            arguments=["run", "--config", str(self.config), *arguments],
            log=str(self.log),
            folder=str(self.folder),
            environment=clean_environment(self.folder) | environment,
        )
        self._process = _Child(self._nursery, born["pid"])  # type: ignore[assignment]  # as much of a Popen as is used

    @property
    def was_killed(self) -> bool:
        return self.returncode == -signal.SIGKILL
