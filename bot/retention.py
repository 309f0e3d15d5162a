"""Old messages and people who want to be forgotten, removed beside people who chat: the rules of the settings, in small batches.

Owns the pauses and the rules. What is removed is `sessions/retention.py`.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from config.names import AccountId, ChannelId
from config.settings import Settings
from sessions import retention
from sessions.database.base import Database
from sessions.retention import Rules

_PAUSE_S = 0.02


def rules_of(settings: Settings) -> Rules:
    """How long messages are kept, by account and channel."""
    accounts: dict[AccountId, int | None] = {}
    channels: dict[tuple[AccountId, ChannelId], int | None] = {}
    for name, account in settings.accounts.items():
        if account.retention is None:
            continue
        account_id = settings.account_id(name)
        accounts[account_id] = _ms(account.retention.messages)
        for channel, kept in account.retention.channels.items():
            channels[account_id, ChannelId(channel)] = _ms(kept.messages)
    return Rules(_ms(settings.sessions.keep_messages), accounts, channels)


async def forget_old(database: Database, rules: Rules, now: Callable[[], int]) -> int:
    """Remove messages that are too old; gives how many. Raises: StoreError."""
    if rules.is_empty:
        return 0
    removed = 0
    after: str | None = ""
    while after is not None:
        look = partial(retention.outdated, rules=rules, now=now(), after=after)
        found, after = await database.read(look)
        for session_id, before in found:
            forget = partial(retention.forget_before, session_id=session_id, before=before, now=now())
            while batch := await database.write(forget):
                removed += batch
                await asyncio.sleep(_PAUSE_S)
        await asyncio.sleep(_PAUSE_S)
    if removed:
        await database.wipe()
    return removed


async def erase_people(database: Database, now: Callable[[], int], *, pause_s: float = _PAUSE_S) -> int:
    """Do what is due for people who want to be forgotten; gives the steps it took. Raises: StoreError."""
    steps = 0
    if not await database.read(lambda tx: retention.erasures_due(tx, now())):
        return 0
    while await database.write(lambda tx: retention.erase_step(tx, now())):
        steps += 1
        await asyncio.sleep(pause_s)
    return steps


async def overwrite_removed(database: Database, *, whole: bool = False) -> bool:
    """Overwrite what is left of forgotten people in unused parts of the file. False if it must be tried again. Raises: StoreError.

    Who waits for this is written down, so that the next start goes on if it was killed in between.
    """
    people = await database.read(retention.removed)
    if not people:
        return True
    if not await database.wipe(whole=whole):
        return False
    await database.write(lambda tx: retention.end_erasures(tx, people))
    return True


def _ms(kept: timedelta | None) -> int | None:
    return None if kept is None else int(kept.total_seconds() * 1000)
