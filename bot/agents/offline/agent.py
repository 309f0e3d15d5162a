"""`OfflineAgent`: plays what was understood through the `Agent` port, with the same tools a model would use.

Owns the run and the choice of sentences. A run is one answer that asks for the tools, their calls, and one answer in
words; the same message and steps always give the same run.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from bot.agents.base import (
    AgentContext,
    Event,
    Final,
    ModelAnswer,
    TextDelta,
    Toolbox,
    ToolOutcome,
    ToolRequest,
)
from bot.agents.offline.phrases import MODEL_HINT, MONTHS, PHRASES, WEEKDAYS, Language
from bot.agents.offline.understanding import (
    Abilities,
    Courtesy,
    Recall,
    Remember,
    Request,
    Search,
    Sum,
    Time,
    Unknown,
    understand,
)
from config.names import Json

_SEARCH_LIMIT = 5


class OfflineAgent:
    """Answers sums, times, remembering, recalling and searching; says plainly that there is no model for the rest."""

    @property
    def name(self) -> str:
        return "offline"

    async def run(self, context: AgentContext, tools: Toolbox) -> AsyncIterator[Event]:
        recorded = list(context.steps)
        answers = [step for step in recorded if isinstance(step, ModelAnswer)]
        if answers and not answers[-1].tool_requests:
            yield Final(answers[-1].text)
            return
        message = context.messages[-1].content if context.messages else ""
        language = _language(context.language)
        requests = await asyncio.to_thread(understand, message, language)
        available = {spec.name for spec in tools.specs}
        wanted = {number: _tool_request(number, request) for number, request in enumerate(requests)}
        calls = {number: call for number, call in wanted.items() if call and call.name in available}
        outcomes: dict[str, ToolOutcome] = {
            step.call_id: step for step in recorded if isinstance(step, ToolOutcome)
        }
        if calls:
            if not answers:
                yield ModelAnswer("", tuple(calls.values()), model=self.name)
            for call in calls.values():  # one after the other: "remember …, and what do you remember?"
                if call.call_id not in outcomes:
                    outcomes[call.call_id] = await tools.call(call)
        speech = _Speech(context, message, language)
        parts: list[str] = []
        for number, request in enumerate(requests):
            tool = wanted[number]
            if tool is None:
                part = speech.answer(request, None, requests)
            elif number in calls:
                part = speech.answer(request, outcomes[tool.call_id], requests)
            else:
                part = speech.missing(request, tool.name)
            if part not in parts:  # that there is no model is said once
                parts.append(part)
        text = ("\n" if any("\n" in part for part in parts) else " ").join(parts)
        for piece in re.findall(r"\s*\S+\s*", text):
            yield TextDelta(piece)
        yield ModelAnswer(text, model=self.name)
        yield Final(text)

    async def close(self) -> None:
        """Nothing to close."""


def _language(code: str) -> Language:
    return "de" if code.lower().startswith("de") else "en"


def _tool_request(number: int, request: Request) -> ToolRequest | None:
    call_id = f"offline-{number + 1}"
    match request.intent:
        case Sum(expression):
            return ToolRequest(call_id, "calculator", {"expression": expression})
        case Time(place):
            return ToolRequest(call_id, "clock", {"place": place} if place else {})
        case Remember(name, value):
            return ToolRequest(call_id, "remember", {"name": name, "value": value})
        case Recall(name):
            return ToolRequest(call_id, "recall", {"name": name} if name else {})
        case Search(words):
            # One more than is shown: the newest message with these words is the one that asks.
            return ToolRequest(call_id, "search", {"words": words, "limit": _SEARCH_LIMIT + 1})
    return None


class _Speech:
    """Sentences for what came of each request."""

    def __init__(self, context: AgentContext, message: str, language: Language) -> None:
        self._context = context
        self._message = message
        self._language = language
        self._was_told = any(
            message.role == "assistant" and MODEL_HINT in message.content for message in context.messages
        )

    def say(self, request: Request, phrase: str, **values: str) -> str:
        return PHRASES[request.language or self._language][phrase].format(**values)

    def answer(self, request: Request, outcome: ToolOutcome | None, requests: Sequence[Request]) -> str:
        name = self._context.person_name
        match request.intent:
            case Courtesy(phrase):
                is_named = name and phrase != "thanks"
                said = (
                    self.say(request, f"{phrase}_name", name=name)
                    if is_named and name
                    else self.say(request, phrase)
                )
                return f"{said} {self.say(request, 'ask_me')}" if phrase == "hello" else said
            case Abilities():
                return f"{self.say(request, 'abilities')} {self.say(request, 'connect')}"
            case Unknown():
                return self._unknown(request)
        if outcome is None:
            return self._unknown(request)
        if outcome.is_error:
            return self._failure(request, outcome)
        match request.intent:
            case Sum(expression):
                several = sum(isinstance(other.intent, Sum) for other in requests) > 1
                value = outcome.content
                if (request.language or self._language) == "de":
                    value, expression = value.replace(".", ","), expression.replace(".", ",")
                return self.say(
                    request, "sum_is" if several else "only_value", expression=expression, value=value
                )
            case Time():
                return self._time(request, request.intent, _object(outcome))
            case Remember(_, value, is_sure=False):  # its name is only its first words
                return self.say(request, "remembered_whole", value=value)
            case Remember(thing, value):
                return self.say(request, "remembered", name=thing, value=value)
            case Recall():
                return self._recalled(request, request.intent, _object(outcome))
            case Search(words):
                return self._found(request, words, outcome)

    def missing(self, request: Request, tool: str) -> str:
        match request.intent:
            case Recall(is_sure=False):
                return self._unknown(request)
        return self.say(request, "tool_missing", name=tool)

    def _unknown(self, request: Request) -> str:
        if not self._message.strip():
            return self.say(request, "no_text")
        if self._was_told:
            return self.say(request, "no_model_again")
        return " ".join(self.say(request, phrase) for phrase in ("no_model", "abilities", "connect"))

    def _failure(self, request: Request, outcome: ToolOutcome) -> str:
        match request.intent:
            case Sum():
                return self.say(request, "cannot_calculate", reason=outcome.content)
            case Time(place) if place:
                return self.say(request, "unknown_place", place=place)
        return self.say(request, "tool_failed", reason=outcome.content)

    def _time(self, request: Request, intent: Time, told: Mapping[str, Json]) -> str:
        moment = datetime.fromisoformat(told["time"])
        language = request.language or self._language
        values = {
            "time": f"{moment:%H:%M}",
            "weekday": WEEKDAYS[language][moment.weekday()],
            "day": str(moment.day),
            "month": MONTHS[language][moment.month - 1],
            "year": str(moment.year),
            "place": _place_name(intent.place or ""),
        }
        what = "date" if intent.wants_date else "time"
        return self.say(request, f"{what}_at" if intent.place else f"{what}_here", **values)

    def _recalled(self, request: Request, intent: Recall, known: Mapping[str, Json]) -> str:
        if intent.name is not None:
            if known:
                return self.say(request, "recalled", value=str(next(iter(known.values()))))
            if intent.name.lower() == "name" and self._context.person_name:
                return self.say(request, "recalled", value=self._context.person_name)
            if not intent.is_sure:
                return self._unknown(request)
            return self.say(request, "nothing_named", name=intent.name)
        if not known:
            return self.say(request, "nothing_remembered")
        lines = [
            self.say(request, "recalled_whole", value=str(value))
            if str(value).startswith(name)
            else self.say(request, "recalled_line", name=name, value=str(value))
            for name, value in known.items()
        ]
        return "\n".join([self.say(request, "recalled_all"), *lines])

    def _found(self, request: Request, words: str, outcome: ToolOutcome) -> str:
        messages: list[dict[str, str]] = json.loads(outcome.content)
        others = [message for message in messages if message["text"].strip() != self._message.strip()][
            :_SEARCH_LIMIT
        ]
        if not others:
            return self.say(request, "found_nothing", words=words)
        title = self.say(
            request, "found_one" if len(others) == 1 else "found_many", words=words, count=str(len(others))
        )
        lines = [
            self.say(
                request,
                "found_line",
                time=f"{datetime.fromisoformat(message['time']):%Y-%m-%d %H:%M}",
                text=" ".join(message["text"].split())[:200],
            )
            for message in others
        ]
        return "\n".join([title, *lines])


def _object(outcome: ToolOutcome) -> Mapping[str, Json]:
    value = json.loads(outcome.content)
    return value if isinstance(value, dict) else {}


_ABBREVIATIONS = frozenset(
    {"utc", "gmt", "usa", "uk", "la", "nyc", "uae", "est", "edt", "pst", "pdt", "cet", "cest", "mez", "jst"}
)


def _place_name(place: str) -> str:
    """`tokyo` as Tokyo; what somebody spelt with capitals stays as it is."""
    if not place.islower():
        return place
    return place.upper() if place in _ABBREVIATIONS else place.title()
