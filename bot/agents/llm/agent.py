"""`LlmAgent`: answers by asking a model, calling the tools it wants, and asking again.

Owns the loop, its retries and its limits. The loop is our own, not the library's: `bot/agents/base.py` wants every answer
recorded before its tools run, and a run that begins in the middle of a turn.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from bot.agents.base import (
    AgentContext,
    AgentError,
    Event,
    Final,
    ModelAnswer,
    TextDelta,
    Toolbox,
    ToolOutcome,
    ToolRequest,
    Usage,
)
from bot.agents.llm.conversation import (
    Round,
    in_order_of_calls,
    opening_messages,
    requests_of,
    response_of,
    results_of,
    rounds_of,
)
from bot.agents.llm.endpoints import Endpoint, find_endpoint
from bot.agents.llm.errors import Cut, Failure, Faulty, TooLarge, explain
from bot.agents.llm.text import AnswerText, Preview
from bot.agents.llm.wire import Exchange, make_client, watch_exchange
from config.settings import AgentSettings

MAX_ANSWER_CHARS = 2_000_000
MAX_CALLS_PER_ANSWER = 64
MAX_RETRY_WAIT_S = 30.0


@dataclass(slots=True)
class _Answered:
    """A whole answer: the step to record, and the same in the library's words for the next request."""

    answer: ModelAnswer
    response: ModelResponse


@dataclass(frozen=True, slots=True)
class _Ask:
    """One model request, as often as it is tried."""

    endpoint: Endpoint
    model: Model
    history: Sequence[ModelMessage]
    parameters: ModelRequestParameters
    settings: ModelSettings
    may_be_empty: bool
    taken_ids: set[str] = field(default_factory=set)


class LlmAgent:
    """Asks the configured model; personas may name other models, each of which is set up once.

    Raises: `ValueError` with the name of the setting if the model, its address or its key is missing or wrong.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        environ: Mapping[str, str],
        retry_base_s: float = 0.5,
        seed: int | None = None,
    ) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._retry_base_s = retry_base_s
        self._random = random.Random(seed)
        self._endpoint = find_endpoint(settings, environ)
        self._http = make_client(settings.request_timeout_s)
        self._models: dict[str | None, tuple[Endpoint, Model]] = {}

    @property
    def name(self) -> str:
        return self._endpoint.name

    async def close(self) -> None:
        await self._http.aclose()

    async def run(self, context: AgentContext, tools: Toolbox) -> AsyncGenerator[Event]:
        endpoint, model = self._model(context.model)
        history = opening_messages(context)
        rounds = rounds_of(context.steps)
        ask = _Ask(
            endpoint,
            model,
            history,
            _parameters(tools),
            self._model_settings(endpoint, context),
            may_be_empty=False,
            taken_ids={request.call_id for each in rounds for request in each.answer.tool_requests},
        )
        texts = [each.answer.text for each in rounds]
        has_shown_text = False
        for done in rounds[:-1]:
            history += await _messages_of(done, tools)
        latest = rounds[-1] if rounds else None
        response = response_of(latest.answer) if latest else None
        while True:
            if latest and response:
                if not latest.answer.tool_requests:
                    yield Final(next((text for text in reversed(texts) if text), ""))
                    return
                if len(rounds) >= self._settings.max_steps:
                    raise AgentError(
                        "too_many_steps",
                        f"{endpoint.name}: no answer after {len(rounds)} rounds of tool calls",
                    )
                history += [response, await _results(latest, tools)]
            answered: _Answered | None = None
            # An empty last word is common after a tool call that an earlier answer already spoke about.
            async with aclosing(self._ask(replace(ask, may_be_empty=any(texts)))) as events:
                async for event in events:
                    if isinstance(event, _Answered):
                        answered = event
                        continue
                    if has_shown_text:
                        has_shown_text = False
                        yield TextDelta("\n\n")
                    yield event
            if answered is None:
                raise AgentError("fault", f"{endpoint.name}: a request ended without an answer")
            latest, response = Round(answered.answer), answered.response
            rounds.append(latest)
            texts.append(answered.answer.text)
            has_shown_text = bool(answered.answer.text)
            yield answered.answer

    def _model(self, spelt: str | None) -> tuple[Endpoint, Model]:
        if spelt not in self._models:
            try:
                endpoint = find_endpoint(self._settings, self._environ, spelt)
            except ValueError as error:
                raise AgentError("fault", str(error)) from error
            self._models[spelt] = (endpoint, self._make_model(endpoint))
        return self._models[spelt]

    def _make_model(self, endpoint: Endpoint) -> Model:
        """The library's model over our HTTP client, with the vendor library's own retries and timeouts off."""
        key, url, timeout = endpoint.api_key, endpoint.base_url, self._http.timeout
        if endpoint.api == "messages":
            anthropic = AsyncAnthropic(
                api_key=key, base_url=url, http_client=self._http, max_retries=0, timeout=timeout
            )
            return AnthropicModel(endpoint.model, provider=AnthropicProvider(anthropic_client=anthropic))
        openai = AsyncOpenAI(
            api_key=key, base_url=url, http_client=self._http, max_retries=0, timeout=timeout
        )
        if endpoint.api == "responses":
            return OpenAIResponsesModel(endpoint.model, provider=OpenAIProvider(openai_client=openai))
        if endpoint.is_vendor:
            return OpenAIChatModel(endpoint.model, provider=OpenAIProvider(openai_client=openai))
        # The library knows a thinking tag only when it arrives in one piece, and then loses an answer whose closing tag
        # does not. `AnswerText` finds them wherever they are cut, so the library is given tags that never come.
        never = OpenAIModelProfile(thinking_tags=("\x00<think>", "\x00</think>"))
        return OpenAIChatModel(
            endpoint.model,
            provider=OpenAICompatibleProvider("openai-compatible", openai_client=openai, profile=never),
        )

    def _model_settings(self, endpoint: Endpoint, context: AgentContext) -> ModelSettings:
        settings = ModelSettings()
        temperature = context.temperature if context.temperature is not None else self._settings.temperature
        if temperature is not None:
            # Anthropic's scale ends at 1, OpenAI's at 2.
            settings["temperature"] = min(temperature, 1.0) if endpoint.api == "messages" else temperature
        if self._settings.max_output_tokens is not None:
            settings["max_tokens"] = self._settings.max_output_tokens
        return settings

    async def _ask(self, ask: _Ask) -> AsyncGenerator[TextDelta | _Answered]:
        """One answer, tried again where that may help. A retry shows only what goes on from what was shown."""
        preview = Preview()
        empty_answers = 0
        for attempt in range(self._settings.max_retries + 1):
            exchange = watch_exchange()
            preview.restart()
            failure: Failure
            try:
                async with aclosing(_attempt(ask, exchange, preview)) as events:
                    async for event in events:
                        yield event
                return
            except AgentError:
                raise
            except Exception as error:  # noqa: BLE001 - the libraries may stumble in any way over what a server sends
                failure = explain(error, ask.endpoint, exchange)
                if isinstance(error, Faulty) and error.is_empty:
                    empty_answers += 1
                wait_s = self._retry_wait(failure.error, attempt)
                is_last = attempt >= self._settings.max_retries or empty_answers > 1
                if is_last or not failure.is_retryable or wait_s > MAX_RETRY_WAIT_S:
                    raise failure.error from error if failure.has_cause else None
            await asyncio.sleep(wait_s)

    def _retry_wait(self, error: AgentError, attempt: int) -> float:
        """Doubling with jitter; what the server asks for is obeyed and never undercut."""
        own_s = min(8.0, self._retry_base_s * 2.0**attempt) * self._random.uniform(0.5, 1.0)
        if error.retry_after_s is None:
            return own_s
        return max(own_s, error.retry_after_s + self._random.uniform(0, 0.1 * own_s))


async def _attempt(ask: _Ask, exchange: Exchange, preview: Preview) -> AsyncGenerator[TextDelta | _Answered]:
    spoken = AnswerText()
    size = 0
    has_text = False
    async with model_request_stream(
        ask.model, list(ask.history), model_settings=ask.settings, model_request_parameters=ask.parameters
    ) as stream:
        async for event in stream:
            piece, added = "", 0
            match event:
                case PartStartEvent(part=TextPart(content=content)):
                    is_apart = has_text and event.previous_part_kind not in {None, "text"}
                    piece = f"\n\n{content}" if is_apart else content
                    added, has_text = len(content), has_text or bool(content)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=content)):
                    piece, added, has_text = content, len(content), True
                case PartStartEvent(part=ThinkingPart(content=content)):
                    added = len(content)
                case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=content)):
                    added = len(content or "")
                case PartStartEvent(part=ToolCallPart(args=arguments)):
                    added = len(str(arguments or ""))
                case PartDeltaEvent(delta=ToolCallPartDelta(args_delta=arguments)):
                    added = len(str(arguments or ""))
            size += added
            if size > MAX_ANSWER_CHARS:
                raise TooLarge
            if piece and (new := preview.show(spoken.feed(piece))):
                yield TextDelta(new)
        response = stream.get()
    if new := preview.show(spoken.finish()):
        yield TextDelta(new)
    yield _checked(ask, exchange, response, spoken.text)


def _checked(ask: _Ask, exchange: Exchange, response: ModelResponse, text: str) -> _Answered:
    """The answer, if it is whole and says something.

    Raises: `Cut`, `Faulty`.
    """
    if not _is_whole(ask.endpoint, exchange, response):
        raise Cut("the stream ended before the answer was complete")
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    if len(calls) > MAX_CALLS_PER_ANSWER:
        raise Faulty(f"{len(calls)} tool calls in one answer")
    if not text and not calls and not ask.may_be_empty:
        if response.finish_reason == "content_filter":
            detail = f"{ask.endpoint.name}: the provider's content filter withheld the answer"
            raise AgentError("bad_answer", detail)
        if response.finish_reason == "length":
            detail = f"{ask.endpoint.name}: max_output_tokens was used up before the answer began"
            raise AgentError("bad_answer", detail)
        raise Faulty("the answer is empty", is_empty=True)
    response, requests = requests_of(response, ask.taken_ids)
    usage = Usage(response.usage.input_tokens, response.usage.output_tokens)
    vendor = ask.endpoint.name.partition(":")[0]
    answer = ModelAnswer(text, requests, usage, f"{vendor}:{response.model_name or ask.endpoint.model}")
    return _Answered(answer, response)


def _is_whole(endpoint: Endpoint, exchange: Exchange, response: ModelResponse) -> bool:
    """Whether the server said that this was all: a stream cut by a proxy may end as politely as a whole one."""
    if response.state != "complete" and response.finish_reason is None:
        return False
    if endpoint.api != "chat":
        return response.finish_reason is not None
    # The library fills a missing finish reason in; the server's own is among the details.
    has_reason = (
        bool((response.provider_details or {}).get("finish_reason"))
        or response.finish_reason == "content_filter"
    )
    return has_reason or exchange.has_done_mark


def _parameters(tools: Toolbox) -> ModelRequestParameters:
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(
                name=spec.name, description=spec.description, parameters_json_schema=dict(spec.parameters)
            )
            for spec in tools.specs
        ]
    )


async def _messages_of(done: Round, tools: Toolbox) -> list[ModelMessage]:
    messages: list[ModelMessage] = [response_of(done.answer)]
    if done.answer.tool_requests:
        messages.append(await _results(done, tools))
    return messages


async def _results(current: Round, tools: Toolbox) -> ModelMessage:
    """The results of an answer's calls: those recorded before a crash as they were, the others by calling now."""
    known, missing = in_order_of_calls(current.answer, current.outcomes)
    for outcome in await _call_all(missing, tools):
        known[outcome.call_id] = outcome
    return results_of(current.answer, known)


async def _call_all(requests: Sequence[ToolRequest], tools: Toolbox) -> list[ToolOutcome]:
    """Side by side; if one cannot even be recorded, the others are stopped before the error goes up."""
    tasks = [asyncio.ensure_future(tools.call(request)) for request in requests]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
