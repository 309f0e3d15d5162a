"""Conversations from elsewhere: chat exports of OpenAI and Claude, and Telegram Desktop's JSON, as archived sessions of a person.

Owns opening the files, telling them apart, and turning what was read into the records of `records.py`. Ids follow from the person
and the conversation's own id, so that importing a file again adds nothing. Attachments are kept by name only: the files are not
part of these exports.
"""

import contextlib
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import orjson

from config.names import PersonId
from sessions.database.values import storable
from sessions.errors import TransferError
from sessions.keys import archive_key
from sessions.transfer import claude, openai, telegram
from sessions.transfer.archives import Conversation
from sessions.transfer.intake import Typed
from sessions.transfer.storing import Record

Source = Literal["openai", "claude", "telegram"]
SOURCES: Final[Sequence[Source]] = ("openai", "claude", "telegram")

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TITLE_CHARS: Final = 100


def recognise(document: Any) -> Source:
    """What a JSON document is an export of. Raises: TransferError."""
    if isinstance(document, dict) and ("mapping" in document or "chat_messages" in document):
        document = [document]
    if isinstance(document, list):
        first = next((entry for entry in document if isinstance(entry, dict)), {})
        if "mapping" in first:
            return "openai"
        if "chat_messages" in first:
            return "claude"
    if isinstance(document, dict):
        lists = (document.get(name) for name in telegram.LISTS)
        if isinstance(document.get("messages"), list) or any(
            isinstance(one, dict) and "list" in one for one in lists
        ):
            return "telegram"
    raise TransferError(
        "this is no export that Palaver knows: its own JSONL, OpenAI, Claude or Telegram Desktop"
    )


def read(raw: bytes) -> Any:
    """The document in a file: JSON, or the archive in which OpenAI and Claude hand it out. Raises: TransferError."""
    if raw[:4] != _ARCHIVE:
        return _parsed(raw)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = sorted(name for name in archive.namelist() if _IN_ARCHIVE.search(name))
            documents = [_parsed(archive.read(name)) for name in names]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise TransferError(f"the archive cannot be read: {error}") from error
    if len(documents) == 1:
        return documents[0]
    if not documents or not all(isinstance(document, list) for document in documents):
        raise TransferError(
            "the archive holds no conversations.json and no result.json, or several that do not fit"
        )
    return [entry for document in documents for entry in document]


_ARCHIVE: Final = b"PK\x03\x04"
_IN_ARCHIVE: Final = re.compile(r"(^|/)(conversations(-\d+)?|result)\.json$")
_NOT_JSON: Final = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)


def _parsed(raw: bytes) -> Any:
    """A JSON document; halves of characters are mended, and what Telegram Desktop writes for control characters."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    with contextlib.suppress(ValueError):
        return orjson.loads(raw)
    # It writes them as \x0B, which no JSON knows.
    raw = _NOT_JSON.sub(lambda found: b"\\u00" + found[1] if found[1] else found[0], raw)
    try:
        return orjson.loads(raw)
    except ValueError:
        try:
            return json.loads(storable(json.dumps(json.loads(raw), ensure_ascii=False)))
        except (ValueError, RecursionError) as error:
            raise TransferError(f"the file is not JSON: {error}") from error


def records(document: Any, source: Source, person: PersonId) -> tuple[Iterator[Typed], int]:
    """Its conversations as records for `importing.store`, and how many messages were left out.

    Raises: TransferError when the document is not what `source` says.
    """
    reader = {
        "openai": openai.conversations,
        "claude": claude.conversations,
        "telegram": telegram.conversations,
    }[source]
    try:
        conversations = list(reader(document))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TransferError(f"the file does not look like an export of {source}: {error!r}") from error
    left_out = sum(conversation.left_out for conversation in conversations)
    return _as_records(conversations, source, person), left_out


def _as_records(conversations: Iterable[Conversation], source: Source, person: PersonId) -> Iterator[Typed]:
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
            "session",
            {
                "id": session_id,
                "key": archive_key(source, str(conversation.id), person),
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
                "ended_at": None,  # nothing ended here, so the clean-up does not take it for old
                "archived_at": max(last, created),
            },
        )
        for row in rows:
            yield number, "message", row


def _deterministic_id(at: int, words: str) -> str:
    """As a ULID: the time, then what would be chance, made of the words."""
    chance = int.from_bytes(hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:10])
    value = (max(0, min(at, 2**48 - 1)) << 80) | chance
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))
