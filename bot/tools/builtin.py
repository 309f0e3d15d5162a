"""The tools that come with Palaver: clock, calculator, remember, recall, search.

Owns their arguments, descriptions and the shape of what they return (JSON where a program may want to read it too).
All of them may be run again after a crash without harm: remembering the same value twice leaves one value.
"""

import asyncio
from datetime import UTC

import orjson
from pydantic import Field

from bot.tools.calculator import calculate
from bot.tools.clock import describe_moment, find_zone
from bot.tools.registry import Tool, ToolArguments, ToolContext, ToolFailed, ToolRegistry, make_tool
from config.names import Json

_MAX_EXCERPT_CHARS = 400
_MAX_REMEMBERED = 500


class ClockArguments(ToolArguments):
    place: str | None = Field(
        None,
        max_length=100,
        description="A city, a country or an IANA time zone; leave out for the local time.",
    )


async def _tell_time(arguments: ClockArguments, context: ToolContext) -> str:
    zone = None
    if arguments.place:
        zone = await asyncio.to_thread(find_zone, arguments.place)
        if zone is None:
            raise ToolFailed(
                f"I do not know where {arguments.place!r} is. Try a large city nearby, or a zone like Asia/Tokyo."
            )
    return _json(describe_moment(context.now, zone, arguments.place))


class CalculatorArguments(ToolArguments):
    expression: str = Field(
        max_length=1000, description="For example 3*(4+5), sqrt(2), 2^10, 15/100*80, log(8, 2)."
    )


async def _calculate(arguments: CalculatorArguments, context: ToolContext) -> str:
    del context
    return calculate(arguments.expression)


class RememberArguments(ToolArguments):
    name: str = Field(
        min_length=1, max_length=100, description="What it is, in a few words: cat, birthday, favourite food."
    )
    value: str | int | float | bool = Field(description="What to remember about it.")


async def _remember(arguments: RememberArguments, context: ToolContext) -> str:
    if isinstance(arguments.value, str) and len(arguments.value) > 4000:
        raise ToolFailed("That is too long to remember (at most 4000 characters).")
    known = await context.memory.recall()
    name = _known_name(known, arguments.name)
    if name not in known and len(known) >= _MAX_REMEMBERED:
        raise ToolFailed(f"There is no room for more: {_MAX_REMEMBERED} things are remembered already.")
    await context.memory.remember(name, arguments.value)
    return _json({"remembered": {name: arguments.value}})


class RecallArguments(ToolArguments):
    name: str | None = Field(None, max_length=100, description="What to recall; leave out for everything.")


async def _recall(arguments: RecallArguments, context: ToolContext) -> str:
    if arguments.name is None:
        return _json(dict(await context.memory.recall()))
    found = dict(await context.memory.recall(arguments.name))
    if not found:
        known = await context.memory.recall()
        name = _known_name(known, arguments.name)
        found = {name: known[name]} if name in known else {}
    return _json(found)


class SearchArguments(ToolArguments):
    words: str = Field(min_length=1, max_length=200, description="Words that the messages must hold.")
    limit: int = Field(5, ge=1, le=50, description="Most messages to return, newest first.")


async def _search(arguments: SearchArguments, context: ToolContext) -> str:
    found = await context.memory.search(arguments.words, arguments.limit)
    return _json(
        [
            {
                "role": role,
                "time": time.astimezone(context.now.tzinfo or UTC).isoformat(timespec="minutes"),
                "text": text if len(text) <= _MAX_EXCERPT_CHARS else f"{text[:_MAX_EXCERPT_CHARS]}…",
            }
            for role, text, time in found[: arguments.limit]
        ]
    )


def _known_name(known: Json, name: str) -> str:
    """The spelling already in use: `Cat` and `cat` are one thing."""
    return next((other for other in known if other.casefold() == name.casefold()), name)


def _json(value: Json) -> str:
    return orjson.dumps(value).decode()


def builtin_tools() -> tuple[Tool, ...]:
    return (
        make_tool(
            "clock",
            "The current time and date, here or at a place.",
            ClockArguments,
            _tell_time,
            timeout_s=10,
        ),
        make_tool(
            "calculator",
            "Exact arithmetic: + - * / // % ^ ! parentheses, pi, e, and functions such as sqrt, round, min, max, sin (radians),"
            " ln (natural), log (base 10, or log(x, base)).",
            CalculatorArguments,
            _calculate,
            timeout_s=5,
        ),
        make_tool(
            "remember",
            "Keep a fact about the person or the conversation for later. Replaces what was kept under the same name.",
            RememberArguments,
            _remember,
            has_side_effects=True,
        ),
        make_tool("recall", "What was remembered earlier, one thing or all of it.", RecallArguments, _recall),
        make_tool(
            "search",
            "Earlier messages of this conversation that hold all the words.",
            SearchArguments,
            _search,
        ),
    )


def builtin_registry() -> ToolRegistry:
    return ToolRegistry(builtin_tools())
