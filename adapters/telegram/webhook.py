"""The way in by webhook: the route Telegram calls, and the watch over its registration there.

Owns the secret's check and the answers Telegram acts upon: 200 only when the update is durable, 503 when it should come
again. The HTTP server itself is the daemon's.
"""

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import structlog
from telegram import WebhookInfo

from adapters.base import Intake, IntakeClosed, WebhookResponse
from adapters.telegram.feed import Feed
from adapters.telegram.hearing import Hearing
from adapters.telegram.inbound import ALLOWED_UPDATES
from adapters.telegram.pauses import Pauses
from adapters.telegram.polling import Trouble
from adapters.telegram.wire import Bot
from config.names import AccountId

log = structlog.get_logger()

SECRET_HEADER = "x-telegram-bot-api-secret-token"
SECRET_CURSOR = "webhook_secret"
NOT_READY_S = 5.0


def public_url(webhook_url: str, path: str) -> str:
    """The address given to Telegram: the setting with our path, unless the setting has a path of its own (a proxy's)."""
    return webhook_url if urlsplit(webhook_url).path.strip("/") else webhook_url.rstrip("/") + path


class Webhook:
    """The webhook of one account, for one `run`."""

    def __init__(
        self, account: AccountId, bot: Bot, feed: Feed, hearing: Hearing, pauses: Pauses, *, url: str
    ) -> None:
        self._account = account
        self._bot = bot
        self._feed = feed
        self._hearing = hearing
        self._pauses = pauses
        self._url = url
        self._secret = ""
        self._registered_at = 0.0
        self._in_order = asyncio.Lock()
        self._trouble = Trouble(account, hearing, pauses)

    async def run(self, intake: Intake, configured_secret: str | None) -> None:
        """Keep the webhook registered until cancelled."""
        self._secret = configured_secret or await self._kept_secret(intake)
        is_set = False
        while True:
            try:
                if not is_set:
                    await self._register()
                    log.info("adapter.webhook_set", account=self._account)
                is_set = self._is_in_order(await self._bot.get_webhook_info())
            except Exception as error:  # noqa: BLE001 - nothing may end the watch
                await self._trouble.wait_out(error)
                continue
            self._trouble.over()
            if is_set:
                await asyncio.sleep(self._pauses.webhook_check_s)
            else:
                await asyncio.sleep(self._pauses.network.delay_s(0))

    async def handle(
        self, headers: Mapping[str, str], _query: Mapping[str, str], body: bytes
    ) -> WebhookResponse:
        """Answer one call of Telegram's."""
        if not self._secret or self._feed.identity is None:
            return _later(NOT_READY_S)
        given = headers.get(SECRET_HEADER)
        if given is None:
            return WebhookResponse(401)
        if not hmac.compare_digest(given.encode(errors="replace"), self._secret.encode()):
            log.warning("adapter.webhook_forged", account=self._account)
            return WebhookResponse(403)
        async with self._in_order:
            try:
                await self._take(body)
            except IntakeClosed as closed:
                return _later(closed.retry_after_s)
            except Exception as error:
                log.warning("adapter.intake_failed", account=self._account, exc_info=error)
                return _later(NOT_READY_S)
        self._hearing.heard()
        return WebhookResponse(200)

    async def _take(self, body: bytes) -> None:
        try:
            update = json.loads(body)
        except (ValueError, RecursionError):
            # 200 all the same: Telegram would send it for ever and hold everything behind it
            await self._feed.quarantine(body, "the body is not JSON that can be read")
            return
        await self._feed.take(update)

    async def _register(self) -> None:
        await self._bot.set_webhook(
            self._url,
            secret_token=self._secret,
            max_connections=1,  # one at a time, so that messages cannot overtake each other
            allowed_updates=ALLOWED_UPDATES,
            drop_pending_updates=False,
        )
        self._registered_at = time.time()

    def _is_in_order(self, info: WebhookInfo) -> bool:
        """Whether the registration can stay as it is."""
        if info.url != self._url:
            log.warning("adapter.webhook_lost", account=self._account)
            return False
        failed_at, message = info.last_error_date, info.last_error_message or ""
        # a failure from before we set it, or were last reached, is history that Telegram still tells
        since = max(self._hearing.health.last_heard_at or 0, self._registered_at) - 1
        if info.pending_update_count and failed_at and failed_at.timestamp() >= since:
            self._hearing.retrying(f"Telegram cannot deliver: {message}")
            return not any(code in message for code in ("401", "403"))  # it has another secret than we
        self._hearing.heard()
        return True

    async def _kept_secret(self, intake: Intake) -> str:
        """The secret made at the first start and kept since, so that calls under way at a restart stay valid."""
        attempt = 0
        while True:
            try:
                secret = await intake.cursor(self._account, SECRET_CURSOR)
                if not secret:
                    secret = secrets.token_urlsafe(32)
                    await intake.set_cursor(self._account, SECRET_CURSOR, secret)
            except Exception as error:
                log.warning("adapter.intake_failed", account=self._account, exc_info=error)
                await asyncio.sleep(self._pauses.intake.delay_s(attempt))
                attempt += 1
            else:
                return secret


def _later(retry_after_s: float) -> WebhookResponse:
    return WebhookResponse(503, retry_after_s=retry_after_s)
