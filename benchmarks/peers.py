"""Other projects' session stores, to be measured in turns with ours; each runs in a process of its own.

They are no dependencies of Palaver. `make bench` installs them, pinned, into an environment of their own (`.venv-bench`); where
that is missing, a script says so and measures the rest.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

PYTHON: Final = Path(__file__).parents[1] / ".venv-bench" / "bin" / "python"
NAMES: Final = {
    "openai": "OpenAI Agents SDK SQLiteSession",
    "langgraph": "LangGraph AsyncSqliteSaver",
    "agno": "agno AsyncSqliteDb",
}
NOT_INSTALLED: Final = "the peers are not installed (`make bench` does that)"
_TIMEOUT_S: Final = 120.0


class PeerFailed(Exception):
    """It could not do what it was asked."""


class Peer:
    def __init__(self, name: str, process: asyncio.subprocess.Process, version: str) -> None:
        self.name = f"{NAMES[name]} {version}"
        self._process = process

    async def ask(self, do: str, **what: Any) -> Any:
        """Raises: PeerFailed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        answer = await answer_of(self._process)
        if "error" in answer:
            raise PeerFailed(f"{self.name}: {answer['error']}")
        return answer["result"]


async def answer_of(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            line = await process.stdout.readline()
    except TimeoutError:
        raise PeerFailed(f"no answer within {_TIMEOUT_S:g} s") from None
    if not line:
        raise PeerFailed("it ended")
    return json.loads(line)


@asynccontextmanager
async def peers(folder: Path) -> AsyncIterator[dict[str, Peer]]:
    """All that are installed and start, with their files in the folder; the disk is the caller's, shim and all."""
    found: dict[str, Peer] = {}
    processes = []
    try:
        for name in NAMES if PYTHON.exists() else ():
            process = await asyncio.create_subprocess_exec(
                PYTHON,
                "-P",
                Path(__file__).with_name("peer_stores.py"),
                name,
                folder / f"{name}.db",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=(folder / f"{name}.log").open("wb"),
                env={
                    **os.environ,
                    "OPENAI_AGENTS_DISABLE_TRACING": "1",
                    "AGNO_TELEMETRY": "false",
                    "HOME": str(folder),
                },
                limit=2**24,
            )
            processes.append(process)
            try:
                found[name] = Peer(name, process, (await answer_of(process))["version"])
            except PeerFailed as error:
                print(f"(left out: {NAMES[name]}, {error})")
        yield found
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
