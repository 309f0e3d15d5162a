"""`docs/reference/events.md` lists every event that is logged, and none that is not."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "reference" / "events.md"
PACKAGES = ("bot", "adapters", "sessions", "config")
METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
LOGGERS = {"log", "logger", "_log", "_logger"}


class Unreadable(Exception):
    """The first argument of a log call is not a name that stands in the code."""


def is_log_call(node: ast.AST) -> bool:
    """`log.info(…)`, `logger.bind(…).warning(…)`, `self._log.error(…)`."""
    if (
        not isinstance(node, ast.Call)
        or not isinstance(node.func, ast.Attribute)
        or node.func.attr not in METHODS
    ):
        return False
    owner = node.func.value
    while isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute):
        owner = owner.func.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return name in LOGGERS


def values_of(name: str, module: ast.Module) -> Iterator[ast.expr]:
    """What the module assigns to a name, anywhere; of a table its values."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            yield from node.value.values if isinstance(node.value, ast.Dict) else [node.value]


def arguments_of(name: str, module: ast.Module, modules: Sequence[ast.Module]) -> Iterator[ast.expr]:
    """What a parameter of that name can be: its default, and what calls of its function give by name."""
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for parameter, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
            if parameter.arg != name:
                continue
            if default is not None:
                yield default
            for other in modules:
                for call in ast.walk(other):
                    if isinstance(call, ast.Call) and function.name in ast.unparse(call.func).split("."):
                        yield from (keyword.value for keyword in call.keywords if keyword.arg == name)


def names_in(argument: ast.expr, module: ast.Module, modules: Sequence[ast.Module] = ()) -> set[str]:
    """Every name that the argument can be.

    Raises: Unreadable for a name that does not stand in the code.
    """
    match argument:
        case ast.Constant(value=str(name)):
            return {name}
        case ast.IfExp():
            return names_in(argument.body, module, modules) | names_in(argument.orelse, module, modules)
        case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name):
            values = [*values_of(name, module), *arguments_of(name, module, modules)]
            if values:
                return set().union(*(names_in(value, module, modules) for value in values))
        case ast.JoinedStr():
            made = {""}
            for part in argument.values:
                piece = part.value if isinstance(part, ast.FormattedValue) else part
                made = {start + end for start in made for end in names_in(piece, module, modules)}
            return made
    raise Unreadable(ast.unparse(argument))


def collect() -> dict[str, set[str]]:
    """Where each event is logged: name → files and lines."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    modules = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    found: dict[str, set[str]] = {}
    for file, module in modules.items():
        for node in ast.walk(module):
            if not isinstance(node, ast.Call) or not is_log_call(node) or "structlog" not in ast.dump(module):
                continue
            place = f"{file.relative_to(ROOT)}:{node.lineno}"
            try:
                names = names_in(node.args[0], module, list(modules.values()))
            except Unreadable as error:
                pytest.fail(f"{place}: the event's name cannot be read from {error}; write it out")
            for name in names:
                found.setdefault(name, set()).add(place)
    return found


def documented() -> dict[str, str]:
    """The document's table: name → meaning."""
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "an event is listed twice"
    return dict(rows)


def test_every_event_is_documented() -> None:
    """Each event that is logged has a line in the document."""
    missing = {name: sorted(places) for name, places in collect().items() if name not in documented()}
    assert missing == {}


def test_every_documented_event_exists() -> None:
    """The document lists nothing that is never logged."""
    assert set(documented()) - set(collect()) == set()


def test_names_have_their_form() -> None:
    """An event is `<area>.<thing>_<past participle>`: dotted, lower case."""
    assert [name for name in collect() if not re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", name)] == []


def test_meanings_are_one_line_and_sorted() -> None:
    """Each meaning is a sentence of its own, and within an area the names are in order."""
    table = documented()
    assert [name for name, meaning in table.items() if not meaning.endswith(".") or len(meaning) > 200] == []
    by_area: dict[str, list[str]] = {}
    for name in table:
        by_area.setdefault(name.partition(".")[0], []).append(name)
    assert all(names == sorted(names) for names in by_area.values())


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('log.info("a.b_done")', {"a.b_done"}),
        ('logger.bind(x=1).warning("a.b_done")', {"a.b_done"}),
        ('self._log.error("a.b_done" if x else "a.c_done")', {"a.b_done", "a.c_done"}),
        ('KINDS = {"x": "done", "y": "failed"}\nlog.info(f"a.{KINDS[x]}")', {"a.done", "a.failed"}),
        ('NAME = "a.b_done"\nlog.info(NAME)', {"a.b_done"}),
        (
            'def f(x):\n    name = "a.b_done" if x else "a.c_done"\n    log.info(name)',
            {"a.b_done", "a.c_done"},
        ),
        ('def f(*, event="a.b_done"):\n    log.info(event)\nf(event="a.c_done")', {"a.b_done", "a.c_done"}),
    ],
)
def test_the_collector_reads_every_spelling(source: str, names: set[str]) -> None:
    """The reader of these tests finds a name however the code spells it."""
    module = ast.parse(source)
    calls = [node for node in ast.walk(module) if is_log_call(node)]
    assert len(calls) == 1
    assert isinstance(calls[0], ast.Call)
    assert names_in(calls[0].args[0], module, [module]) == names


def test_the_collector_refuses_what_it_cannot_read() -> None:
    """A name made at run time is not passed over."""
    with pytest.raises(Unreadable):
        names_in(ast.parse("make_name()", mode="eval").body, ast.parse(""))
