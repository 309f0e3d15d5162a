"""The fake community: who and what exists, who may see what, and the events that changes give rise to.

Owns people, guilds, channels and the change signal. What may be written as a message is in ``messages``, slash commands in
``interactions``; how events reach a client is ``gateway``'s work.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.fakes.discord.clock import Clock, Snowflakes
from tests.fakes.discord.errors import missing_access, unknown_channel, unknown_guild
from tests.fakes.discord.model import (
    DM,
    GUILD_TEXT,
    PRIVATE_THREAD,
    PUBLIC_THREAD,
    Channel,
    Guild,
    Interaction,
    JsonObject,
    Message,
    Settings,
    User,
)
from tests.fakes.discord.payloads import channel_payload, guild_create_payload, member_payload

T = TypeVar("T")

GUILDS: Final = 1 << 0
GUILD_MEMBERS: Final = 1 << 1
GUILD_MESSAGES: Final = 1 << 9
GUILD_MESSAGE_REACTIONS: Final = 1 << 10
GUILD_MESSAGE_TYPING: Final = 1 << 11
DIRECT_MESSAGES: Final = 1 << 12
DIRECT_MESSAGE_REACTIONS: Final = 1 << 13
DIRECT_MESSAGE_TYPING: Final = 1 << 14


@dataclass(frozen=True)
class Event:
    """A gateway event; ``intent`` is the bit a session needs for it (0: everyone gets it)."""

    name: str
    data: JsonObject
    guild_id: str | None = None
    intent: int = 0


class World:
    """All state of the fake Discord that outlives a connection."""

    def __init__(self, clock: Clock, settings: Settings, *, bot_name: str) -> None:
        self.clock = clock
        self.settings = settings
        self.snowflakes = Snowflakes(clock)
        self.cdn_url = ""
        self.users: dict[str, User] = {}
        self.guilds: dict[str, Guild] = {}
        self.channels: dict[str, Channel] = {}
        self.messages: dict[str, Message] = {}
        self.history: dict[str, list[Message]] = {}
        self.files: dict[str, bytes] = {}
        self.interactions: dict[str, Interaction] = {}
        self.listeners: list[Callable[[Event], int]] = []
        self._change: asyncio.Future[None] | None = None
        self.owner = self.add_user("owner")
        self.bot = self.add_user(bot_name, is_bot=True)
        self.application_id = self.bot.id

    # -- looking things up, for scenarios (LookupError) and for requests (a refusal) ------------------------

    def user(self, user: User | str) -> User:
        return _known("user", self.users, user)

    def guild(self, guild: Guild | str) -> Guild:
        return _known("guild", self.guilds, guild)

    def channel(self, channel: Channel | str) -> Channel:
        return _known("channel", self.channels, channel)

    def message(self, message: Message | str) -> Message:
        return _known("message", self.messages, message)

    def interaction(self, interaction: Interaction | str) -> Interaction:
        return _known("interaction", self.interactions, interaction)

    def can_view(self, channel: Channel) -> bool:
        """Whether the bot sees this channel; a thread is as visible as its parent, a private one only to its members."""
        if channel.guild_id is not None and channel.guild_id not in self.guilds:
            return False
        if channel.is_thread:
            parent = self.channels.get(channel.parent_id or "")
            if parent is None or not parent.can_view:
                return False
            return channel.type == PUBLIC_THREAD or self.bot.id in channel.thread_member_ids
        return channel.can_view

    def can_send(self, channel: Channel) -> bool:
        if channel.is_thread:
            parent = self.channels.get(channel.parent_id or "")
            return parent is not None and parent.can_send and channel.can_send
        return channel.can_send

    def visible_channel(self, channel_id: str) -> Channel:
        channel = self.channels.get(channel_id)
        if channel is None:
            raise unknown_channel()
        if not self.can_view(channel):
            raise missing_access()
        return channel

    def visible_guild(self, guild_id: str) -> Guild:
        guild = self.guilds.get(guild_id)
        if guild is None:
            raise unknown_guild()
        return guild

    # -- people and places ----------------------------------------------------------------------------------

    def add_user(
        self, username: str, *, global_name: str | None = None, is_bot: bool = False, locale: str = "en-US"
    ) -> User:
        user = User(self.snowflakes.make(), username, global_name=global_name, is_bot=is_bot, locale=locale)
        self.users[user.id] = user
        return user

    def add_guild(self, name: str, *, member_ids: Sequence[str], locale: str, guild_id: str | None) -> Guild:
        if guild_id is not None and guild_id in self.guilds:
            raise ValueError(f"guild {guild_id!r} exists already")
        members = list(dict.fromkeys([self.owner.id, self.bot.id, *member_ids]))
        guild = Guild(
            guild_id or self.snowflakes.make(), name, self.owner.id, locale=locale, member_ids=members
        )
        self.guilds[guild.id] = guild
        self.emit("GUILD_CREATE", guild_create_payload(self, guild), guild_id=guild.id, intent=GUILDS)
        return guild

    def remove_guild(self, guild: Guild) -> None:
        self.emit("GUILD_DELETE", {"id": guild.id}, guild_id=guild.id, intent=GUILDS)
        del self.guilds[guild.id]

    def add_member(self, guild: Guild, user: User, nickname: str | None) -> None:
        if nickname is not None:
            guild.nicknames[user.id] = nickname
        if user.id in guild.member_ids:
            return
        guild.member_ids.append(user.id)
        data = member_payload(guild, user, with_user=True) | {"guild_id": guild.id}
        self.emit("GUILD_MEMBER_ADD", data, guild_id=guild.id, intent=GUILD_MEMBERS)

    def add_channel(self, guild: Guild, name: str, *, can_view: bool, can_send: bool) -> Channel:
        channel = Channel(
            self.snowflakes.make(), GUILD_TEXT, name, guild_id=guild.id, can_view=can_view, can_send=can_send
        )
        self.channels[channel.id] = channel
        self.announce("CHANNEL_CREATE", channel)
        return channel

    def set_permissions(self, channel: Channel, *, can_view: bool, can_send: bool) -> Channel:
        channel.can_view, channel.can_send = can_view, can_send
        self.announce("CHANNEL_UPDATE", channel)
        return channel

    def remove_channel(self, channel: Channel) -> None:
        self.announce("THREAD_DELETE" if channel.is_thread else "CHANNEL_DELETE", channel)
        del self.channels[channel.id]

    def add_thread(
        self, parent: Channel, name: str, *, owner_id: str, thread_id: str | None, private: bool
    ) -> Channel:
        thread = Channel(
            thread_id or self.snowflakes.make(),
            PRIVATE_THREAD if private else PUBLIC_THREAD,
            name,
            guild_id=parent.guild_id,
            parent_id=parent.id,
            owner_id=owner_id,
            thread_member_ids=[owner_id],
        )
        self.channels[thread.id] = thread
        if self.can_view(thread):
            data = channel_payload(self, thread) | {"newly_created": True}
            self.emit("THREAD_CREATE", data, guild_id=thread.guild_id, intent=GUILDS)
        return thread

    def archive_thread(self, thread: Channel, *, locked: bool) -> Channel:
        if not thread.is_thread:
            raise ValueError(f"channel {thread.id} is no thread")
        thread.archived, thread.locked = True, locked
        self.announce("THREAD_UPDATE", thread)
        return thread

    def open_dm(self, user: User) -> Channel:
        known = next((c for c in self.channels.values() if c.type == DM and c.recipient_id == user.id), None)
        if known is not None:
            return known
        channel = Channel(self.snowflakes.make(), DM, recipient_id=user.id)
        self.channels[channel.id] = channel
        if self.settings.announce_dm_channels:
            self.emit("CHANNEL_CREATE", channel_payload(self, channel), intent=DIRECT_MESSAGES)
        self.note_change()
        return channel

    # -- events ---------------------------------------------------------------------------------------------

    def announce(self, name: str, channel: Channel) -> None:
        self.emit(name, channel_payload(self, channel), guild_id=channel.guild_id, intent=GUILDS)

    def emit(self, name: str, data: JsonObject, *, guild_id: str | None = None, intent: int = 0) -> int:
        """Hand an event to whoever is connected; returns how many sessions took it."""
        event = Event(name, data, guild_id=guild_id, intent=intent)
        taken = sum(listener(event) for listener in self.listeners)
        self.note_change()
        return taken

    def note_change(self) -> None:
        """Wake everyone in ``changed``."""
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    async def changed(self) -> None:
        """Until something here changes."""
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._change)


def _known(kind: str, there: dict[str, T], wanted: object) -> T:
    key = str(getattr(wanted, "id", wanted))
    if key not in there:
        raise LookupError(f"the fake knows no {kind} with id {key!r}")
    return there[key]
