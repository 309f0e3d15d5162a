"""What a Bot API request carries: form, multipart, JSON or query string, decoded to one plain object.

It knows which fields are structures, numbers or flags; what they mean is `methods`'s business.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .records import JsonObject, bad_request

STRUCTURES = frozenset(
    "entities caption_entities reply_markup reply_parameters allowed_updates scope commands reaction "
    "link_preview_options message_ids media".split()
)
INTEGERS = frozenset(
    "chat_id message_id message_thread_id reply_to_message_id offset limit timeout draft_id user_id max_connections "
    "cache_time".split()
)


@dataclass(frozen=True)
class Upload:
    name: str
    content: bytes
    mime_type: str


@dataclass
class Parameters:
    values: JsonObject = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return "" if value is None else str(value)

    def integer(self, name: str) -> int | None:
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise bad_request(f"invalid parameter {name} specified")

    def flag(self, name: str) -> bool:
        return str(self.values.get(name, "")).lower() in ("true", "1", "yes")

    def structure(self, name: str) -> Any:
        return self.values.get(name)


async def read_parameters(request: web.Request) -> Parameters:
    """Raises: Refusal 400 if a structure is not JSON."""
    raw: JsonObject = dict(request.query)
    uploads: dict[str, Upload] = {}
    if request.content_type == "application/json":
        body = await request.json()
        if not isinstance(body, dict):
            raise bad_request("request must be a JSON object")
        raw |= body
    elif request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        for name, value in (await request.post()).items():
            if isinstance(value, web.FileField):
                uploads[name] = Upload(value.filename, value.file.read(), value.content_type)
                raw[name] = {"file_name": value.filename, "file_size": len(uploads[name].content)}
            else:
                raw[name] = value
    return Parameters({name: _decoded(name, value) for name, value in raw.items()}, uploads)


def _decoded(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if name in STRUCTURES and value:
        try:
            return json.loads(value)
        except ValueError:
            raise bad_request(f"can't parse {name} JSON object") from None
    if name in INTEGERS and re.fullmatch(r"[+-]?\d+", value):
        return int(value)
    return value
