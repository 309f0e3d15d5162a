"""Which server, which of its APIs, which model and which key: from the settings and the variables people already export.

    model                       without base_url            with base_url (or OPENAI_BASE_URL for openai:)
    openai:gpt-…                OpenAI, Responses           chat completions there
    openai-chat:gpt-…           OpenAI, chat completions    chat completions there
    openai-responses:gpt-…      OpenAI, Responses           Responses there
    anthropic:claude-…          Anthropic, Messages         chat completions there
    llama3.1:8b                 unknown                     chat completions there

ANTHROPIC_BASE_URL moves Anthropic's own API elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from config.implied import DEFAULT_MODELS
from config.settings import AgentSettings

Api = Literal["chat", "responses", "messages"]

_OPENAI_URL = "https://api.openai.com/v1"
_ANTHROPIC_URL = "https://api.anthropic.com"
_PREFIXES = ("openai", "openai-chat", "openai-responses", "anthropic")


@dataclass(frozen=True, slots=True)
class Endpoint:
    api: Api
    model: str
    base_url: str
    is_vendor: bool
    """The vendor's own server, not a compatible one."""
    api_key: str = field(repr=False)

    @property
    def name(self) -> str:
        """`openai:gpt-…`: what /status and the record say."""
        return f"{'anthropic' if self.api == 'messages' else 'openai'}:{self.model}"


def find_endpoint(settings: AgentSettings, environ: Mapping[str, str], model: str | None = None) -> Endpoint:
    """The endpoint for a model (None: the agent's own).

    Raises: `ValueError` saying which setting is missing or wrong.
    """
    own_model = settings.model or _default_model(settings, environ)
    spelt = model or own_model
    prefix, name = _split(spelt)
    if not name:
        msg = f"agent.model: {spelt!r} names no model; write provider:model, for example {DEFAULT_MODELS['openai']}"
        raise ValueError(msg)
    if settings.base_url:
        key = _key(settings, environ, "openai", is_own=True) or "none"
        return Endpoint(
            "responses" if prefix == "openai-responses" else "chat", name, settings.base_url, False, key
        )
    prefix = prefix or _guess_vendor(name)
    if prefix is None:
        msg = (
            f"agent.model: {spelt!r} has no known provider; write openai:… or anthropic:…,"
            " or set agent.base_url to the address of an OpenAI-compatible server"
        )
        raise ValueError(msg)
    vendor = "anthropic" if prefix == "anthropic" else "openai"
    is_own = (_split(own_model)[0] or _guess_vendor(own_model) or "").partition("-")[0] == vendor
    key = _key(settings, environ, vendor, is_own=is_own)
    variable = f"{vendor.upper()}_API_KEY"
    elsewhere = environ.get(f"{vendor.upper()}_BASE_URL", "").rstrip("/")
    if not key and not elsewhere:
        msg = f"agent.api_key: no key for {spelt}; set {variable} or agent.api_key"
        raise ValueError(msg)
    if vendor == "anthropic":
        return Endpoint("messages", name, elsewhere or _ANTHROPIC_URL, not elsewhere, key or "none")
    if prefix == "openai-responses" or (prefix == "openai" and not elsewhere):
        return Endpoint("responses", name, elsewhere or _OPENAI_URL, not elsewhere, key or "none")
    return Endpoint("chat", name, elsewhere or _OPENAI_URL, not elsewhere, key or "none")


def _split(model: str) -> tuple[str | None, str]:
    prefix, colon, name = model.partition(":")
    return (prefix, name) if colon and prefix in _PREFIXES else (None, model)


def _guess_vendor(name: str) -> str | None:
    if name.startswith("claude"):
        return "anthropic"
    is_openai = name.startswith(("gpt-", "chatgpt-")) or (name[:1] == "o" and name[1:2].isdigit())
    return "openai" if is_openai else None


def _default_model(settings: AgentSettings, environ: Mapping[str, str]) -> str:
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    has_openai = bool(environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL") or settings.base_url)
    if key.startswith("sk-ant-") or (not key and not has_openai and environ.get("ANTHROPIC_API_KEY")):
        return DEFAULT_MODELS["anthropic"]
    return DEFAULT_MODELS["openai"]


def _key(settings: AgentSettings, environ: Mapping[str, str], vendor: str, *, is_own: bool) -> str:
    """`agent.api_key` belongs to the agent's own vendor; a persona with another one uses that vendor's variable."""
    if is_own and settings.api_key:
        return settings.api_key.get_secret_value()
    return environ.get(f"{vendor.upper()}_API_KEY", "")
