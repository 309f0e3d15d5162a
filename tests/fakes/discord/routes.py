"""The routes of REST v10 that the fake answers, and what each does.

Only the table and the reading of parameters; rules are in ``messages`` and ``interactions``, the wire in ``rest``.
"""

from typing import Any

from tests.fakes.discord import errors
from tests.fakes.discord.exchange import Exchange, Reply, Route
from tests.fakes.discord.messages import reaction_users
from tests.fakes.discord.model import Channel, Guild, Message
from tests.fakes.discord.payloads import (
    application_payload,
    channel_payload,
    guild_payload,
    member_payload,
    message_payload,
    own_user_payload,
    thread_member_payload,
    user_payload,
    without_content,
)

NOTHING = Reply(204)

# -- the bot itself -----------------------------------------------------------------------------------------


def get_gateway(exchange: Exchange) -> Reply:
    return Reply(body={"url": exchange.gateway.url})


def get_bot_gateway(exchange: Exchange) -> Reply:
    settings = exchange.world.settings
    left = max(0, settings.session_starts_total - exchange.gateway.session_starts)
    limits = {
        "total": settings.session_starts_total,
        "remaining": left,
        "reset_after": 86_400_000,
        "max_concurrency": 1,
    }
    return Reply(body={"url": exchange.gateway.url, "shards": settings.shards, "session_start_limit": limits})


def get_own_user(exchange: Exchange) -> Reply:
    return Reply(body=own_user_payload(exchange.world.bot))


def get_own_guilds(exchange: Exchange) -> Reply:
    bot_id = exchange.world.bot.id
    return Reply(
        body=[guild_payload(guild) for guild in exchange.world.guilds.values() if bot_id in guild.member_ids]
    )


def get_user(exchange: Exchange) -> Reply:
    user = exchange.world.users.get(exchange.params["user_id"])
    if user is None:
        raise errors.unknown_user()
    return Reply(body=user_payload(user))


def get_application(exchange: Exchange) -> Reply:
    return Reply(body=application_payload(exchange.world, exchange.world.owner))


def open_dm(exchange: Exchange) -> Reply:
    body = json_object(exchange)
    user = exchange.world.users.get(str(body.get("recipient_id")))
    if user is None:
        raise errors.invalid_form(
            "recipient_id", "NUMBER_TYPE_COERCE", f'Value "{body.get("recipient_id")}" is no user.'
        )
    if user.is_bot:
        raise errors.cannot_dm()
    channel = exchange.world.open_dm(user)
    return Reply(body=channel_payload(exchange.world, channel), result_id=channel.id)


# -- channels and guilds ------------------------------------------------------------------------------------


def get_channel(exchange: Exchange) -> Reply:
    channel = exchange.world.visible_channel(exchange.params["channel_id"])
    return Reply(body=channel_payload(exchange.world, channel))


def get_guild(exchange: Exchange) -> Reply:
    guild = visible_guild(exchange)
    body = guild_payload(guild)
    if exchange.query.get("with_counts") in ("1", "true", "True"):
        body |= {"approximate_member_count": len(guild.member_ids), "approximate_presence_count": 0}
    return Reply(body=body)


def get_guild_channels(exchange: Exchange) -> Reply:
    guild = visible_guild(exchange)
    own = [c for c in exchange.world.channels.values() if c.guild_id == guild.id and not c.is_thread]
    return Reply(body=[channel_payload(exchange.world, channel) for channel in own])


def get_members(exchange: Exchange) -> Reply:
    guild = visible_guild(exchange)
    if not exchange.world.settings.members_intent:
        raise errors.missing_access()
    limit = whole_number(exchange, "limit", 1, 1000, otherwise=1)
    after = whole_number(exchange, "after", 0, None, otherwise=0)
    ids = [user_id for user_id in sorted(guild.member_ids, key=int) if int(user_id) > after][:limit]
    return Reply(
        body=[member_payload(guild, exchange.world.users[user_id], with_user=True) for user_id in ids]
    )


def get_member(exchange: Exchange) -> Reply:
    guild = visible_guild(exchange)
    user_id = exchange.params["user_id"]
    user_id = exchange.world.bot.id if user_id == "@me" else user_id
    if user_id not in guild.member_ids:
        raise errors.unknown_member()
    return Reply(body=member_payload(guild, exchange.world.users[user_id], with_user=True))


def get_active_threads(exchange: Exchange) -> Reply:
    guild, world = visible_guild(exchange), exchange.world
    threads = [
        c
        for c in world.channels.values()
        if c.guild_id == guild.id and c.is_thread and not c.archived and world.can_view(c)
    ]
    members = [
        thread_member_payload(thread, world.bot.id)
        for thread in threads
        if world.bot.id in thread.thread_member_ids
    ]
    return Reply(
        body={
            "threads": [channel_payload(world, thread) for thread in threads],
            "members": members,
            "has_more": False,
        }
    )


# -- messages -----------------------------------------------------------------------------------------------


def get_messages(exchange: Exchange) -> Reply:
    page = exchange.board.page(
        exchange.params["channel_id"],
        limit=whole_number(exchange, "limit", 1, 100, otherwise=50),
        before=optional_id(exchange, "before"),
        after=optional_id(exchange, "after"),
        around=optional_id(exchange, "around"),
    )
    return Reply(body=[shown(exchange, message) for message in page])


def get_message(exchange: Exchange) -> Reply:
    return Reply(body=shown(exchange, addressed_message(exchange)))


def create_message(exchange: Exchange) -> Reply:
    channel = exchange.world.visible_channel(exchange.params["channel_id"])
    draft = exchange.board.read_draft(json_object(exchange), exchange.uploads)
    message = exchange.board.post_as_bot(channel, draft)
    body = message_payload(exchange.world, message)
    if message.nonce is not None:
        body["nonce"] = message.nonce
    return Reply(body=body, result_id=message.id)


def edit_message(exchange: Exchange) -> Reply:
    message = addressed_message(exchange)
    draft = exchange.board.read_draft(json_object(exchange), exchange.uploads)
    edited = exchange.board.edit_as_bot(message, draft)
    return Reply(body=message_payload(exchange.world, edited), result_id=edited.id)


def delete_message(exchange: Exchange) -> Reply:
    exchange.board.delete_as_bot(addressed_message(exchange))
    return NOTHING


def show_typing(exchange: Exchange) -> Reply:
    channel = exchange.world.visible_channel(exchange.params["channel_id"])
    exchange.board.check_may_send(channel)
    exchange.board.show_typing(channel, exchange.world.bot)
    return NOTHING


def add_reaction(exchange: Exchange) -> Reply:
    exchange.board.react(addressed_message(exchange), exchange.world.bot, exchange.params["emoji"])
    return NOTHING


def remove_reaction(exchange: Exchange) -> Reply:
    exchange.board.react(
        addressed_message(exchange), exchange.world.bot, exchange.params["emoji"], remove=True
    )
    return NOTHING


def get_reaction_users(exchange: Exchange) -> Reply:
    return Reply(body=reaction_users(exchange.world, addressed_message(exchange), exchange.params["emoji"]))


# -- threads ------------------------------------------------------------------------------------------------


def start_thread(exchange: Exchange) -> Reply:
    """From a message when one is addressed, else of its own; type 12 asks for a private one (the default, as Discord's)."""
    channel = exchange.world.visible_channel(exchange.params["channel_id"])
    if channel.guild_id is None or channel.is_thread:
        raise errors.ApiError(400, 50024, "Cannot execute action on this channel type")
    body = json_object(exchange)
    name = body.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise errors.invalid_form("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
    message = addressed_message(exchange) if "message_id" in exchange.params else None
    private = message is None and int(body.get("type") or 12) == 12
    thread = exchange.board.start_thread(
        channel, name, owner_id=exchange.world.bot.id, message=message, is_private=private
    )
    return Reply(201, channel_payload(exchange.world, thread), result_id=thread.id)


def join_thread(exchange: Exchange) -> Reply:
    members = thread(exchange).thread_member_ids
    if exchange.world.bot.id not in members:
        members.append(exchange.world.bot.id)
    return NOTHING


def leave_thread(exchange: Exchange) -> Reply:
    members = thread(exchange).thread_member_ids
    if exchange.world.bot.id in members:
        members.remove(exchange.world.bot.id)
    return NOTHING


def get_thread_members(exchange: Exchange) -> Reply:
    found = thread(exchange)
    return Reply(body=[thread_member_payload(found, user_id) for user_id in found.thread_member_ids])


# -- commands and interactions ------------------------------------------------------------------------------


def get_commands(exchange: Exchange) -> Reply:
    return Reply(body=exchange.interactions.commands(command_place(exchange)))


def overwrite_commands(exchange: Exchange) -> Reply:
    return Reply(body=exchange.interactions.overwrite(command_place(exchange), exchange.body))


def create_command(exchange: Exchange) -> Reply:
    return Reply(201, exchange.interactions.register(command_place(exchange), exchange.body))


def get_command(exchange: Exchange) -> Reply:
    return Reply(
        body=exchange.interactions.find_command(command_place(exchange), exchange.params["command_id"])
    )


def change_command(exchange: Exchange) -> Reply:
    place = command_place(exchange)
    return Reply(body=exchange.interactions.change(place, exchange.params["command_id"], exchange.body))


def delete_command(exchange: Exchange) -> Reply:
    exchange.interactions.unregister(command_place(exchange), exchange.params["command_id"])
    return NOTHING


def answer_interaction(exchange: Exchange) -> Reply:
    body = json_object(exchange)
    draft = exchange.board.read_draft(body.get("data") or {}, exchange.uploads, path="data.")
    interaction = exchange.interactions.answer(
        exchange.params["interaction_id"], exchange.params["webhook_token"], int(body.get("type") or 0), draft
    )
    if exchange.query.get("with_response") not in ("1", "true"):
        return Reply(204, result_id=interaction.original_id)
    message = exchange.world.messages[interaction.original_id or ""]
    return Reply(
        body={
            "interaction": {
                "id": interaction.id,
                "type": interaction.type,
                "response_message_id": message.id,
                "response_message_loading": message.is_loading,
                "response_message_ephemeral": message.is_ephemeral,
            },
            "resource": {
                "type": interaction.callback_type,
                "message": message_payload(exchange.world, message),
            },
        },
        result_id=message.id,
    )


def follow_up(exchange: Exchange) -> Reply:
    interaction = exchange.interactions.with_token(
        exchange.params["webhook_id"], exchange.params["webhook_token"]
    )
    draft = exchange.board.read_draft(json_object(exchange), exchange.uploads)
    message = exchange.interactions.follow_up(interaction, draft)
    return Reply(body=message_payload(exchange.world, message), result_id=message.id)


def get_answer(exchange: Exchange) -> Reply:
    interaction = exchange.interactions.with_token(
        exchange.params["webhook_id"], exchange.params["webhook_token"]
    )
    message = exchange.interactions.find_answer(interaction, exchange.params["message_id"])
    return Reply(body=message_payload(exchange.world, message))


def edit_answer(exchange: Exchange) -> Reply:
    interaction = exchange.interactions.with_token(
        exchange.params["webhook_id"], exchange.params["webhook_token"]
    )
    draft = exchange.board.read_draft(json_object(exchange), exchange.uploads)
    message = exchange.interactions.edit_answer(interaction, exchange.params["message_id"], draft)
    return Reply(body=message_payload(exchange.world, message), result_id=message.id)


def delete_answer(exchange: Exchange) -> Reply:
    interaction = exchange.interactions.with_token(
        exchange.params["webhook_id"], exchange.params["webhook_token"]
    )
    exchange.interactions.delete_answer(interaction, exchange.params["message_id"])
    return NOTHING


# -- reading what was asked ---------------------------------------------------------------------------------


def json_object(exchange: Exchange) -> dict[str, Any]:
    if not isinstance(exchange.body, dict):
        raise errors.invalid_json()
    return exchange.body


def optional_id(exchange: Exchange, name: str) -> int | None:
    return None if name not in exchange.query else whole_number(exchange, name, 0, None, otherwise=0)


def whole_number(exchange: Exchange, name: str, least: int, most: int | None, *, otherwise: int) -> int:
    raw = exchange.query.get(name)
    if raw is None:
        return otherwise
    if not raw.isdigit():
        raise errors.invalid_form(name, "NUMBER_TYPE_COERCE", f'Value "{raw}" is not int.')
    value = int(raw)
    if value < least or (most is not None and value > most):
        raise errors.invalid_form(name, "NUMBER_TYPE_MAX", f"int value should be between {least} and {most}.")
    return value


def visible_guild(exchange: Exchange) -> Guild:
    return exchange.world.visible_guild(exchange.params["guild_id"])


def addressed_message(exchange: Exchange) -> Message:
    return exchange.board.find(exchange.params["channel_id"], exchange.params["message_id"])


def thread(exchange: Exchange) -> Channel:
    found = exchange.world.visible_channel(exchange.params["channel_id"])
    if not found.is_thread:
        raise errors.ApiError(400, 50024, "Cannot execute action on this channel type")
    return found


def command_place(exchange: Exchange) -> str | None:
    if exchange.params["application_id"] != exchange.world.application_id:
        raise errors.bots_only_own_application()
    guild_id = exchange.params.get("guild_id")
    if guild_id is not None and guild_id not in exchange.world.guilds:
        raise errors.missing_access()
    return guild_id


def shown(exchange: Exchange, message: Message) -> dict[str, Any]:
    """A message in the history as this application may see it."""
    payload = message_payload(exchange.world, message)
    in_guild = exchange.world.channels[message.channel_id].guild_id is not None
    if in_guild and not exchange.world.settings.message_content_intent:
        return without_content(payload, exchange.world.bot.id)
    return payload


CHANNEL, MESSAGE = "/channels/{channel_id}", "/channels/{channel_id}/messages/{message_id}"
GLOBAL_COMMANDS = "/applications/{application_id}/commands"
GUILD_COMMANDS = "/applications/{application_id}/guilds/{guild_id}/commands"
WEBHOOK = "/webhooks/{webhook_id}/{webhook_token}"

ROUTES: list[Route] = [
    Route("GET", "/gateway", get_gateway, needs_token=False),
    Route("GET", "/gateway/bot", get_bot_gateway),
    Route("GET", "/users/@me", get_own_user),
    Route("GET", "/users/@me/guilds", get_own_guilds),
    Route("POST", "/users/@me/channels", open_dm),
    Route("GET", "/users/{user_id}", get_user),
    Route("GET", "/applications/@me", get_application),
    Route("GET", "/oauth2/applications/@me", get_application),
    Route("GET", CHANNEL, get_channel),
    Route("GET", f"{CHANNEL}/messages", get_messages),
    Route("POST", f"{CHANNEL}/messages", create_message),
    Route("POST", f"{CHANNEL}/typing", show_typing),
    Route("POST", f"{CHANNEL}/threads", start_thread),
    Route("PUT", f"{CHANNEL}/thread-members/@me", join_thread),
    Route("DELETE", f"{CHANNEL}/thread-members/@me", leave_thread),
    Route("GET", f"{CHANNEL}/thread-members", get_thread_members),
    Route("GET", MESSAGE, get_message),
    Route("PATCH", MESSAGE, edit_message),
    Route("DELETE", MESSAGE, delete_message),
    Route("POST", f"{MESSAGE}/threads", start_thread),
    Route("PUT", f"{MESSAGE}/reactions/{{emoji}}/@me", add_reaction),
    Route("DELETE", f"{MESSAGE}/reactions/{{emoji}}/@me", remove_reaction),
    Route("GET", f"{MESSAGE}/reactions/{{emoji}}", get_reaction_users),
    Route("GET", "/guilds/{guild_id}", get_guild),
    Route("GET", "/guilds/{guild_id}/channels", get_guild_channels),
    Route("GET", "/guilds/{guild_id}/members", get_members),
    Route("GET", "/guilds/{guild_id}/members/{user_id}", get_member),
    Route("GET", "/guilds/{guild_id}/threads/active", get_active_threads),
    *(
        Route(method, place + tail, answer)
        for place in (GLOBAL_COMMANDS, GUILD_COMMANDS)
        for method, tail, answer in (
            ("GET", "", get_commands),
            ("PUT", "", overwrite_commands),
            ("POST", "", create_command),
            ("GET", "/{command_id}", get_command),
            ("PATCH", "/{command_id}", change_command),
            ("DELETE", "/{command_id}", delete_command),
        )
    ),
    Route(
        "POST",
        "/interactions/{interaction_id}/{webhook_token}/callback",
        answer_interaction,
        needs_token=False,
    ),
    Route("POST", WEBHOOK, follow_up, needs_token=False),
    Route("GET", f"{WEBHOOK}/messages/{{message_id}}", get_answer, needs_token=False),
    Route("PATCH", f"{WEBHOOK}/messages/{{message_id}}", edit_answer, needs_token=False),
    Route("DELETE", f"{WEBHOOK}/messages/{{message_id}}", delete_answer, needs_token=False),
]
