"""Telegram Desktop's export as JSON, `result.json`, of one chat or of everything.

Source: Telegram Desktop, `export/output/export_output_json.cpp`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sessions.transfer.archives import Conversation, Said, digest, from_iso, from_seconds

LISTS: Final = ("chats", "left_chats")
_NO_FILE: Final = re.compile(r"\s*\((File|Photo) (not included|unavailable|exceeds maximum size)[^)]*\)$")


def conversations(document: Any) -> Iterator[Conversation]:
    """In a chat with a bot, what the bot said are answers; in others everybody but the owner is named."""
    chats = [chat for name in LISTS if name in document for chat in document[name]["list"]]
    owner = (document.get("personal_information") or {}).get("user_id")
    for chat in chats or ([document] if "messages" in document else []):
        conversation = Conversation(str(chat.get("id", digest(chat))), chat.get("name"), 0)
        kind = chat.get("type")
        if kind == "saved_messages":
            conversation.title = conversation.title or "Saved messages"
        for message in chat["messages"]:
            at = from_seconds(message.get("date_unixtime")) or from_iso(message.get("date"))
            conversation.created_at = conversation.created_at or at
            text = _text(message)
            files = _files(message)
            if message.get("type") != "message" or not (text or files):
                conversation.left_out += 1
                continue
            is_answer = kind == "bot_chat" and message.get("from_id") == f"user{chat.get('id')}"
            is_own = kind in ("bot_chat", "saved_messages") or (
                owner is not None and message.get("from_id") == f"user{owner}"
            )
            conversation.said.append(
                Said(
                    "assistant" if is_answer else "user",
                    text,
                    None if is_answer or is_own else (message.get("from") or "Deleted Account"),
                    at,
                    files,
                    str(message["id"]) if "id" in message else None,
                )
            )
        yield conversation


def _text(message: Mapping[str, Any]) -> str:
    """A string, or a list of strings and of pieces with a format; else what there is to read of what was sent instead."""
    text = message.get("text", "")
    pieces = [text] if isinstance(text, str) else text
    said = "".join(
        piece
        if isinstance(piece, str)
        else str(piece.get("text", ""))
        + (f" ({piece['href']})" if piece.get("href") and piece["href"] != piece.get("text") else "")
        for piece in pieces
    )
    if said:
        return said
    poll, place = message.get("poll"), message.get("location_information")
    contact = message.get("contact_information")
    if isinstance(poll, dict):
        answers = [str(one.get("text")) for one in poll.get("answers") or () if isinstance(one, dict)]
        return "\n- ".join([str(poll.get("question", "")), *answers])
    if isinstance(place, dict):
        name = ", ".join(str(message[one]) for one in ("place_name", "address") if message.get(one))
        return f"{name} ({place.get('latitude')}, {place.get('longitude')})".strip()
    if isinstance(contact, dict):
        facts = (contact.get(one) for one in ("first_name", "last_name", "phone_number"))
        return " ".join(str(fact) for fact in facts if fact)
    return str(message.get("sticker_emoji") or "")


def _files(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Names of what was sent along. Where a file was not exported, a sentence in brackets stands in its place."""
    files = []
    for kind in ("photo", "file"):
        if place := message.get(kind):
            name = message.get("file_name") if kind == "file" else None
            name = name or _NO_FILE.sub("", str(place)) or message.get("media_type") or kind
            files.append({"kind": kind, "name": str(name)})
    return files
