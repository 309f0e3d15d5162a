"""One Telegram bot as an `Adapter`: its lifecycle, and the port's verbs passed on to those who do them.

Owns the SDK objects' life and the order of a start. Messages come in by `polling` or `webhook` and go out by `sending`;
pace is the governor's affair, and trying again the outbox's.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count

import structlog

from adapters.base import Capabilities, Health, Intake, Pace, WebhookResponse, WebhookRoute
from adapters.errors import StartError
from adapters.messages import Choice, Chunk, CommandSpec, Target
from adapters.telegram.feed import Feed
from adapters.telegram.hearing import TOKEN_HINT, Hearing
from adapters.telegram.inbound import MAX_FETCH_BYTES, BotIdentity
from adapters.telegram.menu import keep, publish_when_changed, table_of
from adapters.telegram.pauses import Pauses
from adapters.telegram.polling import Polling, Trouble
from adapters.telegram.render import MAX_TEXT_UTF16, render
from adapters.telegram.sending import Sender
from adapters.telegram.webhook import NOT_READY_S, Webhook, public_url
from adapters.telegram.wire import open_bot
from config.names import AccountId, PlatformMessageId
from config.settings import AccountSettings

log = structlog.get_logger()

IDENTITY_CURSOR = "identity"
PACE = Pace(per_account_per_s=30, per_direct_channel_per_s=1, per_group_channel_per_min=20)
"""Source: core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this."""


class TelegramAdapter:
    """A bot account on Telegram, hearing by long polling or, with `webhook_url`, by webhook."""

    def __init__(
        self,
        account: AccountId,
        settings: AccountSettings,
        commands: Callable[[str], Sequence[CommandSpec]],
        *,
        language: str = "en",
        pauses: Pauses | None = None,
    ) -> None:
        """Makes no connection.

        Raises: StartError if the settings cannot work (no token, a webhook secret Telegram does not take).
        """
        token = settings.token.get_secret_value().strip() if settings.token else ""
        if not re.fullmatch(r"\S+", token):
            raise StartError(account, "no token is set", TOKEN_HINT.partition(". ")[2])
        secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None
        if secret is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
            raise StartError(
                account,
                "webhook_secret is not valid",
                "Use 1 to 256 letters, digits, underscores and hyphens.",
            )
        self._account = account
        self._settings = settings
        self._commands = commands
        self._language = language
        self._webhook_secret = secret
        self._pauses = pauses or Pauses()
        self._hearing = Hearing(account)
        self._bot, self._requests = open_bot(token, settings.api_url)
        self._sender = Sender(account, self._bot, language)
        self._webhook: Webhook | None = None
        self._capabilities = Capabilities(
            max_text=MAX_TEXT_UTF16,
            text_unit="utf16",
            can_edit=True,
            can_type=True,
            can_choose=True,
            has_threads=True,
            is_idempotent=False,
            max_attachment_bytes=min(settings.max_attachment_bytes, MAX_FETCH_BYTES),
            pace=_pace(settings),
        )

    @property
    def account(self) -> AccountId:
        return self._account

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def routes(self) -> Sequence[WebhookRoute]:
        if self._settings.webhook_url is None:
            return ()
        return (WebhookRoute(self._webhook_path, "POST", self._handle_webhook),)

    def health(self) -> Health:
        return self._hearing.health

    # hearing

    async def run(self, intake: Intake) -> None:
        mode = "polling" if self._settings.webhook_url is None else "webhook"
        log.info("adapter.started", account=self._account, mode=mode)
        self._hearing.started()
        feed = Feed(
            self._account,
            intake,
            max_attachment_bytes=self._capabilities.max_attachment_bytes,
            answer_press=self._bot.answer_callback_query,
        )
        beside: list[asyncio.Task[None]] = []
        try:
            if self._settings.webhook_url is not None:
                url = public_url(self._settings.webhook_url, self._webhook_path)
                self._webhook = Webhook(self._account, self._bot, feed, self._hearing, self._pauses, url=url)
            remembered = feed.identity = await self._remembered_identity(intake)
            if remembered is None:
                await self._identify(feed, self._trouble().wait_out)
            beside.append(asyncio.create_task(self._settle_in(feed, intake, remembered)))
            if self._webhook is not None:
                await self._webhook.run(intake, self._webhook_secret)
            else:
                await Polling(self._account, self._bot, feed, self._hearing, self._pauses).run()
        finally:
            self._webhook = None
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await feed.close()
            self._hearing.stopped()
            log.info("adapter.stopped", account=self._account)

    async def _handle_webhook(
        self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes
    ) -> WebhookResponse:
        if self._webhook is None:
            return WebhookResponse(503, retry_after_s=NOT_READY_S)
        return await self._webhook.handle(headers, query, body)

    @property
    def _webhook_path(self) -> str:
        path = self._settings.webhook_path or f"/webhooks/{self._account.partition('.')[2] or self._account}"
        return path if path.startswith("/") else f"/{path}"

    async def _remembered_identity(self, intake: Intake) -> BotIdentity | None:
        """Who the bot was at its last start, so that this one does not depend on Telegram's answer."""
        for attempt in count():
            try:
                kept = await intake.cursor(self._account, IDENTITY_CURSOR)
            except Exception as error:
                log.warning("adapter.intake_failed", account=self._account, exc_info=error)
                await asyncio.sleep(self._pauses.intake.delay_s(attempt))
            else:
                user_id, _, username = (kept or "").partition(":")
                is_whole = user_id.isascii() and user_id.isdigit() and bool(username)
                if not is_whole or user_id != self._bot.token.partition(":")[0]:
                    return None  # nothing kept, or the token is another bot's now
                return BotIdentity(int(user_id), username)
        raise AssertionError("count() has no end")

    def _trouble(self) -> Trouble:
        return Trouble(self._account, self._hearing, self._pauses)

    async def _identify(self, feed: Feed, wait_out: Callable[[Exception], Awaitable[None]]) -> None:
        """Ask Telegram who the bot is, until it says so."""
        while True:
            try:
                me = await self._bot.get_me()
            except Exception as error:  # noqa: BLE001 - whatever it is, hearing depends on asking again
                await wait_out(error)
            else:
                feed.identity = BotIdentity(me.id, me.username or "")
                return

    async def _settle_in(self, feed: Feed, intake: Intake, remembered: BotIdentity | None) -> None:
        """What a start still has to do beside hearing: nobody waits for it."""
        if remembered is not None:  # a bot can be renamed
            await self._identify(feed, self._trouble().wait_out_quietly)
        await asyncio.gather(
            self._remember_identity(feed, intake, remembered), self._publish_commands(intake)
        )

    async def _remember_identity(self, feed: Feed, intake: Intake, remembered: BotIdentity | None) -> None:
        identity = feed.identity
        if identity is not None and identity != remembered:
            kept = f"{identity.user_id}:{identity.username}"
            await keep(self._account, intake, IDENTITY_CURSOR, kept, self._pauses)

    async def _publish_commands(self, intake: Intake) -> None:
        if not self._settings.sync_commands:
            return
        try:
            table = table_of(self._commands, self._language)
        except Exception as error:
            log.error("adapter.commands_failed", account=self._account, exc_info=error)
            return
        await publish_when_changed(self._account, self._bot, intake, table, self._pauses)

    # sending

    def render(self, markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
        return render(markdown, choices)

    async def send(
        self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool = False
    ) -> PlatformMessageId:
        return await self._sender.send(target, chunk, is_repeat=is_repeat)  # the Bot API has no use for a key

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        await self._sender.edit(target, message_id, chunk)

    async def typing(self, target: Target) -> None:
        await self._sender.typing(target)

    async def close(self) -> None:
        for request in self._requests:
            await request.shutdown()


def _pace(settings: AccountSettings) -> Pace:
    chosen = settings.pace.model_dump(exclude_none=True)
    return Pace(
        chosen.get("per_account_per_s", PACE.per_account_per_s),
        chosen.get("per_direct_channel_per_s", PACE.per_direct_channel_per_s),
        chosen.get("per_group_channel_per_min", PACE.per_group_channel_per_min),
    )
