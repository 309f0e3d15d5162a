"""The files that settings come from, read so that every value knows its line: TOML, `.env`, files with one secret.

Owns reading and what can go wrong with it. What the values mean is `config/sources.py`.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path as FilePath
from typing import Any

from dotenv.parser import parse_stream
from dotenv.variables import parse_variables

from config.errors import ConfigError
from config.tree import Path, flatten

MAX_SECRET_BYTES = 64 * 1024
"""Far above any token or key; a larger file is a mistake (a path to a log, a device)."""

MAX_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Variable:
    """A name with a text, from the environment or a file that stands for it. Never empty."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True)
class ConfigFile:
    """A TOML file: its content, and the line where each key and table stands."""

    data: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)
    name: str = ""

    def origin(self, path: Path) -> str:
        """`config.toml line 7`: the line of `path`, else of the nearest table around it."""
        for length in range(len(path), 0, -1):
            if line := self.lines.get(path[:length]):
                return f"{self.name} line {line}"
        return self.name


def read_toml(file: FilePath) -> ConfigFile:
    """Raises: ConfigError when the file cannot be read or is not TOML, with line and column."""
    text = _read_text(file, MAX_FILE_BYTES)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        where = f"{file.name} {place.rstrip(')')}" if place else file.name
        raise ConfigError(
            str(file), f"is not valid TOML: {message[:1].lower()}{message[1:]}", "", where
        ) from None
    lines: dict[Path, int] = {}
    for path, line in _lines(text):
        lines.setdefault(path, line)
    return ConfigFile(data, lines, file.name)


def read_dotenv(file: FilePath, environ: Mapping[str, str]) -> tuple[list[Variable], list[ConfigError]]:
    """The variables of a `.env` file, `${NAME}` replaced from the lines above and `environ`; nothing if it is missing."""
    if not file.is_file():
        return [], []
    found: dict[str, Variable] = {}
    problems: list[ConfigError] = []
    for binding in parse_stream(StringIO(_read_text(file, MAX_FILE_BYTES))):
        blank_above = binding.original.string[: -len(binding.original.string.lstrip()) or None].count("\n")
        origin = f"{file.name} line {binding.original.line + blank_above}"
        if binding.error:
            problems.append(
                ConfigError(file.name, "cannot be read", "Each line is NAME=value or # comment", origin)
            )
        elif binding.key and binding.value:
            known = {**environ, **{variable.name: variable.value for variable in found.values()}}
            value = "".join(atom.resolve(known) for atom in parse_variables(binding.value)).strip()
            if value:
                found[binding.key] = Variable(binding.key, value, origin)
    return list(found.values()), problems


def read_secret(file: FilePath) -> str:
    """The text of a file that holds one secret. Raises: ConfigError when it cannot be read."""
    return _read_text(file, MAX_SECRET_BYTES).strip()


def list_secrets(directories: Iterable[FilePath]) -> Iterator[tuple[str, FilePath]]:
    """`(NAME, file)` of each file in `directories`; of files with equal names the first directory's counts.

    Raises: ConfigError when a directory cannot be listed.
    """
    seen: set[str] = set()
    for directory in directories:
        try:
            # Kubernetes and systemd keep their own bookkeeping in dot files beside the secrets.
            files = sorted(
                file for file in directory.iterdir() if not file.name.startswith(".") and file.is_file()
            )
        except OSError as error:
            raise ConfigError(str(directory), f"cannot be listed: {_reason(error)}") from None
        for file in files:
            name = file.name.upper()
            if name not in seen:
                seen.add(name)
                yield name, file


def _read_text(file: FilePath, max_bytes: int) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {_reason(error)}") from None
    if len(content) > max_bytes:
        raise ConfigError(
            str(file), f"is larger than {max_bytes} bytes; this cannot be the file that was meant"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(file), "is not UTF-8 text", "", f"{file.name} line {line}") from None


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _lines(text: str) -> Iterator[tuple[Path, int]]:
    """Where each key and table of a valid TOML text stands.

    A statement is a header or a key with its value, and ends with the first line at which it parses on its own, so the
    grammar stays tomllib's affair.
    """
    table: Path = ()
    lines = re.split(r"\r?\n", text)
    at = 0
    while at < len(lines):
        start = at
        at += 1
        if not (first := lines[start].strip()) or first.startswith("#"):
            continue
        statement = lines[start]
        while (parsed := _parse(statement)) is None and at < len(lines):
            statement = f"{statement}\n{lines[at]}"
            at += 1
        if first.startswith("["):
            ((table, _),) = flatten(parsed or {})
            yield table, start + 1
        else:
            for path, _ in flatten(parsed or {}):
                for length in range(1, len(path) + 1):
                    yield (*table, *path[:length]), start + 1


def _parse(statement: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return None
