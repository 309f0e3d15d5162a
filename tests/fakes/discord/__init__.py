"""A fake Discord that the real discord.py is driven against: REST v10, the gateway and the CDN, on loopback.

Owns: the wire (HTTP, WebSocket, zlib-stream), the rules by which Discord refuses, the state of an imagined community, faults
at will, and a scenario API that speaks as the people there. It deliberately does not own: voice, moderation, embeds' content
rules, OAuth, or anything of Palaver; it knows no class of ours.

In the same process::

    async with FakeDiscord() as fake:            # token "fake-discord-token", one bot, no guilds yet
        ada = fake.add_user("ada", global_name="Ada")
        guild = fake.add_guild("Support", members=[ada])
        general = fake.add_channel(guild, "general")
        with fake.library():                     # points discord.py here: Route.BASE and DEFAULT_GATEWAY
            ...                                  # start the client with fake.token
            fake.say(ada, general, "hello", mention_bot=True)
            answer = await fake.wait_for_message(general, contains="hello")

As a process of its own, so that its memory survives a daemon that is killed::

    python -m tests.fakes.discord --port 0 --token T      # prints {"url": ..., "api": ..., "gateway": ...}

    async with spawn_discord() as remote:                 # or RemoteDiscord(url); every verb, by name, over /_control
        ada = await remote.call("add_user", username="ada")
        await remote.call("say", user=ada["id"], channel=channel_id, text="hello")

Everywhere a user, guild, channel or message is asked for, the object or its id (a string) will do.
"""

from tests.fakes.discord.control import RemoteDiscord, spawn_discord
from tests.fakes.discord.faults import FaultKind
from tests.fakes.discord.library import point_library
from tests.fakes.discord.model import (
    Attachment,
    Call,
    Channel,
    GatewayEntry,
    Guild,
    Interaction,
    Message,
    Settings,
    Upload,
    User,
)
from tests.fakes.discord.server import FakeDiscord

__all__ = [
    "Attachment",
    "Call",
    "Channel",
    "FakeDiscord",
    "FaultKind",
    "GatewayEntry",
    "Guild",
    "Interaction",
    "Message",
    "RemoteDiscord",
    "Settings",
    "Upload",
    "User",
    "point_library",
    "spawn_discord",
]
