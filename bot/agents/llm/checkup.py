"""The look that `palaver doctor` takes at a model: does its server answer, and does it take the key.

Asks for the list of models, which costs no tokens. Needs none of the LLM libraries.
"""

from collections.abc import Mapping

import httpx2

from bot.agents.base import AgentError
from bot.agents.llm.endpoints import Endpoint, find_endpoint
from bot.agents.llm.wire import make_client
from config.settings import AgentSettings

_TIMEOUT_S = 5.0
_ANTHROPIC_VERSION = "2023-06-01"


async def look_at(settings: AgentSettings, environ: Mapping[str, str]) -> str:
    """What there is to say of the model that the settings name.

    Raises: `ValueError` with the name of a wrong setting; `AgentError`, kind `refused_key` or `unavailable`.
    """
    endpoint = find_endpoint(settings, environ)
    status, models = await _models(endpoint)
    if status in (401, 403):
        raise AgentError("refused_key", f"{endpoint.base_url} refused the key ({status})")
    if status >= 500:
        raise AgentError("unavailable", f"{endpoint.base_url} answered {status}")
    if models and endpoint.model not in models:
        return f"{endpoint.name}: {endpoint.base_url} answers, but does not list this model"
    return f"{endpoint.name}: {endpoint.base_url} answers"


async def _models(endpoint: Endpoint) -> tuple[int, set[str]]:
    """The status of the answer and the models it lists; none where the server has no list, as some."""
    if endpoint.api == "messages":
        path, headers = (
            "/v1/models?limit=1000",
            {"x-api-key": endpoint.api_key, "anthropic-version": _ANTHROPIC_VERSION},
        )
    else:
        path, headers = "/models", {"authorization": f"Bearer {endpoint.api_key}"}
    client = make_client(_TIMEOUT_S)
    try:
        response = await client.get(f"{endpoint.base_url}{path}", headers=headers)
        listed = response.json() if response.status_code == 200 else None
    except ValueError as error:
        raise AgentError(
            "unavailable", f"{endpoint.base_url} does not answer as a model's server does"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        detail = f"{endpoint.base_url} is not reached: {type(error).__name__}: {error}".rstrip(": ")
        raise AgentError("unavailable", detail) from error
    finally:
        await client.aclose()
    models = listed.get("data") if isinstance(listed, dict) else None
    return response.status_code, {str(model.get("id")) for model in models or () if isinstance(model, dict)}
