"""The three APIs' shapes: reading requests, writing streams and errors. `server` decides what is said."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Api = Literal["chat", "responses", "messages"]
Body = dict[str, Any]


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


class Wire(ABC):
    """One vendor's shapes."""

    name: Api

    def __init__(self, body: Body) -> None:
        self.body = body
        self.model = str(body.get("model"))
        self.input_tokens = _tokens(body)

    @abstractmethod
    def seen(self) -> list[Seen]: ...

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

    @abstractmethod
    def call_ids(self) -> Iterator[tuple[Literal["call", "result", "other"], str]]: ...

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

    @abstractmethod
    def events(self, answer: Answer, piece_chars: int) -> Iterator[bytes]: ...


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or [] if isinstance(part, dict))


class ChatWire(Wire):
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


class ResponsesWire(Wire):
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


class MessagesWire(Wire):
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
