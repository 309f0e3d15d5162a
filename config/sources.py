"""Where settings come from, and which source wins.

    flags > environment > secret files > .env > TOML file > exported names (TELEGRAM_BOT_TOKEN …) > defaults

- Environment: `PALAVER_HTTP__PORT`, `__` between levels. Lists as JSON or `one, two`; whole sections as JSON. An empty
  variable counts as unset. Any of these names with `_FILE` behind it names a file that holds the value.
- Secret files: a file in `$PALAVER_SECRETS_DIR`, `$CREDENTIALS_DIRECTORY` (systemd) or `/run/secrets` (containers)
  that is called like a variable, in capitals or not.
- `.env` in the working directory.
- TOML: the file named by `--config` or `PALAVER_CONFIG`, else `palaver/config.toml` in the user's configuration folder,
  else `/etc/palaver/config.toml`. Only one is read.

The exported names may stand in the environment, a secret file or `.env`, and only fill what is still open.

Owns finding, reading and merging (by pydantic-settings). What a value must look like is `config/settings.py`, which
mistakes there are is `config/checks.py`.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

from platformdirs import user_config_path
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config import checks, files, tree
from config.errors import ConfigError, ConfigErrors
from config.files import ConfigFile, Variable
from config.implied import EXPORTED, Layer, implied
from config.redaction import scrub, secrets_in_url
from config.settings import Settings
from config.tree import PREFIX, Path, dotted, flatten, node_at

SYSTEM_CONFIG = FilePath("/etc/palaver/config.toml")
RUN_SECRETS = FilePath("/run/secrets")

_OWN_NAMES = ("PALAVER_CONFIG", "PALAVER_SECRETS_DIR")
_TEST_NAMES = "PALAVER_TEST_"

# Kubernetes gives every container variables for each service of its namespace, and a service may be called palaver.
_KUBERNETES_NAME = re.compile(
    r"PALAVER_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)"
)
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


@dataclass(frozen=True)
class Loaded:
    """A configuration without mistakes, and where each of its values comes from.

    `origins` has every setting that is not at its default, by dotted path: `flag`, `PALAVER_HTTP__PORT`, `.env line 2`,
    `config.toml line 7`, `secret file …`, `TELEGRAM_BOT_TOKEN`. `notices` are worth telling but no mistakes.
    """

    settings: Settings
    origins: Mapping[str, str]
    config_file: FilePath | None
    notices: tuple[str, ...] = ()

    def origin(self, path: str) -> str:
        return self.origins.get(path, "default")


def load(
    config_file: FilePath | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: FilePath | None = None,
    overrides: Mapping[str, object] = MappingProxyType({}),
) -> Loaded:
    """Read all sources and merge them. `overrides` are the command line's flags by dotted path; None means not given.

    Raises: ConfigErrors with every mistake found.
    """
    environ = os.environ if environ is None else environ
    cwd = FilePath.cwd() if cwd is None else cwd
    problems: list[ConfigError] = []
    try:
        dotenv, broken_lines = files.read_dotenv(cwd / ".env", environ)
        problems += broken_lines
        places = {**{variable.name: variable.value for variable in dotenv}, **_not_empty(environ)}
        secret_files = list(files.list_secrets(_secret_directories(places, cwd)))
        file = _find_config(config_file, places, cwd)
        config = files.read_toml(file) if file else ConfigFile({})
    except ConfigError as error:
        raise ConfigErrors([*problems, error]) from None

    environment = [Variable(name, value, name) for name, value in _not_empty(environ).items()]
    secrets = [
        Variable(name, value, f"secret file {path}")
        for name, path in secret_files
        if name.startswith(PREFIX) or name in EXPORTED
        if (value := _read(path, name, problems))
    ]
    written = Layer(config.data, {path: config.origin(path) for path, _ in flatten(config.data)})
    layers = [
        _flags(overrides),
        *(_variables(group, config.data, cwd) for group in (environment, secrets, dotenv)),
        written,
    ]
    exported = _exported((environment, secrets, dotenv), cwd, problems)
    merged, last = _merge(layers, exported)
    layers.append(last)

    origins = {path: origin for layer in reversed(layers) for path, origin in layer.origins.items()}

    def origin_of(path: Path) -> str:
        if path in origins:
            return origins[path]
        return (
            config.origin(path)
            if any(path[:length] in config.lines for length in range(1, len(path) + 1))
            else ""
        )

    problems += (problem for layer in layers for problem in layer.problems)
    settings, mistakes = checks.validate(merged, origin_of)
    problems += mistakes
    problems += checks.check(settings, {problem.path for problem in problems}, origin_of)
    if problems:
        raise ConfigErrors(_without_secrets(problem, _secrets(layers, exported)) for problem in problems)
    effective = {
        dotted(node.path): origins[node.path] for node, _ in tree.values(settings) if node.path in origins
    }
    notices = [notice for layer in layers for notice in layer.notices]
    return Loaded(settings, effective, file, (*notices, *_readable_by_all(file, config), *_in_root(settings)))


class _Source(PydanticBaseSettingsSource):
    """A layer that was read already, as pydantic-settings wants it."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self.layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.layer.tree.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self.layer.tree


class _Implied(_Source):
    """The lowest source but the defaults: it looks at what all others have given."""

    def __init__(self, settings_cls: type[BaseSettings], exported: Mapping[str, Variable]) -> None:
        super().__init__(settings_cls, Layer())
        self.exported = exported

    def __call__(self) -> dict[str, Any]:
        self.layer = implied(self.current_state, self.exported)
        return self.layer.tree


def _merge(layers: Iterable[Layer], exported: Mapping[str, Variable]) -> tuple[dict[str, Any], Layer]:
    """All layers as one tree, the first winning, and the layer that was implied.

    The tree is validated by `Settings` afterwards and not by pydantic-settings, which would stop at a key it does not
    know: here every mistake is wanted, with its place.
    """

    class Merged(BaseSettings):
        model_config = SettingsConfigDict(extra="allow")

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_standard: Any, **_named_standard: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (*(_Source(settings_cls, layer) for layer in layers), last)

    last = _Implied(Merged, exported)
    return Merged().model_extra or {}, last.layer


def _flags(overrides: Mapping[str, object]) -> Layer:
    layer = Layer()
    for path, value in overrides.items():
        if value is not None:
            layer.put(tuple(path.split(".")), value, "flag")
    return layer


def _variables(variables: Iterable[Variable], written: Mapping[str, Any], cwd: FilePath) -> Layer:
    """The `PALAVER_…` names of one source. Longer paths come last, so that they win over a section given as JSON."""
    layer = Layer()
    names = {variable.name.upper() for variable in variables}
    for variable in sorted(variables, key=lambda variable: (variable.name.count("__"), variable.name)):
        name = variable.name.upper()
        if not name.startswith(PREFIX) or name in _OWN_NAMES or name.startswith(_TEST_NAMES):
            continue
        node = node_at(_path_of(name, written))
        found, direct = variable, name.removesuffix("_FILE")
        if node is None and direct != name and (node := node_at(_path_of(direct, written))):
            if direct in names:
                reason = f"says the same setting as {direct}"
                problem = ConfigError(name, reason, "Leave out one of the two", _origin(variable))
                layer.problems.append(problem)
                continue
            found = _from_file(variable, cwd, layer.problems)
        if node is None or not node.path:
            if not (_KUBERNETES_NAME.fullmatch(name) or _KUBERNETES_VALUE.fullmatch(found.value)):
                close = tree.suggest_variable(name)
                reason = "unknown setting" + (f"; did you mean {close}?" if close else "")
                layer.problems.append(ConfigError(name, reason, "", _origin(variable)))
        elif found.value:
            try:
                value = _decode(node, found.value)
            except ValueError as error:
                layer.problems.append(ConfigError(dotted(node.path), str(error), "", found.origin))
            else:
                ends = list(flatten(value, node.path)) if isinstance(value, dict) else [(node.path, value)]
                for path, end in ends:
                    layer.put(path, end, found.origin)
    return layer


def _path_of(name: str, written: Mapping[str, Any]) -> Path:
    """The path of a variable. A name in a table is the one the file has, in its case and with its hyphens, if any."""
    parts = name.removeprefix(PREFIX).lower().split("__")
    table = written.get(parts[0])
    if len(parts) > 1 and parts[0] in ("accounts", "personas") and isinstance(table, Mapping):
        parts[1] = next((key for key in table if key.lower().replace("-", "_") == parts[1]), parts[1])
    return tuple(parts)


def _decode(node: tree.Node, text: str) -> Any:
    """The value that a variable's text means. Raises: ValueError saying what is wanted, without the text."""
    if node.kind == "value":
        return text
    is_list = node.kind == "list"
    if is_list and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list if is_list else dict):
        msg = (
            "wanted is a list, as JSON or like: one, two"
            if is_list
            else 'wanted is an object in JSON, like {"key": "value"}'
        )
        raise ValueError(msg)
    return value


def _exported(
    groups: Iterable[Iterable[Variable]], cwd: FilePath, problems: list[ConfigError]
) -> dict[str, Variable]:
    """The exported names that are set, here or in the file that `<NAME>_FILE` names; the strongest source wins."""
    found: dict[str, Variable] = {}
    for group in groups:
        named = {variable.name.upper(): variable for variable in group}
        for name in EXPORTED:
            if name in found:
                continue
            variable = named.get(name)
            if variable is None and (pointer := named.get(f"{name}_FILE")):
                variable = _from_file(pointer, cwd, problems)
            if variable and variable.value:
                found[name] = Variable(name, variable.value, variable.origin)
    return found


def _from_file(pointer: Variable, cwd: FilePath, problems: list[ConfigError]) -> Variable:
    path = cwd / FilePath(pointer.value).expanduser()
    return Variable(
        pointer.name, _read(path, pointer.name, problems), f"secret file {path}, named by {_origin(pointer)}"
    )


def _read(path: FilePath, name: str, problems: list[ConfigError]) -> str:
    try:
        return files.read_secret(path)
    except ConfigError as error:
        problems.append(ConfigError(name, f"the file {path} {error.reason}"))
        return ""


def _origin(variable: Variable) -> str:
    """Where a variable stands: its own name would say nothing that the mistake does not say already."""
    return "environment" if variable.origin == variable.name else variable.origin


def _not_empty(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value.strip() for name, value in environ.items() if value.strip()}


def _secret_directories(places: Mapping[str, str], cwd: FilePath) -> list[FilePath]:
    named = places.get("PALAVER_SECRETS_DIR")
    directories = [cwd / FilePath(named).expanduser()] if named else []
    if credentials := places.get("CREDENTIALS_DIRECTORY"):
        directories.append(FilePath(credentials))
    # The container's directory may be there for other programs only, and closed to us.
    if RUN_SECRETS.is_dir() and os.access(RUN_SECRETS, os.R_OK | os.X_OK):
        directories.append(RUN_SECRETS)
    return directories


def _find_config(named: FilePath | None, places: Mapping[str, str], cwd: FilePath) -> FilePath | None:
    """The file to read: one that was named must exist, the usual places may be empty."""
    by_variable = places.get("PALAVER_CONFIG")
    if named is not None or by_variable:
        file = cwd / FilePath(named if named is not None else by_variable or "").expanduser()
        if not file.exists():
            said_by = "--config" if named is not None else "PALAVER_CONFIG"
            raise ConfigError(str(file), "there is no such file", "", said_by)
        return file
    home = places.get("XDG_CONFIG_HOME")
    user_file = (FilePath(home) / "palaver" if home else user_config_path("palaver")) / "config.toml"
    for file in (user_file, SYSTEM_CONFIG):
        try:
            file.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigError(str(file), f"cannot be read: {(error.strerror or 'error').lower()}") from None
        return file
    return None


def _secrets(layers: Iterable[Layer], exported: Mapping[str, Variable]) -> set[str]:
    """Every secret that was read, valid or not."""
    found = {variable.value for variable in exported.values() if variable.name != "OPENAI_BASE_URL"}
    for layer in layers:
        for path, value in flatten(layer.tree):
            node = node_at(path)
            if node is not None and node.is_secret:
                # A token in brackets is wrong, and a secret all the same.
                found.update(str(part) for part in (value if isinstance(value, list) else [value]))
            elif isinstance(value, str):
                found.update(secrets_in_url(value))
    return found


def _without_secrets(problem: ConfigError, secrets: set[str]) -> ConfigError:
    return ConfigError(
        *(scrub(text, secrets) for text in (problem.path, problem.reason, problem.hint, problem.origin))
    )


def _readable_by_all(file: FilePath | None, config: ConfigFile) -> list[str]:
    """A word about a file with secrets in it that every user of the machine may read."""
    holds_secret = any(
        (node := node_at(path)) and node.is_secret and value for path, value in flatten(config.data)
    )
    if file is None or not holds_secret or not file.stat().st_mode & 0o004:
        return []
    return [f"{file} holds secrets and can be read by everyone on this machine; chmod 600 mends that."]


def _in_root(settings: Settings) -> list[str]:
    """A word to those who know three slashes as the beginning of a relative path."""
    name = re.fullmatch("sqlite:/+([^/]+)", settings.database_url)
    if name is None:
        return []
    return [f"database_url: the file is /{name[1]}; in the working directory it would be sqlite:{name[1]}."]
