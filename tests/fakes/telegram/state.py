"""The fake's state in a file, so that the fake itself may be restarted: everything but the journal of calls.

Saved shortly after a change and when stopped; a fake killed in between loses that moment, never the file.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import TypeAdapter

from .world import World

SAVE_DELAY_S = 0.1
WORLD = TypeAdapter(World)


class StateFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._planned: asyncio.TimerHandle | None = None

    def load(self) -> World | None:
        return WORLD.validate_json(self.path.read_bytes()) if self.path.exists() else None

    def save(self, world: World) -> None:
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        scratch = self.path.with_name(self.path.name + ".new")
        scratch.write_bytes(WORLD.dump_json(world))
        scratch.replace(self.path)

    def save_soon(self, world: World) -> None:
        if self._planned is None:
            self._planned = asyncio.get_running_loop().call_later(SAVE_DELAY_S, self.save, world)
