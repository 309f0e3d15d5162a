"""The control API: every public act of `FakeTelegram` over HTTP, and the client that speaks it.

It translates names, arguments and results; it adds no act of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import json
import sys
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from pydantic import TypeAdapter, ValidationError, validate_call
from pydantic_core import to_jsonable_python

from .records import Chat, JsonObject, Message, User

if TYPE_CHECKING:
    from .server import FakeTelegram

ACTS = (
    "user", "private_chat", "group", "supergroup", "topic", "close_topic", "promote", "file",
    "say", "edit", "delete", "photo", "document", "voice", "sticker", "location", "press", "react",
    "join", "part", "add_bot", "remove_bot", "blocked_by", "migrate", "inject",
    "fault", "clear_faults", "fault_hits", "outage", "revoke_token", "flood_limits", "flood_report",
    "message", "messages", "replies", "transcript", "calls", "clear_journal", "pending_updates", "drafts",
    "chat_actions", "callback_answers", "commands", "webhook_deliveries",
    "wait_for_reply", "wait_for_messages", "wait_for_calls", "wait_until_confirmed", "wait_until_quiet",
)  # fmt: skip
PROJECT = Path(__file__).resolve().parents[3]


def control_routes(telegram: FakeTelegram, *, may_close_api: bool) -> list[web.RouteDef]:
    """`may_close_api` is False where the routes share the API's port: closing it would cut the answer."""

    async def index(_: web.Request) -> web.Response:
        acts = {name: str(inspect.signature(getattr(telegram, name))) for name in ACTS}
        return web.json_response({"url": telegram.url, "control_url": telegram.control_url, "acts": acts})

    async def act(request: web.Request) -> web.Response:
        name = request.match_info["act"]
        if name not in ACTS:
            return web.json_response({"ok": False, "error": f"no act {name!r}"}, status=404)
        if name == "outage" and not may_close_api:
            return web.json_response({"ok": False, "error": "outage: use the control port"}, status=409)
        try:
            body = await request.json() if request.can_read_body else {}
            method = getattr(telegram, name)
            result = validate_call(method)(**_with_bytes(body))
            if inspect.isawaitable(result):
                result = await result
        except TimeoutError as error:
            return web.json_response({"ok": False, "error": str(error)}, status=408)
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            return web.json_response({"ok": False, "error": f"{name}: {error}"}, status=400)
        dumped = _result_type(method).dump_python(result, mode="json")
        return web.json_response({"ok": True, "result": dumped})

    return [web.get("/_control/", index), web.post("/_control/{act}", act)]


def _result_type(method: Any) -> TypeAdapter[Any]:
    return TypeAdapter(typing.get_type_hints(method)["return"])


def _with_bytes(body: JsonObject) -> JsonObject:
    """Bytes travel as {"base64": "..."}."""
    return {
        key: base64.b64decode(value["base64"])
        if isinstance(value, dict) and set(value) == {"base64"}
        else value
        for key, value in body.items()
    }


class RemoteTelegram:
    """A `FakeTelegram` in another process: `await call("<act>", name=value, ...)` gives the same records.

    They are copies here: read a message anew to see its edits. Acts that raise there raise ValueError here, waits
    TimeoutError.
    """

    def __init__(self, control_url: str, url: str = "", pid: int | None = None) -> None:
        self.control_url = control_url
        self.url = url
        self.pid = pid
        self._session: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        return f"{self.url}/bot"

    @property
    def base_file_url(self) -> str:
        return f"{self.url}/file/bot"

    async def __aenter__(self) -> typing.Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        if not self.url:
            async with self._session.get(f"{self.control_url}/_control/") as response:
                self.url = (await response.json())["url"]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, act: str, /, **arguments: Any) -> Any:
        from .server import FakeTelegram  # the server imports this module

        if self._session is None:
            raise RuntimeError("use `async with RemoteTelegram(...)`")
        body = {
            key: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
            for key, value in arguments.items()
        }
        payload = to_jsonable_python(body)
        async with self._session.post(f"{self.control_url}/_control/{act}", json=payload) as response:
            answer = await response.json()
        if response.status == 408:
            raise TimeoutError(answer["error"])
        if not answer["ok"]:
            raise ValueError(answer["error"])
        return _result_type(getattr(FakeTelegram, act)).validate_json(json.dumps(answer["result"]))

    # the most used acts, typed

    async def user(self, first_name: str, **options: Any) -> User:
        user: User = await self.call("user", first_name=first_name, **options)
        return user

    async def private_chat(self, user: User | int) -> Chat:
        chat: Chat = await self.call("private_chat", user=user)
        return chat

    async def say(self, user: User | int, chat: Chat | int, text: str, **options: Any) -> Message:
        message: Message = await self.call("say", user=user, chat=chat, text=text, **options)
        return message

    async def messages(self, chat: Chat | int, **options: Any) -> list[Message]:
        messages: list[Message] = await self.call("messages", chat=chat, **options)
        return messages

    async def replies(self, chat: Chat | int, **options: Any) -> list[Message]:
        messages: list[Message] = await self.call("replies", chat=chat, **options)
        return messages

    async def wait_for_reply(self, chat: Chat | int, **options: Any) -> Message:
        message: Message = await self.call("wait_for_reply", chat=chat, **options)
        return message


@contextlib.asynccontextmanager
async def spawn(
    token: str = "123456:TEST-fake-telegram-token", *, port: int = 0, state: Path | None = None
) -> AsyncIterator[RemoteTelegram]:
    """Runs the fake as its own process and ends that process on leaving."""
    command = [sys.executable, "-m", "tests.fakes.telegram", "--port", str(port), "--token", token]
    if state is not None:
        command += ["--state", str(state)]
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None, "asked for a pipe"
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        if not line:
            raise RuntimeError(f"the fake Telegram did not start, exit code {await process.wait()}")
        address = json.loads(line)
        async with RemoteTelegram(address["control_url"], address["url"], process.pid) as telegram:
            yield telegram
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await process.wait()
