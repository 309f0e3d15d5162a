"""Conversations from elsewhere: chat exports of OpenAI and Claude, and Telegram Desktop's JSON, as archived sessions of a person.

Owns reading those three formats into the records of `records.py`. Ids follow from the person and the conversation's own id, so
that importing a file again adds nothing. Attachments are kept by name only: the files are not part of these exports.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import orjson

from config.names import PersonId
from sessions.database.values import storable
from sessions.errors import TransferError
from sessions.transfer.importing import Record

Source = Literal["openai", "claude", "telegram"]
SOURCES: Final[Sequence[Source]] = ("openai", "claude", "telegram")

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TITLE_CHARS: Final = 100


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


def recognise(document: Any) -> Source:
    """What a JSON document is an export of. Raises: TransferError."""
    if isinstance(document, list):
        first = next((entry for entry in document if isinstance(entry, dict)), {})
        if "mapping" in first:
            return "openai"
        if "chat_messages" in first:
            return "claude"
    elif isinstance(document, dict):
        chats = document.get("chats")
        if isinstance(document.get("messages"), list) or (isinstance(chats, dict) and "list" in chats):
            return "telegram"
    raise TransferError(
        "this is no export that Palaver knows: its own JSONL, OpenAI, Claude or Telegram Desktop"
    )


def read(raw: bytes) -> Any:
    """A JSON document, halves of characters mended. Raises: TransferError."""
    try:
        return orjson.loads(raw)
    except ValueError:
        try:
            return json.loads(storable(json.dumps(json.loads(raw), ensure_ascii=False)))
        except (ValueError, RecursionError) as error:
            raise TransferError(f"the file is not JSON: {error}") from error


def records(document: Any, source: Source, person: PersonId) -> tuple[Iterator[tuple[int, Record]], int]:
    """Its conversations as records for `importing.store`, and how many messages were left out.

    Raises: TransferError when the document is not what `source` says.
    """
    reader = {"openai": _openai, "claude": _claude, "telegram": _telegram}[source]
    try:
        conversations = list(reader(document))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TransferError(f"the file does not look like an export of {source}: {error!r}") from error
    left_out = sum(conversation.left_out for conversation in conversations)
    return _as_records(conversations, source, person), left_out


def _as_records(
    conversations: Iterable[Conversation], source: Source, person: PersonId
) -> Iterator[tuple[int, Record]]:
    for number, conversation in enumerate(conversations, start=1):
        if not conversation.said:
            continue
        first, last = conversation.said[0].at, max(said.at for said in conversation.said)
        created = conversation.created_at or first
        session_id = _deterministic_id(created, f"{source}\0{person}\0{conversation.id}")
        rows: list[Record] = []
        position, was = 0, "assistant"
        for said in conversation.said:
            # A question and the answer to it share a position; whatever else follows has one of its own.
            if not (was == "user" and said.role == "assistant"):
                position += 1
            was = said.role
            rows.append(
                {
                    "type": "message",
                    "session_id": session_id,
                    "position": position,
                    "part": 0 if said.role == "user" else 1,
                    "role": said.role,
                    "content": storable(said.content).replace("\0", "\ufffd"),
                    "person_id": None if said.role == "assistant" or said.author is not None else person,
                    "author": storable(str(said.author)) if said.author is not None else None,
                    "turn_id": None,
                    "platform_message_id": str(said.message_id) if said.message_id is not None else None,
                    "attachments": orjson.dumps(list(said.attachments)).decode(),
                    "metadata": "{}",
                    "created_at": said.at,
                }
            )
        title = storable(" ".join(str(conversation.title or "").split()))[:_TITLE_CHARS] or None
        yield (
            number,
            {
                "type": "session",
                "id": session_id,
                "key": orjson.dumps(["archive", source, conversation.id, person]).decode(),
                "scope": "person",
                "platform": source,
                "account": f"{source}.archive",
                "channel": conversation.id,
                "thread": None,
                "person_id": person,
                "persona": None,
                "status": "archived",
                "end_reason": "completed",
                "title": title,
                "description": None,
                "current_task": None,
                "metadata": orjson.dumps({"imported_from": source}).decode(),
                "next_position": position + 1,
                "message_count": len(rows),
                "created_at": created,
                "last_activity_at": max(last, created),
                "paused_at": None,
                "ended_at": max(last, created),
                "archived_at": max(last, created),
            },
        )
        for row in rows:
            yield number, row


def _deterministic_id(at: int, words: str) -> str:
    """As a ULID: the time, then what would be chance, made of the words."""
    chance = int.from_bytes(hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:10])
    value = (max(0, min(at, 2**48 - 1)) << 80) | chance
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def _openai(document: Any) -> Iterator[Conversation]:
    """`conversations.json`: a tree of messages for each, of which the branch that was seen last is taken."""
    for entry in document:
        created = _from_seconds(entry.get("create_time"))
        conversation = Conversation(
            str(entry.get("conversation_id") or entry.get("id") or _digest(entry)),
            entry.get("title"),
            created,
        )
        nodes = entry["mapping"]
        node_id = entry.get("current_node") or _last_leaf(nodes)
        branch: list[Any] = []
        seen: set[str] = set()
        while node_id is not None and node_id in nodes and node_id not in seen:
            seen.add(node_id)
            branch.append(nodes[node_id].get("message"))
            node_id = nodes[node_id].get("parent")
        at = created
        for message in reversed(branch):
            if message is None:
                continue
            role = (message.get("author") or {}).get("role")
            text, files = _openai_content(message.get("content") or {})
            at = _from_seconds(message.get("create_time")) or at
            is_hidden = (message.get("metadata") or {}).get("is_visually_hidden_from_conversation")
            if role not in ("user", "assistant") or is_hidden or not (text or files):
                conversation.left_out += role not in (None, "system")
                continue
            conversation.said.append(Said(role, text, None, at, files, message.get("id")))
        yield conversation


def _openai_content(content: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    texts: list[str] = []
    files: list[dict[str, Any]] = []
    if content.get("content_type") in ("text", "multimodal_text"):
        for part in content.get("parts") or ():
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, dict) and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif isinstance(part, dict):
                files.append(
                    {"kind": "file", "name": str(part.get("asset_pointer") or part.get("content_type"))}
                )
    elif isinstance(content.get("text"), str):
        texts.append(content["text"])
    return "\n".join(texts).strip(), files


def _last_leaf(nodes: Mapping[str, Any]) -> str | None:
    leaves = [name for name, node in nodes.items() if not node.get("children")]
    return max(
        leaves, key=lambda name: (nodes[name].get("message") or {}).get("create_time") or 0, default=None
    )


def _claude(document: Any) -> Iterator[Conversation]:
    """`conversations.json`: a list of messages for each, by `human` and `assistant`."""
    for entry in document:
        created = _from_iso(entry.get("created_at"))
        conversation = Conversation(str(entry.get("uuid") or _digest(entry)), entry.get("name"), created)
        at = created
        for message in entry["chat_messages"]:
            at = _from_iso(message.get("created_at")) or at
            parts = [
                part["text"]
                for part in message.get("content") or ()
                if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            ]
            text = ("\n".join(parts) or message.get("text") or "").strip()
            files = [
                {"kind": "file", "name": str(file.get("file_name") or "file")}
                for file in [*(message.get("attachments") or ()), *(message.get("files") or ())]
                if isinstance(file, dict)
            ]
            extracted = [
                file["extracted_content"]
                for file in message.get("attachments") or ()
                if isinstance(file, dict) and file.get("extracted_content")
            ]
            text = "\n\n".join(filter(None, [text, *map(str, extracted)]))
            role: Literal["user", "assistant"] | None = {"human": "user", "assistant": "assistant"}.get(
                message.get("sender")
            )  # type: ignore[assignment]  # the values are those two
            if role is None or not (text or files):
                conversation.left_out += 1
                continue
            conversation.said.append(Said(role, text, None, at, files, message.get("uuid")))
        yield conversation


def _telegram(document: Any) -> Iterator[Conversation]:
    """`result.json` of one chat or of everything. In a chat with a bot, what the bot said are answers."""
    chats = document["chats"]["list"] if "chats" in document else [document]
    for chat in chats:
        conversation = Conversation(str(chat.get("id", _digest(chat))), chat.get("name"), 0)
        is_bot_chat = chat.get("type") == "bot_chat"
        for message in chat["messages"]:
            at = _from_seconds(message.get("date_unixtime")) or _from_iso(message.get("date"))
            conversation.created_at = conversation.created_at or at
            text = _telegram_text(message.get("text", ""))
            files = [
                {"kind": kind, "name": str(message.get("file_name") or message[kind])}
                for kind in ("photo", "file")
                if message.get(kind)
            ]
            if message.get("type") != "message" or not (text or files):
                conversation.left_out += 1
                continue
            is_answer = is_bot_chat and message.get("from_id") == f"user{chat.get('id')}"
            author = message.get("from")
            conversation.said.append(
                Said(
                    "assistant" if is_answer else "user",
                    text,
                    None if is_answer or is_bot_chat else (author or "Deleted Account"),
                    at,
                    files,
                    str(message["id"]) if "id" in message else None,
                )
            )
        yield conversation


def _telegram_text(text: Any) -> str:
    """A string, or a list of strings and of pieces with a format."""
    if isinstance(text, str):
        return text
    return "".join(piece if isinstance(piece, str) else str(piece.get("text", "")) for piece in text)


def _from_seconds(value: Any) -> int:
    return int(float(value) * 1000) if value not in (None, "") else 0


def _from_iso(value: Any) -> int:
    return int(datetime.fromisoformat(value).timestamp() * 1000) if value else 0


def _digest(entry: Any) -> str:
    """An id for what has none."""
    return base64.b32encode(hashlib.sha256(orjson.dumps(entry)).digest())[:20].decode().lower()
