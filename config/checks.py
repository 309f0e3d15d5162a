"""What is wrong with a configuration: each mistake with its place, what was given, what is wanted.

Owns the wording of the library's findings and the rules between settings. Reads no source.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from pydantic import SecretStr, ValidationError

from config.errors import ConfigError
from config.implied import DEFAULT_MODELS, KEYS, TOKENS, provider_of
from config.redaction import redact_url
from config.settings import DURATION_WANTED, AccountSettings, Settings, spell_duration
from config.tree import Path, dotted, node_at, suggest_setting, variable

OriginOf = Callable[[Path], str]

WHERE_TOKENS_COME_FROM = {
    "telegram": "@BotFather gives one with /newbot",
    "discord": "discord.com/developers/applications gives one: your application, Bot, Reset Token",
}

_TELEGRAM_TOKEN = re.compile(r"\d+:[A-Za-z0-9_-]+(/test)?")
_ACCOUNT_NAME = re.compile(r"[A-Za-z0-9]+([_-]?[A-Za-z0-9]+)*")

_WANTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "string": "a text",
    "time_delta": DURATION_WANTED,
    "tuple": 'a list, like ["one", "two"]',
    "list": 'a list, like ["one", "two"]',
    "dict": "a table",
    "mapping": "a table",
    "model": "a table",
    "path": "a path",
}
_LIMITS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
_LIMIT_WORDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def validate(state: Mapping[str, Any], origin_of: OriginOf) -> tuple[Settings, list[ConfigError]]:
    """The settings in `state`, and every mistake in it.

    What is wrong is left out and the rest is validated again, so that the checks between settings can still run.
    """
    rest: Any = state
    problems: list[ConfigError] = []
    while True:
        try:
            return Settings.model_validate(rest), problems
        except ValidationError as error:
            findings = error.errors(include_url=False, include_context=True)
        # A finding has one place, and each place is cut off, so this ends: at the latest with nothing left.
        before = rest
        for finding in findings:
            problem = _problem(finding, origin_of)
            # What was cut off for its mistake comes back as missing, or as a list that lacks it: one line for it is enough.
            if finding["type"] not in ("missing", "too_short") or problem.path not in {
                known.path for known in problems
            }:
                problems.append(problem)
            location = finding["loc"][:-1] if finding["type"] == "missing" else finding["loc"]
            rest = _without(rest, location)
        if rest == before:
            rest = {}


def check(settings: Settings, reported: set[str], origin_of: OriginOf) -> Iterator[ConfigError]:
    """Mistakes between settings. `reported` holds the paths already complained about."""
    seen: dict[str, str] = {}
    webhook_paths: dict[str, str] = {}
    for name, account in settings.accounts.items():
        path = ("accounts", name)
        if not _ACCOUNT_NAME.fullmatch(name):
            hint = "Use letters, digits, and single - or _ between them"
            yield ConfigError(dotted(path), "cannot be a name of an account", hint, origin_of(path))
        if not account.enabled:
            continue
        yield from _check_token(path, account, seen, reported, origin_of)
        if account.persona is not None and account.persona not in settings.personas:
            reason, hint = (
                f"{account.persona!r} is not among the personas",
                f"Add a table [personas.{account.persona}]",
            )
            if close := get_close_matches(account.persona, settings.personas, n=1):
                reason, hint = f"{reason}; did you mean {close[0]}?", ""
            yield ConfigError(dotted((*path, "persona")), reason, hint, origin_of((*path, "persona")))
        if account.webhook_url is not None:
            place = (*path, "webhook_url")
            if not settings.http.enabled:
                reason = "needs the HTTP server, which is switched off"
                yield ConfigError(
                    dotted(place),
                    reason,
                    "Set http.enabled = true, or leave webhook_url out",
                    origin_of(place),
                )
            served = account.webhook_path or f"/webhooks/{name}"
            if (other := webhook_paths.setdefault(served, name)) != name:
                reason = f"is {served}, which accounts.{other} has already"
                yield ConfigError(
                    dotted((*path, "webhook_path")), reason, "", origin_of((*path, "webhook_path"))
                )
        if account.webhook_path is not None and not account.webhook_path.startswith("/"):
            place = (*path, "webhook_path")
            yield ConfigError(dotted(place), "must begin with /", "", origin_of(place))
    yield from _check_agent(settings, reported, origin_of)


def _check_token(
    path: Path, account: AccountSettings, seen: dict[str, str], reported: set[str], origin_of: OriginOf
) -> Iterator[ConfigError]:
    names = [token.variable for token in TOKENS if token.platform == account.platform]
    place = (*path, "token")
    if not names or dotted(place) in reported:
        return
    where = WHERE_TOKENS_COME_FROM[account.platform]
    token = account.token.get_secret_value().strip() if account.token else ""
    if not token:
        if names[0] not in reported:
            hint = f"{where}. Set {variable(place)} or {names[0]}"
            yield ConfigError(dotted(place), "is not set", hint, origin_of(place))
        return
    if account.platform == "telegram" and not _TELEGRAM_TOKEN.fullmatch(token):
        reason = "does not look like a Telegram token, which is digits, a colon and letters: 123456:ABC-…"
        yield ConfigError(dotted(place), reason, where, origin_of(place))
    elif account.platform == "discord" and re.search(r"\s", token):
        reason = "does not look like a Discord token, which has no spaces and no 'Bot' before it"
        yield ConfigError(dotted(place), reason, where, origin_of(place))
    other = seen.setdefault(token, dotted(place))
    if other != dotted(place):
        reason = f"is the same token as {other}; one bot cannot be two accounts"
        yield ConfigError(dotted(place), reason, "", origin_of(place))


def _check_agent(settings: Settings, reported: set[str], origin_of: OriginOf) -> Iterator[ConfigError]:
    agent = settings.agent
    if agent.kind != "llm":
        return
    models: dict[Path, str | None] = {("agent", "model"): agent.model}
    models |= {
        ("personas", name, "model"): persona.model
        for name, persona in settings.personas.items()
        if persona.model
    }
    if agent.model is None and not {"agent.model", "agent.base_url"} & reported:
        if agent.base_url:
            hint = (
                f"Set it to the name under which the server at {redact_url(agent.base_url)} knows the model"
            )
            place = ("agent", "base_url")
        else:
            examples = " or ".join(DEFAULT_MODELS.values())
            hint = f"Set it to provider:model, like {examples}, or set OPENAI_API_KEY or ANTHROPIC_API_KEY"
            place = ("agent", "api_key" if agent.api_key else "kind")
        yield ConfigError("agent.model", "is not set", hint, origin_of(place))
    if agent.base_url or "agent.base_url" in reported:
        return
    for model_place, model in models.items():
        if model and provider_of(model) is None:
            hint = f"Write provider:model, like {DEFAULT_MODELS['openai']}, or set agent.base_url for a server of your own"
            yield ConfigError(
                dotted(model_place), f"{model!r} names no provider", hint, origin_of(model_place)
            )
    key = KEYS.get(provider_of(agent.model) or "")
    if key and not _is_given(agent.api_key) and "agent.api_key" not in reported:
        hint = f"Set {key} or {variable(('agent', 'api_key'))}"
        yield ConfigError(
            "agent.api_key", f"is not set, and {agent.model} needs one", hint, origin_of(("agent", "model"))
        )


def _is_given(secret: SecretStr | None) -> bool:
    return secret is not None and bool(secret.get_secret_value())


def _problem(finding: Any, origin_of: OriginOf) -> ConfigError:
    """One finding of the library in our words. Its input is never taken over unseen: it may be a secret."""
    path: Path = tuple(str(part) for part in finding["loc"])
    while (node := node_at(path)) is None and finding["type"] != "extra_forbidden" and path:
        path = path[:-1]  # an element of a list
    kind, context = finding["type"], finding.get("ctx", {})
    name, origin = dotted(path), origin_of(path)
    if kind == "extra_forbidden":
        suggestion = suggest_setting(path)
        return ConfigError(
            name, "unknown setting" + (f"; did you mean {suggestion}?" if suggestion else ""), "", origin
        )
    if kind == "missing":
        choices = _choices(path)
        return ConfigError(name, "is not set", f"Wanted: {choices}" if choices else "", origin)
    is_secret = node is None or node.is_secret
    given = "" if is_secret else _shown(finding["input"])
    if kind == "literal_error":
        # one item of a list has no place of its own in the tree
        choices = _choices(path) or finding.get("ctx", {}).get("expected", "")
        wanted = f"wanted is one of {choices}"
        words = _choices(path).split(", ")
        if isinstance(finding["input"], str) and (
            close := get_close_matches(finding["input"].lower(), words, n=1)
        ):
            wanted = f"{wanted}; did you mean {close[0]}?"
    elif kind in _LIMITS:
        bound = _LIMITS[kind]
        wanted = f"must be {_LIMIT_WORDS[bound]} {context[bound]}"
    elif kind == "too_short":
        wanted = "wanted is at least one, not none"
    elif kind == "value_error":
        wanted = str(context["error"])
    else:
        stem = re.sub(
            r"_(type|parsing|parsing_size|from_float|sub_type|finite_number|attributes_type)$", "", kind
        )
        wanted = f"wanted is {_WANTED[stem]}" if stem in _WANTED else _lower(finding["msg"])
    return ConfigError(name, f"{given}: {wanted}" if given else wanted, "", origin)


def _choices(path: Path) -> str:
    node = node_at(path)
    choices = getattr(node.type, "__args__", ()) if node and node.kind == "value" else ()
    return ", ".join(str(choice) for choice in choices)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        shown = repr(redact_url(value))
    elif isinstance(value, bool):
        shown = str(value).lower()
    elif isinstance(value, (int, float)):
        shown = str(value)
    elif isinstance(value, timedelta):
        shown = spell_duration(value)
    else:
        return ""
    return shown if len(shown) <= 80 else f"{shown[:76]}…"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _without(tree: Any, location: tuple[Any, ...]) -> Any:
    """A copy of `tree` without what stands at `location`; an element of a list takes the list with it."""
    if not isinstance(tree, Mapping) or not location:
        return {}
    key, *below = location
    if below and isinstance(tree.get(key), Mapping):
        return {**tree, key: _without(tree[key], tuple(below))}
    return {name: value for name, value in tree.items() if name != key}
