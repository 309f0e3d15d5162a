"""The fake from another process: every public verb of ``FakeDiscord`` over HTTP, and the client for it.

``GET /_control`` lists the verbs; ``POST /_control/<verb>`` with a JSON object of its arguments answers
``{"result": ...}``, or ``{"error": ...}`` with 400 (wrong arguments), 404 (nothing of that id) or 408 (a wait ran out).
Objects go by their ids; an upload is ``{"filename": ..., "text": ...}`` or ``{"filename": ..., "base64": ...}``.
"""

import asyncio
import base64
import inspect
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web

from tests.fakes.discord.errors import ApiError
from tests.fakes.discord.model import Upload

if TYPE_CHECKING:
    from tests.fakes.discord.server import FakeDiscord

VERBS = (
    # the community
    *(
        "describe",
        "configure",
        "advance",
        "add_user",
        "add_guild",
        "remove_guild",
        "add_member",
        "add_channel",
    ),
    *("set_permissions", "remove_channel", "add_thread", "archive_thread", "dm", "refuse_dms"),
    # what people do
    *("say", "edit", "delete", "react", "type", "slash", "press"),
    # reading and waiting
    *(
        "message",
        "messages",
        "bot_messages",
        "bot_texts",
        "duplicates",
        "calls",
        "clear_journal",
        "gateway_log",
    ),
    *("connected_sessions", "interaction", "interactions", "commands", "commands_hash", "command_syncs"),
    *("penalty_violations", "wait_connected", "wait_for_call", "wait_for_message"),
    # faults
    *(
        "fail",
        "clear_faults",
        "limit",
        "clear_limits",
        "begin_outage",
        "end_outage",
        "revoke_token",
        "restore_token",
    ),
    *(
        "drop",
        "close_gateway",
        "request_reconnect",
        "invalidate_sessions",
        "hold_identify",
        "release_identify",
    ),
    *("set_deaf", "set_acks"),
)
REPOSITORY = Path(__file__).resolve().parents[3]


class ControlError(Exception):
    """The fake refused a verb; the text says why."""


def control_routes(fake: "FakeDiscord") -> list[web.RouteDef]:
    async def list_verbs(_: web.Request) -> web.Response:
        return web.json_response({verb: str(inspect.signature(getattr(fake, verb))) for verb in VERBS})

    async def run_verb(request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        if verb not in VERBS:
            return web.json_response({"error": f"no verb {verb!r}; GET /_control lists them"}, status=404)
        try:
            result = await run(getattr(fake, verb), json.loads(await request.read() or b"{}"))
        except TimeoutError as error:
            return web.json_response({"error": str(error)}, status=408)
        except LookupError as error:
            return web.json_response({"error": str(error)}, status=404)
        except (ValueError, TypeError, ApiError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"result": result})

    return [web.get("/_control", list_verbs), web.post("/_control/{verb}", run_verb)]


async def run(verb: Callable[..., Any], arguments: Any) -> Any:
    if not isinstance(arguments, dict):
        raise TypeError("the arguments must be a JSON object")
    if "attachments" in arguments:
        arguments["attachments"] = [read_upload(one) for one in arguments["attachments"]]
    result = verb(**arguments)
    return plain(await result if inspect.isawaitable(result) else result)


def read_upload(given: dict[str, str]) -> Upload:
    content = base64.b64decode(given["base64"]) if "base64" in given else given["text"].encode()
    return Upload(given["filename"], content, given.get("content_type", "application/octet-stream"))


def plain(value: Any) -> Any:
    """A result as JSON can carry it."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


class RemoteDiscord:
    """Drives a fake in another process; ``call`` takes any verb of ``FakeDiscord`` with ids instead of objects."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, verb: str, **arguments: Any) -> Any:
        """Run a verb there.

        Raises:
            ControlError: the fake refused it.
            TimeoutError: a wait ran out there.
        """
        if self._session is None:
            raise RuntimeError("use RemoteDiscord as an async context manager")
        async with self._session.post(f"{self.url}/_control/{verb}", json=arguments) as answer:
            content = await answer.json()
        if answer.status == 408:
            raise TimeoutError(content["error"])
        if answer.status != 200:
            raise ControlError(f"{verb}: {content['error']}")
        return content["result"]


@asynccontextmanager
async def spawn_discord(*, token: str = "fake-discord-token", seed: int = 0) -> AsyncIterator[RemoteDiscord]:
    """The fake as a process of its own, ended when the block is left."""
    arguments = ["-m", "tests.fakes.discord", "--port", "0", "--token", token, "--seed", str(seed)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the fake was started without a pipe to read its address from")
        line = await asyncio.wait_for(process.stdout.readline(), timeout=30.0)
        if not line:
            raise RuntimeError(f"the fake ended at once, exit code {await process.wait()}")
        async with RemoteDiscord(json.loads(line)["url"]) as remote:
            yield remote
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
