"""A language model over real HTTP on the loopback: OpenAI's chat completions and Responses, Anthropic's Messages.

Owns the wire of the three APIs as their vendors document it (streams, tool calls in pieces, usage, error bodies), a journal of
what the model was sent, and faults. It is no model: what it answers is told by the last message of the person.

    anything                          echo: anything [3 messages]
    tool:clock {"place": "Tokyo"}     a tool call (several may follow one another); then: tool said: …
    long:5000                         so many characters
    fault:500                         that fault, every time (see `FAULTS`)

A wider choice is had from Python: `server.rules`, `server.fail_next`, `server.chaos`. In a process of its own, POST
/_control takes {"fail_next": "500", "times": 2}, {"chaos": 0.3, "faults": […], "seed": 1} or {"clear": true}, and GET /_journal
gives the journal. Start: python -m tests.fakes.llm --port 4010
"""

import argparse
import asyncio
import json
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from aiohttp import web

Api = Literal["chat", "responses", "messages"]
Body = dict[str, Any]

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
class Seen:
    """One message as the model saw it, the same for all APIs."""

    role: str
    text: str
    calls: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Call:
    name: str
    arguments: str
    call_id: str = ""


@dataclass(slots=True)
class Answer:
    """What to say; `fault` goes first."""

    text: str = ""
    calls: Sequence[Call] = ()
    fault: str | None = None


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
        return await self._serve(request, _Chat(body), body)

    async def _handle_responses(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._serve(request, _Responses(body), body)

    async def _handle_messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._serve(request, _Messages(body), body)

    async def _handle_models(self, request: web.Request) -> web.Response:
        del request
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

    async def _serve(self, request: web.Request, api: "_Api", body: Body) -> web.StreamResponse:
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix(
            "Bearer "
        )
        entry = Entry(
            api.name, str(body.get("model")), key, api.seen(), api.tools(), body, began=time.monotonic()
        )
        self.journal.append(entry)
        try:
            response = await self._answer(request, api, entry)
        except (asyncio.CancelledError, ConnectionError):
            entry.outcome = "left"
            raise
        except _Cut:
            entry.outcome = "failed"
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(60)  # the lost connection cancels this handler: nobody is left to answer
            raise
        finally:
            entry.ended = time.monotonic()
        return response

    async def _answer(self, request: web.Request, api: "_Api", entry: Entry) -> web.StreamResponse:
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

    def _refusal(self, api: "_Api", fault: str) -> web.Response | None:
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

    async def _stream(self, response: web.StreamResponse, api: "_Api", answer: Answer) -> None:
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
                for event in api.events(Answer("x" * 100_000_000), 20_000):
                    await response.write(event)
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


def _pieces(text: str, size: int) -> Iterator[str]:
    units = text if size > 1 else _halves(text)
    for start in range(0, len(units), size):
        yield units[start : start + size]


def _halves(text: str) -> str:
    """Every letter beyond the basic plane as its two surrogates."""
    coded = text.encode("utf-16-be")
    return "".join(chr(int.from_bytes(coded[at : at + 2], "big")) for at in range(0, len(coded), 2))


def _tokens(value: object) -> int:
    return max(1, len(json.dumps(value)) // 4)


class _Api:
    """One vendor's shapes."""

    name: Api

    def __init__(self, body: Body) -> None:
        self.body = body
        self.model = str(body.get("model"))
        self.input_tokens = _tokens(body)

    def seen(self) -> list[Seen]:
        raise NotImplementedError

    def tools(self) -> list[str]:
        return [
            str(tool.get("name") or tool.get("function", {}).get("name"))
            for tool in self.body.get("tools") or []
        ]

    def mistake(self) -> str | None:
        """What the vendor would refuse about the request: above all a tool call without its result."""
        open_calls: set[str] = set()
        for kind, call_id in self.call_ids():
            if kind == "call":
                open_calls.add(call_id)
            elif kind == "result":
                if call_id not in open_calls:
                    return f"a tool result for {call_id!r}, which nobody called"
                open_calls.discard(call_id)
            elif open_calls:
                return f"tool calls without results: {sorted(open_calls)}"
        if open_calls:
            return f"tool calls without results: {sorted(open_calls)}"
        if not self.body.get("stream"):
            return "this server only streams"
        return None

    def call_ids(self) -> Iterator[tuple[Literal["call", "result", "other"], str]]:
        raise NotImplementedError

    def error(self, status: int, message: str, code: str) -> web.Response:
        kind = {401: "invalid_request_error", 429: code, 400: "invalid_request_error"}.get(
            status, "server_error"
        )
        return web.json_response({"error": {"message": message, "type": kind, "code": code}}, status=status)

    def context_error(self) -> web.Response:
        return self.error(
            400,
            "This model's maximum context length is 100 tokens. Your messages resulted in 200.",
            "context_length_exceeded",
        )

    def error_event(self) -> bytes:
        error = {"error": {"message": "The server had an error.", "type": "server_error", "code": None}}
        return f"data: {json.dumps(error)}\n\n".encode()

    def events(self, answer: Answer, piece_chars: int) -> Iterator[bytes]:
        raise NotImplementedError


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or [] if isinstance(part, dict))


class _Chat(_Api):
    name: Api = "chat"

    def seen(self) -> list[Seen]:
        return [
            Seen(
                "system" if message["role"] == "developer" else message["role"],
                _plain(message.get("content")),
                [call["function"]["name"] for call in message.get("tool_calls") or []],
            )
            for message in self.body["messages"]
        ]

    def call_ids(self) -> Iterator[tuple[Literal["call", "result", "other"], str]]:
        for message in self.body["messages"]:
            if message["role"] == "tool":
                yield "result", message["tool_call_id"]
                continue
            yield "other", ""
            for call in message.get("tool_calls") or []:
                json.loads(call["function"]["arguments"])
                yield "call", call["id"]

    def _chunk(self, delta: Body, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._data({"choices": [choice]})

    def _data(self, rest: Body) -> bytes:
        chunk = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": self.model,
            **rest,
        }
        return f"data: {json.dumps(chunk)}\n\n".encode()

    def events(self, answer: Answer, piece_chars: int) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})
        for piece in _pieces(answer.text, piece_chars):
            yield self._chunk({"content": piece})
        for index, call in enumerate(answer.calls):
            head = {
                "index": index,
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            yield self._chunk({"tool_calls": [head]})
            for piece in _pieces(call.arguments, piece_chars):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield self._chunk({}, "tool_calls" if answer.calls else "stop")
        output = _tokens(answer.text[:1000])
        usage = {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": output,
            "total_tokens": self.input_tokens + output,
        }
        yield self._data({"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"


class _Responses(_Api):
    name: Api = "responses"

    def _items(self) -> list[Body]:
        given = self.body["input"]
        return [{"role": "user", "content": given}] if isinstance(given, str) else given

    def seen(self) -> list[Seen]:
        messages = [Seen("system", self.body["instructions"])] if self.body.get("instructions") else []
        for item in self._items():
            match item.get("type", "message"):
                case "function_call":
                    messages.append(Seen("assistant", "", [item["name"]]))
                case "function_call_output":
                    messages.append(Seen("tool", _plain(item["output"])))
                case "message":
                    role = "system" if item["role"] == "developer" else item["role"]
                    messages.append(Seen(role, _plain(item["content"])))
        return messages

    def call_ids(self) -> Iterator[tuple[Literal["call", "result", "other"], str]]:
        for item in self._items():
            match item.get("type", "message"):
                case "function_call":
                    json.loads(item["arguments"])
                    yield "call", item["call_id"]
                case "function_call_output":
                    yield "result", item["call_id"]
                case "message":
                    yield "other", ""

    def _response(self, status: str, output: list[Body], usage: Body | None = None) -> Body:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_700_000_000,
            "model": self.model,
            "status": status,
            "output": output,
            "error": None,
            "incomplete_details": None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
        }

    def events(self, answer: Answer, piece_chars: int) -> Iterator[bytes]:
        number = 0

        def event(kind: str, **values: Any) -> bytes:
            nonlocal number
            number += 1
            data = json.dumps({"type": kind, "sequence_number": number, **values})
            return f"event: {kind}\ndata: {data}\n\n".encode()

        output: list[Body] = []
        yield event("response.created", response=self._response("in_progress", []))
        yield event("response.in_progress", response=self._response("in_progress", []))
        if answer.text:
            item: Body = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "in_progress",
                "content": [],
            }
            at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
            part = {"type": "output_text", "text": "", "annotations": []}
            yield event("response.output_item.added", output_index=0, item=item)
            yield event("response.content_part.added", **at, part=part)
            for piece in _pieces(answer.text, piece_chars):
                yield event("response.output_text.delta", **at, delta=piece, logprobs=[])
            yield event("response.output_text.done", **at, text=answer.text, logprobs=[])
            part = {**part, "text": answer.text}
            yield event("response.content_part.done", **at, part=part)
            item = {**item, "status": "completed", "content": [part]}
            yield event("response.output_item.done", output_index=0, item=item)
            output.append(item)
        for call in answer.calls:
            index, item_id = len(output), f"fc_{call.call_id}"
            item = {
                "id": item_id,
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": "",
            }
            yield event(
                "response.output_item.added", output_index=index, item={**item, "status": "in_progress"}
            )
            for piece in _pieces(call.arguments, piece_chars):
                yield event(
                    "response.function_call_arguments.delta", item_id=item_id, output_index=index, delta=piece
                )
            yield event(
                "response.function_call_arguments.done",
                item_id=item_id,
                output_index=index,
                arguments=call.arguments,
                name=call.name,
            )
            item = {**item, "arguments": call.arguments, "status": "completed"}
            yield event("response.output_item.done", output_index=index, item=item)
            output.append(item)
        tokens = _tokens(answer.text[:1000])
        usage = {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + tokens,
        }
        yield event("response.completed", response=self._response("completed", output, usage))


class _Messages(_Api):
    name: Api = "messages"

    def seen(self) -> list[Seen]:
        system = _plain(self.body.get("system"))
        messages = [Seen("system", system)] if system else []
        for message in self.body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            text = "".join(block["text"] for block in blocks if block["type"] == "text")
            calls = [block["name"] for block in blocks if block["type"] == "tool_use"]
            messages += [
                Seen("tool", _plain(block.get("content")))
                for block in blocks
                if block["type"] == "tool_result"
            ]
            if text or calls:
                messages.append(Seen(message["role"], text, calls))
        return messages

    def call_ids(self) -> Iterator[tuple[Literal["call", "result", "other"], str]]:
        for message in self.body["messages"]:
            blocks = message["content"] if isinstance(message["content"], list) else []
            results = [block for block in blocks if block["type"] == "tool_result"]
            for block in results:
                yield "result", block["tool_use_id"]
            if not results:
                yield "other", ""
            for block in blocks:
                if block["type"] == "tool_use":
                    assert isinstance(block["input"], dict)
                    yield "call", block["id"]

    def mistake(self) -> str | None:
        if not self.body.get("max_tokens"):
            return "max_tokens: Field required"
        if not self.body["messages"] or self.body["messages"][0]["role"] != "user":
            return "messages: the first message must use the user role"
        return super().mistake()

    def error(self, status: int, message: str, code: str) -> web.Response:
        kind = {
            400: "invalid_request_error",
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            429: "billing_error" if code == "insufficient_quota" else "rate_limit_error",
            503: "overloaded_error",
        }.get(status, "api_error")
        status = 529 if status == 503 else status
        return web.json_response(
            {"type": "error", "error": {"type": kind, "message": message}}, status=status
        )

    def context_error(self) -> web.Response:
        return self.error(400, "prompt is too long: 210000 tokens > 200000 maximum", "")

    def error_event(self) -> bytes:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return f"event: error\ndata: {json.dumps(error)}\n\n".encode()

    def events(self, answer: Answer, piece_chars: int) -> Iterator[bytes]:
        def event(kind: str, **values: Any) -> bytes:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **values})}\n\n".encode()

        yield event(
            "message_start",
            message={
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": self.model,
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": self.input_tokens, "output_tokens": 1},
            },
        )
        yield event("ping")
        index = 0
        if answer.text:
            yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            for piece in _pieces(answer.text, piece_chars):
                yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
            yield event("content_block_stop", index=index)
            index += 1
        for call in answer.calls:
            block = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
            yield event("content_block_start", index=index, content_block=block)
            for piece in _pieces(call.arguments, piece_chars):
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield event("content_block_delta", index=index, delta=delta)
            yield event("content_block_stop", index=index)
            index += 1
        stop = {"stop_reason": "tool_use" if answer.calls else "end_turn", "stop_sequence": None}
        yield event("message_delta", delta=stop, usage={"output_tokens": _tokens(answer.text[:1000])})
        yield event("message_stop")


async def _serve_forever(port: int, key: str | None) -> None:
    async with FakeLlm(key=key).running(port) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake language model on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", help="the only API key that is accepted")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve_forever(arguments.port, arguments.key))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
