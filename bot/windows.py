"""What the agent of one turn sees: the session's context within its limit, and less of it when the provider says it is too much.

Owns the limit of a turn, the way down when it was not enough, and what the turn teaches for the next: how the provider counts and
how much its model takes. What fits is chosen in `sessions/context.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Final

import orjson

from bot.agents import prompt
from bot.agents.base import (
    AgentContext,
    ContextAttachment,
    ContextMessage,
    ModelAnswer,
    RecordedStep,
    ToolOutcome,
    ToolSpec,
)
from bot.tools.builtin import builtin_tools
from bot.tools.registry import ToolRegistry
from config.settings import Settings
from sessions import context, tokens, window
from sessions.context import Context, StepText
from sessions.models import Claim, Message

MOST_NARROWINGS: Final = 3
"""Times that a turn asks again with less, after the provider found its context too long."""

_NARROWER: Final = 0.6
_NARROWEST_TOKENS: Final = 64
_FRAME_TOKENS: Final = 3 + 2 * tokens.PER_MESSAGE
"""Of a request: where its answer begins, and around its first message and the one that stands for what is left out."""
_LEAST_COUNTED: Final = 200
"""Tokens: a report about less says more of what we do not count (names, dates, the template) than of how we count."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a turn taught about its session's window."""

    ratio: float | None = None
    learned_tokens: int | None = None

    @property
    def is_empty(self) -> bool:
        return self.ratio is None and self.learned_tokens is None


class TurnWindow:
    """The window of one turn."""

    def __init__(
        self,
        settings: Settings,
        claim: Claim,
        agent: str,
        language: str,
        specs: Sequence[ToolSpec],
        now_ms: int,
    ) -> None:
        self._settings = settings
        self._claim = claim
        self._agent = agent
        self._language = language
        self._now = datetime.fromtimestamp(now_ms / 1000, UTC)
        self._tool_tokens = beside_tokens(
            settings, specs, prompt.facts(claim.person_name, self._now, is_shared=claim.is_shared)
        )
        self._narrowings = 0
        self._first_counted = 0
        self._first_reported = 0
        self.limit_tokens = window.limit_of(
            settings, claim.address.account, claim.address.channel, claim.window, agent
        )
        self.seen: Context | None = None

    def context(self, steps: Sequence[RecordedStep]) -> AgentContext:
        """What the agent gets, with the steps that the turn has already taken."""
        self.seen = seen = self._compose(steps, self.limit_tokens)
        claim = self._claim
        persona = self._settings.personas.get(claim.persona) if claim.persona else None
        messages = [_context_message(message, is_shared=claim.is_shared) for message in seen.messages]
        if seen.notes:
            messages.insert(0, ContextMessage("user", seen.notes))
        return AgentContext(
            turn_id=claim.turn_id,
            session_id=claim.session_id,
            instructions=seen.instructions,
            messages=messages,
            steps=tuple(_with_text(step, text) for step, text in zip(steps, seen.steps, strict=True)),
            person_name=claim.person_name,
            language=self._language,
            now=self._now,
            model=persona.model if persona else None,
            temperature=persona.temperature if persona else None,
        )

    def shortened(self, outcome: ToolOutcome) -> ToolOutcome:
        """A tool's result as the model reads it: half of the window at most. What is recorded stays whole."""
        room = self.limit_tokens // 2
        if len(outcome.content) <= room and outcome.content.isascii():
            return outcome  # a token is at least a byte
        return replace(outcome, content=tokens.cut(outcome.content, int(room / self._claim.window.ratio)))

    def narrow(self, steps: Sequence[RecordedStep]) -> bool:
        """Go down the ladder after a refusal. False if there is nothing left to give up: then the turn has failed."""
        if self.seen is None or self._narrowings >= MOST_NARROWINGS:
            return False
        before = self._compose(steps, self.limit_tokens).parts.total
        limit = int(min(self.limit_tokens, before) * _NARROWER)
        if limit < _NARROWEST_TOKENS or self._compose(steps, limit).parts.total >= before:
            return False
        self._narrowings += 1
        self.limit_tokens = limit
        return True

    def note_usage(self, answer: ModelAnswer) -> None:
        """The provider's count of the first request, which is all context that we counted."""
        if self._first_reported or self.seen is None or not answer.usage.input_tokens:
            return
        self._first_reported = answer.usage.input_tokens
        parts = self.seen.parts
        self._first_counted = round(parts.total / self._claim.window.ratio)

    @property
    def lesson(self) -> Lesson:
        """To be kept with the result of a turn that got its answer."""
        ratio = (
            window.corrected(self._claim.window.ratio, self._first_counted, self._first_reported)
            if self._first_counted >= _LEAST_COUNTED
            else None
        )
        return Lesson(ratio, self.limit_tokens if self._narrowings else None)

    @property
    def is_message_cut(self) -> bool:
        return self.seen is not None and self.seen.is_cut

    def is_summary_due(self, answer: str | None) -> bool:
        """Whether older messages may have to be summarised once this turn has ended; the store says so for sure."""
        if self.seen is None or self._settings.agent.summaries == "off":
            return False
        said = len(self._claim.messages) + (answer is not None)
        if said >= self._settings.agent.context_messages:
            return True
        if said < context.FEWEST_TO_SUMMARISE:
            return False
        if self.seen.left_out:
            return True
        parts, ratio = self.seen.parts, self._claim.window.ratio
        room = context.DUE_SHARE * parts.limit - (parts.total - parts.tool_output)
        if (
            answer is None or 4 * len(answer) * ratio < room
        ):  # a character has four bytes, and so tokens, at most
            return room <= 0
        return tokens.count(answer) * ratio >= room

    def _compose(self, steps: Sequence[RecordedStep], limit_tokens: int) -> Context:
        claim = self._claim
        return context.compose(
            claim.messages,
            claim.summaries,
            instructions=window.instructions_of(self._settings, claim.persona),
            limit_tokens=limit_tokens,
            ratio=claim.window.ratio,
            steps=[_step_text(step) for step in steps],
            tool_tokens=self._tool_tokens,
            is_shared=claim.is_shared,
        )


def beside_tokens(settings: Settings, specs: Sequence[ToolSpec], facts: str) -> int:
    """Tokens that come with every request of a model: its tools, and a line with the date and whom it talks to."""
    if settings.agent.kind != "llm":
        return 0
    described = sum(tokens.count_often(orjson.dumps(prompt.described(spec)).decode()) for spec in specs)
    return described + tokens.count_often(facts) + tokens.count_often(prompt.LEFT_OUT) + _FRAME_TOKENS


def allowed(settings: Settings, persona: str | None, specs: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
    """Of all tools those that a persona's agent may use."""
    own = settings.personas.get(persona) if persona else None
    names = own.tools if own and own.tools is not None else settings.agent.tools
    return [spec for spec in specs if spec.name in names]


def tool_tokens(settings: Settings, persona: str | None) -> int:
    """The same for a persona with the tools that there are, whoever talks: a few tokens more for one person alone."""
    facts = prompt.facts(None, datetime.fromtimestamp(0, UTC), is_shared=True)
    return beside_tokens(settings, allowed(settings, persona, _all_specs()), facts)


@cache
def _all_specs() -> Sequence[ToolSpec]:
    return tuple(ToolRegistry(builtin_tools()).specs())


def _step_text(step: RecordedStep) -> StepText:
    if isinstance(step, ToolOutcome):
        return StepText(step.content, is_tool_output=True, around=step.call_id)
    calls = [
        prompt.called(request, orjson.dumps(dict(request.arguments), default=str).decode())
        for request in step.tool_requests
    ]
    return StepText(step.text, is_tool_output=False, around=orjson.dumps(calls).decode() if calls else "")


def _with_text(step: RecordedStep, text: str) -> RecordedStep:
    return replace(step, content=text) if isinstance(step, ToolOutcome) else step


def _context_message(message: Message, *, is_shared: bool) -> ContextMessage:
    return ContextMessage(
        role=message.role,
        content=message.content,
        name=message.author if is_shared and message.role == "user" else None,
        attachments=tuple(
            ContextAttachment(
                attachment["kind"],
                attachment.get("name"),
                attachment.get("media_type"),
                attachment.get("size_bytes"),
            )
            for attachment in message.attachments
        )
        if message.attachments
        else (),
    )
