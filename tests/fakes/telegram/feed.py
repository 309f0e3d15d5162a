"""How updates reach the bot: getUpdates with Telegram's confirmation rule, or webhook deliveries in order.

It owns the order, the confirmation and the conflicts. What an update says is `people`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from .records import JsonObject, PendingUpdate, Refusal, WebhookDelivery
from .world import DEFAULT_KINDS, World

TERMINATED = (
    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
)
TERMINATED_BY_WEBHOOK = "Conflict: terminated by setWebhook request"
WEBHOOK_ACTIVE = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"


class Feed:
    def __init__(self, world: World, changed: Callable[[], None], *, webhook_retry_s: float) -> None:
        self.world = world
        self.deliveries: list[WebhookDelivery] = []
        self._changed = changed
        self._webhook_retry_s = webhook_retry_s
        self._poll: asyncio.Future[None] | None = None
        self._arrived = asyncio.Event()
        self._courier: asyncio.Task[None] | None = None

    # filling

    def put(self, kind: str, payload: JsonObject) -> int | None:
        """Queues an update unless the bot did not ask for its kind; gives its update_id."""
        if kind not in self.world.allowed_updates:
            return None
        update_id = self._take_id()
        self._append(PendingUpdate(update_id, {"update_id": update_id, kind: payload}))
        return update_id

    def put_verbatim(self, body: Any, *, with_id: bool) -> int:
        """Queues any JSON. `with_id` adds an update_id to an object that has none."""
        claimed = body.get("update_id") if isinstance(body, dict) else None
        if type(claimed) is int and claimed >= self.world.next_update_id:
            self.world.next_update_id = claimed
        update_id = self._take_id()
        if with_id and isinstance(body, dict) and "update_id" not in body:
            body = {"update_id": update_id} | body
        self._append(PendingUpdate(update_id, body))
        return update_id

    def _take_id(self) -> int:
        self.world.next_update_id += 1
        return self.world.next_update_id - 1

    def _append(self, update: PendingUpdate) -> None:
        self.world.pending.append(update)
        self._arrived.set()
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)
        self._changed()

    # getUpdates

    async def get_updates(
        self, offset: int, limit: int, timeout_s: float, allowed: list[str] | None
    ) -> list[Any]:
        if self.world.webhook is not None:
            raise Refusal(409, WEBHOOK_ACTIVE)
        if allowed is not None:
            self.allow(allowed)
        self._interrupt_poll(TERMINATED)
        self._confirm(offset)
        if not self.world.pending and timeout_s > 0:
            poll = self._poll = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await poll
            except TimeoutError:
                return []
            finally:
                if self._poll is poll:
                    self._poll = None
        return [update.body for update in self.world.pending[: max(1, min(limit, 100))]]

    def allow(self, kinds: list[str]) -> None:
        """Telegram's rule: an empty list means the default; it concerns updates created from now on."""
        self.world.allowed_updates = list(kinds) or list(DEFAULT_KINDS)

    def _confirm(self, offset: int) -> None:
        before = len(self.world.pending)
        if offset > 0:
            self.world.pending = [update for update in self.world.pending if update.id >= offset]
        elif offset < 0:
            self.world.pending = self.world.pending[offset:]
        if len(self.world.pending) != before:
            self._changed()

    def _interrupt_poll(self, reason: str) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_exception(Refusal(409, reason))
        self._poll = None

    # webhook

    def webhook_changed(self) -> None:
        if self.world.webhook is not None:
            self._interrupt_poll(TERMINATED_BY_WEBHOOK)
        self._arrived.set()

    def start(self) -> None:
        self._courier = asyncio.create_task(self._deliver_for_ever(), name="fake telegram webhook courier")

    async def stop(self) -> None:
        self._interrupt_poll(TERMINATED)
        if self._courier is not None:
            self._courier.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._courier

    async def _deliver_for_ever(self) -> None:
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._arrived.clear()
                while self.world.webhook is not None and self.world.pending:
                    if not await self._deliver(session, self.world.pending[0]):
                        await asyncio.sleep(self._webhook_retry_s)
                await self._arrived.wait()

    async def _deliver(self, session: aiohttp.ClientSession, update: PendingUpdate) -> bool:
        webhook = self.world.webhook
        assert webhook is not None, "checked by the caller"
        secret = {"X-Telegram-Bot-Api-Secret-Token": webhook.secret_token} if webhook.secret_token else {}
        delivery = WebhookDelivery(update.id, time.time(), None)
        self.deliveries.append(delivery)
        try:
            async with session.post(webhook.url, json=update.body, headers=secret) as response:
                delivery.status = response.status
                await response.read()
            if 200 <= delivery.status < 300:
                # deleted by drop_pending_updates meanwhile, perhaps
                if update in self.world.pending:
                    self.world.pending.remove(update)
                self._changed()
                return True
            delivery.error = f"Wrong response from the webhook: {response.status} {response.reason}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            delivery.error = f"Connection failed: {error!r}"
        webhook.last_error_date, webhook.last_error_message = int(time.time()), delivery.error
        self._changed()
        return False
