"""The tree of everything an operator may set, with its defaults.

Owns names, types, limits and one line of meaning each (`docs/reference/settings.md` is made from the descriptions).
Where values come from is `config/sources.py`; how a mistake reads is `config/errors.py`.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path, user_state_path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from config.names import AccountId

Seconds = Annotated[float, Field(ge=0)]

Role = Literal["intake", "turns", "delivery", "web"]
ROLES: tuple[Role, ...] = ("intake", "turns", "delivery", "web")


_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION_WANTED = "24h, 7d, 30m, 1h30m, a number of seconds or ISO 8601 (PT24H)"


def _read_duration(value: object) -> object:
    """Spelt durations and plain numbers of seconds; what is neither is left to pydantic (timedelta, ISO 8601)."""
    if not isinstance(value, str):
        return value
    text = "".join(value.lower().split())
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return timedelta(seconds=float(text))
        if re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d|w))+", text):
            parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", text)
            return timedelta(seconds=sum(float(number) * _UNIT_S[unit] for number, unit in parts))
    except OverflowError as error:
        msg = "is too long"
        raise ValueError(msg) from error
    return value.strip()


def _read_duration_or_never(value: object) -> object:
    """TOML and the environment have no null, so the absence of a limit has a word."""
    return None if value in ("never", "none") else _read_duration(value)


def spell_duration(value: timedelta) -> str:
    """`1d`, `1h30m`, `90s`: as it may be written in the configuration."""
    if value.microseconds or not value:
        return f"{value.total_seconds():g}s"
    rest, parts = int(value.total_seconds()), ""
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, seconds)
        parts += f"{number}{unit}" if number else ""
    return parts


Duration = Annotated[timedelta, Field(gt=timedelta(0)), BeforeValidator(_read_duration)]
DurationOrNever = Annotated[
    Annotated[timedelta, Field(ge=timedelta(0))] | None, BeforeValidator(_read_duration_or_never)
]


def _check_address(value: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(value)
        if parts.scheme in schemes and parts.hostname and (parts.port is None or parts.port >= 0):
            return value.rstrip("/")
    except ValueError:  # a port that is no number, a bracket that is not closed
        pass
    msg = f"must be an address like {schemes[-1]}://host or {schemes[-1]}://host:port/path"
    raise ValueError(msg)


def _check_url(value: str) -> str:
    return _check_address(value, ("http", "https"))


def _check_gateway_url(value: str) -> str:
    return _check_address(value, ("ws", "wss"))


HttpUrl = Annotated[str, AfterValidator(_check_url)]
GatewayUrl = Annotated[str, AfterValidator(_check_gateway_url)]


def _check_database_url(value: str) -> str:
    if not value.startswith(("sqlite:", "postgresql://", "postgres://")):
        msg = "must begin with sqlite: or postgresql:// (sqlite:///var/lib/palaver/palaver.db)"
        raise ValueError(msg)
    if re.fullmatch(r"sqlite:(/*|//[^/].*)", value):
        msg = "must name a file: sqlite:///absolute/path, or sqlite:relative/path without slashes before it"
        raise ValueError(msg)
    return value


DatabaseUrl = Annotated[str, AfterValidator(_check_database_url)]


class Section(BaseModel):
    """A table of the settings. Unknown keys are errors: a misspelt setting must not pass silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class PaceSettings(Section):
    """How fast the bot sends. Unset keeps what the platform allows."""

    per_account_per_s: float | None = Field(
        None, gt=0, description="Messages a second over the whole account."
    )
    per_direct_channel_per_s: float | None = Field(
        None, gt=0, description="Messages a second in one direct chat."
    )
    per_group_channel_per_min: float | None = Field(None, gt=0, description="Messages a minute in one group.")


class ScopeSettings(Section):
    """Which messages share a session."""

    direct: Literal["person", "person_everywhere"] = Field(
        "person",
        description="Direct messages: one session per person and account, or one per person over all accounts.",
    )
    group: Literal["channel", "person"] = Field(
        "channel", description="Groups: one session for the whole channel, or one per person in it."
    )
    separate_threads: bool = Field(True, description="Topics and threads have sessions of their own.")


class AccessSettings(Section):
    """Who may talk to the bot. Ids are the platform's own (`8841`); `*` stands for everybody."""

    # Ids are strings here, but a person writes allow = [8841].
    model_config = ConfigDict(coerce_numbers_to_str=True)

    allow: tuple[str, ...] = Field(
        ("*",), description="People who may talk to the bot: user ids, @usernames, or * for everybody."
    )
    allow_channels: tuple[str, ...] = Field(
        ("*",), description="Groups the bot answers in: channel ids, or *."
    )
    block: tuple[str, ...] = Field((), description="People the bot never answers, whatever else is allowed.")
    contact: str | None = Field(None, description="Whom a stranger is told to ask for access.")


class ChannelRetentionSettings(Section):
    """How long messages of one channel are kept."""

    messages: DurationOrNever = Field(
        None,
        description='Age at which a message is removed, with what the bot answered; "never" keeps it as long as its session.',
        json_schema_extra={"shown_none": "never"},
    )


class RetentionSettings(Section):
    """How long messages are kept. Unset: as long as their session."""

    messages: DurationOrNever = Field(
        None,
        description='Age at which a message is removed, with what the bot answered; "never" keeps it as long as its session.',
        json_schema_extra={"shown_none": "never"},
    )
    channels: dict[str, ChannelRetentionSettings] = Field(
        default_factory=dict, description="The same for single channels, by channel id."
    )


class ChannelContextSettings(Section):
    """How much the model sees in one channel."""

    tokens: int | None = Field(None, gt=200, description="Most tokens that the model sees in this channel.")


class AccountContextSettings(Section):
    """How much the model sees in the sessions of an account."""

    tokens: int | None = Field(
        None, gt=200, description="Most tokens that the model sees; unset takes agent.context_tokens."
    )
    channels: dict[str, ChannelContextSettings] = Field(
        default_factory=dict, description="The same for single channels, by channel id."
    )


class AccountSettings(Section):
    """One configured bot. Which keys matter depends on the platform; the others keep their defaults."""

    platform: Literal["telegram", "discord", "terminal", "memory"] = Field(
        description="Which platform it is on."
    )
    enabled: bool = Field(True, description="False leaves the account out without deleting its table.")
    token: SecretStr | None = Field(
        None, description="The bot's token from @BotFather or the Discord portal."
    )
    api_url: HttpUrl | None = Field(
        None, description="Root of the platform's API; default: the platform's own public address."
    )
    gateway_url: GatewayUrl | None = Field(
        None, description="Discord only: address of the gateway; default: what the REST API names."
    )
    webhook_url: HttpUrl | None = Field(
        None, description="Telegram only: public address for webhook mode; unset means long polling."
    )
    webhook_path: str | None = Field(
        None, description="Path served for the webhook; default /webhooks/<account name>."
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Secret the platform sends with each webhook call; made and kept by Palaver when unset.",
    )
    message_content: bool = Field(
        True,
        description="Discord only: ask for the message content intent (needed to hear mentions' text fully).",
    )
    sync_commands: bool = Field(
        True, description="Publish the command table to the platform when it has changed."
    )
    max_attachment_bytes: int = Field(
        20 * 1024 * 1024, ge=0, description="Files above this size are declined with a sentence."
    )
    on_uncertain: Literal["resend", "skip", "ask"] = Field(
        "resend",
        description="A reply that may or may not have gone out: send it again (marked), leave it, or ask the person.",
    )
    persona: str | None = Field(None, description="Name of the persona that answers here.")
    access: AccessSettings | None = Field(
        None, description="Access rules of this account instead of the general ones."
    )
    scope: ScopeSettings | None = Field(
        None, description="Session scope of this account instead of the general one."
    )
    channel_scopes: dict[str, ScopeSettings] = Field(
        default_factory=dict, description="Session scope of single channels, by channel id."
    )
    context: AccountContextSettings = Field(default_factory=AccountContextSettings)
    retention: RetentionSettings | None = Field(
        None, description="How long messages of this account are kept, instead of sessions.keep_messages."
    )
    pace: PaceSettings = Field(
        default_factory=PaceSettings, description="Sending limits instead of the platform's."
    )


class AgentSettings(Section):
    """What answers. `OPENAI_API_KEY`, `ANTHROPIC_API_KEY` and `OPENAI_BASE_URL` fill in what is not set here."""

    kind: Literal["llm", "offline", "scripted"] | None = Field(
        None,
        description="What answers; default: llm when a model, an API key or a base_url is set, else offline.",
    )
    model: str | None = Field(
        None,
        description="provider:model, for example openai:gpt-6-luna or anthropic:claude-haiku-5-5 (these two are what is "
        "used when only a key is set); with a base_url the name the server knows.",
    )
    base_url: HttpUrl | None = Field(
        None,
        description="Address of an OpenAI-compatible server (Ollama, llama.cpp, vLLM); it speaks chat completions.",
    )
    api_key: SecretStr | None = Field(
        None, description="Key for the model; default: the provider's own variable."
    )
    instructions: str = Field(
        "You are a helpful assistant in a group chat tool. Answer briefly and plainly, in the language of the question.",
        description="System prompt.",
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description="Sampling temperature; unset leaves it to the model."
    )
    max_output_tokens: int | None = Field(None, gt=0, description="Longest answer in tokens.")
    request_timeout_s: Seconds = Field(
        60, gt=0, description="Longest silence of the model before a request is given up."
    )
    max_retries: int = Field(3, ge=0, le=10, description="How often a failed model request is tried again.")
    max_steps: int = Field(12, gt=0, le=100, description="Most model answers in one turn (tool rounds).")
    tools: tuple[str, ...] = Field(
        ("clock", "calculator", "remember", "recall", "search"),
        description="Built-in tools the agent may use.",
    )
    context_messages: int = Field(
        20, gt=0, description="Most messages of the session that the model sees as they were said."
    )
    context_tokens: int = Field(
        4000,
        gt=200,
        description="Most tokens that the model sees: instructions, tools, summaries, messages and tool output.",
    )
    summaries: Literal["model", "digest", "off"] = Field(
        "model",
        description="How older messages are summarised when the window is 70 % full: by the session's own model, by a digest "
        "of their own sentences (also taken when there is no model, or it fails), or not at all.",
    )
    summary_timeout_s: Seconds = Field(
        30, gt=0, description="Longest time for a summary by the model before the digest is taken."
    )


class PersonaSettings(Section):
    """A named agent configuration: only what differs from [agent]."""

    model: str | None = Field(None, description="provider:model of this persona.")
    instructions: str | None = Field(None, description="System prompt of this persona.")
    temperature: float | None = Field(None, ge=0, le=2, description="Sampling temperature of this persona.")
    tools: tuple[str, ...] | None = Field(None, description="Built-in tools this persona may use.")


class SessionSettings(Section):
    """How long conversations live."""

    scope: ScopeSettings = Field(default_factory=ScopeSettings)
    expire_after: Duration = Field(
        timedelta(hours=24), description="Idle time after which a session expires."
    )
    archive_after: Duration = Field(timedelta(days=7), description="Time from the end to the archive.")
    delete_after: DurationOrNever = Field(
        timedelta(days=30),
        description='Time from the end to removal; "never" keeps ended sessions for ever.',
        json_schema_extra={"shown_none": "never"},
    )
    keep_messages: DurationOrNever = Field(
        None,
        description='Age at which a message is removed, with what the bot answered; "never" keeps it as long as its session.',
        json_schema_extra={"shown_none": "never"},
    )
    cleanup_interval: Duration = Field(timedelta(hours=1), description="How often sessions are cleaned up.")


class TurnSettings(Section):
    """How the work for accepted messages is bounded."""

    max_running: int = Field(100, gt=0, description="Turns running at the same time over all sessions.")
    deadline_s: Seconds = Field(120, gt=0, description="Longest time for one turn.")
    max_attempts: int = Field(
        3, gt=0, description="Starts of one turn before it is given up (after crashes)."
    )
    max_waiting: int = Field(
        1000, gt=0, description="Turns waiting in one session before new messages are declined."
    )
    max_message_chars: int = Field(32_000, gt=0, description="Longest message taken in, in characters.")
    queue_notice_after_s: Seconds = Field(
        5, description="Wait after which a queued person is told; 0 never tells."
    )


class DeliverySettings(Section):
    """How replies go out."""

    preview: bool = Field(True, description="Let answers grow on platforms that can edit messages.")
    preview_after_s: Seconds = Field(
        1.5, description="Time before the first piece of a growing answer is shown."
    )
    max_attempts: int = Field(20, gt=0, description="Tries for one piece before it is recorded as failed.")
    max_age: Duration = Field(timedelta(hours=24), description="Age at which an unsent piece is given up.")
    show_tools: bool = Field(
        False, description="Add a line with the tools used to every answer (always in the terminal)."
    )


class SearchSettings(Section):
    """How history is searched."""

    semantic: bool = Field(
        False,
        description='Search by meaning too, not only by words. English only; needs pip install "palaver[semantic]".',
    )


class HttpSettings(Section):
    """The HTTP server for health checks, metrics and webhooks."""

    enabled: bool = Field(True, description="Serve health checks, metrics and webhooks.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    max_body_bytes: int = Field(1024 * 1024, gt=0, description="Largest request body.")


class LogSettings(Section):
    """What is logged, how and where to."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level written."
    )
    format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="auto: pretty on a terminal, else JSON."
    )
    file: Path | None = Field(
        None,
        description="Write to this file instead of stdout; default while a chat owns the terminal: palaver.log in "
        "the user's state folder.",
    )


class StoreSettings(Section):
    """How the database is used."""

    readers: int = Field(
        2,
        gt=0,
        le=32,
        description="Connections for reading, beside the one that writes.",
    )
    writers: int = Field(
        8,
        gt=0,
        le=32,
        description="PostgreSQL only: connections for what waits for rows that another node keeps locked, beside the one that writes.",
    )
    busy_timeout_s: Seconds = Field(5, description="SQLite only: wait for a lock held by another program.")
    connect_timeout_s: Seconds = Field(
        5, ge=2, description="PostgreSQL only: longest time for making a connection."
    )
    statement_timeout_s: Seconds = Field(
        20, gt=0, description="PostgreSQL only: longest time for one statement before the server ends it."
    )
    lock_timeout_s: Seconds = Field(
        10, gt=0, description="PostgreSQL only: longest wait for rows that another node keeps locked."
    )
    reader_role: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        description="PostgreSQL only: a prepared role for reading on somebody's behalf under row security. Without it, one named "
        "after the user (palaver_reader) is made if the server allows that.",
    )
    encryption_keys: tuple[SecretStr, ...] | None = Field(
        None,
        description="Keys that what people say is encrypted with in the database: the first one encrypts, all decrypt. Each is a key "
        "as `palaver keys new` makes it, or file: and the path of a file with one in each line.",
    )
    hot_bytes: int = Field(
        24 * 1024 * 1024,
        ge=0,
        description="Memory for the ends of conversations that are going on (about 1,000 sessions); 0 keeps none.",
    )
    reserve_bytes: int = Field(
        32 * 1024 * 1024,
        ge=0,
        description="Free disk space below which nothing new is taken in, so that work under way can be finished.",
    )


class NodeSettings(Section):
    """This process among several that share a PostgreSQL database. On SQLite there is one, which does everything."""

    name: str | None = Field(
        None,
        pattern=r"^[\w.-]{1,60}$",
        description="What this node is called in logs and /readyz; default: the machine's name.",
    )
    roles: tuple[Role, ...] = Field(
        ROLES,
        min_length=1,
        description="What this node does: intake (hear accounts, take webhooks), turns (run agents, clean up), delivery (send "
        "replies), web (kept for web pages: nothing of its own so far).",
    )
    lease_s: Seconds = Field(
        10,
        ge=1,
        le=300,
        description="How long an account stays a node's that is not heard of any more; the next node takes over then.",
    )
    pass_on_after_s: Seconds = Field(
        30,
        ge=1,
        description="How long a node that reaches the database, but not the platform, keeps an account while another node is there.",
    )


def default_database_url() -> str:
    """SQLite in the user's data folder, e.g. ~/.local/share/palaver/palaver.db."""
    return f"sqlite://{user_data_path('palaver') / 'palaver.db'}"


def default_log_file() -> Path:
    """Where logs go while a chat owns the terminal."""
    return user_state_path("palaver") / "palaver.log"


class Settings(Section):
    """The whole configuration after all sources were merged."""

    database_url: DatabaseUrl = Field(
        default_factory=default_database_url,
        description="sqlite:///absolute/path, sqlite:relative/path or postgresql://user:password@host/database.",
        json_schema_extra={"shown_default": "palaver.db in the user's data folder"},
    )
    language: Literal["en", "de"] = Field("en", description="Language for people whose platform tells none.")
    texts: Path | None = Field(
        None, description="Folder with your own en.toml or de.toml, replacing single texts."
    )
    shutdown_after_s: Seconds = Field(25, description="Time that running turns get to finish at SIGTERM.")
    accounts: dict[str, AccountSettings] = Field(
        default_factory=dict, description="The bots, by a name of your choice."
    )
    access: AccessSettings = Field(default_factory=AccessSettings)
    agent: AgentSettings = Field(default_factory=AgentSettings)
    personas: dict[str, PersonaSettings] = Field(
        default_factory=dict, description="Personas, by a name of your choice."
    )
    sessions: SessionSettings = Field(default_factory=SessionSettings)
    turns: TurnSettings = Field(default_factory=TurnSettings)
    delivery: DeliverySettings = Field(default_factory=DeliverySettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    node: NodeSettings = Field(default_factory=NodeSettings)
    search: SearchSettings = Field(default_factory=SearchSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    def account_id(self, name: str) -> AccountId:
        """The full id of the account in table `[accounts.<name>]`: `telegram.main`."""
        return AccountId(f"{self.accounts[name].platform}.{name}")
