"""The memory adapter: a whole chat platform in the process, for testing a bot; or a bridge to a program of yours.

`MemoryAdapter` is the adapter, `Room` the platform it talks to. With `api_url` set it speaks the small HTTP protocol
described in `adapters/memory/bridge.py` instead.
"""

from adapters.memory.adapter import MemoryAdapter
from adapters.memory.room import Room, Sent, Shown

__all__ = ["MemoryAdapter", "Room", "Sent", "Shown"]
