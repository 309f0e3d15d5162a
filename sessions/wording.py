"""What stands around a message's own words when a model reads it: its author's name where several people talk, its attachments.

Owns that text, so that what is sent and what is counted are the same. The words of a whole request are the agent's.
"""

from collections.abc import Sequence
from typing import Final

from sessions.models import Message

EMPTY: Final = "(an empty message)"


def one_line(text: str) -> str:
    """Names come from strangers; a line break in one must not look like somebody else speaking."""
    return " ".join(text.split())[:100]


def name_before(name: str) -> str:
    return f"{one_line(name)}: "


def attached(kind: str, name: str | None, media_type: str | None, size_bytes: int | None) -> str:
    told: Sequence[str | None] = [
        kind,
        name,
        media_type,
        None if size_bytes is None else f"{size_bytes} bytes",
    ]
    return (
        f"[attached: {', '.join(one_line(part) for part in told if part)}; its content is not shown to you]"
    )


def around(message: Message, *, is_shared: bool) -> str:
    """All of it for one message; empty for nearly every one."""
    if message.role != "user":
        return ""
    name = name_before(message.author) if is_shared and message.author else ""
    lines = [
        attached(one["kind"], one.get("name"), one.get("media_type"), one.get("size_bytes"))
        for one in message.attachments
    ]
    if not message.content and not lines:
        return name + EMPTY
    return name + "\n".join(lines)
