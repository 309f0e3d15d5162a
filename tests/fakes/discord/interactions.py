"""Slash commands: what the bot registered, how people use it, and the windows in which the bot must answer.

Source of the rules: Discord reference, "Receiving and Responding" (3 seconds to answer, 15 minutes for the token).
"""

import re
import secrets
from typing import Any

from tests.fakes.discord import errors
from tests.fakes.discord.messages import Draft, MessageBoard
from tests.fakes.discord.model import DM, Channel, Interaction, JsonObject, Message, User
from tests.fakes.discord.payloads import interaction_event
from tests.fakes.discord.world import World

NAME = re.compile(r"^[-_'\w]{1,32}$")
MAX_COMMANDS = 100
CHAT_INPUT = 1
SUBCOMMAND, SUBCOMMAND_GROUP = 1, 2
STRING, INTEGER, BOOLEAN, NUMBER = 3, 4, 5, 10

MESSAGE_ANSWER, DEFERRED_ANSWER, DEFERRED_UPDATE, UPDATE = 4, 5, 6, 7
COMPONENT_INTERACTION, BUTTON = 3, 2


class Interactions:
    """The registry of commands and every use of one."""

    def __init__(self, world: World, board: MessageBoard) -> None:
        self.world = world
        self.board = board
        self._registry: dict[str | None, dict[tuple[int, str], JsonObject]] = {}

    # -- the registry ---------------------------------------------------------------------------------------

    def commands(self, guild_id: str | None) -> list[JsonObject]:
        return list(self._registry.get(guild_id, {}).values())

    def overwrite(self, guild_id: str | None, bodies: Any) -> list[JsonObject]:
        """Replace all commands of a place; one of the same name and type keeps its id."""
        if not isinstance(bodies, list):
            raise errors.invalid_json()
        if len(bodies) > MAX_COMMANDS:
            raise errors.ApiError(
                400, 30032, f"Maximum number of application commands reached ({MAX_COMMANDS})"
            )
        before = self._registry.get(guild_id, {})
        checked = [self._build(guild_id, body, before, f"{index}.") for index, body in enumerate(bodies)]
        after = {(command["type"], command["name"]): command for command in checked}
        if len(after) != len(checked):
            raise errors.invalid_form(
                "name", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique"
            )
        self._registry[guild_id] = after
        self.world.note_change()
        return checked

    def register(self, guild_id: str | None, body: Any) -> JsonObject:
        """Add one command, or replace the one of this name."""
        there = self._registry.setdefault(guild_id, {})
        command = self._build(guild_id, body, there, "")
        there[(command["type"], command["name"])] = command
        self.world.note_change()
        return command

    def find_command(self, guild_id: str | None, command_id: str) -> JsonObject:
        for command in self.commands(guild_id):
            if command["id"] == command_id:
                return command
        raise errors.unknown_command()

    def change(self, guild_id: str | None, command_id: str, body: Any) -> JsonObject:
        known = self.find_command(guild_id, command_id)
        if not isinstance(body, dict):
            raise errors.invalid_json()
        self.unregister(guild_id, command_id)
        command = self.register(guild_id, known | body)
        command["id"] = command_id
        return command

    def unregister(self, guild_id: str | None, command_id: str) -> None:
        known = self.find_command(guild_id, command_id)
        del self._registry[guild_id][(known["type"], known["name"])]
        self.world.note_change()

    def _build(
        self, guild_id: str | None, body: Any, before: dict[tuple[int, str], JsonObject], path: str
    ) -> JsonObject:
        if not isinstance(body, dict):
            raise errors.invalid_json()
        kind = int(body.get("type") or CHAT_INPUT)
        check_names(body, path, with_description=kind == CHAT_INPUT)
        known = before.get((kind, body["name"]))
        command: JsonObject = {
            **{
                key: value
                for key, value in body.items()
                if key not in ("id", "version", "application_id", "guild_id")
            },
            "id": known["id"] if known else self.world.snowflakes.make(),
            "application_id": self.world.application_id,
            "version": self.world.snowflakes.make(),
            "type": kind,
            "description": body.get("description", ""),
            "default_member_permissions": body.get("default_member_permissions"),
            "nsfw": bool(body.get("nsfw", False)),
        }
        if guild_id is not None:
            command["guild_id"] = guild_id
        return command

    # -- a person uses a command ----------------------------------------------------------------------------

    def use_command(
        self, user: User, channel: Channel, name: str, options: JsonObject, *, registered: bool
    ) -> Interaction:
        if channel.guild_id is not None and user.id not in self.world.guilds[channel.guild_id].member_ids:
            raise ValueError(f"user {user.username} is not in guild {channel.guild_id}")
        root, *path = name.split()
        command = self._usable(root, channel)
        if command is None and registered:
            raise LookupError(f"no command {root!r} is registered for channel {channel.name or channel.id}")
        data: JsonObject = {
            "id": command["id"] if command else self.world.snowflakes.make(),
            "name": root,
            "type": CHAT_INPUT,
            "options": fill_options(
                (command or {}).get("options") or [], path, options, known=command is not None
            ),
        }
        if command is not None and "guild_id" in command:
            data["guild_id"] = command["guild_id"]
        interaction = Interaction(
            id=self.world.snowflakes.make(),
            token=secrets.token_urlsafe(48),
            command=name,
            user_id=user.id,
            channel_id=channel.id,
            at_s=self.world.clock.now_s(),
            data=data,
        )
        self.world.interactions[interaction.id] = interaction
        event = interaction_event(self.world, interaction)
        interaction.delivered = self.world.emit("INTERACTION_CREATE", event, guild_id=channel.guild_id) > 0
        return interaction

    def press(self, user: User, message: Message, button: str) -> Interaction:
        """A person presses a button under a message of the bot, named by its label or its custom_id."""
        channel = self.world.channels[message.channel_id]
        if channel.guild_id is not None and user.id not in self.world.guilds[channel.guild_id].member_ids:
            raise ValueError(f"user {user.username} is not in guild {channel.guild_id}")
        if message.deleted or message.author_id != self.world.bot.id:
            raise LookupError("there is no such message of the bot")
        there = [one for row in message.components for one in row["components"]]
        found = next((one for one in there if button in (one["label"], one["custom_id"])), None)
        if found is None:
            raise LookupError(f"no button {button!r}; there are {[one['label'] for one in there]}")
        interaction = Interaction(
            id=self.world.snowflakes.make(),
            token=secrets.token_urlsafe(48),
            command=found["custom_id"],
            user_id=user.id,
            channel_id=channel.id,
            at_s=self.world.clock.now_s(),
            type=COMPONENT_INTERACTION,
            data={"custom_id": found["custom_id"], "component_type": BUTTON},
            pressed_id=message.id,
        )
        self.world.interactions[interaction.id] = interaction
        event = interaction_event(self.world, interaction)
        interaction.delivered = self.world.emit("INTERACTION_CREATE", event, guild_id=channel.guild_id) > 0
        return interaction

    def _usable(self, name: str, channel: Channel) -> JsonObject | None:
        if channel.guild_id is not None:
            own = self._registry.get(channel.guild_id, {}).get((CHAT_INPUT, name))
            if own is not None:
                return own
        command = self._registry.get(None, {}).get((CHAT_INPUT, name))
        if command is None:
            return None
        contexts = command.get("contexts")
        wanted = 1 if channel.type == DM else 0
        if contexts is not None and wanted not in contexts:
            return None
        if channel.type == DM and command.get("dm_permission") is False:
            return None
        return command

    # -- the bot answers ------------------------------------------------------------------------------------

    def answer(self, interaction_id: str, token: str, kind: int, draft: Draft) -> Interaction:
        """The first answer: in time, once, with the right token."""
        interaction = self.world.interactions.get(interaction_id)
        if interaction is None or interaction.token != token:
            raise errors.unknown_interaction()
        try:
            if interaction.state != "open":
                raise errors.already_acknowledged()
            if self.world.clock.now_s() - interaction.at_s > self.world.settings.interaction_answer_s:
                raise errors.unknown_interaction()
            updates = (DEFERRED_UPDATE, UPDATE) if interaction.pressed_id is not None else ()
            if kind not in (MESSAGE_ANSWER, DEFERRED_ANSWER, *updates):
                choices = f"Value must be one of {{{MESSAGE_ANSWER}, {DEFERRED_ANSWER}}}."
                raise errors.invalid_form("type", "BASE_TYPE_CHOICES", choices)
            if kind in updates:
                return self._update_pressed(interaction, kind, draft)
            message = self.board.post_for_interaction(
                interaction, draft, loading=kind == DEFERRED_ANSWER, is_original=True
            )
        except errors.ApiError:
            interaction.refusals += 1
            raise
        interaction.callback_type = kind
        interaction.answered_at_s = self.world.clock.now_s()
        interaction.ephemeral = message.is_ephemeral
        interaction.original_id = message.id
        interaction.state = "deferred" if kind == DEFERRED_ANSWER else "answered"
        self.world.note_change()
        return interaction

    def _update_pressed(self, interaction: Interaction, kind: int, draft: Draft) -> Interaction:
        """The message under which the button stood is the answer: changed now, or later through the token."""
        message = self.world.message(interaction.pressed_id or "")
        if kind == UPDATE:
            self.board.apply_edit(message, draft)
        interaction.callback_type = kind
        interaction.answered_at_s = self.world.clock.now_s()
        interaction.original_id = message.id
        interaction.state = "answered"
        self.world.note_change()
        return interaction

    def with_token(self, application_id: str, token: str) -> Interaction:
        """Who holds this token may edit and follow up: after an answer, and until it is too old."""
        interaction = next((one for one in self.world.interactions.values() if one.token == token), None)
        if interaction is None or application_id != self.world.application_id:
            raise errors.unknown_webhook()
        if interaction.state == "open":
            interaction.refusals += 1
            raise errors.unknown_webhook()
        if self.world.clock.now_s() - interaction.at_s > self.world.settings.interaction_token_s:
            interaction.refusals += 1
            raise errors.invalid_webhook_token()
        return interaction

    def find_answer(self, interaction: Interaction, message_id: str) -> Message:
        wanted = interaction.original_id if message_id == "@original" else message_id
        message = self.world.messages.get(wanted or "")
        is_its_own = message is not None and (
            message.interaction_id == interaction.id or message.id == interaction.original_id
        )
        if message is None or message.deleted or not is_its_own:
            raise errors.unknown_message()
        return message

    def edit_answer(self, interaction: Interaction, message_id: str, draft: Draft) -> Message:
        message = self.board.apply_edit(self.find_answer(interaction, message_id), draft)
        if message.id == interaction.original_id:
            interaction.state = "answered"
        return message

    def delete_answer(self, interaction: Interaction, message_id: str) -> None:
        message = self.find_answer(interaction, message_id)
        self.board.delete(message)
        if message.id == interaction.original_id:
            interaction.state = "answered"

    def follow_up(self, interaction: Interaction, draft: Draft) -> Message:
        """A further message; the first one after a deferral takes the place of "is thinking…"."""
        if draft.is_empty:
            raise errors.empty_message()
        if interaction.state == "deferred":
            original = self.world.messages.get(interaction.original_id or "")
            if original is not None and not original.deleted:
                interaction.state = "answered"
                return self.board.apply_edit(original, draft)
        return self.board.post_for_interaction(interaction, draft, loading=False, is_original=False)


def check_names(body: JsonObject, path: str, *, with_description: bool) -> None:
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise errors.invalid_form(f"{path}name", "BASE_TYPE_REQUIRED", "This field is required")
    if with_description and (not NAME.match(name) or name != name.lower()):
        raise errors.invalid_form(
            f"{path}name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid, must be lower case"
        )
    description = body.get("description") or ""
    if with_description and not 1 <= len(description) <= 100:
        raise errors.invalid_form(
            f"{path}description", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length."
        )
    options = body.get("options") or []
    if len(options) > 25:
        raise errors.invalid_form(f"{path}options", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
    for index, option in enumerate(options):
        check_names(option, f"{path}options.{index}.", with_description=True)


def fill_options(
    definitions: list[JsonObject], path: list[str], given: JsonObject, *, known: bool
) -> list[JsonObject]:
    """What a person typed, in the shape of the command's options, subcommands nested."""
    if path:
        head, *rest = path
        definition = next((one for one in definitions if one["name"] == head), None)
        if definition is None and known:
            raise LookupError(f"no subcommand {head!r}; there are {[one['name'] for one in definitions]}")
        inner = fill_options((definition or {}).get("options") or [], rest, given, known=known)
        kind = definition["type"] if definition else (SUBCOMMAND_GROUP if rest else SUBCOMMAND)
        return [{"name": head, "type": kind, "options": inner}]
    types = {one["name"]: int(one["type"]) for one in definitions}
    if known:
        unknown = sorted(set(given) - set(types))
        if unknown:
            raise ValueError(f"unknown options {unknown}; there are {sorted(types)}")
        missing = [one["name"] for one in definitions if one.get("required") and one["name"] not in given]
        if missing:
            raise ValueError(f"required options missing: {missing}")
    return [
        {"name": name, "type": types.get(name, guess_type(value)), "value": value}
        for name, value in given.items()
    ]


def guess_type(value: object) -> int:
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER
    return NUMBER if isinstance(value, float) else STRING
