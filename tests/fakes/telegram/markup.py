"""Telegram's text rules: UTF-16 lengths, the three parse modes, entity checks and what is recognised by itself.

Refuses with the server's own words. Rules as documented at core.telegram.org/bots/api#formatting-options.
It does not know messages or chats.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from .records import JsonObject, bad_request

MAX_TEXT_UTF16 = 4096
MAX_CAPTION_UTF16 = 1024
RESERVED_V2 = "_*[]()~`>#+-=|{}.!"
ENTITY_TYPES = frozenset(
    "mention hashtag cashtag bot_command url email phone_number bold italic underline strikethrough spoiler "
    "blockquote expandable_blockquote code pre text_link text_mention custom_emoji date_time".split()
)
HTML_TAGS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "tg-spoiler": "spoiler",
    "span": "spoiler", "a": "text_link", "code": "code", "pre": "pre", "blockquote": "blockquote",
    "tg-emoji": "custom_emoji", "tg-time": "date_time",
}  # fmt: skip
SPOKEN_NAMES = {
    "bold": "Bold", "italic": "Italic", "underline": "Underline", "strikethrough": "Strikethrough",
    "spoiler": "Spoiler", "code": "Code", "pre": "Pre", "text_link": "TextUrl", "custom_emoji": "CustomEmoji",
    "blockquote": "BlockQuote",
}  # fmt: skip
AUTOMATIC = (
    ("bot_command", re.compile(r"(?<![\w/<>@])/[A-Za-z0-9_]{1,64}(?:@[A-Za-z0-9_]{3,32})?(?![\w/])")),
    ("url", re.compile(r"https?://[^\s<>\"]+[^\s<>\".,:;!?)]")),
    ("email", re.compile(r"(?<![\w.])[\w.+-]+@[\w-]+\.[\w.-]*\w")),
    ("mention", re.compile(r"(?<![\w@/.])@[A-Za-z][A-Za-z0-9_]{2,31}(?!\w)")),
    ("hashtag", re.compile(r"(?<![\w#&])#\w*[^\W\d]\w*")),
)


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def formatted(text: str, parse_mode: str | None, entities: Any) -> tuple[str, list[JsonObject]]:
    """Text and entities as Telegram keeps them: parsed, checked, surrounding white space trimmed.

    Raises: Refusal if the parse mode is unknown or the markup or the entities are wrong.
    """
    if parse_mode:
        parse = {"markdownv2": _parse_markdown_v2, "html": _parse_html, "markdown": _parse_markdown}.get(
            parse_mode.lower()
        )
        if parse is None:
            raise bad_request("unsupported parse_mode")
        plain, found = parse(text)
    else:
        plain, found = text, _checked(text, entities or [])
    return _trimmed(plain, found)


def automatic_entities(text: str) -> list[JsonObject]:
    """What Telegram marks in a person's text unasked: commands, mentions, links, tags; none overlapping."""
    found: list[JsonObject] = []
    taken: list[tuple[int, int]] = []
    for kind, pattern in AUTOMATIC:
        for match in pattern.finditer(text):
            if all(match.end() <= start or match.start() >= end for start, end in taken):
                taken.append(match.span())
                offset = utf16_length(text[: match.start()])
                found.append({"type": kind, "offset": offset, "length": utf16_length(match.group())})
    return sorted(found, key=lambda entity: int(entity["offset"]))


def entity_text(text: str, entity: JsonObject) -> str:
    raw = text.encode("utf-16-le", "surrogatepass")
    return raw[entity["offset"] * 2 : (entity["offset"] + entity["length"]) * 2].decode(
        "utf-16-le", "replace"
    )


def _cannot_parse(reason: str) -> NoReturn:
    raise bad_request(f"can't parse entities: {reason}")


def _checked(text: str, entities: Any) -> list[JsonObject]:
    if not isinstance(entities, list):
        _cannot_parse("expected an Array of MessageEntity")
    position, boundaries = 0, {0}
    for character in text:
        position += 2 if ord(character) > 0xFFFF else 1
        boundaries.add(position)
    for entity in entities:
        if not isinstance(entity, dict) or entity.get("type") not in ENTITY_TYPES:
            _cannot_parse("unsupported type of MessageEntity specified")
        offset, length = entity.get("offset"), entity.get("length")
        if not isinstance(offset, int) or not isinstance(length, int):
            _cannot_parse('field "offset" and "length" of MessageEntity must be of type Number')
        if offset < 0 or length <= 0 or offset + length > position:
            _cannot_parse(f"entity at offset {offset} with length {length} is out of the text's range")
        if offset not in boundaries:
            _cannot_parse(f"entity begins in a middle of a UTF-16 symbol at byte offset {offset}")
        if offset + length not in boundaries:
            _cannot_parse(f"entity ends in a middle of a UTF-16 symbol at byte offset {offset + length}")
        if entity["type"] == "text_link" and not entity.get("url"):
            _cannot_parse('field "url" of MessageEntity is missing')
    return [dict(entity) for entity in entities]


def _trimmed(text: str, entities: Sequence[JsonObject]) -> tuple[str, list[JsonObject]]:
    """Telegram drops white space around a text, so 'Hello' edited to 'Hello ' is not a modification."""
    start = utf16_length(text) - utf16_length(text.lstrip())
    plain = text.strip()
    end = start + utf16_length(plain)
    kept: list[JsonObject] = []
    for entity in entities:
        left, right = max(entity["offset"], start), min(entity["offset"] + entity["length"], end)
        if left < right:
            kept.append(entity | {"offset": left - start, "length": right - left})
    return plain, sorted(kept, key=lambda entity: (entity["offset"], -entity["length"]))


@dataclass
class _Open:
    type: str
    offset: int
    byte_offset: int
    extra: JsonObject
    tag: str = ""


class _Writer:
    """Plain text as it comes out, with its UTF-16 offset, the open entities and the finished ones."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.offset = 0
        self.open: list[_Open] = []
        self.done: list[JsonObject] = []

    def write(self, text: str) -> None:
        self.parts.append(text)
        self.offset += utf16_length(text)

    def begin(self, kind: str, byte_offset: int, extra: JsonObject | None = None, tag: str = "") -> None:
        self.open.append(_Open(kind, self.offset, byte_offset, extra or {}, tag))

    def end(self, extra: JsonObject | None = None, *, keep: bool = True, kind: str | None = None) -> None:
        entity = self.open.pop()
        if keep and self.offset > entity.offset:
            body = {
                "type": kind or entity.type,
                "offset": entity.offset,
                "length": self.offset - entity.offset,
            }
            self.done.append(body | entity.extra | (extra or {}))

    @property
    def inside(self) -> str | None:
        return self.open[-1].type if self.open else None

    def result(self) -> tuple[str, list[JsonObject]]:
        return "".join(self.parts), self.done


def _byte_offset(text: str, index: int) -> int:
    return len(text[:index].encode("utf-8", "surrogatepass"))


def _reserved(character: str) -> NoReturn:
    _cannot_parse(f"Character '{character}' is reserved and must be escaped with the preceding '\\'")


def _link(writer: _Writer, url: str) -> None:
    person = re.fullmatch(r"tg://user\?id=(\d+)", url)
    if person:
        user = {"id": int(person[1]), "is_bot": False, "first_name": "someone"}
        writer.end({"user": user}, kind="text_mention")
        return
    if "://" not in url and re.match(r"[^\s/]+\.[^\s/]{2,}", url):
        url = f"http://{url}"
    writer.end({"url": url}, keep=re.match(r"(https?|tg|ton|mailto|tel):", url) is not None)


def _parse_markdown_v2(text: str) -> tuple[str, list[JsonObject]]:
    writer = _Writer()
    i, at_line_start = 0, True
    while i < len(text):
        character, two, three = text[i], text[i : i + 2], text[i : i + 3]
        inside = writer.inside
        if character == "\\" and i + 1 < len(text) and 0 < ord(text[i + 1]) <= 126:
            writer.write(text[i + 1])
            i, at_line_start = i + 2, False
            continue
        in_code = inside in ("code", "pre")
        in_quote = bool(writer.open) and writer.open[0].type == "blockquote"
        if character == "\n" and in_quote and not in_code:
            if inside != "blockquote":
                break  # an entity is left open at the end of its quotation: reported below
            if text[i + 1 : i + 2] == ">":
                writer.write("\n")
                i += 2
                continue
            writer.end()
            writer.write("\n")
            i, at_line_start = i + 1, True
            continue
        if character not in (RESERVED_V2 if not in_code else "`"):
            writer.write(character)
            i, at_line_start = i + 1, character == "\n"
            continue
        # the ends of entities
        if inside == "pre":
            if three == "```":
                writer.end()
                i += 3
            else:
                writer.write(character)
                i += 1
            continue
        if inside == "underline" and two == "__":
            writer.end()
            i += 2
            continue
        if inside == "spoiler" and two == "||":
            writer.end()
            i += 2
            continue
        if (
            (inside == "bold" and character == "*")
            or (inside == "italic" and character == "_" and two != "__")
            or (inside == "strikethrough" and character == "~")
            or (inside == "code" and character == "`")
        ):
            writer.end()
            i += 1
            continue
        if inside in ("text_link", "custom_emoji") and character == "]":
            i = _end_bracket_v2(text, i, writer)
            continue
        quote_ends = i + 2 == len(text) or (text[i + 2 : i + 3] == "\n" and text[i + 3 : i + 4] != ">")
        if inside == "blockquote" and two == "||" and quote_ends:
            writer.end(kind="expandable_blockquote")
            i += 2
            continue
        # the beginnings
        where = _byte_offset(text, i)
        if two in ("__", "||"):
            writer.begin("underline" if two == "__" else "spoiler", where)
            i += 2
        elif character in "_*~":
            writer.begin({"_": "italic", "*": "bold", "~": "strikethrough"}[character], where)
            i += 1
        elif character == "[":
            writer.begin("text_link", where)
            i += 1
        elif two == "![":
            writer.begin("custom_emoji", where)
            i += 2
        elif three == "```":
            i = _begin_pre(text, i, writer, where)
        elif character == "`":
            writer.begin("code", where)
            i += 1
        elif character == ">" and at_line_start and not writer.open:
            writer.begin("blockquote", where)
            i += 1
        else:
            _reserved(character)
        at_line_start = at_line_start and two == "**"
    if writer.inside == "blockquote":
        writer.end()
    if writer.open:
        left = writer.open[-1]
        _cannot_parse(f"Can't find end of {SPOKEN_NAMES[left.type]} entity at byte offset {left.byte_offset}")
    return writer.result()


def _begin_pre(text: str, i: int, writer: _Writer, where: int) -> int:
    """Opens a fence at `i`; a word right behind it, ended by white space, is its language."""
    fence = re.compile(r"```(?:([^\s`]+)(?=\s))?(?:\r\n|\n|\r)?").match(text, i)
    assert fence is not None, "called only where a fence begins"
    writer.begin("pre", where, {"language": fence[1]} if fence[1] else {})
    return fence.end()


def _end_bracket_v2(text: str, i: int, writer: _Writer) -> int:
    if text[i + 1 : i + 2] != "(":
        if writer.inside == "custom_emoji":
            _cannot_parse("Custom emoji entity must contain a tg://emoji URL")
        opened = writer.open[-1].offset  # a bracket without an address is a link only if its text is one
        _link(
            writer, entity_text("".join(writer.parts), {"offset": opened, "length": writer.offset - opened})
        )
        return i + 1
    url, position = "", i + 2
    while position < len(text) and text[position] != ")":
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        url += text[position]
        position += 1
    if position >= len(text):
        _cannot_parse(f"Can't find end of a URL at byte offset {_byte_offset(text, i + 2)}")
    if writer.inside == "custom_emoji":
        emoji = re.fullmatch(r"tg://emoji\?id=(\d+)", url)
        if emoji is None:
            _cannot_parse("Custom emoji URL must have scheme tg and host emoji")
        writer.end({"custom_emoji_id": emoji[1]})
    else:
        _link(writer, url)
    return position + 1


def _parse_html(text: str) -> tuple[str, list[JsonObject]]:
    writer = _Writer()
    i = 0
    while i < len(text):
        character = text[i]
        if character == "&":
            known = re.compile(r"&(?:#\d+|#x[0-9a-fA-F]+|lt|gt|amp|quot);").match(text, i)
            writer.write(html.unescape(known.group()) if known else "&")
            i = known.end() if known else i + 1
        elif character == "<":
            i = _html_tag(text, i, writer)
        else:
            writer.write(character)
            i += 1
    if writer.open:
        left = writer.open[-1]
        _cannot_parse(f'Can\'t find end tag corresponding to start tag "{left.tag}"')
    return writer.result()


def _html_tag(text: str, i: int, writer: _Writer) -> int:
    where = _byte_offset(text, i)
    closing = re.compile(r"</([^>\s]*)\s*>").match(text, i)
    if text.startswith("</", i):
        if closing is None:
            _cannot_parse(f"Unclosed end tag at byte offset {where}")
        if not writer.open:
            _cannot_parse(f"Unexpected end tag at byte offset {where}")
        expected, found = writer.open[-1].tag, closing[1].lower()
        if found not in ("", expected):
            _cannot_parse(
                f'Unmatched end tag at byte offset {where}, expected "</{expected}>", found "</{found}>"'
            )
        _end_html(writer)
        return closing.end()
    name = re.compile(r"<([^\s>/]*)").match(text, i)
    assert name is not None, "called only at '<'"
    tag = name[1].lower()
    if tag not in HTML_TAGS:
        _cannot_parse(f'Unsupported start tag "{tag}" at byte offset {where}')
    rest = re.compile(r"""((?:\s+[\w-]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>"']+))?)*)\s*>""").match(
        text, name.end()
    )
    if rest is None:
        _cannot_parse(f'Unclosed start tag "{tag}" at byte offset {where}')
    attributes: dict[str, str] = {}
    for attribute in re.finditer(r"""([\w-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']+)))?""", rest[1]):
        value = next((group for group in attribute.groups()[1:] if group is not None), "")
        attributes[attribute[1].lower()] = html.unescape(value)
    if tag == "span" and attributes.get("class") != "tg-spoiler":
        _cannot_parse(f'Tag "span" must have class "tg-spoiler" at byte offset {where}')
    extra: JsonObject = {}
    if tag == "a":
        extra = {"url": attributes.get("href", "")}
    elif tag == "tg-emoji":
        if not attributes.get("emoji-id"):
            _cannot_parse(f'Attribute "emoji-id" must be specified at byte offset {where}')
        extra = {"custom_emoji_id": attributes["emoji-id"]}
    elif tag == "code" and attributes.get("class", "").startswith("language-"):
        extra = {"language": attributes["class"].removeprefix("language-")}
    kind = "expandable_blockquote" if tag == "blockquote" and "expandable" in attributes else HTML_TAGS[tag]
    writer.begin(kind, where, extra, tag)
    return rest.end()


def _end_html(writer: _Writer) -> None:
    entity = writer.open[-1]
    if entity.type == "text_link":
        url = entity.extra.pop("url")
        _link(writer, url)
        return
    if entity.type == "code":
        outer = writer.open[-2] if len(writer.open) > 1 else None
        language = entity.extra.pop("language", None)
        if outer is not None and outer.type == "pre":
            if language and outer.offset == entity.offset:
                outer.extra["language"] = language
            writer.end(keep=False)
            return
    writer.end()


def _parse_markdown(text: str) -> tuple[str, list[JsonObject]]:
    """The legacy mode: no nesting, a backslash escapes only `_*[` and the back-tick."""
    writer = _Writer()
    i = 0
    while i < len(text):
        character = text[i]
        if character == "\\" and text[i + 1 : i + 2] in tuple("_*`["):
            writer.write(text[i + 1])
            i += 2
            continue
        if character not in "_*`[":
            writer.write(character)
            i += 1
            continue
        where = _byte_offset(text, i)
        fenced = text.startswith("```", i)
        closer = "```" if fenced else ("]" if character == "[" else character)
        if fenced:
            start = _begin_pre(text, i, writer, where)
        else:
            kind = {"_": "italic", "*": "bold", "`": "code", "[": "text_link"}[character]
            writer.begin(kind, where)
            start = i + 1
        end = text.find(closer, start)
        if end < 0:
            _cannot_parse(f"Can't find end of the entity starting at byte offset {where}")
        writer.write(text[start:end])
        i = end + len(closer)
        if character != "[":
            writer.end()
        elif text[i : i + 1] == "(" and ")" in text[i:]:
            _link(writer, text[i + 1 : text.index(")", i)])
            i = text.index(")", i) + 1
        else:
            writer.end(keep=False)
    return writer.result()
