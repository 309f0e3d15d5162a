"""`ScriptedAgent`: the shipped double of the `Agent` port. It says what a script tells it to; no model, no network.

Owns playing a script through the port by the rules of `bot/agents/base.py`, a repeated run after a crash included.
For tests of Palaver and of programs built on it, and for process tests through `agent.kind = "scripted"`, where the
person's message is the script:

    hello there                       echo: hello there
    delay=0.5 hello                   waits half a second first
    tool=clock hello                  calls a tool, then: echo: hello [clock: {"time": …}]
    tool=calculator:{"expression":"1+1"} sum      the same with arguments (JSON without spaces)
    pace=0.1 hello there              writes the answer in pieces, so many seconds apart
    fail=unavailable                  raises AgentError("unavailable")
    long=5000                         a Markdown answer of that many characters, with a code block inside

Directives stand at the start, in any number and order, and are carried out in that order.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from bot.agents.base import (
    AgentContext,
    AgentError,
    AgentErrorKind,
    Event,
    Final,
    ModelAnswer,
    RecordedStep,
    TextDelta,
    Toolbox,
    ToolOutcome,
    ToolRequest,
    Usage,
)
from config.names import Json


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait before the next item."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CallTools:
    """End an answer with tool calls, made side by side; `{1}`, `{2}` … in later text stand for their results."""

    requests: tuple[ToolRequest, ...]


ScriptItem = str | Usage | Delay | CallTools | ToolRequest | AgentError
"""Text is a piece of the answer being written; a `Usage` belongs to that answer; an error is raised."""

Script = Sequence[ScriptItem] | Callable[[AgentContext], Iterable[ScriptItem]]


class ScriptedAgent:
    """Plays its script for every message; the default script is the person's own message (see the module)."""

    def __init__(self, script: Script | None = None, *, delay_s: float = 0, name: str = "scripted") -> None:
        self._script = follow_message if script is None else script
        self._delay_s = delay_s
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def run(self, context: AgentContext, tools: Toolbox) -> AsyncIterator[Event]:
        script = self._script(context) if callable(self._script) else self._script
        recorded = _recorded_rounds(context.steps)
        contents: list[str] = []
        text, usage = "", Usage()
        is_waiting = self._delay_s > 0 and not recorded
        if is_waiting:
            await asyncio.sleep(self._delay_s)
        for item in script:
            match item:
                case str():
                    piece = _fill(item, contents)
                    text += piece
                    if not recorded:
                        yield TextDelta(piece)
                case Usage():
                    usage = item
                case Delay():
                    if not recorded:
                        await asyncio.sleep(item.seconds)
                case AgentError():
                    if not recorded:
                        raise AgentError(item.kind, item.detail, retry_after_s=item.retry_after_s)
                case ToolRequest() | CallTools():
                    requests = (item,) if isinstance(item, ToolRequest) else item.requests
                    if recorded:
                        answer, outcomes = recorded.pop(0)
                    else:
                        answer, outcomes = ModelAnswer(text, requests, usage, self._name), []
                        yield answer
                    missing = answer.tool_requests[len(outcomes) :]
                    outcomes += await asyncio.gather(*(tools.call(request) for request in missing))
                    contents += [outcome.content for outcome in outcomes]
                    text, usage = "", Usage()
        if recorded:
            text = recorded[0][0].text
        else:
            yield ModelAnswer(text, (), usage, self._name)
        yield Final(text)

    async def close(self) -> None:
        """Nothing to close."""


def _recorded_rounds(steps: Sequence[RecordedStep]) -> list[tuple[ModelAnswer, list[ToolOutcome]]]:
    rounds: list[tuple[ModelAnswer, list[ToolOutcome]]] = []
    for step in steps:
        if isinstance(step, ModelAnswer):
            rounds.append((step, []))
        else:
            rounds[-1][1].append(step)
    return rounds


def _fill(piece: str, contents: Sequence[str]) -> str:
    return re.sub(
        r"\{(\d+)\}",
        lambda found: contents[int(found[1]) - 1] if int(found[1]) <= len(contents) else found[0],
        piece,
    )


_DIRECTIVE = re.compile(r"(delay|pace|tool|fail|long)=(\S+)\s*")


def follow_message(context: AgentContext) -> Iterator[ScriptItem]:
    """The script that a message spells out: `delay=0.5 tool=clock hello`. A directive it cannot read is told as text."""
    text = context.messages[-1].content if context.messages else ""
    names: list[str] = []
    long_chars, pace_s = 0, 0.0
    while found := _DIRECTIVE.match(text):
        kind, value = found.groups()
        text = text[found.end() :]
        try:
            if kind == "delay":
                yield Delay(min(float(value), 3600))
            elif kind == "pace":
                pace_s = min(float(value), 60)
            elif kind == "fail":
                yield AgentError(_error_kind(value), "the script says so")
            elif kind == "long":
                long_chars = min(int(value), 1_000_000)
            else:
                name, _, arguments = value.partition(":")
                names.append(name)
                yield ToolRequest(f"scripted-{len(names)}", name, _object(arguments or "{}"))
        except ValueError as error:
            yield f"scripted: {kind}={value}: {error}\n"
    if long_chars:
        yield from _paced(_pieces(long_markdown(long_chars)), pace_s)
        return
    shown = "".join(f" [{name}: {{{number}}}]" for number, name in enumerate(names, 1))
    yield from _paced(_pieces(f"echo: {text}"), pace_s)
    if shown:
        yield shown


def _object(text: str) -> dict[str, Json]:
    value = json.loads(text)
    if not isinstance(value, dict):
        msg = "the arguments must be a JSON object"
        raise ValueError(msg)
    return value


def _error_kind(text: str) -> AgentErrorKind:
    for kind in get_args(AgentErrorKind):
        if kind == text:
            return kind  # type: ignore[no-any-return]
    msg = f"there are only {', '.join(get_args(AgentErrorKind))}"
    raise ValueError(msg)


def _paced(pieces: Iterable[str], pace_s: float) -> Iterator[ScriptItem]:
    for piece in pieces:
        yield piece
        if pace_s:
            yield Delay(pace_s)


def _pieces(text: str, size: int = 20) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


def long_markdown(chars: int) -> str:
    """Markdown of exactly so many characters (at least 60): numbered paragraphs around one long code block."""
    chars = max(chars, 60)
    fence_from, fence_to = chars // 3, 2 * chars // 3
    lines: list[str] = ["# A long answer", ""]
    size = sum(len(line) + 1 for line in lines)
    number = 0
    is_open = False
    while size < chars - 12:
        number += 1
        if not is_open and fence_from <= size < fence_to:
            line, is_open = "```python", True
        elif is_open and size >= fence_to:
            line, is_open = "```", False
        elif is_open:
            line = f"line_{number} = {number}  # one of many lines"
        else:
            line = f"{number}. This is a paragraph with *emphasis* and `code`."
        line = line[: chars - 12 - size] or "x"
        lines.append(line)
        size += len(line) + 1
    if is_open:
        lines.append("```")
    text = "\n".join(lines)
    return text + "." * (chars - len(text))
