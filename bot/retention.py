"""What has had its day and people who want to be forgotten, removed beside people who chat: by the settings, in small batches.

Owns the pauses and the rules. What is removed is the affair of `sessions/cleanup.py`, `retention.py` and `erasure.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from config.names import AccountId, ChannelId
from config.settings import Settings
from sessions import cleanup, erasure, inbox, quarantine, retention
from sessions.database.base import Database
from sessions.retention import Rules

_PAUSE_S: Final = 0.02
_DECLINED_KEPT_MS: Final = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """How much a whole clean-up touched."""

    sessions: int
    declined_messages: int
    quarantined_updates: int
    outdated_messages: int


def session_rules(settings: Settings) -> dict[str, Any]:
    """When sessions end, are archived and removed, as `sessions.cleanup` takes it."""
    rules = settings.sessions
    return {
        "expire_after_ms": _ms(rules.expire_after),
        "archive_after_ms": _ms(rules.archive_after),
        "delete_after_ms": _ms(rules.delete_after),
    }


async def clean_up(
    database: Database,
    settings: Settings,
    now: Callable[[], int],
    *,
    pause_s: float = _PAUSE_S,
    progress: Callable[[int], None] = lambda touched: None,
) -> CleanedUp:
    """Do all that is due by the settings, in batches between which people get the store. Raises: StoreError."""
    rules = session_rules(settings)
    total = 0

    async def whole(step: Callable[[], Awaitable[int]]) -> int:
        nonlocal total
        touched = 0
        while batch := await step():
            touched, total = touched + batch, total + batch
            progress(total)
            await asyncio.sleep(pause_s)
        return touched

    return CleanedUp(
        sessions=await whole(lambda: database.write(lambda tx: cleanup.clean_up(tx, now(), **rules))),
        declined_messages=await whole(
            lambda: database.write(lambda tx: inbox.forget_declined(tx, now() - _DECLINED_KEPT_MS))
        ),
        quarantined_updates=await whole(lambda: database.write(lambda tx: quarantine.forget_old(tx, now()))),
        outdated_messages=await forget_old(database, rules_of(settings), now, pause_s=pause_s),
    )


async def due(database: Database, settings: Settings, now: int) -> Mapping[str, int]:
    """What a whole clean-up would do now, for people to look at first. Raises: StoreError."""
    found = await database.read(lambda tx: cleanup.due(tx, now, **session_rules(settings)))
    rules, messages = rules_of(settings), 0
    after: str | None = None if rules.is_empty else ""
    while after is not None:
        look = partial(retention.outdated, rules=rules, now=now, after=after)
        sessions, after = await database.read(look)
        for session_id, before in sessions:
            messages += await database.read(
                partial(retention.count_before, session_id=session_id, before=before)
            )
    return {**asdict(found), "messages": messages}


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


async def forget_old(
    database: Database, rules: Rules, now: Callable[[], int], *, pause_s: float = _PAUSE_S
) -> int:
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
                await asyncio.sleep(pause_s)
        await asyncio.sleep(pause_s)
    if removed:
        await database.wipe()
    return removed


async def erase_people(database: Database, now: Callable[[], int], *, pause_s: float = _PAUSE_S) -> int:
    """Do what is due for people who want to be forgotten; gives the steps it took. Raises: StoreError."""
    steps = 0
    if not await database.read(lambda tx: erasure.due(tx, now())):
        return 0
    while await database.write(lambda tx: erasure.step(tx, now())):
        steps += 1
        await asyncio.sleep(pause_s)
    return steps


async def overwrite_removed(database: Database, *, whole: bool = False) -> bool:
    """Overwrite what is left of forgotten people in unused parts of the file. False if it must be tried again. Raises: StoreError.

    Who waits for this is written down, so that the next start goes on if it was killed in between.
    """
    people = await database.read(erasure.removed)
    if not people:
        return True
    if not await database.wipe(whole=whole):
        return False
    await database.write(lambda tx: erasure.end(tx, people))
    return True


def _ms(kept: timedelta | None) -> int | None:
    return None if kept is None else int(kept.total_seconds() * 1000)
