"""Which server, API, model and key follow from settings and environment."""

import pytest
from pydantic import SecretStr

from bot.agents.llm.endpoints import find_endpoint
from config.settings import AgentSettings

OPENAI = {"OPENAI_API_KEY": "sk-openai"}
ANTHROPIC = {"ANTHROPIC_API_KEY": "sk-ant-anthropic"}
LOCAL = "http://127.0.0.1:4010/v1"


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        ({"model": "openai:gpt-x"}, OPENAI, ("responses", "gpt-x", "https://api.openai.com/v1", "sk-openai")),
        ({"model": "openai-chat:gpt-x"}, OPENAI, ("chat", "gpt-x", "https://api.openai.com/v1", "sk-openai")),
        ({"model": "gpt-x"}, OPENAI, ("responses", "gpt-x", "https://api.openai.com/v1", "sk-openai")),
        ({"model": "o4"}, OPENAI, ("responses", "o4", "https://api.openai.com/v1", "sk-openai")),
        ({"model": "claude-x"}, ANTHROPIC, ("messages", "claude-x", "https://api.anthropic.com", "sk-ant-anthropic")),
        ({"model": "anthropic:claude-x"}, ANTHROPIC, ("messages", "claude-x", "https://api.anthropic.com", "sk-ant-anthropic")),
        ({"model": "openai:x", "base_url": LOCAL}, {}, ("chat", "x", LOCAL, "none")),
        ({"model": "openai:x", "base_url": LOCAL}, OPENAI, ("chat", "x", LOCAL, "sk-openai")),
        ({"model": "openai:x", "base_url": LOCAL, "api_key": SecretStr("mine")}, OPENAI, ("chat", "x", LOCAL, "mine")),
        ({"model": "llama3.1:8b", "base_url": LOCAL}, {}, ("chat", "llama3.1:8b", LOCAL, "none")),
        ({"model": "anthropic:claude-x", "base_url": LOCAL}, {}, ("chat", "claude-x", LOCAL, "none")),
        ({"model": "openai-responses:x", "base_url": LOCAL}, {}, ("responses", "x", LOCAL, "none")),
        ({"model": "openai:x"}, OPENAI | {"OPENAI_BASE_URL": LOCAL + "/"}, ("chat", "x", LOCAL, "sk-openai")),
        ({"model": "openai:x"}, {"OPENAI_BASE_URL": LOCAL}, ("chat", "x", LOCAL, "none")),
        ({"model": "anthropic:x"}, ANTHROPIC | {"ANTHROPIC_BASE_URL": LOCAL}, ("messages", "x", LOCAL, "sk-ant-anthropic")),
        ({}, OPENAI, ("responses", "gpt-6-luna", "https://api.openai.com/v1", "sk-openai")),
        ({}, ANTHROPIC, ("messages", "claude-haiku-5-5", "https://api.anthropic.com", "sk-ant-anthropic")),
        ({"api_key": SecretStr("sk-ant-x")}, {}, ("messages", "claude-haiku-5-5", "https://api.anthropic.com", "sk-ant-x")),
        ({"base_url": LOCAL}, {}, ("chat", "gpt-6-luna", LOCAL, "none")),
    ],
)  # fmt: skip
def test_endpoint(settings: dict, environ: dict, expected: tuple) -> None:
    """Settings go before variables, the vendor's prefix chooses the API, a base_url means chat completions."""
    endpoint = find_endpoint(AgentSettings(**settings), environ)
    assert (endpoint.api, endpoint.model, endpoint.base_url, endpoint.api_key) == expected


def test_a_persona_of_another_vendor_uses_that_vendors_key() -> None:
    """`agent.api_key` is not sent to a vendor it does not belong to."""
    settings = AgentSettings(model="openai:gpt-x", api_key=SecretStr("sk-mine"))
    assert find_endpoint(settings, ANTHROPIC).api_key == "sk-mine"
    assert find_endpoint(settings, ANTHROPIC, "anthropic:claude-x").api_key == "sk-ant-anthropic"
    with pytest.raises(ValueError, match="ANTHROPIC_API_KEY"):
        find_endpoint(settings, {}, "anthropic:claude-x")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": "openai:gpt-x"}, "OPENAI_API_KEY"),
        ({"model": "anthropic:claude-x"}, "ANTHROPIC_API_KEY"),
        ({"model": "llama3.1:8b"}, r"agent\.base_url"),
        ({"model": "openai:"}, "names no model"),
    ],
)
def test_mistakes_name_the_setting(settings: dict, told: str) -> None:
    """What is missing or wrong is said with the name of the setting or variable that mends it."""
    with pytest.raises(ValueError, match=told):
        find_endpoint(AgentSettings(**settings), {})


def test_the_key_is_not_printed() -> None:
    """An endpoint in a log line or traceback holds no key."""
    assert "sk-openai" not in repr(find_endpoint(AgentSettings(model="openai:gpt-x"), OPENAI))
