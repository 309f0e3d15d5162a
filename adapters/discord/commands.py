"""The command table as Discord's slash commands: published once, and again only when it has changed.

Owns the shape that Discord wants and the hash by which a change is noticed. The table itself is the daemon's.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from adapters.base import Intake
from adapters.discord.failures import in_words
from adapters.discord.inbound import QUESTION_COMMAND
from adapters.discord.link import Link
from adapters.discord.watermarks import insist
from adapters.messages import CommandSpec
from config.names import AccountId, Json

HASH_CURSOR = "commands_hash"
CHAT_INPUT, STRING_OPTION = 1, 3
IN_GUILDS, IN_DIRECT = 0, 1
INSTALLED_IN_GUILD = 0
MAX_DESCRIPTION = 100

LOCALES = {"de": ("de",)}
"""Discord's names of the languages that the table has besides English."""

ASK = {
    "en": CommandSpec(QUESTION_COMMAND, "Ask me something", argument="question", is_argument_required=True),
    "de": CommandSpec(QUESTION_COMMAND, "Frag mich etwas", argument="frage", is_argument_required=True),
}
"""Slash commands are the only way to the bot where it is not mentioned and may not read."""

logger = structlog.get_logger()

CommandTable = Callable[[str], Sequence[CommandSpec]]


def payload(commands: CommandTable) -> list[dict[str, Json]]:
    """The whole list as `PUT /applications/{id}/commands` takes it."""
    english = _with_ask(commands("en"), "en")
    others = {
        language: {spec.name: spec for spec in _with_ask(commands(language), language)}
        for language in LOCALES
    }
    return [
        _entry(spec, {language: table.get(spec.name) for language, table in others.items()})
        for spec in english
    ]


def _with_ask(table: Sequence[CommandSpec], language: str) -> list[CommandSpec]:
    has_it = any(spec.name == QUESTION_COMMAND for spec in table)
    return [*table] if has_it else [*table, ASK[language]]


def _entry(spec: CommandSpec, translations: dict[str, CommandSpec | None]) -> dict[str, Json]:
    entry: dict[str, Any] = {
        "type": CHAT_INPUT,
        "name": spec.name,
        "description": _line(spec.description or spec.name),
        "contexts": [IN_GUILDS, IN_DIRECT],
        "integration_types": [INSTALLED_IN_GUILD],
    }
    if descriptions := _localised(spec, translations, lambda one: _line(one.description)):
        entry["description_localizations"] = descriptions
    if spec.argument is not None:
        option: dict[str, Any] = {
            "type": STRING_OPTION,
            "name": spec.argument.lower(),
            "description": _line(spec.argument_hint or spec.argument),
            "required": spec.is_argument_required,
        }
        if spec.argument_values:
            option["choices"] = [{"name": value, "value": value} for value in spec.argument_values]
        if names := _localised(spec, translations, lambda one: (one.argument or "").lower()):
            option["name_localizations"] = names
        if hints := _localised(spec, translations, lambda one: _line(one.argument_hint)):
            option["description_localizations"] = hints
        entry["options"] = [option]
    return entry


def _localised(
    spec: CommandSpec, translations: Mapping[str, CommandSpec | None], said: Callable[[CommandSpec], str]
) -> dict[str, Json]:
    """What the translations say otherwise, by Discord's locale."""
    return {
        locale: said(other)
        for language, other in translations.items()
        if other is not None and said(other) not in ("", said(spec))
        for locale in LOCALES[language]
    }


def _line(text: str) -> str:
    return text if len(text) <= MAX_DESCRIPTION else text[: MAX_DESCRIPTION - 1] + "…"


def fingerprint(entries: list[dict[str, Json]], application_id: int) -> str:
    """Changes when, and only when, something has to be published."""
    return hashlib.sha256(json.dumps([application_id, entries], sort_keys=True).encode()).hexdigest()


async def publish(account: AccountId, link: Link, intake: Intake, commands: CommandTable) -> None:
    """Publish the table if it differs from what was published last; tried again until it is done."""
    while True:
        try:
            entries = payload(commands)
            application_id = link.application_id or 0
            current = fingerprint(entries, application_id)
            if await intake.cursor(account, HASH_CURSOR) == current:
                return
            await link.http.bulk_upsert_global_commands(application_id, entries)
            break
        except Exception as error:  # noqa: BLE001 - commands are a comfort; the conversation goes on without
            logger.warning("adapter.commands_not_published", account=account, reason=in_words(error))
        await asyncio.sleep(link.waits.commands_retry_s)
    await insist(lambda: intake.set_cursor(account, HASH_CURSOR, current), link.waits)
    logger.info("adapter.commands_published", account=account, count=len(entries))
