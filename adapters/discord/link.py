"""discord.py, made to serve one account: its own addresses, its own connection loop, events raw and in order.

Owns every place where the library is bent, so that the rest of the adapter uses it plainly. Pinned to discord.py 2.7:

- Addresses. The library knows only class-wide ones (`Route.BASE`, `DiscordWebSocket.DEFAULT_GATEWAY`). `rest.AccountHttp`
  turns each route to its account's root, and the gateway's address is asked for there, so accounts on different
  servers live in one process.
- Order. The library runs `on_message` as a task each. Messages, edits and interactions are taken here as raw JSON, in
  the very call in which their frame is read.
- Poison. A frame that the library cannot parse would end `Client.connect`; here it is handed over as spoiled and the
  connection goes on.
- Reconnecting. `connect` is our own loop: RESUME also after ECONNRESET on Linux, back-off with a cap, no crash when the
  first connection fails.

It deliberately does not own what events mean.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket, ReconnectWebSocket
from discord.http import Route

from adapters.discord.failures import in_words, is_silence
from adapters.discord.rest import AccountHttp
from adapters.discord.waits import Waits

RAW_EVENTS = ("MESSAGE_CREATE", "MESSAGE_UPDATE", "INTERACTION_CREATE")
"""Events taken as raw JSON; the library never parses them."""

DEAD_CLOSE_CODES = frozenset({4004, 4010, 4011, 4012, 4013, 4014})
"""Closed for good: another try with the same configuration ends the same way. Source: Discord reference, Close Codes."""

STEADY_AFTER_S = 10.0
"""A connection that lasted so long proves the way; the next loss starts the back-off anew."""

TRIES_TO_RESUME = 3
"""Connections in a row that came to nothing, after which the session (and its own gateway address) is given up and opened anew."""

SCARCE = 0.25
"""Share of the day's session starts that is spread over what is left of the day."""

# The library warns about voice packages at every start; this bot has no voice.
discord.VoiceClient.warn_nacl = False
discord.VoiceClient.warn_dave = False
# At debug level it logs message texts; at info level every connection, which the adapter logs itself.
logging.getLogger("discord").setLevel(logging.WARNING)


class Ears(Protocol):
    """Who is told what the connection hears. Every call is synchronous, in the order of the wire."""

    def heard(self) -> None:
        """Any frame came in."""

    def session_opened(self) -> None:
        """A new session begins: what was said since the last one is not told here. Its first events follow."""

    def session_ready(self) -> None:
        """The guilds of a new session are known."""

    def session_resumed(self) -> None:
        """An old session went on; what it missed was told."""

    def session_lost(self, reason: str, *, is_cut_off: bool = False) -> None: ...

    def event(self, name: str, data: Any) -> None:
        """One of `RAW_EVENTS`."""

    def spoiled(self, raw: str, reason: str) -> None:
        """A frame that cannot be parsed."""

    def guild_came(self, guild: discord.Guild) -> None:
        """A guild was joined, or is back after an outage of its servers, during a session."""

    def channel_made(self, channel_id: int) -> None: ...


class Link(discord.Client):
    """One logged-in account. Used once: after `close` a new one is made."""

    def __init__(
        self, ears: Ears, waits: Waits, *, api_url: str | None, gateway_url: str | None, message_content: bool
    ) -> None:
        self.api_url = api_url or Route.BASE
        self.waits = waits
        self.ears = ears
        self._gateway_url = gateway_url
        self._opened: DiscordWebSocket | None = None
        self._is_told_ready = False
        self._has_come_up = False
        """The present connection opened or resumed a session."""
        intents = discord.Intents.none()
        intents.guilds = intents.guild_messages = intents.dm_messages = True
        intents.message_content = message_content
        super().__init__(
            intents=intents,
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            allowed_mentions=discord.AllowedMentions.none(),
            heartbeat_timeout=waits.heartbeat_timeout_s,
            guild_ready_timeout=waits.guild_stream_s,
        )
        parsers = self._connection.parsers
        for name in RAW_EVENTS:
            parsers[name] = self._raw_parser(name)
        self._parse_ready = parsers["READY"]
        parsers["READY"] = self._open_session

    def _get_state(self, **options: Any) -> Any:
        # The one moment at which the library's client can be replaced before its state has taken hold of it.
        self.http = AccountHttp(api_url=self.api_url, request_timeout_s=self.waits.request_timeout_s)
        return super()._get_state(**options)

    def _raw_parser(self, name: str) -> Callable[[Any], None]:
        return lambda data: self.ears.event(name, data)

    def _open_session(self, data: Any) -> None:
        self._is_told_ready = False
        self._has_come_up = True
        self.ears.session_opened()
        self._parse_ready(data)

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """The library's word of what happened, taken at once instead of in a task of its own."""
        if event == "ready":
            self._is_told_ready = True
            self.ears.session_ready()
        elif event == "resumed":
            self._has_come_up = True
            self.ears.session_resumed()
        elif event in ("guild_join", "guild_available") and self._is_told_ready:
            self.ears.guild_came(args[0])
        elif event in ("guild_channel_create", "thread_create"):
            self.ears.channel_made(args[0].id)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        if not initial:
            await asyncio.sleep(self.waits.before_identify_s * random.uniform(0.5, 1.5))

    async def connect(self, *, reconnect: bool = True) -> None:
        """Hear events until closed or cancelled; losses are mended here.

        Raises:
            discord.PrivilegedIntentsRequired: the message content intent was not granted.
            discord.ConnectionClosed: Discord refuses this account for good (`code` says why).
        """
        failures = vain = 0
        is_initial = True
        while not self.is_closed():
            opened_at = time.monotonic()
            may_resume, self._has_come_up, is_cut_off = True, False, False
            previous = self._opened if vain < TRIES_TO_RESUME else None
            if previous is not None and previous.session_id is None:
                previous = None
            try:
                gateway = await self._find_gateway() if previous is None else None
                async with asyncio.timeout(60):
                    self.ws = await self._open_socket(previous, gateway, is_initial=is_initial)
                is_initial = False
                while True:
                    await self.ws.poll_event()
            except ReconnectWebSocket as wish:
                may_resume = wish.resume
                reason = "session invalidated" if not wish.resume else "connection lost"
            except discord.ConnectionClosed as closed:
                if closed.code == 4014:
                    raise discord.PrivilegedIntentsRequired(closed.shard_id) from closed
                if closed.code in DEAD_CLOSE_CODES:
                    raise
                may_resume = False
                reason = f"closed with {closed.code}"
            except (OSError, aiohttp.ClientError, discord.DiscordException) as error:
                if isinstance(error, discord.HTTPException) and error.status == 401:
                    raise discord.LoginFailure("the token was refused") from error
                reason, is_cut_off = in_words(error), is_silence(error)
            except asyncio.CancelledError:
                await self._let_go(code=1000)
                raise
            finally:
                await self._let_go()
            if not may_resume:
                self._opened = None
            failures = 0 if time.monotonic() - opened_at >= STEADY_AFTER_S else failures + 1
            vain = 0 if self._has_come_up else vain + 1
            self.ears.session_lost(reason, is_cut_off=is_cut_off)
            await asyncio.sleep(self.waits.backed_off_s(failures) if failures > 1 else random.uniform(0, 0.1))

    async def _open_socket(
        self, previous: DiscordWebSocket | None, gateway: yarl.URL | None, *, is_initial: bool
    ) -> DiscordWebSocket:
        """Connect and RESUME what `previous` heard, or IDENTIFY."""
        if previous is None:
            return await _socket_class(self).from_client(self, initial=is_initial, gateway=gateway)
        resumes_at = yarl.URL(self._gateway_url) if self._gateway_url else previous.gateway
        return await _socket_class(self).from_client(
            self, resume=True, gateway=resumes_at, session=previous.session_id, sequence=previous.sequence
        )

    async def _find_gateway(self) -> yarl.URL:
        """Where a session is opened, once there are starts to spare: who opens too many in a day loses the token.

        Source: Discord reference, Gateway, Session Start Limit.
        """
        if self._gateway_url:
            return yarl.URL(self._gateway_url)
        while True:
            told = await self.http.request(Route("GET", "/gateway/bot"))
            wait_s = _wait_for_start_s(told)
            if wait_s <= 0:
                return yarl.URL(told["url"])
            self.ears.session_lost(
                f"few session starts are left at Discord for today; the next begins in {_long_time(wait_s)}"
            )
            await asyncio.sleep(wait_s)
            if _starts_left(told):
                return yarl.URL(told["url"])

    def opened(self, socket: DiscordWebSocket) -> None:
        self._opened = socket

    async def _let_go(self, code: int = 4000) -> None:
        """Close the socket and stop its heartbeat thread; 1000 ends the session, anything else leaves it resumable."""
        socket = self._opened
        if socket is None:
            return
        try:
            async with asyncio.timeout(2):
                await socket.close(code)
        except (OSError, aiohttp.ClientError, RuntimeError):
            pass  # it was broken; what matters is that its thread was told to stop first

    async def close(self) -> None:
        ready = self._connection._ready_task  # noqa: SLF001 - the library leaves it running
        if ready is not None:
            ready.cancel()
        await self._let_go(code=1000)
        await super().close()


def _long_time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"


def _starts_left(told: Any) -> int:
    return int(told["session_start_limit"]["remaining"])


def _wait_for_start_s(told: Any) -> float:
    """How long to wait, so that the last starts last until there are new ones; 0 while there are plenty."""
    try:
        limit, remaining = told["session_start_limit"], _starts_left(told)
        if remaining > SCARCE * int(limit["total"]):
            return 0
        return max(0.0, float(limit["reset_after"]) / 1000) / max(1, remaining)
    except (KeyError, TypeError, ValueError):
        return 0  # a server that tells no limits


def _socket_class(link: Link) -> type[DiscordWebSocket]:
    """A gateway socket that tells its link of itself before the first frame, and survives frames it cannot parse."""

    class Socket(DiscordWebSocket):
        def __init__(
            self, socket: aiohttp.ClientWebSocketResponse, *, loop: asyncio.AbstractEventLoop
        ) -> None:
            super().__init__(socket, loop=loop)
            self._raw = ""
            link.opened(self)

        def log_receive(self, data: Any, /) -> None:
            self._raw = data if isinstance(data, str) else bytes(data).decode(errors="replace")

        async def received_message(self, msg: Any, /) -> None:
            self._raw = ""
            try:
                await super().received_message(msg)
            except (ReconnectWebSocket, discord.DiscordException, OSError, aiohttp.ClientError):
                raise
            except Exception as error:
                if not self._raw or _is_vital(self._raw):
                    # broken compression, or an unusable HELLO, READY or RESUMED: only a new connection helps
                    raise ConnectionError(f"unusable frame: {error!r}") from error
                link.ears.spoiled(self._raw, repr(error))
            link.ears.heard()

    return Socket


def _is_vital(raw: str) -> bool:
    """Whether a session cannot go on without this frame."""
    try:
        frame = json.loads(raw)
    except ValueError:
        return False
    if not isinstance(frame, dict):
        return False
    return frame.get("op") != DiscordWebSocket.DISPATCH or frame.get("t") in ("READY", "RESUMED")
