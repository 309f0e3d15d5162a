"""What the names that people already export mean."""

import subprocess
import sys

import pytest

from config.implied import DEFAULT_MODELS

TOKEN = "123456:ABC-telegram-token"
OTHER = "654321:DEF-telegram-token"
DISCORD = "discord-token-0123456789"


def ids(loaded) -> list[str]:
    return sorted(loaded.settings.account_id(name) for name in loaded.settings.accounts)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TELEGRAM_BOT_TOKEN": TOKEN}, ["telegram.main"]),
        ({"DISCORD_BOT_TOKEN": DISCORD}, ["discord.discord"]),
        ({"TELEGRAM_BOT_TOKEN": TOKEN, "DISCORD_BOT_TOKEN": DISCORD}, ["discord.discord", "telegram.main"]),
    ],
)
def test_a_token_alone_makes_an_account(read, environ, expected):
    """An exported token is enough; adding the other platform's token later renames nothing."""
    loaded = read(**environ)
    assert ids(loaded) == expected
    assert all(account.token for account in loaded.settings.accounts.values())


def test_a_taken_name_is_avoided(read):
    """When `main` or `discord` is another account's name, the implied account takes the next."""
    toml = '[accounts.main]\nplatform = "memory"\n[accounts.discord]\nplatform = "memory"\n'
    loaded = read(toml, TELEGRAM_BOT_TOKEN=TOKEN, DISCORD_BOT_TOKEN=DISCORD)
    assert ids(loaded) == ["discord.discord2", "memory.discord", "memory.main", "telegram.telegram"]


@pytest.mark.parametrize(
    ("variable", "token", "name"),
    [("TELEGRAM_BOT_TOKEN", TOKEN, "main"), ("DISCORD_BOT_TOKEN", DISCORD, "discord")],
)
def test_further_settings_of_the_account_that_a_token_makes(read, variable, token, name):
    """They stand beside the token, without a word of the platform: the token has said it."""
    url = "http://127.0.0.1:1"
    loaded = read(**{variable: token, f"PALAVER_ACCOUNTS__{name.upper()}__API_URL": url})
    account = loaded.settings.accounts[name]
    assert list(loaded.settings.accounts) == [name]
    assert (account.api_url, account.token.get_secret_value()) == (url, token)


def test_an_account_with_a_token_of_its_own_is_not_the_one(mistakes):
    """Its platform is still to be said, and the exported token makes another."""
    toml = f'[accounts.main]\ntoken = "{OTHER}"\n'
    (line,) = mistakes(toml, TELEGRAM_BOT_TOKEN=TOKEN)
    assert "accounts.main.platform" in line


def test_the_account_without_token_gets_it(read):
    """With one account lacking a token, that one is meant, whatever it is called."""
    toml = f'[accounts.a]\nplatform = "telegram"\ntoken = "{OTHER}"\n[accounts.b]\nplatform = "telegram"\n'
    loaded = read(toml, TELEGRAM_BOT_TOKEN=TOKEN)
    assert loaded.settings.accounts["b"].token.get_secret_value() == TOKEN
    assert loaded.origin("accounts.b.token") == "TELEGRAM_BOT_TOKEN"
    assert loaded.settings.accounts["a"].token.get_secret_value() == OTHER


def test_two_accounts_without_token_are_not_guessed_between(mistakes):
    """The mistake names both accounts and the variables to set instead, in one line."""
    toml = '[accounts.a]\nplatform = "telegram"\n[accounts.b]\nplatform = "telegram"\n'
    (line,) = mistakes(toml, TELEGRAM_BOT_TOKEN=TOKEN)
    assert "accounts.a or accounts.b" in line
    assert "PALAVER_ACCOUNTS__A__TOKEN, PALAVER_ACCOUNTS__B__TOKEN" in line
    assert TOKEN not in line


@pytest.mark.parametrize("off", ["enabled = false", 'enabled = "no"'])
def test_a_disabled_account_stays_off(read, off):
    """Switching the only account off is not undone by the token that is still exported."""
    loaded = read(f'[accounts.main]\nplatform = "telegram"\n{off}\n', TELEGRAM_BOT_TOKEN=TOKEN)
    assert list(loaded.settings.accounts) == ["main"]
    assert not loaded.settings.accounts["main"].enabled
    assert "TELEGRAM_BOT_TOKEN is set but not used" in loaded.notices[0]


@pytest.mark.parametrize(
    ("environ", "kind", "model", "key"),
    [
        ({}, "offline", None, None),
        ({"OPENAI_API_KEY": "sk-1"}, "llm", DEFAULT_MODELS["openai"], "sk-1"),
        ({"ANTHROPIC_API_KEY": "ak-1"}, "llm", DEFAULT_MODELS["anthropic"], "ak-1"),
        ({"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "ak-1"}, "llm", DEFAULT_MODELS["openai"], "sk-1"),
        (
            {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "ak-1", "PALAVER_AGENT__MODEL": "anthropic:x"},
            "llm",
            "anthropic:x",
            "ak-1",
        ),
        ({"PALAVER_AGENT__MODEL": "openai-chat:x", "OPENAI_API_KEY": "sk-1"}, "llm", "openai-chat:x", "sk-1"),
        (
            {"PALAVER_AGENT__API_KEY": "own", "PALAVER_AGENT__MODEL": "openai:x", "OPENAI_API_KEY": "no"},
            "llm",
            "openai:x",
            "own",
        ),
        ({"PALAVER_AGENT__KIND": "offline", "OPENAI_API_KEY": "sk-1"}, "offline", None, None),
        ({"PALAVER_AGENT__KIND": "scripted", "OPENAI_BASE_URL": "http://x/v1"}, "scripted", None, None),
    ],
)
def test_keys_choose_the_agent(read, environ, kind, model, key):
    """A key alone is enough for a model; the key fits the model's provider; an explicit kind is left alone."""
    agent = read(**environ).settings.agent
    assert (agent.kind, agent.model) == (kind, model)
    assert (agent.api_key.get_secret_value() if agent.api_key else None) == key


def test_a_base_url_takes_any_model_name_and_needs_no_key(read):
    """Ollama's names hold colons; with a base_url they name no provider."""
    agent = read(
        OPENAI_BASE_URL="http://127.0.0.1:11434/v1/", PALAVER_AGENT__MODEL="llama3.1:8b"
    ).settings.agent
    assert (agent.kind, agent.base_url, agent.api_key) == ("llm", "http://127.0.0.1:11434/v1", None)


def test_a_base_url_without_model_asks_for_it(mistakes):
    """What a server of one's own serves cannot be guessed, even with a key."""
    (line,) = mistakes(OPENAI_BASE_URL="http://127.0.0.1:4010/v1", OPENAI_API_KEY="sk-1")
    assert line.startswith("agent.model: is not set. Set it to the name under which the server")


def test_the_base_url_of_openai_does_not_reach_anthropic(read):
    """OPENAI_BASE_URL, exported for other programs, does not turn an Anthropic model's way."""
    environ = {
        "OPENAI_BASE_URL": "http://x/v1",
        "ANTHROPIC_API_KEY": "ak",
        "PALAVER_AGENT__MODEL": "anthropic:x",
    }
    assert read(**environ).settings.agent.base_url is None


def test_openais_own_address_is_no_server_of_ones_own(read):
    """OPENAI_BASE_URL set to OpenAI's address changes nothing: the default model still counts."""
    agent = read(OPENAI_BASE_URL="https://api.openai.com/v1/", OPENAI_API_KEY="sk-1").settings.agent
    assert (agent.base_url, agent.model) == (None, DEFAULT_MODELS["openai"])


@pytest.mark.parametrize(
    ("environ", "start"),
    [
        ({"PALAVER_AGENT__KIND": "llm"}, "agent.model: is not set."),
        ({"PALAVER_AGENT__API_KEY": "k"}, "agent.model: is not set."),
        (
            {"PALAVER_AGENT__MODEL": "gpt-6-luna", "PALAVER_AGENT__API_KEY": "k"},
            "agent.model: 'gpt-6-luna' names no provider.",
        ),
        (
            {"PALAVER_AGENT__MODEL": "openai:x"},
            "agent.api_key: is not set, and openai:x needs one. Set OPENAI_API_KEY",
        ),
        (
            {"PALAVER_AGENT__MODEL": "anthropic:x", "OPENAI_API_KEY": "k"},
            "agent.api_key: is not set, and anthropic:x",
        ),
    ],
)
def test_an_incomplete_model_is_a_mistake(mistakes, environ, start):
    """What is missing for a model is said before the first message needs it."""
    (line,) = mistakes(**environ)
    assert line.startswith(start)


def test_the_default_models_are_known_to_the_library():
    """The models chosen for a lone key exist in the installed pydantic-ai."""
    from typing import get_args

    from pydantic_ai.models import KnownModelName

    assert set(DEFAULT_MODELS.values()) <= set(get_args(KnownModelName.__value__))


def test_no_model_library_is_imported():
    """Reading the configuration does not load pydantic-ai, a vendor's SDK or a platform's SDK."""
    code = (
        "import sys, config.report, config.logging; "
        "print([n for n in ('pydantic_ai', 'openai', 'anthropic', 'telegram', 'discord') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
