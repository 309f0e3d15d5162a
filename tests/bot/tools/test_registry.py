"""Looking tools up, checking what they are called with, and what becomes of their failures."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from pydantic import Field

from bot.tools.registry import (
    UNREADABLE_ARGUMENTS,
    Tool,
    ToolArguments,
    ToolContext,
    ToolFailed,
    ToolRegistry,
    make_tool,
)
from config.names import Json
from tests.fakes.toolbox import NOW, MemoryDouble


class Arguments(ToolArguments):
    count: int = Field(ge=1, description="How many.")
    note: str | None = None


async def _repeat(arguments: Arguments, context: ToolContext) -> str:
    del context
    return "x" * arguments.count


def _context() -> ToolContext:
    return ToolContext("turn:1", NOW, MemoryDouble())


def _registry(
    run: Callable[[Mapping[str, Json], ToolContext], Awaitable[str]], timeout_s: float = 5
) -> ToolRegistry:
    return ToolRegistry([Tool("tool", "A tool.", {"type": "object"}, run, timeout_s=timeout_s)])


REPEAT = make_tool("repeat", "Repeats.", Arguments, _repeat, has_side_effects=True, timeout_s=3)


def test_schema_comes_from_the_arguments() -> None:
    """A tool made from a model has its JSON schema, descriptions included, and refuses further keys."""
    assert REPEAT.parameters["properties"]["count"] == {
        "description": "How many.",
        "minimum": 1,
        "type": "integer",
    }
    assert REPEAT.parameters["required"] == ["count"]
    assert REPEAT.parameters["additionalProperties"] is False
    assert (REPEAT.has_side_effects, REPEAT.timeout_s) == (True, 3)


async def test_runs_with_checked_arguments() -> None:
    """Right arguments reach the tool, a number written as text included."""
    result = await ToolRegistry([REPEAT]).run("repeat", {"count": "3"}, _context())
    assert (result.content, result.is_error, result.cause) == ("xxx", False, None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "count: Field required"),
        ({"count": 0}, "count: Input should be greater than or equal to 1"),
        ({"count": "many"}, "count: Input should be a valid integer"),
        ({"count": 1, "size": 2}, "size: Extra inputs are not permitted"),
    ],
)
async def test_wrong_arguments_are_named(arguments: Mapping[str, Json], told: str) -> None:
    """A model that called a tool wrongly reads which argument is wrong and how."""
    result = await ToolRegistry([REPEAT]).run("repeat", arguments, _context())
    assert result.is_error
    assert result.content.startswith("Wrong arguments for repeat: ")
    assert told in result.content
    assert "http" not in result.content


async def test_unknown_tool_names_the_known() -> None:
    """A made-up name is answered with the names there are."""
    result = await ToolRegistry([REPEAT]).run("repeet", {}, _context())
    assert result.is_error
    assert "'repeet'" in result.content
    assert "repeat" in result.content


async def test_unreadable_arguments_never_reach_a_tool() -> None:
    """A call whose JSON could not be read runs nothing; the record keeps what was written."""

    async def run(arguments: Mapping[str, Json], context: ToolContext) -> str:
        raise AssertionError

    result = await _registry(run).run("tool", {UNREADABLE_ARGUMENTS: '{"a": '}, _context())
    assert result.is_error
    assert "JSON" in result.content
    assert result.cause == 'not JSON: {"a": '


async def test_internals_stay_in_the_record() -> None:
    """A tool that breaks tells the model nothing of its insides; the cause goes to the record."""

    async def run(arguments: Mapping[str, Json], context: ToolContext) -> str:
        raise RuntimeError("password=hunter2 at /srv/secret")

    result = await _registry(run).run("tool", {}, _context())
    assert result.content == "tool failed because of an internal error."
    assert result.is_error
    assert "RuntimeError: password=hunter2" in (result.cause or "")


async def test_a_refusal_is_told_as_it_is() -> None:
    """`ToolFailed` is a sentence for the model."""

    async def run(arguments: Mapping[str, Json], context: ToolContext) -> str:
        raise ToolFailed("No such city.") from KeyError("atlantis")

    result = await _registry(run).run("tool", {}, _context())
    assert (result.content, result.is_error) == ("No such city.", True)
    assert "KeyError" in (result.cause or "")


async def test_a_slow_tool_is_stopped() -> None:
    """A tool past its time is cancelled and the model is told how long it had."""
    was_stopped = asyncio.Event()

    async def run(arguments: Mapping[str, Json], context: ToolContext) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            was_stopped.set()
        return ""

    result = await _registry(run, timeout_s=0.01).run("tool", {}, _context())
    assert result.content == "tool took longer than 0.01 s and was stopped."
    assert was_stopped.is_set()


async def test_a_timeout_inside_a_tool_is_its_own() -> None:
    """A `TimeoutError` that a tool raises is a failure of the tool, not our deadline."""

    async def run(arguments: Mapping[str, Json], context: ToolContext) -> str:
        raise TimeoutError

    result = await _registry(run).run("tool", {}, _context())
    assert result.content == "tool failed because of an internal error."


async def test_cancellation_goes_through() -> None:
    """Cancelling a turn is no failure of its tool."""

    async def run(arguments: Mapping[str, Json], context: ToolContext) -> str:
        await asyncio.sleep(60)
        return ""

    task = asyncio.create_task(_registry(run).run("tool", {}, _context()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_endless_results_are_cut() -> None:
    """A result that would fill the model's window is cut, and says so."""
    result = await ToolRegistry([REPEAT]).run("repeat", {"count": 50_000}, _context())
    assert len(result.content) < 21_000
    assert "30000 more characters left out" in result.content


def test_selecting_keeps_only_what_is_named() -> None:
    """A persona's tools are a selection; a misspelt name is refused with the names there are."""
    other = make_tool("other", "Another.", Arguments, _repeat)
    registry = ToolRegistry([REPEAT, other])
    assert registry.select(["other"]).names == ("other",)
    assert [spec.name for spec in registry.select([]).specs()] == []
    with pytest.raises(ValueError, match=r"unknown tool 'clok'.*repeat, other"):
        registry.select(["clok"])
    with pytest.raises(ValueError, match="two tools"):
        ToolRegistry([REPEAT, REPEAT])
