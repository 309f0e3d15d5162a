"""The fake as a whole: one listening server, and the scenario API by which a test speaks as the people of the community.

Owns starting and stopping, pointing discord.py here, and the verbs below. The rules are in ``world``, ``messages`` and
``interactions``, the wire in ``rest`` and ``gateway``; every public verb is also reachable over HTTP through ``control``.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from hashlib import sha256
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from tests.fakes.discord.clock import Clock
from tests.fakes.discord.control import control_routes
from tests.fakes.discord.faults import Fault, FaultKind, Faults, RateLimits, matches
from tests.fakes.discord.gateway import Gateway
from tests.fakes.discord.interactions import Interactions
from tests.fakes.discord.library import point_library
from tests.fakes.discord.messages import MessageBoard
from tests.fakes.discord.model import (
    Call,
    Channel,
    GatewayEntry,
    Guild,
    Interaction,
    JsonObject,
    Message,
    Settings,
    Upload,
    User,
)
from tests.fakes.discord.rest import RestApi
from tests.fakes.discord.world import World

OutageKind = Literal["status", "reset"]


class FakeDiscord:
    """A Discord of one's own on 127.0.0.1; use as an async context manager, or ``start`` and ``stop``."""

    def __init__(
        self,
        *,
        token: str = "fake-discord-token",
        settings: Settings | None = None,
        seed: int = 0,
        port: int = 0,
        bot_name: str = "palaver",
    ) -> None:
        self.token = token
        self.settings = settings or Settings()
        self.clock = Clock()
        self.world = World(self.clock, self.settings, bot_name=bot_name)
        self.board = MessageBoard(self.world)
        self.interactions_desk = Interactions(self.world, self.board)
        self.faults = Faults(seed)
        self.limits = RateLimits(self.clock)
        self.gateway = Gateway(self.world, token)
        self.rest = RestApi(
            self.world, self.board, self.interactions_desk, self.gateway, self.faults, self.limits, token
        )
        self._port = port
        self._runner: web.AppRunner | None = None

    # -- running --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.add_routes(control_routes(self))
        application.add_routes(self.gateway.routes())
        application.add_routes(self.rest.routes())
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        self.world.cdn_url = f"{self.url}/cdn"
        self.gateway.url = self.gateway_url

    async def stop(self) -> None:
        """End every connection at once, as a machine that goes away would. The state stays readable."""
        self.rest.release_hangs(for_good=True)
        await self.gateway.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def api_url(self) -> str:
        """What ``discord.http.Route.BASE`` must be."""
        return f"{self.url}/api/v10"

    @property
    def gateway_url(self) -> str:
        """What ``discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY`` must be, as a ``yarl.URL``."""
        return f"ws://127.0.0.1:{self._port}/gateway"

    def library(self) -> AbstractContextManager[None]:
        """Point discord.py of this process here while the block runs."""
        return point_library(self.api_url, self.gateway_url)

    def describe(self) -> JsonObject:
        """Addresses and own ids, for whoever drives the fake from another process."""
        return {
            "url": self.url,
            "api": self.api_url,
            "gateway": self.gateway_url,
            "token": self.token,
            "bot_id": self.bot.id,
            "application_id": self.world.application_id,
        }

    def configure(self, **changes: float | bool) -> Settings:
        """Change settings by name; returns them as they now are."""
        known = {entry.name for entry in fields(Settings)}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown setting {name!r}; one of {sorted(known)}")
            setattr(self.settings, name, value)
        return replace(self.settings)

    def advance(self, seconds: float) -> float:
        """Move the fake's clock forward: windows age, nothing waits. Returns its time."""
        self.clock.advance(seconds)
        return self.clock.now_s()

    # -- the community --------------------------------------------------------------------------------------

    @property
    def bot(self) -> User:
        return self.world.bot

    def add_user(
        self, username: str, *, global_name: str | None = None, is_bot: bool = False, locale: str = "en-US"
    ) -> User:
        return self.world.add_user(username, global_name=global_name, is_bot=is_bot, locale=locale)

    def add_guild(
        self,
        name: str,
        *,
        members: Sequence[User | str] = (),
        locale: str = "en-US",
        guild_id: str | None = None,
    ) -> Guild:
        """A guild the bot is in; connected shards get GUILD_CREATE."""
        return self.world.add_guild(
            name,
            member_ids=[self.world.user(member).id for member in members],
            locale=locale,
            guild_id=guild_id,
        )

    def remove_guild(self, guild: Guild | str) -> None:
        """The bot is removed from it: GUILD_DELETE, and its channels answer 50001 from then on."""
        self.world.remove_guild(self.world.guild(guild))

    def add_member(self, guild: Guild | str, user: User | str, *, nickname: str | None = None) -> None:
        self.world.add_member(self.world.guild(guild), self.world.user(user), nickname)

    def add_channel(
        self, guild: Guild | str, name: str, *, can_view: bool = True, can_send: bool = True
    ) -> Channel:
        return self.world.add_channel(self.world.guild(guild), name, can_view=can_view, can_send=can_send)

    def set_permissions(
        self, channel: Channel | str, *, can_view: bool = True, can_send: bool = True
    ) -> Channel:
        """What the bot may do here; connected shards get CHANNEL_UPDATE."""
        return self.world.set_permissions(self.world.channel(channel), can_view=can_view, can_send=can_send)

    def remove_channel(self, channel: Channel | str) -> None:
        self.world.remove_channel(self.world.channel(channel))

    def add_thread(
        self,
        channel: Channel | str,
        name: str,
        *,
        owner: User | str,
        message: Message | str | None = None,
        is_private: bool = False,
    ) -> Channel:
        return self.board.start_thread(
            self.world.channel(channel),
            name,
            owner_id=self.world.user(owner).id,
            message=None if message is None else self.world.message(message),
            is_private=is_private,
        )

    def archive_thread(self, thread: Channel | str, *, locked: bool = False) -> Channel:
        return self.world.archive_thread(self.world.channel(thread), locked=locked)

    def dm(self, user: User | str) -> Channel:
        """The private channel between this person and the bot; opened when there is none yet."""
        return self.world.open_dm(self.world.user(user))

    def refuse_dms(self, user: User | str, *, refuse: bool = True) -> None:
        """This person blocks the bot, or closed their DMs: sending answers 50007."""
        self.world.user(user).accepts_dms = not refuse

    # -- what people do -------------------------------------------------------------------------------------

    def say(
        self,
        user: User | str,
        channel: Channel | str,
        text: str,
        *,
        mention_bot: bool = False,
        reply_to: Message | str | None = None,
        attachments: Sequence[Upload] = (),
    ) -> Message:
        """A person (or another bot) writes; whoever is connected gets MESSAGE_CREATE, history has it in any case."""
        return self.board.post(
            self.world.channel(channel),
            self.world.user(user),
            f"<@{self.bot.id}> {text}" if mention_bot else text,
            reply_to=None if reply_to is None else self.world.message(reply_to),
            uploads=attachments,
        )

    def edit(self, message: Message | str, text: str) -> Message:
        return self.board.edit(self.world.message(message), text=text)

    def delete(self, message: Message | str) -> Message:
        return self.board.delete(self.world.message(message))

    def react(self, user: User | str, message: Message | str, emoji: str) -> None:
        self.board.react(self.world.message(message), self.world.user(user), emoji)

    def type(self, user: User | str, channel: Channel | str) -> None:
        """A person begins to type: TYPING_START."""
        self.board.show_typing(self.world.channel(channel), self.world.user(user))

    def slash(
        self,
        user: User | str,
        channel: Channel | str,
        name: str,
        options: JsonObject | None = None,
        *,
        registered: bool = True,
    ) -> Interaction:
        """A person uses a slash command (``"memory forget"`` for a subcommand).

        Only commands that the bot has registered can be used, as in the real client, unless ``registered`` is false.
        With nobody connected ``delivered`` stays false: the person is told that the application did not respond.

        Raises:
            LookupError: no such command is registered for this place.
            ValueError: an option is unknown or a required one is missing.
        """
        return self.interactions_desk.use_command(
            self.world.user(user), self.world.channel(channel), name, options or {}, registered=registered
        )

    def press(self, user: User | str, message: Message | str, button: str) -> Interaction:
        """A person presses a button under a message of the bot; ``button`` is its label or its custom_id.

        Raises:
            LookupError: the message has no such button.
        """
        return self.interactions_desk.press(self.world.user(user), self.world.message(message), button)

    # -- reading and waiting --------------------------------------------------------------------------------

    def message(self, message: Message | str) -> Message:
        return self.world.message(message)

    def messages(
        self, channel: Channel | str, *, author: User | str | None = None, deleted: bool = False
    ) -> list[Message]:
        """What stands in a channel, oldest first, ephemeral answers included; ``deleted`` adds what was removed."""
        author_id = None if author is None else self.world.user(author).id
        return [
            message
            for message in self.world.history.get(self.world.channel(channel).id, [])
            if (deleted or not message.deleted) and author_id in (None, message.author_id)
        ]

    def bot_messages(self, channel: Channel | str | None = None) -> list[Message]:
        """What the bot has standing in a channel, or anywhere, oldest first."""
        if channel is not None:
            return self.messages(channel, author=self.bot)
        return [m for m in self.world.messages.values() if m.author_id == self.bot.id and not m.deleted]

    def bot_texts(self, channel: Channel | str | None = None) -> list[str]:
        return [message.text for message in self.bot_messages(channel)]

    def duplicates(
        self, channel: Channel | str | None = None, *, by: Literal["text", "reply_to"] = "text"
    ) -> JsonObject:
        """What the bot has standing more than once in the same channel: ``{"<channel id> <text>": times}``."""
        counted = Counter(
            f"{message.channel_id} {getattr(message, by)}"
            for message in self.bot_messages(channel)
            if getattr(message, by) is not None
        )
        return {key: times for key, times in counted.items() if times > 1}

    def calls(self, route: str = "*") -> list[Call]:
        """The journal of REST requests, e.g. ``calls("POST */messages")``."""
        if route == "*":
            return list(self.rest.journal)
        return [call for call in self.rest.journal if matches(route, call.method, call.route, call.path)]

    def clear_journal(self) -> None:
        self.rest.journal.clear()
        self.gateway.log.clear()

    def gateway_log(self, what: str | None = None) -> list[GatewayEntry]:
        return [entry for entry in self.gateway.log if what in (None, entry.what)]

    def connected_sessions(self) -> int:
        """Gateway sessions that have a live connection and are past READY or RESUMED."""
        return self.gateway.connected_sessions()

    def interaction(self, interaction: Interaction | str) -> Interaction:
        return self.world.interaction(interaction)

    def interactions(self) -> list[Interaction]:
        return list(self.world.interactions.values())

    def commands(self, guild: Guild | str | None = None) -> list[JsonObject]:
        """The registered slash commands, global or of one guild."""
        return self.interactions_desk.commands(None if guild is None else self.world.guild(guild).id)

    def commands_hash(self, guild: Guild | str | None = None) -> str:
        """Changes when, and only when, the registered commands do (ids and versions left out)."""
        listed = [
            {key: value for key, value in command.items() if key not in ("id", "version")}
            for command in self.commands(guild)
        ]
        return sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()

    def command_syncs(self) -> int:
        """How often the whole command list was overwritten (PUT), anywhere, since the journal began."""
        return sum(call.method == "PUT" and call.route.endswith("/commands") for call in self.rest.journal)

    def penalty_violations(self) -> int:
        """Requests that came although a 429 had told the client to wait."""
        return self.limits.violations

    async def wait_until(
        self, claim: Callable[[], bool], *, timeout_s: float = 5.0, what: str = "the claim"
    ) -> None:
        """Wait until ``claim()`` holds; asked again after every change here.

        Raises:
            TimeoutError: it did not hold in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not claim():
                    await self.world.changed()
        except TimeoutError:
            raise TimeoutError(f"{what} did not come true in {timeout_s} s") from None

    async def wait_connected(self, sessions: int = 1, *, timeout_s: float = 10.0) -> None:
        await self.wait_until(
            lambda: self.connected_sessions() >= sessions,
            timeout_s=timeout_s,
            what=f"{sessions} gateway session(s)",
        )

    async def wait_for_call(self, route: str, *, count: int = 1, timeout_s: float = 5.0) -> list[Call]:
        """Until ``count`` requests on this route have come in (not: were answered)."""
        await self.wait_until(
            lambda: len(self.calls(route)) >= count, timeout_s=timeout_s, what=f"{count} call(s) of {route}"
        )
        return self.calls(route)

    async def wait_for_message(
        self,
        channel: Channel | str,
        *,
        author: User | str | None = None,
        text: str | None = None,
        contains: str | None = None,
        reply_to: Message | str | None = None,
        after: Message | str | None = None,
        count: int = 1,
        timeout_s: float = 5.0,
    ) -> Message:
        """The ``count``-th message that stands in the channel and fits; by default one of the bot's.

        Edits count as they stand; the "is thinking…" of a deferred command does not.
        """
        place = self.world.channel(channel)
        author_id = self.bot.id if author is None else self.world.user(author).id
        reply_id = None if reply_to is None else self.world.message(reply_to).id
        after_id = 0 if after is None else int(self.world.message(after).id)

        def fitting() -> list[Message]:
            return [
                message
                for message in self.messages(place, author=author_id)
                if not message.is_loading
                and (text is None or message.text == text)
                and (contains is None or contains in message.text)
                and reply_id in (None, message.reply_to)
                and int(message.id) > after_id
            ]

        try:
            await self.wait_until(lambda: len(fitting()) >= count, timeout_s=timeout_s)
        except TimeoutError:
            seen = [message.text for message in self.messages(place)][-5:]
            raise TimeoutError(
                f"no {count} fitting message(s) in channel {place.name or place.id} in {timeout_s} s; last there: {seen}"
            ) from None
        return fitting()[count - 1]

    # -- faults ---------------------------------------------------------------------------------------------

    def fail(
        self,
        route: str,
        kind: FaultKind,
        *,
        count: int | None = 1,
        probability: float = 1.0,
        status: int = 502,
        delay_s: float = 1.0,
        retry_after_s: float = 0.5,
    ) -> Fault:
        """Let the next ``count`` requests (None: all) on this route fail; see ``faults.FaultKind`` for the ways."""
        return self.faults.add(
            route,
            kind,
            count=count,
            probability=probability,
            status=status,
            delay_s=delay_s,
            retry_after_s=retry_after_s,
        )

    def clear_faults(self) -> None:
        """No more faults; requests that hang are cut off."""
        self.faults.clear()
        self.rest.release_hangs()

    def limit(self, route: str, requests: int, per_s: float) -> None:
        """A rate limit bucket per major parameter on this route; ``"*"`` for the bot's global limit."""
        self.limits.limit(route, requests, per_s)

    def clear_limits(self) -> None:
        self.limits.clear()

    def begin_outage(self, *, rest: bool = True, gateway: bool = True, kind: OutageKind = "status") -> None:
        """Everything is down: 503 pages or reset connections; gateway connections are cut and new ones refused."""
        if kind not in ("status", "reset"):
            raise ValueError(f"unknown outage {kind!r}; 'status' or 'reset'")
        if rest:
            self.rest.outage = kind
        if gateway:
            self.gateway.outage = kind
            self.gateway.drop()

    def end_outage(self) -> None:
        self.rest.outage = None
        self.gateway.outage = None

    def revoke_token(self) -> None:
        """REST answers 401; live gateway connections are closed with 4004."""
        self.rest.is_revoked = self.gateway.is_revoked = True
        self.gateway.close(4004, "Authentication failed.")

    def restore_token(self) -> None:
        self.rest.is_revoked = self.gateway.is_revoked = False

    def drop(self, *, reset: bool = False, forget: bool = False) -> int:
        """Cut live gateway connections without a close frame; ``reset`` sends RST, ``forget`` makes RESUME fail."""
        return self.gateway.drop(reset=reset, forget=forget)

    def close_gateway(self, code: int = 4000, reason: str = "") -> int:
        """Close live gateway connections with this code."""
        return self.gateway.close(code, reason)

    def request_reconnect(self) -> int:
        """Op 7 to every live connection: reconnect and RESUME."""
        return self.gateway.request_reconnect()

    def invalidate_sessions(self, *, resumable: bool = False) -> int:
        """Op 9 to every live connection; with ``resumable`` false the sessions, and what they missed, are gone."""
        return self.gateway.invalidate(resumable=resumable)

    def hold_identify(self) -> None:
        """From now on IDENTIFY and RESUME are not looked at, so that a gap lasts as long as the test needs."""
        self.gateway.hold()

    def release_identify(self) -> None:
        self.gateway.release()

    def set_deaf(self, deaf: bool = True, *, keep: bool = False) -> None:
        """Events no longer go out while acks go on; lost for good, or ``keep`` them for a RESUME."""
        self.gateway.set_deaf(deaf, keep=keep)

    def set_acks(self, on: bool) -> None:
        """Whether heartbeats are acknowledged."""
        self.gateway.acks = on
