"""The gateway: WebSocket connections, sessions with their sequence, RESUME with replay, and ways to break all of it.

Owns who is connected and what each session has been sent. Supports JSON, uncompressed, zlib-stream, and zstd-stream where
this Python has zstd (discord.py asks for it then). Close codes: Discord reference, "Gateway Close Event Codes".
"""

import asyncio
import importlib
import json
import secrets
import socket
import struct
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiohttp import WSMsgType, web

from tests.fakes.discord.model import GatewayEntry, JsonObject
from tests.fakes.discord.payloads import (
    application_flags,
    guild_create_payload,
    member_payload,
    own_user_payload,
    without_content,
)
from tests.fakes.discord.world import GUILD_MEMBERS, GUILDS, Event, World

DISPATCH: Final = 0
HEARTBEAT: Final = 1
IDENTIFY: Final = 2
PRESENCE: Final = 3
VOICE_STATE: Final = 4
RESUME: Final = 6
RECONNECT: Final = 7
REQUEST_MEMBERS: Final = 8
INVALID_SESSION: Final = 9
HELLO: Final = 10
HEARTBEAT_ACK: Final = 11

PRESENCES: Final = 1 << 8
MESSAGE_CONTENT: Final = 1 << 15
ALL_INTENTS: Final = (1 << 26) - 1
MAX_PAYLOAD_BYTES: Final = 4096
RESUMABLE_CLOSES: Final = frozenset({4000, 4001, 4002, 4003, 4005, 4008})
MAX_FORGOTTEN_SESSIONS: Final = 8
"""How many sessions without a connection are kept for a RESUME; a daemon killed in a loop leaves one each time."""

Packer = Callable[[str], bytes]


class Closing(Exception):
    """This connection is to be closed with a code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@dataclass
class Session:
    """What survives a connection: who it is, what it wants, and what it was sent."""

    id: str
    shard: int
    shard_count: int
    intents: int
    sequence: int = 0
    sent: deque[tuple[int, JsonObject]] = field(default_factory=deque)
    connection: "Connection | None" = None
    lost_at_s: float = 0.0

    def wants(self, event: Event) -> bool:
        if event.intent and not self.intents & event.intent:
            return False
        return shard_of(event.guild_id, self.shard_count) == self.shard


class Connection:
    """One WebSocket; sends in the order of ``push`` through its own task."""

    def __init__(
        self, peer: web.WebSocketResponse, transport: asyncio.Transport | None, pack: Packer | None
    ) -> None:
        self.peer = peer
        self.session: Session | None = None
        self.is_closing = False
        self.sent_at_s: deque[float] = deque()
        self._transport = transport
        self._pack = pack
        self._queue: asyncio.Queue[JsonObject | Closing] = asyncio.Queue()

    def push(self, payload: JsonObject) -> None:
        self._queue.put_nowait(payload)

    def close(self, code: int, reason: str) -> None:
        self.is_closing = True
        self._queue.put_nowait(Closing(code, reason))

    def abort(self, *, reset: bool) -> None:
        """Cut the TCP connection; with ``reset`` the peer gets RST instead of a plain end."""
        abort(self._transport, reset=reset)

    async def write(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                if isinstance(item, Closing):
                    await self.peer.close(code=item.code, message=item.reason.encode())
                    return
                text = json.dumps(item)
                if self._pack is None:
                    await self.peer.send_str(text)
                else:
                    await self.peer.send_bytes(self._pack(text))
            except (ConnectionError, RuntimeError):
                return


class Gateway:
    """All gateway connections and sessions of the one bot."""

    def __init__(self, world: World, token: str) -> None:
        self.world = world
        self.url = ""
        self.log: list[GatewayEntry] = []
        self.outage: Literal["status", "reset"] | None = None
        self.is_revoked = False
        self.acks = True
        self.session_starts = 0
        self._token = token
        self._sessions: dict[str, Session] = {}
        self._connections: set[Connection] = set()
        self._deaf = False
        self._keep_while_deaf = False
        self._open = asyncio.Event()
        self._open.set()
        world.listeners.append(self.dispatch)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/gateway", self.connect), web.get("/gateway/", self.connect)]

    async def stop(self) -> None:
        self._open.set()
        for connection in list(self._connections):
            connection.abort(reset=False)

    # -- sending events -------------------------------------------------------------------------------------

    def dispatch(self, event: Event) -> int:
        """Give an event to the sessions that want it; returns how many of them had a connection to get it on."""
        self._forget_old_sessions()
        reached = 0
        for session in self._sessions.values():
            if not session.wants(event):
                continue
            if self._deaf and not self._keep_while_deaf:
                continue
            payload = self._number(session, event.name, self._shown(event, session))
            if session.connection is not None and not self._deaf:
                session.connection.push(payload)
                reached += 1
        return reached

    def _shown(self, event: Event, session: Session) -> JsonObject:
        """The event as far as this session's intents let it be seen."""
        is_message = event.name in ("MESSAGE_CREATE", "MESSAGE_UPDATE")
        if is_message and event.guild_id is not None and not session.intents & MESSAGE_CONTENT:
            return without_content(event.data, self.world.bot.id)
        if event.name == "GUILD_CREATE" and event.guild_id is not None:
            return self._guild_create(event.guild_id, session)
        return event.data

    def _guild_create(self, guild_id: str, session: Session) -> JsonObject:
        all_members = bool(session.intents & PRESENCES)
        return guild_create_payload(self.world, self.world.guilds[guild_id], all_members=all_members)

    def _number(self, session: Session, name: str, data: JsonObject) -> JsonObject:
        session.sequence += 1
        payload: JsonObject = {"op": DISPATCH, "t": name, "s": session.sequence, "d": data}
        session.sent.append((session.sequence, payload))
        while len(session.sent) > self.world.settings.session_event_buffer:
            session.sent.popleft()
        return payload

    def connected_sessions(self) -> int:
        return sum(session.connection is not None for session in self._sessions.values())

    def _forget_old_sessions(self) -> None:
        now_s = self.world.clock.now_s()
        lost = [session for session in self._sessions.values() if session.connection is None]
        lost.sort(key=lambda session: session.lost_at_s)
        for position, session in enumerate(reversed(lost)):
            too_old = now_s - session.lost_at_s > self.world.settings.session_resume_s
            if too_old or position >= MAX_FORGOTTEN_SESSIONS:
                del self._sessions[session.id]

    # -- breaking things ------------------------------------------------------------------------------------

    def drop(self, *, reset: bool = False, forget: bool = False) -> int:
        live = list(self._connections)
        for connection in live:
            self._note("drop", connection)
            self._detach(connection)
            connection.abort(reset=reset)
        if forget:
            self._sessions.clear()
        return len(live)

    def close(self, code: int, reason: str) -> int:
        live = list(self._connections)
        for connection in live:
            self._close(connection, code, reason)
        return len(live)

    def _close(self, connection: Connection, code: int, reason: str) -> None:
        self._note("close", connection, code=code, detail=reason)
        if code not in RESUMABLE_CLOSES:
            self._end_session(connection)
        connection.close(code, reason)

    def _end_session(self, connection: Connection) -> None:
        if connection.session is not None:
            self._sessions.pop(connection.session.id, None)

    def request_reconnect(self) -> int:
        return self._broadcast("reconnect", {"op": RECONNECT, "d": None, "s": None, "t": None})

    def invalidate(self, *, resumable: bool) -> int:
        count = self._broadcast("invalid", {"op": INVALID_SESSION, "d": resumable, "s": None, "t": None})
        if not resumable:
            for connection in self._connections:
                connection.session = None
            self._sessions.clear()
        return count

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def set_deaf(self, deaf: bool, *, keep: bool) -> None:
        self._deaf, self._keep_while_deaf = deaf, keep

    def _broadcast(self, what: str, payload: JsonObject) -> int:
        live = [connection for connection in self._connections if connection.session is not None]
        for connection in live:
            self._note(what, connection)
            connection.push(payload)
        return len(live)

    # -- one connection -------------------------------------------------------------------------------------

    async def connect(self, request: web.Request) -> web.StreamResponse:
        if self.outage == "reset":
            abort(request.transport, reset=True)
            return web.Response()
        if self.outage == "status":
            return web.Response(status=503, text="upstream connect error", headers={"Via": "1.1 google"})
        peer = web.WebSocketResponse(timeout=0.5, compress=False, max_msg_size=1024 * 1024)
        await peer.prepare(request)
        connection = Connection(peer, request.transport, packer(request.query.get("compress")))
        self._connections.add(connection)
        writer = asyncio.create_task(connection.write())
        self._note("connect", connection, detail=request.query.get("compress", "none"))
        try:
            check_address(request.query)
            await self._serve(connection)
        except Closing as closing:
            self._close(connection, closing.code, closing.reason)
            await asyncio.wait([writer], timeout=1.0)
        finally:
            self._detach(connection)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return peer

    async def _serve(self, connection: Connection) -> None:
        settings = self.world.settings
        interval_ms = int(settings.heartbeat_interval_s * 1000)
        connection.push(
            {"op": HELLO, "d": {"heartbeat_interval": interval_ms, "_trace": []}, "s": None, "t": None}
        )
        silence_s = settings.heartbeat_interval_s * settings.heartbeat_grace
        while True:
            try:
                message = await connection.peer.receive(timeout=silence_s)
            except TimeoutError:
                raise Closing(4009, "Session timed out.") from None
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._take(connection, message.data)
                continue
            code = message.data if message.type == WSMsgType.CLOSE else None
            self._note("closed", connection, code=code)
            if code in (1000, 1001) and not connection.is_closing:
                self._end_session(connection)  # the client says it will not come back
            return

    async def _take(self, connection: Connection, raw: str | bytes) -> None:
        if len(raw) > MAX_PAYLOAD_BYTES:
            raise Closing(4002, "Error while decoding payload.")
        try:
            payload = json.loads(raw)
            op, data = payload["op"], payload.get("d")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Closing(4002, "Error while decoding payload.") from None
        self._count_send(connection)
        if op == HEARTBEAT:
            self._note("heartbeat", connection)
            if self.acks:
                connection.push({"op": HEARTBEAT_ACK, "d": None, "s": None, "t": None})
            return
        if op in (IDENTIFY, RESUME):
            if connection.session is not None:
                raise Closing(4005, "Already authenticated.")
            self._note("identify" if op == IDENTIFY else "resume", connection)
            await self._open.wait()
            if connection.peer.closed or connection not in self._connections:
                return
            if not isinstance(data, dict):
                raise Closing(4002, "Error while decoding payload.")
            if data.get("token") != self._token or self.is_revoked:
                raise Closing(4004, "Authentication failed.")
            if op == IDENTIFY:
                self._identify(connection, data)
            else:
                self._resume(connection, data)
            return
        if connection.session is None:
            raise Closing(4003, "Not authenticated.")
        if op == REQUEST_MEMBERS and isinstance(data, dict):
            self._send_members(connection.session, data)
        elif op not in (PRESENCE, VOICE_STATE):
            raise Closing(4001, "Unknown opcode.")

    def _count_send(self, connection: Connection) -> None:
        now_s = self.world.clock.now_s()
        connection.sent_at_s.append(now_s)
        while connection.sent_at_s[0] < now_s - 60:
            connection.sent_at_s.popleft()
        if len(connection.sent_at_s) > self.world.settings.gateway_sends_per_minute:
            raise Closing(4008, "You are being rate limited.")

    def _identify(self, connection: Connection, data: JsonObject) -> None:
        intents, (shard, count) = data.get("intents"), data.get("shard") or (0, 1)
        if not isinstance(intents, int) or not 0 <= intents <= ALL_INTENTS:
            raise Closing(4013, "Invalid intent(s).")
        settings = self.world.settings
        granted = {
            MESSAGE_CONTENT: settings.message_content_intent,
            GUILD_MEMBERS: settings.members_intent,
            PRESENCES: settings.presence_intent,
        }
        if any(intents & bit and not allowed for bit, allowed in granted.items()):
            raise Closing(4014, "Disallowed intent(s).")
        if not 0 <= shard < count:
            raise Closing(4010, "Invalid shard.")
        if count < settings.shards:
            raise Closing(4011, "Sharding required.")
        self.session_starts += 1
        session = Session(secrets.token_hex(16), shard, count, intents, connection=connection)
        own_guilds = [g for g in self.world.guilds.values() if shard_of(g.id, count) == shard]
        ready = {
            "v": 10,
            "user": own_user_payload(self.world.bot),
            "guilds": [{"id": guild.id, "unavailable": True} for guild in own_guilds],
            "private_channels": [],
            "session_id": session.id,
            "resume_gateway_url": self.url,
            "shard": [shard, count],
            "application": {"id": self.world.application_id, "flags": application_flags(self.world)},
        }
        connection.push(self._number(session, "READY", ready))
        if intents & GUILDS:
            for guild in own_guilds:
                connection.push(self._number(session, "GUILD_CREATE", self._guild_create(guild.id, session)))
        connection.session = session
        self._sessions[session.id] = session
        self._note("ready", connection)
        self.world.note_change()

    def _resume(self, connection: Connection, data: JsonObject) -> None:
        self._forget_old_sessions()
        session = self._sessions.get(str(data.get("session_id")))
        known = data.get("seq")
        oldest = session.sent[0][0] if session and session.sent else 1
        if session is None or not isinstance(known, int) or known < oldest - 1:
            self._note("invalid", connection, detail="unknown session")
            connection.push({"op": INVALID_SESSION, "d": False, "s": None, "t": None})
            return
        if known > session.sequence:
            raise Closing(4007, "Invalid seq.")
        if session.connection is not None:
            session.connection.session = None
            session.connection.abort(reset=False)
        missed = [payload for number, payload in session.sent if number > known]
        for payload in missed:
            connection.push(payload)
        connection.push(self._number(session, "RESUMED", {"_trace": []}))
        session.connection, connection.session = connection, session
        self._note("resumed", connection, detail=f"{len(missed)} replayed")
        self.world.note_change()

    def _send_members(self, session: Session, data: JsonObject) -> None:
        guild_ids = data["guild_id"] if isinstance(data["guild_id"], list) else [data["guild_id"]]
        for guild in (self.world.guilds.get(str(guild_id)) for guild_id in guild_ids):
            if guild is None:
                continue
            people = [self.world.users[user_id] for user_id in guild.member_ids]
            wanted = data.get("user_ids")
            if wanted is not None:
                ids = {str(one) for one in (wanted if isinstance(wanted, list) else [wanted])}
                people = [person for person in people if person.id in ids]
            else:
                people = [p for p in people if p.username.startswith(str(data.get("query") or ""))]
            chunk: dict[str, Any] = {
                "guild_id": guild.id,
                "members": [member_payload(guild, person, with_user=True) for person in people],
                "chunk_index": 0,
                "chunk_count": 1,
                "not_found": [],
            }
            if data.get("nonce"):
                chunk["nonce"] = data["nonce"]
            payload = self._number(session, "GUILD_MEMBERS_CHUNK", chunk)
            if session.connection is not None:
                session.connection.push(payload)

    def _detach(self, connection: Connection) -> None:
        self._connections.discard(connection)
        session = connection.session
        if session is not None and session.connection is connection:
            session.connection = None
            session.lost_at_s = self.world.clock.now_s()
        self.world.note_change()

    def _note(self, what: str, connection: Connection, *, code: int | None = None, detail: str = "") -> None:
        session = connection.session
        self.log.append(
            GatewayEntry(
                self.world.clock.now_s(),
                what,
                session.id if session else None,
                session.shard if session else None,
                code,
                detail,
            )
        )
        self.world.note_change()


def shard_of(guild_id: str | None, shard_count: int) -> int:
    """DMs are all on shard 0. Source: Discord reference, "Sharding"."""
    return 0 if guild_id is None else (int(guild_id) >> 22) % shard_count


def check_address(query: Mapping[str, str]) -> None:
    if query.get("v") not in ("9", "10"):
        raise Closing(4012, "Invalid API version.")
    if query.get("encoding", "json") != "json":
        raise Closing(4002, "The fake speaks only JSON.")
    if "compress" in query and packer(query["compress"]) is None:
        raise Closing(
            4002, "The fake speaks plain text, zlib-stream, and zstd-stream where this Python has zstd."
        )


def packer(compression: str | None) -> Packer | None:
    """A stream compressor: one context for the whole connection, flushed after every payload."""
    if compression == "zlib-stream":
        deflate = zlib.compressobj()
        return lambda text: deflate.compress(text.encode()) + deflate.flush(zlib.Z_SYNC_FLUSH)
    if compression == "zstd-stream":
        return zstd_packer()
    return None


def zstd_packer() -> Packer | None:
    """From the standard library (3.14) or the zstandard package: the two that make discord.py ask for zstd."""
    try:
        zstd: Any = importlib.import_module("compression.zstd")
    except ImportError:
        pass
    else:
        stream = zstd.ZstdCompressor()
        return lambda text: bytes(stream.compress(text.encode(), stream.FLUSH_BLOCK))
    try:
        zstandard: Any = importlib.import_module("zstandard")
    except ImportError:
        return None
    block = zstandard.ZstdCompressor().compressobj()
    return lambda text: bytes(block.compress(text.encode()) + block.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))


def abort(transport: asyncio.BaseTransport | None, *, reset: bool) -> None:
    """End a TCP connection without a word; with ``reset`` by RST, which the peer sees as ECONNRESET."""
    if not isinstance(transport, asyncio.Transport):
        return
    if reset:
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
