"""`LoadingAgent`: stands for an `LlmAgent` from the first moment, and loads the libraries that one needs.

Owns when and where they are imported: they take seconds, so it is done in a thread, at the start or before the first
answer, whichever comes first. What is wrong with the settings is said at once, without them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from importlib import import_module
from typing import TYPE_CHECKING

from bot.agents.base import AgentContext, Event, Toolbox
from bot.agents.llm.endpoints import Api, find_endpoint
from config.settings import AgentSettings

if TYPE_CHECKING:
    from bot.agents.llm.agent import LlmAgent

_NEEDED_BY_A_REQUEST: Mapping[Api, tuple[str, ...]] = {
    "chat": ("openai.resources.chat", "genai_prices.data"),
    "responses": ("openai.resources.responses", "genai_prices.data"),
    "messages": ("anthropic.resources.messages", "genai_prices.data"),
}
"""What the libraries themselves import only at the first request."""


class LoadingAgent:
    """An `LlmAgent` that is made when it is first needed, or by `load`.

    Raises: `ValueError` with the name of the setting if the model, its address or its key is missing or wrong.
    """

    def __init__(self, settings: AgentSettings, *, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._endpoint = find_endpoint(settings, environ)
        self._loading: asyncio.Task[LlmAgent] | None = None

    @property
    def name(self) -> str:
        return self._endpoint.name

    async def load(self) -> None:
        """Get ready for the first answer. Cancelling the call leaves the loading to `close`."""
        await self._agent()

    async def run(self, context: AgentContext, tools: Toolbox) -> AsyncIterator[Event]:
        agent = await self._agent()
        async with aclosing(agent.run(context, tools)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        loading = self._loading
        if loading is None:
            return
        loading.cancel()  # does nothing to one that is done
        with suppress(asyncio.CancelledError, ImportError):
            await (await loading).close()

    async def _agent(self) -> "LlmAgent":
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="load-agent")
        return await asyncio.shield(self._loading)

    async def _load(self) -> "LlmAgent":
        make = await asyncio.to_thread(_import, self._endpoint.api)
        return make(self._settings, environ=self._environ)


def _import(api: Api) -> "type[LlmAgent]":
    from bot.agents.llm.agent import LlmAgent

    for module in _NEEDED_BY_A_REQUEST[api]:
        with suppress(ImportError):  # named otherwise in another version: then it is loaded when it is needed
            import_module(module)
    return LlmAgent
