"""What `palaver check-config` shows: every setting with its value and where it comes from, secrets left out.

Owns the text, the JSON and the reference page made from the settings tree (`python -m config.report --markdown`).
Whether the settings are right is `config/checks.py`.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from importlib.metadata import packages_distributions
from itertools import groupby
from pathlib import Path as FilePath
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from config import tree
from config.implied import DEFAULT_MODELS
from config.redaction import redact_url, scrub, secrets_of
from config.settings import Section, Settings, spell_duration
from config.sources import Loaded
from config.tree import ANY_NAME, Node, dotted, variable

OWN_NAMES = ("bot", "adapters", "sessions", "config")
"""The packages that Palaver installs. The names are ordinary words, so another distribution may claim one."""

_DISTRIBUTION = "palaver"
_OPEN_TABLES = ("accounts", "personas")


def effective(loaded: Loaded) -> list[tuple[str, str, str]]:
    """`(path, shown value, origin)` of every setting, in reading order. No secret is in any of the three."""
    secrets = secrets_of(loaded.settings)
    return [
        (path, scrub(_shown_at(node, value), secrets), scrub(loaded.origin(path), secrets))
        for node, value in tree.values(loaded.settings)
        for path in (dotted(node.path),)
    ]


def text(loaded: Loaded) -> str:
    """The settings for a terminal. Of accounts and personas only what is set: the rest of their keys is at default."""
    rows = [row for row in effective(loaded) if row[2] != "default" or not row[0].startswith(_OPEN_TABLES)]
    lines = [f"configuration file  {loaded.config_file or 'none'}"]
    width = max((len(path.rpartition(".")[2]) for path, _, _ in rows), default=0)
    value_width = min(48, max((len(value) for _, value, _ in rows), default=0))
    for table, entries in groupby(rows, key=lambda row: row[0].rpartition(".")[0]):
        lines += ["", f"[{table}]"] if table else [""]
        for path, value, origin in entries:
            cut = value if len(value) <= value_width else f"{value[: value_width - 1]}…"
            lines.append(f"{path.rpartition('.')[2]:<{width}}  {cut:<{value_width}}  {origin}".rstrip())
    lines += [f"\nnote: {notice}" for notice in loaded.notices]
    return "\n".join(lines)


def as_json(loaded: Loaded) -> str:
    """The same for programs: `{"config_file", "settings": [{"path", "value", "origin"}], "notices"}`."""
    secrets = secrets_of(loaded.settings)
    entries = [
        {"path": dotted(node.path), "value": _plain(value), "origin": loaded.origin(dotted(node.path))}
        for node, value in tree.values(loaded.settings)
    ]
    document = {
        "config_file": str(loaded.config_file) if loaded.config_file else None,
        "settings": _scrubbed(entries, secrets),
        "notices": list(loaded.notices),
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def shown(value: Any) -> str:
    """A value as a person reads it, on one line: `24h`, `one, two`, `set` for a secret."""
    plain = _plain(value)
    if isinstance(value, SecretStr):
        return "set" if plain else "not set"
    if plain is None:
        return "not set"
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, float):
        return f"{plain:g}"
    if isinstance(plain, list):
        return ", ".join(plain) or "none"
    return " ".join(str(plain).split("\n"))


def _shown_at(node: Node, value: Any) -> str:
    """As `shown`, but what the absence of a value means has a word at some settings."""
    extra = node.field.json_schema_extra if node.field else None
    return (
        str(extra["shown_none"])
        if value is None and isinstance(extra, dict) and "shown_none" in extra
        else shown(value)
    )


def name_clashes() -> list[str]:
    """One line for each of our package names that another installed distribution claims too.

    Installers overwrite such files without a word, so the claim is a fault even while everything still seems to run.
    """
    owners = packages_distributions()
    clashes = []
    for name in OWN_NAMES:
        others = sorted({owner for owner in owners.get(name, ()) if owner.lower() != _DISTRIBUTION})
        if others:
            clashes.append(
                f"the package {name!r} is also installed by {', '.join(others)}, whose files may have replaced ours. "
                "Install Palaver in an environment of its own."
            )
    return clashes


def reference_markdown() -> str:
    """`docs/reference/settings.md`, made from the settings tree."""
    parts = [_PREAMBLE.format(**DEFAULT_MODELS), *_sections(Settings, (), "")]
    return "\n".join(parts).rstrip() + "\n"


_PREAMBLE = """\
<!-- Made by `python -m config.report --markdown`; a test compares. Edit config/settings.py instead. -->
# Settings

Every setting has a name in the configuration file (TOML) and a variable. Which source wins, from the strongest:

1. flags of the command line
2. environment variables: `PALAVER_`, then the path with `__` between levels
3. secret files, called like a variable, in `PALAVER_SECRETS_DIR`, `CREDENTIALS_DIRECTORY` (systemd) or `/run/secrets`
4. `.env` in the working directory
5. the configuration file: `--config`, else `PALAVER_CONFIG`, else `palaver/config.toml` in your configuration folder
   (`~/.config` on Linux), else `/etc/palaver/config.toml`. Only one is read
6. the exported names below, for what is still open
7. the defaults

An empty variable counts as unset. A name with `_FILE` behind it (`PALAVER_ACCOUNTS__MAIN__TOKEN_FILE`,
`TELEGRAM_BOT_TOKEN_FILE`) names a file that holds the value. Lists are written as JSON or as `one, two`. Durations are
written as `24h`, `7d`, `30m`, `1h30m`, a number of seconds or ISO 8601. Names of accounts and personas are in small
letters when they come from a variable; if the file has such a name in another case, that one is meant. An unknown name
is an error. `palaver check-config` shows every value and where it comes from.

## Names you may have exported already

| Variable | What it does |
|---|---|
| `TELEGRAM_BOT_TOKEN` | The token of the one Telegram account that has none. With no Telegram account it makes one: \
`telegram.main` (`telegram.telegram` if another account is called main); what else is to be said of it may stand \
beside (`PALAVER_ACCOUNTS__MAIN__API_URL`). |
| `DISCORD_BOT_TOKEN` | The same for Discord: `discord.discord` (`discord.main` if another account is called discord). |
| `OPENAI_API_KEY` | `agent.api_key`, if the model is OpenAI's or `agent.base_url` is set. With no model, the model is \
`{openai}`. |
| `ANTHROPIC_API_KEY` | `agent.api_key`, if the model is Anthropic's. With no model and no OpenAI key, the model is \
`{anthropic}`. |
| `OPENAI_BASE_URL` | `agent.base_url`, unless the model is Anthropic's. `agent.model` must then be set. |
"""


def _sections(section: type[Section], above: tree.Path, meaning: str) -> Iterator[str]:
    own = [node for name in section.model_fields if (node := tree.node_at((*above, name)))]
    yield f"## {f'`[{dotted(above)}]`' if above else 'General'}\n"
    if above and (docstring := (meaning or section.__doc__ or "")):
        yield " ".join(docstring.split()) + "\n"
    yield "| Setting | Default | Variable | Meaning |\n|---|---|---|---|"
    for node in own:
        if node.kind in ("value", "list"):
            description = (node.field.description or "") if node.field else ""
            yield f"| `{node.path[-1]}` | {_default(node)} | `{variable(node.path)}` | {_cell(description)}{_words(node)} |"
    yield ""
    for node in own:
        description = (node.field.description or "") if node.field else ""
        if node.kind == "table":
            entry = tree.node_at((*node.path, ANY_NAME))
            if entry is not None:
                yield from _sections(entry.type, entry.path, f"{description} {entry.type.__doc__ or ''}")
        elif node.kind == "section":
            yield from _sections(node.type, node.path, description)


def _default(node: Node) -> str:
    if node.field is None or node.field.is_required():
        return "required"
    extra = node.field.json_schema_extra
    if isinstance(extra, dict) and "shown_default" in extra:
        return str(extra["shown_default"])
    default = node.field.default
    return "" if default in (None, PydanticUndefined) else f"`{_cell(shown(default))}`"


def _words(node: Node) -> str:
    words = [str(word) for word in getattr(node.type, "__args__", ())] if node.kind == "value" else []
    return f" One of {', '.join(f'`{word}`' for word in words)}." if words else ""


def _cell(content: str) -> str:
    return content.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _plain(value: Any) -> Any:
    """A value that JSON can hold. A secret becomes a boolean: whether it is set."""
    if isinstance(value, SecretStr):
        return bool(value.get_secret_value())
    if isinstance(value, timedelta):
        return spell_duration(value)
    if isinstance(value, FilePath):
        return str(value)
    if isinstance(value, tuple):
        return [str(part) for part in value]
    return redact_url(value) if isinstance(value, str) else value


def _scrubbed(value: Any, secrets: Iterable[str]) -> Any:
    if isinstance(value, str):
        return scrub(value, secrets)
    if isinstance(value, list):
        return [_scrubbed(part, secrets) for part in value]
    if isinstance(value, dict):
        return {key: _scrubbed(part, secrets) for key, part in value.items()}
    return value


if __name__ == "__main__":
    if sys.argv[1:] != ["--markdown"]:
        sys.exit("usage: python -m config.report --markdown")
    sys.stdout.write(reference_markdown())
