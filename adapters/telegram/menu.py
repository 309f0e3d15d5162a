"""Publishes the command table to Telegram's menu, when it has changed and never at the feed's expense."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import count

import structlog
from telegram import BotCommand, BotCommandScopeAllGroupChats, BotCommandScopeAllPrivateChats

from adapters.base import Intake, IntakeClosed
from adapters.messages import CommandSpec
from adapters.telegram.pauses import Pauses
from adapters.telegram.wire import Bot, FloodWait, plain_reason
from config.names import AccountId

log = structlog.get_logger()

LANGUAGES = ("en", "de")
HASH_CURSOR = "commands_hash"

Table = dict[str, list[tuple[str, str]]]
"""Telegram's language code ("" for everybody else) -> (name, description) of each command."""


def table_of(commands: Callable[[str], Sequence[CommandSpec]], language: str) -> Table:
    """The whole menu: the account's own language for everybody, the other languages for those who use them."""
    codes = {"": language} | {other: other for other in LANGUAGES if other != language}
    return {
        code: [(spec.name, spec.description) for spec in commands(spoken)] for code, spoken in codes.items()
    }


def fingerprint(table: Table) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


async def publish_when_changed(
    account: AccountId, bot: Bot, intake: Intake, table: Table, pauses: Pauses
) -> None:
    """Bring Telegram's menu up to the table. Tries until it works; raises nothing."""
    wanted = fingerprint(table)
    for attempt in count():
        delay_s = pauses.commands.delay_s(attempt)
        try:
            if await intake.cursor(account, HASH_CURSOR) == wanted:
                return
            await _publish(bot, table)
        except Exception as error:  # noqa: BLE001 - the menu is worth no crash
            if isinstance(error, FloodWait):
                delay_s += error.retry_after_s
            reason, wait_s = plain_reason(error), round(delay_s)
            log.warning("adapter.commands_failed", account=account, reason=reason, retry_after_s=wait_s)
            await asyncio.sleep(delay_s)
        else:
            break
    log.info("adapter.commands_published", account=account, commands=len(table[""]))
    await keep(account, intake, HASH_CURSOR, wanted, pauses)


async def keep(account: AccountId, intake: Intake, name: str, value: str, pauses: Pauses) -> None:
    """Store a cursor for the next start, whenever the intake lets us; raises nothing."""
    for attempt in count():
        try:
            await intake.set_cursor(account, name, value)
        except IntakeClosed as closed:
            await asyncio.sleep(max(closed.retry_after_s, pauses.intake.delay_s(attempt)))
        except Exception as error:  # noqa: BLE001 - the next start asks Telegram again, no more
            log.debug("adapter.intake_failed", account=account, reason=type(error).__name__)
            await asyncio.sleep(pauses.intake.delay_s(attempt))
        else:
            return


async def _publish(bot: Bot, table: Table) -> None:
    for code, entries in table.items():
        commands = [BotCommand(name, description) for name, description in entries]
        for scope in (BotCommandScopeAllPrivateChats(), BotCommandScopeAllGroupChats()):
            await bot.set_my_commands(commands, scope=scope, language_code=code or None)
