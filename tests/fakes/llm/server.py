"""The server: what it answers, its journal, its faults."""

import asyncio
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from aiohttp import web

from tests.fakes.llm.wires import Answer, Api, Body, Call, ChatWire, MessagesWire, ResponsesWire, Seen, Wire

FAULTS = (
    "401",
    "403",
    "404",
    "429",  # with retry-after
    "quota",  # 429 as well, but waiting does not help
    "500",
    "502",  # an HTML page, as from a proxy
    "503",
    "context",  # the conversation is longer than the model's window
    "hang",  # nothing at all
    "hang_midway",  # half of the answer, then nothing
    "slow",  # a late first token
    "cut_first",  # the connection drops before the first token
    "cut",  # … in the middle
    "cut_politely",  # the stream ends in the middle, in good form
    "garbage",  # a stream that is not JSON
    "shape",  # JSON, but nothing that the API knows
    "html",  # 200 with a page of a captive portal
    "stream_error",  # an error object inside the stream
    "empty",
    "huge",  # 100 MB in small pieces
    "huge_line",  # 100 MB in one line
    "bad_arguments",  # tool calls whose arguments are not JSON
    "thinking",  # <think> before the answer, cut anywhere
    "half_letters",  # emoji cut into two escapes
)
CHAOS_FAULTS = (
    "429",
    "500",
    "502",
    "503",
    "cut_first",
    "cut",
    "cut_politely",
    "garbage",
    "stream_error",
    "empty",
)


@dataclass(slots=True)
class Rule:
    """An answer for messages whose last text of the person matches; `times` None means always."""

    pattern: str
    answer: Answer | Callable[[list[Seen]], Answer]
    times: int | None = None


@dataclass(slots=True)
class Entry:
    """One request in the journal."""

    api: Api
    model: str
    key: str
    messages: list[Seen]
    tools: list[str]
    body: Body
    fault: str | None = None
    outcome: Literal["running", "whole", "failed", "left"] = "running"
    """`left`: the client went away before the end."""
    began: float = 0
    ended: float = 0


class FakeLlm:
    """The server. `async with FakeLlm().running() as server: server.url`."""

    def __init__(self, *, key: str | None = None, retry_after_s: float = 0.02, piece_chars: int = 7) -> None:
        self.key = key
        self.retry_after_s = retry_after_s
        self.piece_chars = piece_chars
        self.piece_delay_s = 0.0
        self.slow_s = 0.2
        self.journal: list[Entry] = []
        self.rules: list[Rule] = []
        self.url = ""
        self._next_faults: deque[str] = deque()
        self._chaos: tuple[float, Sequence[str], random.Random] | None = None
        self._runner: web.AppRunner | None = None
        self._calls = 0

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def fail_next(self, fault: str, times: int = 1) -> None:
        _check_fault(fault)
        self._next_faults.extend([fault] * times)

    def chaos(self, probability: float, faults: Sequence[str] = CHAOS_FAULTS, seed: int = 0) -> None:
        """From now on each request fails with this probability."""
        for fault in faults:
            _check_fault(fault)
        self._chaos = (probability, tuple(faults), random.Random(seed)) if probability else None

    def clear(self) -> None:
        """Forget rules, faults and the journal."""
        self._next_faults.clear()
        self._chaos = None
        self.rules.clear()
        self.journal.clear()

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._handle_chat)
        app.router.add_post("/v1/responses", self._handle_responses)
        app.router.add_post("/v1/messages", self._handle_messages)
        app.router.add_get("/v1/models", self._handle_models)
        app.router.add_post("/_control", self._handle_control)
        app.router.add_get("/_journal", self._handle_journal)
        # handler_cancellation: a client that goes away ends its handler, and the journal says so.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["FakeLlm"]:
        await self.start(port)
        try:
            yield self
        finally:
            await self.stop()

    # Requests

    async def _handle_chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._serve(request, ChatWire(body), body)

    async def _handle_responses(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._serve(request, ResponsesWire(body), body)

    async def _handle_messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._serve(request, MessagesWire(body), body)

    async def _handle_models(self, request: web.Request) -> web.Response:
        key = request.headers.get("x-api-key", request.headers.get("authorization", ""))
        if self.key is not None and key.removeprefix("Bearer ") != self.key:
            return web.json_response({"error": {"message": "Incorrect API key provided."}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "fake-model", "object": "model"}]})

    async def _handle_control(self, request: web.Request) -> web.Response:
        order = await request.json()
        if order.get("clear"):
            self.clear()
        if "fail_next" in order:
            self.fail_next(order["fail_next"], order.get("times", 1))
        if "chaos" in order:
            self.chaos(order["chaos"], order.get("faults", CHAOS_FAULTS), order.get("seed", 0))
        return web.json_response({"ok": True})

    async def _handle_journal(self, request: web.Request) -> web.Response:
        del request
        return web.json_response([asdict(entry) for entry in self.journal])

    async def _serve(self, request: web.Request, api: Wire, body: Body) -> web.StreamResponse:
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix(
            "Bearer "
        )
        entry = Entry(
            api.name, str(body.get("model")), key, api.seen(), api.tools(), body, began=time.monotonic()
        )
        self.journal.append(entry)
        try:
            response = await self._answer(request, api, entry)
        except asyncio.CancelledError:
            entry.outcome = "left"
            raise
        except (_Cut, ConnectionError) as error:
            entry.outcome = "failed" if isinstance(error, _Cut) else "left"
            if request.transport is not None:
                request.transport.abort()
            await asyncio.sleep(60)  # the lost connection cancels this handler: nobody is left to answer
            raise
        finally:
            entry.ended = time.monotonic()
        return response

    async def _answer(self, request: web.Request, api: Wire, entry: Entry) -> web.StreamResponse:
        if self.key is not None and entry.key != self.key:
            entry.outcome = "failed"
            return api.error(401, f"Incorrect API key provided: {entry.key}.", "invalid_api_key")
        if mistake := api.mistake():
            entry.outcome = "failed"
            return api.error(400, mistake, "invalid_request")
        answer = self._choose(entry)
        entry.fault = answer.fault
        if answer.fault and (refusal := self._refusal(api, answer.fault)):
            entry.outcome = "failed"
            return refusal
        if answer.fault == "hang":
            await asyncio.sleep(3600)
        if answer.fault == "cut_first":
            raise _Cut
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", "cache-control": "no-cache"}
        )
        await response.prepare(request)
        if answer.fault == "slow":
            await asyncio.sleep(self.slow_s)
        await self._stream(response, api, answer)
        await response.write_eof()
        entry.outcome = (
            "whole" if answer.fault not in {"cut_politely", "garbage", "shape", "stream_error"} else "failed"
        )
        return response

    def _choose(self, entry: Entry) -> Answer:
        answer = self._planned(entry.messages)
        if self._next_faults:
            answer.fault = self._next_faults.popleft()
        elif self._chaos:
            probability, faults, randomness = self._chaos
            if randomness.random() < probability:
                answer.fault = randomness.choice(faults)
        if answer.fault == "bad_arguments":
            answer.calls = [
                Call(call.name, call.arguments.rstrip("}") + '"oops', call.call_id) for call in answer.calls
            ]
        if answer.fault == "empty":
            answer.text, answer.calls = "", []
        for call in answer.calls:
            self._calls += 1
            call.call_id = call.call_id or f"call_{self._calls}"
        return answer

    def _planned(self, messages: list[Seen]) -> Answer:
        last = max((number for number, message in enumerate(messages) if message.role == "user"), default=-1)
        said = messages[last].text if last >= 0 else ""
        for rule in self.rules:
            if (rule.times is None or rule.times > 0) and re.search(rule.pattern, said):
                rule.times = None if rule.times is None else rule.times - 1
                chosen = rule.answer(messages) if callable(rule.answer) else rule.answer
                return Answer(
                    chosen.text,
                    [Call(call.name, call.arguments, call.call_id) for call in chosen.calls],
                    chosen.fault,
                )
        fault = re.search(r"\bfault:(\w+)", said)
        results = [message.text for message in messages[last + 1 :] if message.role == "tool"]
        calls = [
            Call(name, arguments or "{}")
            for name, arguments in re.findall(r"\btool:([\w.-]+)(?: (\{.*?\}))?", said)
        ]
        if results:
            answer = Answer(f"tool said: {' | '.join(results)}")
        elif calls:
            answer = Answer("", calls)
        elif found := re.search(r"\blong:(\d+)", said):
            answer = Answer("".join(f"{number} " for number in range(int(found[1]))))
            answer.text = answer.text[: int(found[1])]
        else:
            answer = Answer(f"echo: {said} [{len(messages)} messages]")
        answer.fault = fault[1] if fault else None
        return answer

    def _refusal(self, api: Wire, fault: str) -> web.Response | None:
        match fault:
            case "401":
                return api.error(401, "Incorrect API key provided.", "invalid_api_key")
            case "403":
                return api.error(403, "Not allowed.", "forbidden")
            case "404":
                return api.error(404, "The model does not exist.", "model_not_found")
            case "429":
                response = api.error(429, "Rate limit reached.", "rate_limit_exceeded")
                if self.retry_after_s >= 1:
                    response.headers["retry-after"] = str(round(self.retry_after_s))
                else:
                    response.headers["retry-after-ms"] = str(round(self.retry_after_s * 1000))
                return response
            case "quota":
                return api.error(429, "You exceeded your current quota.", "insufficient_quota")
            case "500":
                return api.error(500, "The server had an error.", "server_error")
            case "502":
                return web.Response(
                    status=502, text="<html><h1>502 Bad Gateway</h1></html>", content_type="text/html"
                )
            case "503":
                return api.error(503, "The server is overloaded.", "overloaded")
            case "context":
                return api.context_error()
            case "html":
                return web.Response(
                    text="<html><h1>Please log in to this network</h1></html>", content_type="text/html"
                )
        return None

    async def _stream(self, response: web.StreamResponse, api: Wire, answer: Answer) -> None:
        match answer.fault:
            case "garbage":
                await response.write(b"data: {{{ this is not JSON\n\ndata: nor this\n\n")
                return
            case "shape":
                await response.write(
                    b'event: strange\ndata: {"choices": {"a": 1}, "type": 7, "delta": "?"}\n\n'
                )
                await response.write(b'data: [1, 2, 3]\n\ndata: "text"\n\n')
                return
            case "huge_line":
                await response.write(b'data: {"x": "')
                for _ in range(100):
                    await response.write(b"x" * 1_000_000)
                return
            case "huge":
                # One piece of text again and again: the server itself need not hold 100 MB.
                times = 5000
                for event in api.events(Answer("x" * 20_000), 20_000):
                    for _ in range(times if b"xxxx" in event else 1):
                        await response.write(event)
                    times = 1 if b"xxxx" in event else times
                return
            case "thinking":
                answer = Answer(f"<think>the secret plan</think>\n{answer.text}", answer.calls)
            case "half_letters":
                answer = Answer(f"{answer.text} 🎉", answer.calls)
        events = list(api.events(answer, 1 if answer.fault == "half_letters" else self.piece_chars))
        if answer.fault == "stream_error":
            events = [*events[: len(events) // 2], api.error_event()]
        halfway = len(events) // 2 if answer.fault in {"cut", "cut_politely", "hang_midway"} else None
        for number, event in enumerate(events):
            if number == halfway:
                if answer.fault == "cut":
                    await asyncio.sleep(0.01)  # so that what was written is on its way
                    raise _Cut
                if answer.fault == "hang_midway":
                    await asyncio.sleep(3600)
                return
            await response.write(event)
            if self.piece_delay_s:
                await asyncio.sleep(self.piece_delay_s)


class _Cut(Exception):
    """Drop the connection."""


def _check_fault(fault: str) -> None:
    if fault not in FAULTS:
        msg = f"unknown fault {fault!r}; there are {', '.join(FAULTS)}"
        raise ValueError(msg)
