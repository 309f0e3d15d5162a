"""Our record of a conversation as the library's messages, and its answers as our steps.

Owns the mapping both ways. What is in the context was chosen by `sessions/context.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import orjson
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from bot.agents import prompt
from bot.agents.base import AgentContext, ContextMessage, ModelAnswer, RecordedStep, ToolOutcome, ToolRequest
from bot.tools.registry import UNREADABLE_ARGUMENTS
from config.names import Json
from sessions import wording


def opening_messages(context: AgentContext) -> list[ModelMessage]:
    """Everything up to and with the message to answer."""
    is_shared = any(message.name for message in context.messages)
    messages: list[ModelMessage] = []
    parts: list[ModelRequestPart] = [SystemPromptPart(_system_prompt(context, is_shared=is_shared))]
    said: list[str] = []

    def close_request() -> None:
        if said:
            # One user message, not several: the templates of many local models insist on taking turns.
            parts.append(UserPromptPart("\n\n".join(said)))
            said.clear()
        if parts:
            messages.append(ModelRequest(list(parts)))
            parts.clear()

    for message in context.messages:
        if message.role == "user":
            said.append(_user_text(message))
        elif message.role == "system":
            if said:
                parts.append(UserPromptPart("\n\n".join(said)))
                said.clear()
            parts.append(SystemPromptPart(message.content))
        elif message.content:
            if not messages and not said:
                said.append(prompt.LEFT_OUT)  # vendors want a person to speak first
            close_request()
            messages.append(ModelResponse([TextPart(message.content)]))
    close_request()
    return messages


def _system_prompt(context: AgentContext, *, is_shared: bool) -> str:
    facts = prompt.facts(None if is_shared else context.person_name, context.now, is_shared=is_shared)
    return "\n\n".join(text for text in (context.instructions.strip(), facts) if text) or "Answer briefly."


def _user_text(message: ContextMessage) -> str:
    lines = [message.content] if message.content else []
    for attachment in message.attachments:
        lines.append(
            wording.attached(attachment.kind, attachment.name, attachment.media_type, attachment.size_bytes)
        )
    text = "\n".join(lines) or wording.EMPTY
    return f"{wording.name_before(message.name)}{text}" if message.name else text


# Steps


@dataclass(slots=True)
class Round:
    """One answer and the results of the calls it asked for."""

    answer: ModelAnswer
    outcomes: list[ToolOutcome] = field(default_factory=list)


def rounds_of(steps: Sequence[RecordedStep]) -> list[Round]:
    rounds: list[Round] = []
    for step in steps:
        if isinstance(step, ModelAnswer):
            rounds.append(Round(step))
        elif rounds:
            rounds[-1].outcomes.append(step)
    return rounds


def in_order_of_calls(
    answer: ModelAnswer, outcomes: Sequence[ToolOutcome]
) -> tuple[dict[str, ToolOutcome], list[ToolRequest]]:
    """What is known of an answer's calls, and which of them are still to be made."""
    known = {outcome.call_id: outcome for outcome in outcomes}
    return known, [request for request in answer.tool_requests if request.call_id not in known]


def response_of(answer: ModelAnswer) -> ModelResponse:
    parts: list[ModelResponsePart] = [TextPart(answer.text)] if answer.text else []
    parts += [
        ToolCallPart(_wire_name(request.name), dict(request.arguments), request.call_id)
        for request in answer.tool_requests
    ]
    return ModelResponse(parts)


def results_of(answer: ModelAnswer, outcomes: dict[str, ToolOutcome]) -> ModelRequest:
    parts: list[ModelRequestPart] = []
    for request in answer.tool_requests:
        outcome = outcomes[request.call_id]
        parts.append(
            ToolReturnPart(
                tool_name=_wire_name(request.name),
                content=outcome.content,
                tool_call_id=request.call_id,
                outcome="failed" if outcome.is_error else "success",
            )
        )
    return ModelRequest(parts)


def requests_of(
    response: ModelResponse, taken_ids: set[str]
) -> tuple[ModelResponse, tuple[ToolRequest, ...]]:
    """The calls an answer asks for, and the answer with the ids that these were given.

    Some servers number calls anew in each answer; within a turn an id must mean one call, so a taken one is changed.
    """
    parts: list[ModelResponsePart] = []
    requests: list[ToolRequest] = []
    for part in response.parts:
        if not isinstance(part, ToolCallPart):
            parts.append(part)
            continue
        call_id = part.tool_call_id or "call"
        suffix = 1
        while call_id in taken_ids:
            suffix += 1
            call_id = f"{part.tool_call_id or 'call'}-{suffix}"
        taken_ids.add(call_id)
        arguments = _read_arguments(part.args)
        requests.append(ToolRequest(call_id, part.tool_name, arguments))
        parts.append(
            ToolCallPart(
                _wire_name(part.tool_name),
                arguments,
                call_id,
                id=part.id,
                provider_name=part.provider_name,
                provider_details=part.provider_details,
            )
        )
    return replace(response, parts=parts), tuple(requests)


def _read_arguments(raw: Json) -> dict[str, Json]:
    if isinstance(raw, str):
        if not raw.strip():
            return {}
        try:
            raw = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return {UNREADABLE_ARGUMENTS: raw.encode("utf-8", "replace").decode()}
    if raw is None:
        return {}
    return raw if isinstance(raw, dict) else {UNREADABLE_ARGUMENTS: orjson.dumps(raw).decode()}


def _wire_name(name: str) -> str:
    """A made-up tool name goes back to the model in the letters that every vendor accepts."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "unnamed"
