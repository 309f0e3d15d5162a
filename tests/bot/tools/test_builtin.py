"""Clock, calculator, remember, recall and search, called as a model calls them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bot.tools.builtin import builtin_registry
from bot.tools.clock import find_zone
from bot.tools.registry import ToolContext, ToolResult
from config.names import Json
from tests.fakes.toolbox import NOW, MemoryDouble


async def _run(name: str, arguments: Mapping[str, Json], memory: MemoryDouble | None = None) -> ToolResult:
    context = ToolContext("turn:1", NOW, memory or MemoryDouble())
    return await builtin_registry().run(name, arguments, context)


def test_names_and_side_effects() -> None:
    """There are the tools that the settings name, and only `remember` changes anything."""
    registry = builtin_registry()
    assert registry.names == ("clock", "calculator", "remember", "recall", "search")
    effects = {name for name in registry.names if (tool := registry.get(name)) and tool.has_side_effects}
    assert effects == {"remember"}


@pytest.mark.parametrize(
    ("place", "time"),
    [
        ("Tokyo", "2026-11-20T18:04:00+09:00"),
        ("tokio", "2026-11-20T18:04:00+09:00"),
        ("Europe/Berlin", "2026-11-20T10:04:00+01:00"),
        ("München", "2026-11-20T10:04:00+01:00"),
        ("san francisco", "2026-11-20T01:04:00-08:00"),
        ("São Paulo", "2026-11-20T06:04:00-03:00"),
        ("Kolkata", "2026-11-20T14:34:00+05:30"),
        ("UTC", "2026-11-20T09:04:00+00:00"),
        ("utc", "2026-11-20T09:04:00+00:00"),
        ("new_york", "2026-11-20T04:04:00-05:00"),
        ("St. Petersburg", "2026-11-20T12:04:00+03:00"),
    ],
)
async def test_clock_knows_places(place: str, time: str) -> None:
    """Cities in several spellings, countries, abbreviations and IANA zones have a time."""
    told = json.loads((await _run("clock", {"place": place})).content)
    assert told["time"] == time
    assert told["place"] == place
    assert told["weekday"] == "Friday"


async def test_clock_without_a_place_is_local() -> None:
    """With no place the clock gives the time of the turn in its own zone."""
    memory = MemoryDouble()
    local = ToolContext("turn:1", NOW.astimezone(ZoneInfo("Europe/Berlin")), memory)
    told = json.loads((await builtin_registry().run("clock", {}, local)).content)
    assert told == {"time_zone": "Europe/Berlin", "time": "2026-11-20T10:04:00+01:00", "weekday": "Friday"}


@pytest.mark.parametrize("place", ["Atlantis", "../../etc/passwd", "x" * 100, "Europe", "/"])
async def test_clock_refuses_unknown_places(place: str) -> None:
    """A place nobody knows is a sentence, and never a path into the file system."""
    result = await _run("clock", {"place": place})
    assert result.is_error
    assert "I do not know where" in result.content


def test_every_alias_is_a_real_zone() -> None:
    """The table of names points at zones that exist."""
    for place in (
        "Berlin",
        "Wien",
        "Zürich",
        "Kiew",
        "la",
        "Bali",
        "Neu-Delhi",
        "Hawaii",
        "Peking",
        "Kapstadt",
    ):
        assert find_zone(place) is not None, place


async def test_calculator() -> None:
    """The calculator gives values, and errors that a model can act on."""
    assert (await _run("calculator", {"expression": "0.1 + 0.2"})).content == "0.3"
    failed = await _run("calculator", {"expression": "1/0"})
    assert (failed.is_error, failed.content) == (True, "Division by zero has no result.")


async def test_remembers_and_recalls() -> None:
    """What was remembered is recalled by its name in any case, or with everything else."""
    memory = MemoryDouble()
    assert not (await _run("remember", {"name": "cat", "value": "Mia"}, memory)).is_error
    assert not (await _run("remember", {"name": "age", "value": 42}, memory)).is_error
    assert json.loads((await _run("recall", {"name": "Cat"}, memory)).content) == {"cat": "Mia"}
    assert json.loads((await _run("recall", {}, memory)).content) == {"cat": "Mia", "age": 42}
    assert json.loads((await _run("recall", {"name": "dog"}, memory)).content) == {}


async def test_remembering_again_replaces() -> None:
    """One thing has one value, however its name is spelt; so a repeated call changes nothing."""
    memory = MemoryDouble()
    for name, value in (("cat", "Mia"), ("Cat", "Leo"), ("cat", "Leo")):
        await _run("remember", {"name": name, "value": value}, memory)
    assert memory.values == {"cat": "Leo"}


async def test_memory_is_bounded() -> None:
    """Neither one value nor the number of them can grow without end."""
    memory = MemoryDouble()
    assert (await _run("remember", {"name": "n", "value": "x" * 5000}, memory)).is_error
    assert (await _run("remember", {"name": "", "value": "x"}, memory)).is_error
    memory.values = {str(number): number for number in range(500)}
    assert (await _run("remember", {"name": "one more", "value": "x"}, memory)).is_error
    assert not (await _run("remember", {"name": "7", "value": "x"}, memory)).is_error


async def test_search_finds_the_newest_first() -> None:
    """Messages with all the words, newest first, long ones shortened."""
    memory = MemoryDouble()
    memory.messages = [
        ("user", "my cat is ill", datetime(2026, 11, 1, tzinfo=UTC)),
        ("assistant", "the cat " + "x" * 1000, datetime(2026, 11, 2, tzinfo=UTC)),
        ("user", "a dog", datetime(2026, 11, 3, tzinfo=UTC)),
    ]
    found = json.loads((await _run("search", {"words": "cat", "limit": 5}, memory)).content)
    assert [message["role"] for message in found] == ["assistant", "user"]
    assert len(found[0]["text"]) == 401
    assert found[1]["time"] == "2026-11-01T00:00+00:00"
    memory.messages = [("user", "cat", NOW - timedelta(days=day)) for day in range(9)]
    assert len(json.loads((await _run("search", {"words": "cat", "limit": 2}, memory)).content)) == 2
    assert (await _run("search", {"words": "cat", "limit": 10_000}, memory)).is_error
