"""How the fake's state looks on the wire: users, members, channels, guilds, messages as API v10 writes them.

Pure functions of the state; whoever may not see the text of a message gets it through ``without_content``.
"""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tests.fakes.discord.clock import iso, timestamp_of
from tests.fakes.discord.model import (
    DM,
    REPLY,
    THREAD_CREATED,
    THREAD_STARTER,
    Attachment,
    Channel,
    Guild,
    Interaction,
    JsonObject,
    Message,
    User,
)

if TYPE_CHECKING:
    from tests.fakes.discord.world import World

VIEW_CHANNEL: Final = 1 << 10
SEND_MESSAGES: Final = 1 << 11
SEND_IN_THREADS: Final = 1 << 38
MEMBER_PERMISSIONS: Final = str(
    (1 << 6)  # add reactions
    | VIEW_CHANNEL
    | SEND_MESSAGES
    | (1 << 14)  # embed links
    | (1 << 15)  # attach files
    | (1 << 16)  # read message history
    | (1 << 31)  # use application commands
    | (1 << 35)  # create public threads
    | SEND_IN_THREADS
)
CONTENT_FLAG: Final = 1 << 18
MEMBERS_FLAG: Final = 1 << 14
PRESENCE_FLAG: Final = 1 << 12


def user_payload(user: User) -> JsonObject:
    return {
        "id": user.id,
        "username": user.username,
        "discriminator": "0000" if user.is_bot else "0",
        "global_name": user.global_name,
        "avatar": None,
        "bot": user.is_bot,
        "public_flags": 0,
        "flags": 0,
        "banner": None,
        "accent_color": None,
        "avatar_decoration_data": None,
        "primary_guild": None,
    }


def own_user_payload(user: User) -> JsonObject:
    return user_payload(user) | {"verified": True, "mfa_enabled": False, "email": None, "locale": user.locale}


def member_payload(guild: Guild, user: User, *, with_user: bool) -> JsonObject:
    member: JsonObject = {
        "nick": guild.nicknames.get(user.id),
        "roles": [],
        "joined_at": timestamp_of(guild.id),
        "premium_since": None,
        "deaf": False,
        "mute": False,
        "pending": False,
        "flags": 0,
        "avatar": None,
        "banner": None,
        "communication_disabled_until": None,
    }
    if with_user:
        member["user"] = user_payload(user)
    return member


def channel_payload(world: "World", channel: Channel) -> JsonObject:
    if channel.type == DM:
        person = world.users[channel.recipient_id or ""]
        return {
            "id": channel.id,
            "type": DM,
            "last_message_id": channel.last_message_id,
            "recipients": [user_payload(person)],
            "flags": 0,
        }
    payload: JsonObject = {
        "id": channel.id,
        "type": channel.type,
        "name": channel.name,
        "guild_id": channel.guild_id,
        "parent_id": channel.parent_id,
        "last_message_id": channel.last_message_id,
        "rate_limit_per_user": 0,
        "flags": 0,
    }
    if channel.is_thread:
        shown = [m for m in world.history.get(channel.id, []) if not m.deleted and m.type != THREAD_STARTER]
        payload |= {
            "owner_id": channel.owner_id,
            "message_count": len(shown),
            "total_message_sent": len(shown),
            "member_count": len(channel.thread_member_ids),
            "thread_metadata": {
                "archived": channel.archived,
                "auto_archive_duration": 1440,
                "archive_timestamp": timestamp_of(channel.id),
                "locked": channel.locked,
                "create_timestamp": timestamp_of(channel.id),
                "invitable": True,
            },
        }
        if world.bot.id in channel.thread_member_ids:
            payload["member"] = thread_member_payload(channel, world.bot.id)
        return payload
    denied = (0 if channel.can_view else VIEW_CHANNEL) | (
        0 if channel.can_send else SEND_MESSAGES | SEND_IN_THREADS
    )
    overwrites = [{"id": world.bot.id, "type": 1, "allow": "0", "deny": str(denied)}] if denied else []
    return payload | {"position": 0, "permission_overwrites": overwrites, "topic": None, "nsfw": False}


def thread_member_payload(thread: Channel, user_id: str) -> JsonObject:
    return {"id": thread.id, "user_id": user_id, "join_timestamp": timestamp_of(thread.id), "flags": 0}


def role_payload(guild: Guild) -> JsonObject:
    return {
        "id": guild.id,
        "name": "@everyone",
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "icon": None,
        "unicode_emoji": None,
        "position": 0,
        "permissions": MEMBER_PERMISSIONS,
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }


def guild_payload(guild: Guild) -> JsonObject:
    """A guild as REST gives it: no channels, no members."""
    return {
        "id": guild.id,
        "name": guild.name,
        "icon": None,
        "splash": None,
        "discovery_splash": None,
        "banner": None,
        "description": None,
        "owner_id": guild.owner_id,
        "region": None,
        "afk_channel_id": None,
        "afk_timeout": 300,
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "roles": [role_payload(guild)],
        "emojis": [],
        "stickers": [],
        "features": [],
        "mfa_level": 0,
        "application_id": None,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "rules_channel_id": None,
        "public_updates_channel_id": None,
        "safety_alerts_channel_id": None,
        "vanity_url_code": None,
        "premium_tier": 0,
        "premium_subscription_count": 0,
        "premium_progress_bar_enabled": False,
        "preferred_locale": guild.locale,
        "nsfw_level": 0,
        "max_members": 500000,
    }


def guild_create_payload(world: "World", guild: Guild, *, all_members: bool = False) -> JsonObject:
    """A guild as GUILD_CREATE gives it; all members only to those with the presence intent, else the bot alone."""
    people = guild.member_ids if all_members else [world.bot.id]
    own = [channel for channel in world.channels.values() if channel.guild_id == guild.id]
    threads = [c for c in own if c.is_thread and not c.archived and world.can_view(c)]
    return guild_payload(guild) | {
        "joined_at": timestamp_of(guild.id),
        "large": False,
        "unavailable": False,
        "member_count": len(guild.member_ids),
        "members": [member_payload(guild, world.users[user_id], with_user=True) for user_id in people],
        "channels": [channel_payload(world, channel) for channel in own if not channel.is_thread],
        "threads": [channel_payload(world, thread) for thread in threads],
        "presences": [],
        "voice_states": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
    }


def attachment_payload(world: "World", channel_id: str, attachment: Attachment) -> JsonObject:
    expires = int(world.clock.now_s() + world.settings.attachment_url_s)
    name = quote(attachment.filename)
    url = f"{world.cdn_url}/attachments/{channel_id}/{attachment.id}/{name}?ex={expires:x}&is=0&hm=0"
    payload: JsonObject = {
        "id": attachment.id,
        "filename": attachment.filename,
        "content_type": attachment.content_type,
        "size": attachment.size,
        "url": url,
        "proxy_url": url,
        "flags": 0,
    }
    if attachment.description is not None:
        payload["description"] = attachment.description
    return payload


def reactions_payload(message: Message, bot_id: str) -> list[JsonObject]:
    return [
        {
            "count": len(user_ids),
            "count_details": {"burst": 0, "normal": len(user_ids)},
            "me": bot_id in user_ids,
            "me_burst": False,
            "burst_colors": [],
            "emoji": {"id": None, "name": emoji},
        }
        for emoji, user_ids in message.reactions.items()
        if user_ids
    ]


def message_payload(world: "World", message: Message, *, nested: bool = False) -> JsonObject:
    """A message with its text; ``nested`` leaves out what it answers, as Discord does one level down."""
    payload: JsonObject = {
        "id": message.id,
        "channel_id": message.channel_id,
        "author": user_payload(world.users[message.author_id]),
        "content": message.text,
        "timestamp": iso(message.at_s * 1000),
        "edited_timestamp": None if message.edited_at_s is None else iso(message.edited_at_s * 1000),
        "tts": False,
        "mention_everyone": message.mention_everyone,
        "mentions": [user_payload(world.users[user_id]) for user_id in message.mention_ids],
        "mention_roles": [],
        "mention_channels": [],
        "attachments": [attachment_payload(world, message.channel_id, a) for a in message.attachments],
        "embeds": message.embeds,
        "components": message.components,
        "pinned": False,
        "type": message.type,
        "flags": message.flags,
    }
    if message.reactions:
        payload["reactions"] = reactions_payload(message, world.bot.id)
    if message.interaction_id is not None:
        payload |= interaction_marks(world, world.interactions[message.interaction_id])
    if message.thread_id is not None and message.type != THREAD_CREATED:
        payload["thread"] = channel_payload(world, world.channels[message.thread_id])
    if message.type == THREAD_CREATED:
        payload["message_reference"] = {
            "type": 0,
            "channel_id": message.thread_id,
            "guild_id": world.channels[message.channel_id].guild_id,
        }
    if message.reply_to is not None:
        payload["message_reference"] = {
            "type": 0,
            "message_id": message.reply_to,
            "channel_id": message.reference_channel_id,
            "guild_id": world.channels[message.channel_id].guild_id,
        }
        if not nested and message.type in (REPLY, THREAD_STARTER):
            answered = world.messages.get(message.reply_to)
            gone = answered is None or answered.deleted
            payload["referenced_message"] = (
                None if gone or answered is None else message_payload(world, answered, nested=True)
            )
    return payload


def interaction_marks(world: "World", interaction: Interaction) -> JsonObject:
    person = user_payload(world.users[interaction.user_id])
    return {
        "application_id": world.application_id,
        "webhook_id": world.application_id,
        "interaction_metadata": {
            "id": interaction.id,
            "type": interaction.type,
            "name": interaction.command,
            "user": person,
            "authorizing_integration_owners": {},
        },
        "interaction": {
            "id": interaction.id,
            "type": interaction.type,
            "name": interaction.command,
            "user": person,
        },
    }


def message_event(world: "World", message: Message) -> JsonObject:
    """A message as the gateway gives it: with guild and member, which REST leaves out."""
    payload = message_payload(world, message)
    channel = world.channels[message.channel_id]
    payload["channel_type"] = channel.type
    if message.nonce is not None:
        payload["nonce"] = message.nonce
    if channel.guild_id is not None:
        guild = world.guilds[channel.guild_id]
        payload["guild_id"] = guild.id
        payload["member"] = member_payload(guild, world.users[message.author_id], with_user=False)
        for mention in payload["mentions"]:
            mention["member"] = member_payload(guild, world.users[mention["id"]], with_user=False)
    return payload


def without_content(payload: JsonObject, bot_id: str) -> JsonObject:
    """A guild message as an application without the message content intent gets it.

    Text, embeds, attachments and components are emptied unless the bot wrote it or is mentioned in it. Source: Discord
    reference, "Message Content Intent".
    """
    shown: JsonObject = dict(payload)
    if payload["author"]["id"] != bot_id and bot_id not in {mention["id"] for mention in payload["mentions"]}:
        shown |= {"content": "", "embeds": [], "attachments": [], "components": []}
    if isinstance(payload.get("referenced_message"), dict):
        shown["referenced_message"] = without_content(payload["referenced_message"], bot_id)
    return shown


def interaction_event(world: "World", interaction: Interaction) -> JsonObject:
    channel = world.channels[interaction.channel_id]
    person = world.users[interaction.user_id]
    channel_shown: JsonObject = channel_payload(world, channel)
    if channel.guild_id is not None:
        channel_shown["permissions"] = MEMBER_PERMISSIONS
    event: JsonObject = {
        "id": interaction.id,
        "application_id": world.application_id,
        "type": interaction.type,
        "token": interaction.token,
        "version": 1,
        "data": interaction.data,
        "channel_id": channel.id,
        "channel": channel_shown,
        "locale": person.locale,
        "app_permissions": MEMBER_PERMISSIONS,
        "entitlements": [],
        "entitlement_sku_ids": [],
        "attachment_size_limit": world.settings.max_attachment_bytes,
    }
    if interaction.pressed_id is not None:
        event["message"] = message_payload(world, world.messages[interaction.pressed_id])
    if channel.guild_id is None:
        return event | {
            "user": user_payload(person),
            "context": 1,
            "authorizing_integration_owners": {"0": "0"},
        }
    guild = world.guilds[channel.guild_id]
    member: dict[str, Any] = member_payload(guild, person, with_user=True) | {
        "permissions": MEMBER_PERMISSIONS
    }
    return event | {
        "member": member,
        "guild_id": guild.id,
        "guild": {"id": guild.id, "locale": guild.locale, "features": []},
        "guild_locale": guild.locale,
        "context": 0,
        "authorizing_integration_owners": {"0": guild.id},
    }


def application_flags(world: "World") -> int:
    return (
        (CONTENT_FLAG if world.settings.message_content_intent else 0)
        | (MEMBERS_FLAG if world.settings.members_intent else 0)
        | (PRESENCE_FLAG if world.settings.presence_intent else 0)
    )


def application_payload(world: "World", owner: User) -> JsonObject:
    return {
        "id": world.application_id,
        "name": world.bot.username,
        "icon": None,
        "description": "",
        "summary": "",
        "bot_public": True,
        "bot_require_code_grant": False,
        "verify_key": "0" * 64,
        "owner": user_payload(owner),
        "team": None,
        "flags": application_flags(world),
        "hook": True,
        "redirect_uris": [],
        "interactions_endpoint_url": None,
        "role_connections_verification_url": None,
        "approximate_guild_count": len(world.guilds),
        "approximate_user_install_count": 0,
        "bot": user_payload(world.bot),
    }
