"""Cutting Markdown into pieces that fit one message each, code fences closed and opened again.

Owns where a text may be cut and what becomes of a code block that is cut. Pure; knows no platform: the limit and how
length is measured are the caller's. Inline marks (bold, links) that a cut falls into are left as they are.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MIN_LIMIT = 100
"""Below this a reopened fence would leave no room for what it holds."""

MAX_MARKER = 8
"""A longer run of backticks or tildes at the start of a line is taken as text."""

MAX_INFO = 20
"""Longest language name that is repeated; what is longer moves into the block."""

LEAST_FILL = 0.3
"""A better boundary is taken only if at least this share of the message is used."""

_FENCE = re.compile(r"[ \t]{0,40}(?P<marker>`{3,}|~{3,})(?P<info>.*)", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*\s+|[。！？]")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Fence:
    """An open code block: what closes it, and how it is opened again."""

    marker: str
    info: str = ""

    @property
    def opening(self) -> str:
        return f"{self.marker}{self.info}"


def after_line(fence: Fence | None, line: str) -> Fence | None:
    """The code block that is open after `line`, given the one open before it."""
    found = _FENCE.fullmatch(line)
    if found is None or len(found["marker"]) > MAX_MARKER:
        return fence
    marker, info = found["marker"], found["info"].strip()
    if fence is None:
        return None if marker[0] == "`" and "`" in info else Fence(marker, info)
    closes = marker[0] == fence.marker[0] and len(marker) >= len(fence.marker) and not info
    return None if closes else fence


def open_fence(text: str, fence: Fence | None = None) -> Fence | None:
    """The code block still open at the end of `text`."""
    for line in text.split("\n"):
        fence = after_line(fence, line)
    return fence


def split_markdown(text: str, limit: int, measure: Callable[[str], int] = len) -> list[str]:
    """Cut `text` into pieces of at most `limit` as `measure` counts; empty only if nothing in it is visible.

    Boundaries in order of preference: between paragraphs or blocks, lines, sentences, words, anywhere. A code block
    that does not fit is closed at the end of a piece and opened again, with its language, in the next.

    Raises: ValueError if `limit` is below `MIN_LIMIT`.
    """
    if limit < MIN_LIMIT:
        msg = f"limit must be at least {MIN_LIMIT}, not {limit}"
        raise ValueError(msg)
    pieces: list[str] = []
    rest = _with_short_infos(text.replace("\r\n", "\n").replace("\r", "\n"))
    fence: Fence | None = None
    while rest.strip():
        if fence is None:
            rest = rest.lstrip("\n")
        piece, rest, fence = _take(rest, fence, limit, measure)
        if piece.strip():
            pieces.append(piece)
    return pieces


def _with_short_infos(text: str) -> str:
    """Move what follows an opening fence into the block where it is too long to be repeated."""
    lines: list[str] = []
    fence: Fence | None = None
    for line in text.split("\n"):
        before, fence = fence, after_line(fence, line)
        if before is None and fence is not None and len(fence.info) > MAX_INFO:
            lines += [fence.marker, fence.info]
            # what was moved may itself look like a fence: it is text inside the block, never its end
            fence = after_line(Fence(fence.marker), fence.info)
            continue
        lines.append(line)
    return "\n".join(lines)


def _take(
    rest: str, fence: Fence | None, limit: int, measure: Callable[[str], int]
) -> tuple[str, str, Fence | None]:
    """One piece off the front of `rest`; then what remains, and the code block it begins in."""
    head = f"{fence.opening}\n" if fence else ""
    if measure(rest.rstrip()) <= limit:
        whole = _closed(head + rest.rstrip(), open_fence(rest, fence))
        if measure(whole) <= limit:
            return whole, "", None
    room = limit
    while True:
        window = _longest_prefix(rest, room - measure(head), measure)
        at, state = _best_cut(rest, window, fence)
        piece = _closed(head + rest[:at].rstrip(), state)
        excess = measure(piece) - limit
        if excess <= 0 or at <= 1:
            break
        room -= excess
    remaining = rest[at:]
    if state is not None and remaining.startswith("\n"):
        remaining = remaining[1:]
    if state is not None and after_line(state, remaining.partition("\n")[0]) is None:
        # the block ends right here: its closing line is already in the piece
        return piece, remaining.partition("\n")[2], None
    return piece, remaining, state


def _closed(text: str, fence: Fence | None) -> str:
    return f"{text}\n{fence.marker}" if fence else text


def _longest_prefix(text: str, room: int, measure: Callable[[str], int]) -> int:
    """How many characters of `text` fit; at least one, so that every piece makes progress."""
    low, high = 1, min(len(text), max(room, 1))
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[:middle]) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _best_cut(rest: str, window: int, fence: Fence | None) -> tuple[int, Fence | None]:
    """Where to cut within the first `window` characters, and the code block open there."""
    least = int(window * LEAST_FILL)
    blocks: list[tuple[int, Fence | None]] = []
    lines: list[tuple[int, Fence | None]] = []
    last_start, last_state, last_is_fence = 0, fence, False
    for start, before, is_block_start, is_fence_line in _line_starts(rest, fence):
        if start > window:
            break
        last_start, last_state, last_is_fence = start, before, is_fence_line
        if start > 0 and not _ends_with_opening(rest, start, before):
            (blocks if is_block_start else lines).append((start, before))
    for found in (blocks, lines):
        if found and found[-1][0] >= least:
            return found[-1]
    if last_is_fence and last_start > 0:
        # a fence's own line is never cut in two
        usable = [*blocks, *lines]
        return max(usable, key=lambda cut: cut[0]) if usable else (last_start, last_state)
    line = rest[last_start : _line_end(rest, last_start)]
    if last_state is None:
        for pattern in (_SENTENCE_END, _SPACE):
            ends = [match.end() for match in pattern.finditer(rest, last_start, window)]
            ends = [end for end in ends if end > least and _keeps_meaning(line, end - last_start, last_state)]
            if ends:
                return ends[-1], None
    for at in range(window, last_start, -1):
        if _is_between_graphemes(rest, at) and _keeps_meaning(line, at - last_start, last_state):
            return at, last_state
    return window, last_state


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _keeps_meaning(line: str, at: int, state: Fence | None) -> bool:
    """Whether neither half of a line cut at `at` looks like the fence that the whole line is not."""
    return after_line(state, line[:at]) == state and after_line(state, line[at:]) == state


def _line_starts(rest: str, fence: Fence | None) -> Iterator[tuple[int, Fence | None, bool, bool]]:
    """Each line's start: position, code block open before it, whether a block begins there, whether it is a fence."""
    start, follows_break = 0, False
    while True:
        end = rest.find("\n", start)
        line = rest[start:] if end < 0 else rest[start:end]
        after = after_line(fence, line)
        opens = fence is None and after is not None
        yield start, fence, fence is None and (follows_break or opens), after != fence
        follows_break = after is None and (fence is not None or not line.strip())
        fence = after
        if end < 0:
            return
        start = end + 1


def _ends_with_opening(rest: str, start: int, state: Fence | None) -> bool:
    """Whether a cut at `start` would leave a code block with nothing in it at the end of the piece."""
    if state is None:
        return False
    previous = rest[: start - 1].rpartition("\n")[2]
    return after_line(None, previous) == state


def _is_between_graphemes(text: str, at: int) -> bool:
    """False where a cut would part a letter from its accent or the halves of a joined emoji."""
    if not 0 < at < len(text):
        return at > 0
    behind, ahead = text[at - 1], text[at]
    if "\u200d" in (behind, ahead) or ahead in "\ufe0e\ufe0f":
        return False
    return not unicodedata.combining(ahead) and not 0x1F3FB <= ord(ahead) <= 0x1F3FF
