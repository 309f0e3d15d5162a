"""The settings tree as data: what stands at a path, its variable's name, and what a misspelt name may have meant.

Owns the walk over the classes of `config/settings.py`. Reads no source and holds no values.
"""

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from config.settings import Section, Settings

PREFIX = "PALAVER_"

Path = tuple[str, ...]
Kind = Literal["section", "table", "list", "value"]

ANY_NAME = "<name>"
"""Stands in a path for a name that the operator chooses: `accounts.<name>.token`."""


@dataclass(frozen=True)
class Node:
    """What stands at a path. A *table* holds entries under names of the operator's choice; a *section* is fixed."""

    path: Path
    kind: Kind
    type: Any
    field: FieldInfo | None

    @property
    def is_secret(self) -> bool:
        return self.type is SecretStr

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of a section."""
        return tuple(self.type.model_fields) if self.kind == "section" else ()


def dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


def variable(path: Iterable[str]) -> str:
    """The environment variable of a setting: `PALAVER_HTTP__PORT`."""
    return PREFIX + "__".join(part if part == ANY_NAME else part.upper().replace("-", "_") for part in path)


def node_at(path: Path) -> Node | None:
    """What stands at `path`, or None when there is no such setting."""
    node = Node((), "section", Settings, None)
    for part in path:
        child = _child(node, part)
        if child is None:
            return None
        node = child
    return node


def leaves(section: type[Section] = Settings, above: Path = ()) -> Iterator[Node]:
    """Every setting that holds a value, in reading order, with `<name>` for names that the operator chooses."""
    parent = Node(above, "section", section, None)
    for name in parent.names:
        node = _child(parent, name)
        if node is None:  # names come from the section itself
            continue
        if node.kind == "table":
            yield from leaves(get_args(node.type)[1], (*node.path, ANY_NAME))
        elif node.kind == "section":
            yield from leaves(node.type, node.path)
        else:
            yield node


def values(settings: BaseModel, above: Path = ()) -> Iterator[tuple[Node, Any]]:
    """Every value of `settings` with what stands there. A section that is not set counts as one value, None."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        node = node_at((*above, name))
        if node is None:  # the value was validated by this very tree
            continue
        if isinstance(value, BaseModel):
            yield from values(value, node.path)
        elif node.kind == "table":
            for entry, section in value.items():
                yield from values(section, (*node.path, entry))
        else:
            yield node, value


def suggest_setting(path: Path) -> str | None:
    """The setting that a misspelt `path` may have meant: a sibling, else one of that name elsewhere."""
    parent = node_at(path[:-1])
    if parent is not None and (close := get_close_matches(path[-1].lower(), parent.names, n=1)):
        return dotted((*path[:-1], close[0]))
    elsewhere = [
        leaf.path for leaf in leaves() if leaf.path[-1] == path[-1].lower() and ANY_NAME not in leaf.path
    ]
    return dotted(elsewhere[0]) if len(elsewhere) == 1 else None


def suggest_variable(name: str) -> str | None:
    """The variable that a misspelt `name` may have meant."""
    path = tuple(name.removeprefix(PREFIX).lower().split("__"))
    parent = node_at(path[:-1])
    if parent is not None and len(path) > 1 and (close := get_close_matches(path[-1], parent.names, n=1)):
        return variable((*path[:-1], close[0]))
    close = get_close_matches(name, [variable(leaf.path) for leaf in leaves()], n=1, cutoff=0.8)
    return close[0] if close else None


def flatten(tree: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The ends of a nested mapping. An empty mapping is an end too: `[accounts.main]` without keys was written."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, (*above, key))
        else:
            yield (*above, key), value


def plant(tree: dict[str, Any], path: Path, value: Any) -> None:
    """Set `value` at `path`, making or replacing what stands in the way."""
    for part in path[:-1]:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            inner = tree[part] = {}
        tree = inner
    tree[path[-1]] = value


def _child(node: Node, part: str) -> Node | None:
    if node.kind == "table":
        return Node((*node.path, part), "section", get_args(node.type)[1], None)
    field = node.type.model_fields.get(part) if node.kind == "section" else None
    if field is None:
        return None
    bare = _bare(field.annotation)
    return Node((*node.path, part), _kind(bare), bare, field)


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            (annotation,) = (arg for arg in get_args(annotation) if arg is not type(None))
        else:
            return annotation


def _kind(bare: Any) -> Kind:
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return "section"
    origin = get_origin(bare)
    if origin is dict:
        return "table"
    return "list" if origin is tuple else "value"
