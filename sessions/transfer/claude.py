"""Claude's chat export, `conversations.json`: a list of messages for each conversation, by `human` and `assistant`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from sessions.transfer.archives import Conversation, Said, as_list, digest, from_iso


def conversations(document: Any) -> Iterator[Conversation]:
    """All of them; where one branches, the last branch."""
    for entry in as_list(document):
        created = from_iso(entry.get("created_at"))
        conversation = Conversation(str(entry.get("uuid") or digest(entry)), entry.get("name"), created)
        branch = _branch(entry)
        conversation.left_out += len(entry["chat_messages"]) - len(branch)
        at = created
        for message in branch:
            at = from_iso(message.get("created_at")) or at
            text = _text(message)
            files = [
                {"kind": "file", "name": str(file.get("file_name") or "file")}
                for file in [*(message.get("attachments") or ()), *(message.get("files") or ())]
                if isinstance(file, dict)
            ]
            role: Literal["user", "assistant"] | None = {"human": "user", "assistant": "assistant"}.get(
                message.get("sender")
            )  # type: ignore[assignment]  # the values are those two
            if role is None or not (text or files):
                conversation.left_out += 1
                continue
            conversation.said.append(Said(role, text, None, at, files, message.get("uuid")))
        yield conversation


def _branch(entry: Mapping[str, Any]) -> Sequence[Any]:
    """The messages that lead to the last one. Without branches, or without word of what follows what, all of them."""
    messages = entry["chat_messages"]
    by_id = {message.get("uuid"): message for message in messages}
    parents = [message.get("parent_message_uuid") for message in messages]
    if None in parents or None in by_id or len(set(parents)) == len(parents):
        return list(messages)
    at = entry.get("current_leaf_message_uuid")
    at = at if at in by_id else messages[-1]["uuid"]
    branch: list[Any] = []
    while at in by_id:
        message = by_id.pop(at)
        branch.append(message)
        at = message["parent_message_uuid"]
    return branch[::-1]


def _text(message: Mapping[str, Any]) -> str:
    """Its text parts; `text` has, beside them, a sentence for each thought and tool that says it cannot be shown."""
    content = message.get("content")
    texts = [
        part["text"]
        for part in content or ()
        if isinstance(part, dict)
        and part.get("type") in ("text", "voice_note")
        and isinstance(part.get("text"), str)
    ]
    text = "\n".join(texts) if content else str(message.get("text") or "")
    extracted = [
        str(file["extracted_content"])
        for file in message.get("attachments") or ()
        if isinstance(file, dict) and file.get("extracted_content")
    ]
    return "\n\n".join(filter(None, [text.strip(), *extracted]))
