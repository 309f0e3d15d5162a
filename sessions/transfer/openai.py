"""OpenAI's chat export, `conversations.json`: a tree of messages for each conversation."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from sessions.transfer.archives import Conversation, Said, as_list, digest, from_seconds


def conversations(document: Any) -> Iterator[Conversation]:
    """Of each tree the branch that was seen last, as it was shown: without thoughts, and without what went to tools."""
    for entry in as_list(document):
        created = from_seconds(entry.get("create_time"))
        conversation = Conversation(
            str(entry.get("conversation_id") or entry.get("id") or digest(entry)),
            entry.get("title"),
            created,
        )
        nodes = entry["mapping"]
        node_id = entry.get("current_node")
        if node_id not in nodes:
            node_id = _last_leaf(nodes)
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
            metadata = message.get("metadata") or {}
            text, files = _content(message.get("content") or {}, metadata)
            at = from_seconds(message.get("create_time")) or at
            is_hidden = metadata.get("is_visually_hidden_from_conversation")
            is_to_tool = message.get("recipient") not in (None, "all")
            if role not in ("user", "assistant") or is_hidden or is_to_tool or not (text or files):
                conversation.left_out += role not in (None, "system")
                continue
            conversation.said.append(Said(role, text, None, at, files, message.get("id")))
        yield conversation


def _content(content: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Text and the names of files. Thoughts have neither, for they are under names of their own."""
    texts: list[str] = []
    uploaded = [file for file in metadata.get("attachments") or () if isinstance(file, dict)]
    files = [{"kind": "file", "name": str(file.get("name") or file.get("id") or "file")} for file in uploaded]
    known = [str(file["id"]) for file in uploaded if file.get("id")]
    if content.get("content_type") in ("text", "multimodal_text"):
        for part in content.get("parts") or ():
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, dict) and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif isinstance(part, dict):
                spoken = part.get("audio_asset_pointer")
                pointer = part.get("asset_pointer") or (spoken if isinstance(spoken, dict) else {}).get(
                    "asset_pointer"
                )
                if not any(one in str(pointer) for one in known):  # else it has its name from above
                    files.append({"kind": "file", "name": str(pointer or part.get("content_type"))})
    elif isinstance(content.get("text"), str):
        texts.append(content["text"])
    return _without_marks("\n".join(texts), metadata).strip(), files


_MARK: Final = re.compile("\ue200([^\ue200-\ue202]*)((?:\ue202[^\ue200-\ue202]*)*)\ue201")


def _without_marks(text: str, metadata: Mapping[str, Any]) -> str:
    """The text with its marks for sources and names as they were shown; one that nothing is known of is left out."""
    if "\ue200" not in text:
        return text
    for reference in metadata.get("content_references") or ():
        if isinstance(reference, dict) and isinstance(reference.get("matched_text"), str):
            shown = reference.get("alt")
            if "\ue200" in reference["matched_text"]:
                text = text.replace(reference["matched_text"], shown if isinstance(shown, str) else "")
    return _MARK.sub(_shown, text)


def _shown(mark: re.Match[str]) -> str:
    """What stood in the place of a mark: of an entity its name, the second of a list."""
    if mark[1] == "entity":
        with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
            return str(orjson.loads(mark[2][1:])[1])
    return ""


def _last_leaf(nodes: Mapping[str, Any]) -> str | None:
    leaves = [name for name, node in nodes.items() if not node.get("children")]
    return max(
        leaves, key=lambda name: (nodes[name].get("message") or {}).get("create_time") or 0, default=None
    )
