"""The `Tool` port and the registry of tools by name.

Owns looking a tool up, checking arguments against its schema and turning any failure into a readable outcome. What calls mean
for a turn (recording, replay, idempotency) belongs to `bot/turns.py`.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bot.agents.base import ToolSpec
from config.names import Json


class SessionMemory(Protocol):
    """The part of the running turn's own session that tools may use; nothing of any other session is reachable."""

    async def remember(self, name: str, value: Json) -> None: ...

    async def recall(self, name: str | None = None) -> Mapping[str, Json]:
        """All remembered values, or the one named (empty when there is none)."""

    async def search(self, words: str, limit: int = 5) -> Sequence[tuple[str, str, datetime]]:
        """Messages of this conversation holding all the words: (role, text, time), newest first."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool gets besides its arguments."""

    idempotency_key: str
    """`turn:step`: the same if the call is repeated after a crash."""
    now: datetime
    memory: SessionMemory
    language: str = "en"


class ToolFailed(Exception):
    """A tool could not do what was asked; the text is for the model and the person alike, without internals."""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    parameters: Mapping[str, Json]
    """JSON schema of an object."""
    run: Callable[[Mapping[str, Json], ToolContext], Awaitable[str]]
    """Raises `ToolFailed` with a sentence when it cannot."""
    has_side_effects: bool = False
    timeout_s: float = 30


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a run of a tool gave: `content` for the model, `cause` (internals and all) for the record only."""

    content: str
    is_error: bool = False
    cause: str | None = None


class WrongArguments(ToolFailed):
    """The arguments do not fit the tool's schema; the text names each one that does not."""


UNREADABLE_ARGUMENTS = "unreadable_arguments"
"""The single key of the arguments of a call whose JSON could not be read; its value is what the model wrote.

So such a call is recorded, counted and answered like every other, and no tool ever runs on guessed arguments.
"""

_MAX_CONTENT_CHARS = 20_000


class ToolArguments(BaseModel):
    """Base of every tool's arguments: misspelt ones are refused instead of silently dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


_A = TypeVar("_A", bound=ToolArguments)


def make_tool(
    name: str,
    description: str,
    arguments: type[_A],
    run: Callable[[_A, ToolContext], Awaitable[str]],
    *,
    has_side_effects: bool = False,
    timeout_s: float = 30,
) -> Tool:
    """A tool whose schema and whose check of arguments come from one pydantic model."""

    async def run_checked(raw: Mapping[str, Json], context: ToolContext) -> str:
        try:
            parsed = arguments.model_validate(raw)
        except ValidationError as error:
            raise WrongArguments(_describe_mismatch(error)) from error
        return await run(parsed, context)

    schema = arguments.model_json_schema()
    schema.pop("title", None)
    schema.pop(
        "description", None
    )  # the model's docstring is for us; `description` is for the language model
    for parameter in schema.get("properties", {}).values():
        parameter.pop("title", None)
    return Tool(name, description, schema, run_checked, has_side_effects, timeout_s)


class ToolRegistry:
    """Tools by name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                msg = f"two tools are called {tool.name!r}"
                raise ValueError(msg)
            self._tools[tool.name] = tool
        self._specs = tuple(
            ToolSpec(tool.name, tool.description, tool.parameters) for tool in self._tools.values()
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def select(self, names: Iterable[str]) -> "ToolRegistry":
        """The registry of these tools only.

        Raises: `ValueError` naming what there is, if one is unknown.
        """
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self._tools]
        if unknown:
            known = ", ".join(self._tools) or "none"
            msg = f"unknown tool {unknown[0]!r}; there are: {known}"
            raise ValueError(msg)
        return ToolRegistry(self._tools[name] for name in wanted)

    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model is told about the tools."""
        return self._specs

    async def run(self, name: str, arguments: Mapping[str, Json], context: ToolContext) -> ToolResult:
        """Run a tool. Raises nothing but a cancellation: every failure becomes a result that a model can read."""
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            return ToolResult(f"There is no tool called {name[:100]!r}. Available: {known}.", is_error=True)
        if UNREADABLE_ARGUMENTS in arguments:
            return ToolResult(
                f"The arguments for {name} were not a JSON object. Call it again with valid JSON.",
                is_error=True,
                cause=f"not JSON: {str(arguments[UNREADABLE_ARGUMENTS])[:500]}",
            )
        deadline = asyncio.timeout(tool.timeout_s)
        try:
            async with deadline:
                content = await tool.run(arguments, context)
        except WrongArguments as error:
            return ToolResult(f"Wrong arguments for {name}: {error}", is_error=True, cause=str(error))
        except ToolFailed as error:
            return ToolResult(
                str(error) or f"{name} could not do that.", is_error=True, cause=_cause_of(error)
            )
        except Exception as error:  # noqa: BLE001 - a broken tool costs its own call, never the turn
            if deadline.expired() and isinstance(error, TimeoutError):
                text = f"{name} took longer than {tool.timeout_s:g} s and was stopped."
                return ToolResult(text, is_error=True, cause=f"timeout after {tool.timeout_s:g} s")
            return ToolResult(
                f"{name} failed because of an internal error.", is_error=True, cause=_cause_of(error)
            )
        if len(content) > _MAX_CONTENT_CHARS:
            left_out = len(content) - _MAX_CONTENT_CHARS
            content = f"{content[:_MAX_CONTENT_CHARS]}\n[{left_out} more characters left out]"
        return ToolResult(content)


def _describe_mismatch(error: ValidationError) -> str:
    """`place: Field required; tz: Extra inputs are not permitted`: no addresses of documentation, no values."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'arguments'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _cause_of(error: BaseException) -> str:
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    where = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(cause).__name__}: {cause}{where}"[:2000]
