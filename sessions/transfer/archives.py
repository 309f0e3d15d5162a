"""What is read of any other program's export: conversations, what was said in them, and how their times are written.

Owns these records; what they become is `foreign.py`, where they come from `openai.py`, `claude.py` and `telegram.py`.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson


@dataclass(frozen=True, slots=True)
class Said:
    role: Literal["user", "assistant"]
    content: str
    author: str | None
    at: int
    """Milliseconds, as everywhere."""
    attachments: Sequence[Mapping[str, Any]] = ()
    message_id: str | None = None


@dataclass
class Conversation:
    id: str
    title: str | None
    created_at: int
    said: list[Said] = field(default_factory=list)
    left_out: int = 0
    """Messages that hold nothing to read, and those of tools and of the system."""


def as_list(document: Any) -> Any:
    """Also of one conversation alone, as browser extensions save it."""
    return [document] if isinstance(document, dict) else document


def from_seconds(value: Any) -> int:
    return int(float(value) * 1000) if value not in (None, "") else 0


def from_iso(value: Any) -> int:
    """Without a zone it is UTC: whose clock it was the file does not say, and a second import elsewhere must find it again."""
    if not value:
        return 0
    at = datetime.fromisoformat(value)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def digest(entry: Any) -> str:
    """An id for what has none."""
    return base64.b32encode(hashlib.sha256(orjson.dumps(entry)).digest())[:20].decode().lower()
