"""The way in by long polling: one request at a time, one update at a time, confirmed only when all of a batch is durable.

Owns the offset and the reaction to each kind of failure. `getUpdates` confirms everything below its offset, so the offset
is sent exactly once, after the batch it confirms was taken in; polls that follow name none. Ids may therefore begin anew at
any number (Telegram does that after a quiet week) without anything being confirmed unseen or asked for in vain.
"""

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from itertools import count

import structlog
from telegram.error import BadRequest, Conflict, InvalidToken, NetworkError, TelegramError

from adapters.base import IntakeClosed
from adapters.telegram.feed import Feed
from adapters.telegram.hearing import Hearing
from adapters.telegram.inbound import ALLOWED_UPDATES, update_id
from adapters.telegram.pauses import Pauses
from adapters.telegram.wire import Bot, FloodWait, GarbledAnswer, is_strangers_answer, plain_reason
from config.names import AccountId, Json

log = structlog.get_logger()

BATCH = 100
GARBLED_TRIES = 3
"""How often one update may come as something other than JSON before it is given up: a proxy's page passes, poison stays."""


class Trouble:
    """What a failed call to Telegram means for hearing, and how long to wait. Counts tries since the last success."""

    def __init__(self, account: AccountId, hearing: Hearing, pauses: Pauses) -> None:
        self._account = account
        self._hearing = hearing
        self._pauses = pauses
        self._tries = 0

    def over(self) -> None:
        self._tries = 0

    async def wait_out(self, error: Exception) -> None:
        """Report the failure and sleep as long as it asks for."""
        match error:
            case FloodWait():
                self._hearing.retrying("Telegram asks to wait", event="adapter.rate_limited")
            case InvalidToken() if not is_strangers_answer(error):
                self._hearing.refused()
            case Conflict():
                self._hearing.retrying("another program polls this token", event="adapter.conflict_found")
            case _:
                self._hearing.retrying(plain_reason(error), is_cut_off=_is_cut_off(error))
        await self.wait_out_quietly(error)

    async def wait_out_quietly(self, error: Exception) -> None:
        """The same without a report: for what is asked beside a feed that speaks for itself."""
        attempt, self._tries = self._tries, self._tries + 1
        match error:
            case FloodWait():
                delay_s = error.retry_after_s + self._pauses.network.delay_s(0)
            case InvalidToken() if not is_strangers_answer(error):
                delay_s = self._pauses.refused.delay_s(attempt)
            case Conflict():
                delay_s = self._pauses.conflict.delay_s(attempt)
            case _:
                delay_s = self._pauses.network.delay_s(attempt)
        await asyncio.sleep(delay_s)


def _is_cut_off(error: Exception) -> bool:
    """Telegram did not answer, or somebody else did. What it refuses is a NetworkError to the library, too."""
    is_refusal = isinstance(error, BadRequest)
    return isinstance(error, NetworkError | GarbledAnswer | InvalidToken) and not is_refusal


@dataclass(slots=True)
class Position:
    """Where the next poll begins and how much it asks for."""

    offset: int | None = None
    limit: int = BATCH
    garbled: int = 0
    """Answers in a row that were no JSON."""


class Polling:
    def __init__(self, account: AccountId, bot: Bot, feed: Feed, hearing: Hearing, pauses: Pauses) -> None:
        self._account = account
        self._bot = bot
        self._feed = feed
        self._hearing = hearing
        self._pauses = pauses
        self._trouble = Trouble(account, hearing, pauses)
        self._given_up: set[bytes] = set()
        """Digests of updates without a usable id that were quarantined and will come again, until a later one is confirmed."""

    async def run(self) -> None:
        """Poll until cancelled."""
        position = Position()
        idle_tries = 0
        while True:
            began = time.monotonic()
            # the first poll, and the first after trouble, does not wait: that is how one knows that it works
            timeout_s = self._pauses.poll_timeout_s if self._hearing.is_hearing else 0
            try:
                batch = await self._bot.raw_updates(
                    offset=position.offset,
                    limit=position.limit,
                    timeout_s=timeout_s,
                    allowed_updates=ALLOWED_UPDATES,
                )
                if not isinstance(batch, list):
                    raise TelegramError("getUpdates gave no list")
            except GarbledAnswer as error:
                await self._pass_garbled(position, error)
            except Conflict as error:
                if not await self._removed_webhook():
                    await self._trouble.wait_out(error)
            except Exception as error:  # noqa: BLE001 - nothing may end the feed
                await self._trouble.wait_out(error)
            else:
                self._hearing.heard()
                self._trouble.over()
                confirmed = await self._take_all(batch)
                is_stuck = bool(batch) and confirmed is None
                position = Position(confirmed)
                if is_stuck:
                    await asyncio.sleep(self._pauses.network.delay_s(idle_tries))
                    idle_tries += 1
                    continue
                idle_tries = 0
                if not batch and timeout_s > 0:
                    # a server that does not hold polls must not be asked without end
                    await asyncio.sleep(max(0.0, self._pauses.least_poll_s - (time.monotonic() - began)))

    async def _take_all(self, batch: list[Json]) -> int | None:
        """Take a batch in, in order. Gives the offset that confirms it; None if it holds nothing to confirm.

        The last update counts, not the highest: ids that begin anew are lower than those before, and an offset above
        what was seen would confirm what nobody has read.
        """
        offset: int | None = None
        given_up: set[bytes] = set()
        for update in batch:
            found = update_id(update)
            if found is None:
                digest = hashlib.sha256(repr(update).encode(errors="backslashreplace")).digest()
                given_up.add(digest)
                if digest in self._given_up:
                    continue
            await self._take(update)
            if found is not None:
                offset = found + 1
                given_up.clear()  # confirmed with it
        self._given_up = given_up
        return offset

    async def _take(self, update: Json) -> None:
        """Take one update in, however long it takes: a later one must not overtake it."""
        for attempt in count():
            try:
                await self._feed.take(update)
            except IntakeClosed as closed:
                self._hearing.retrying(
                    f"nothing can be taken in now: {closed.reason}", event="adapter.intake_refused"
                )
                await asyncio.sleep(max(0.01, closed.retry_after_s))
            except Exception as error:
                reason = f"taking in a message failed: {type(error).__name__}"
                log.warning(
                    "adapter.intake_failed", account=self._account, exc_info=error, attempt=attempt + 1
                )
                self._hearing.retrying(reason, event="adapter.intake_refused")
                await asyncio.sleep(self._pauses.intake.delay_s(attempt))
            else:
                if not self._hearing.is_hearing:
                    self._hearing.heard()
                return

    async def _removed_webhook(self) -> bool:
        """Take away a webhook that keeps us from polling. What waits at Telegram stays."""
        try:
            if not (await self._bot.get_webhook_info()).url:
                return False
            await self._bot.delete_webhook(drop_pending_updates=False)
        except Exception as error:  # noqa: BLE001 - the conflict is reported then
            log.debug("adapter.webhook_kept", account=self._account, reason=plain_reason(error))
            return False
        log.warning(
            "adapter.webhook_removed",
            account=self._account,
            hint="webhook_url is not set, so this account polls",
        )
        # somebody who sets it again and again must not make a tight loop of this
        await asyncio.sleep(self._pauses.network.delay_s(0))
        return True

    async def _pass_garbled(self, position: Position, error: GarbledAnswer) -> None:
        """An answer that is no JSON: mostly somebody else's page, which passes; perhaps one update that ours cannot read.

        The second kind would stop the feed for good. So the next polls ask for one update only, and when that one
        comes garbled again and again, it is quarantined by the id that its bytes show.
        """
        position.garbled += 1
        position.limit = 1
        shown = re.match(
            rb'\s*\{\s*"ok"\s*:\s*true\s*,\s*"result"\s*:\s*\[\s*\{\s*"update_id"\s*:\s*(\d{1,10})\b',
            error.payload,
        )
        if shown is None or position.garbled <= GARBLED_TRIES:
            await self._trouble.wait_out(error)
            return
        await self._quarantine_garbled(error.payload)
        position.offset = int(shown[1]) + 1
        position.garbled = 0

    async def _quarantine_garbled(self, payload: bytes) -> None:
        for attempt in count():
            try:
                await self._feed.quarantine(payload, "the update is not JSON that can be read")
            except IntakeClosed as closed:
                await asyncio.sleep(max(0.01, closed.retry_after_s))
            except Exception as error:
                log.warning(
                    "adapter.intake_failed", account=self._account, exc_info=error, attempt=attempt + 1
                )
                await asyncio.sleep(self._pauses.intake.delay_s(attempt))
            else:
                return
