"""What the names that people already export mean here: TELEGRAM_BOT_TOKEN, OPENAI_API_KEY and their like.

Owns the last source of the settings: it sees what all others gave and fills in what is still open, so that the
settings are complete afterwards. Imports no platform's and no model's library.

An account made from a token alone needs a name, because the name is part of its id and sessions hang on the id. The
Telegram account is `main`, the Discord account `discord`, whichever other tokens are exported: adding a second token
later must not rename the first account. What else is said of that account, `PALAVER_ACCOUNTS__MAIN__…` beside a token, is
said of the one that the token makes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from config.errors import ConfigError
from config.files import Variable
from config.tree import Path, plant, variable


@dataclass
class Layer:
    """What one source gives: a nested tree, where each end of it comes from, and what was wrong."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    problems: list[ConfigError] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def put(self, path: Path, value: Any, origin: str) -> None:
        plant(self.tree, path, value)
        self.origins[path] = origin


@dataclass(frozen=True)
class TokenName:
    """A platform's token variable, and the names for the account it makes, the first free one is taken."""

    platform: str
    variable: str
    account_names: tuple[str, ...]


TOKENS = (
    TokenName("telegram", "TELEGRAM_BOT_TOKEN", ("main", "telegram")),
    TokenName("discord", "DISCORD_BOT_TOKEN", ("discord", "main")),
)

EXPORTED = (*(token.variable for token in TOKENS), "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL")
"""The names without our prefix that are read."""

KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}

DEFAULT_MODELS = {"openai": "openai:gpt-6-luna", "anthropic": "anthropic:claude-haiku-5-5"}
"""The smallest current model of each provider, in the order in which keys are looked for."""

_OPENAI_ADDRESS = "https://api.openai.com/v1"
_OFF = ("false", "0", "no", "off", "f", "n")


def implied(state: Mapping[str, Any], exported: Mapping[str, Variable]) -> Layer:
    """What follows from `state` (all other sources, merged, not yet validated) and the exported names."""
    layer = Layer()
    accounts = {
        name: account for name, account in _table(state, "accounts").items() if isinstance(account, dict)
    }
    taken = set(accounts)
    for token in TOKENS:
        if found := exported.get(token.variable):
            taken.update(_imply_token(layer, token, found, accounts, taken))
    _imply_agent(layer, _table(state, "agent"), exported)
    return layer


def provider_of(model: str | None) -> str | None:
    """`openai` for `openai:gpt-6-luna` and its variants (`openai-chat:…`); None for a name without provider."""
    provider, colon, _ = (model or "").partition(":")
    if not colon:
        return None
    return "openai" if provider.startswith("openai-") else provider


def _imply_token(
    layer: Layer, token: TokenName, found: Variable, accounts: Mapping[str, dict[str, Any]], taken: set[str]
) -> Iterator[str]:
    """Give the token to the one account that lacks it, or make an account; the names of accounts that were made."""
    own = {name: account for name, account in accounts.items() if account.get("platform") == token.platform}
    lacking = [
        name
        for name, account in own.items()
        if not account.get("token") and not _is_off(account.get("enabled"))
    ]
    if not own:
        numbered = (f"{token.platform}{number}" for number in count(2))
        first = token.account_names[0]
        begun = first in accounts and not accounts[first].keys() & {"platform", "token"}
        free = (name for name in chain(token.account_names, numbered) if name not in taken)
        name = first if begun else next(free)
        layer.put(("accounts", name, "platform"), token.platform, found.origin)
        layer.put(("accounts", name, "token"), found.value, found.origin)
        yield name
    elif len(lacking) == 1:
        layer.put(("accounts", lacking[0], "token"), found.value, found.origin)
    elif lacking:
        paths = " or ".join(f"accounts.{name}" for name in lacking)
        names = ", ".join(variable(("accounts", name, "token")) for name in lacking)
        reason = f"could be meant for {paths}, which all lack a token"
        layer.problems.append(ConfigError(token.variable, reason, f"Set {names} instead", found.origin))
    else:
        layer.notices.append(
            f"{token.variable} is set but not used: no {token.platform} account lacks a token."
        )


def _imply_agent(layer: Layer, agent: Mapping[str, Any], exported: Mapping[str, Variable]) -> None:
    kind, model, base_url, key = (agent.get(name) for name in ("kind", "model", "base_url", "api_key"))
    if kind in ("offline", "scripted"):
        return
    provider = provider_of(model if isinstance(model, str) else None)
    address = exported.get("OPENAI_BASE_URL")
    if address and not base_url and provider != "anthropic" and address.value.rstrip("/") != _OPENAI_ADDRESS:
        base_url = address.value
        layer.put(("agent", "base_url"), base_url, address.origin)
    if not key:
        # With a base_url the wire is OpenAI's whatever the model is called (`llama3.1:8b` names no provider).
        wanted = ("openai",) if base_url else (provider,) if model else tuple(KEYS)
        variables = ((name, exported.get(KEYS.get(name or "", ""))) for name in wanted)
        for name, found in variables:
            if found and name:
                key = found.value
                layer.put(("agent", "api_key"), key, found.origin)
                if not model and not base_url:
                    model = DEFAULT_MODELS[name]
                    layer.put(("agent", "model"), model, f"default, because {found.name} is set")
                break
    if not kind:
        given = [
            name for name, value in (("model", model), ("base_url", base_url), ("api_key", key)) if value
        ]
        reason = f"default, because agent.{given[0]} is set" if given else "default"
        layer.put(("agent", "kind"), "llm" if given else "offline", reason)


def _table(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = state.get(name)
    return value if isinstance(value, Mapping) else {}


def _is_off(value: Any) -> bool:
    return str(value).lower() in _OFF
