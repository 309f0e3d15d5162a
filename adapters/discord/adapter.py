"""One Discord account: logged in, listening, sending, for as long as the daemon runs.

Owns the lifecycle: login, the connection's loss and return, what is said in `health()`. Nothing that Discord does ends
`run`: an outage is retried with back-off, a refused token slowly, a missing privilege is done without.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import aiohttp
import discord
import structlog
from discord.http import Route

from adapters.base import Capabilities, Health, Intake, Pace, WebhookRoute
from adapters.discord import commands as command_table
from adapters.discord import render as rendering
from adapters.discord.answers import Answers
from adapters.discord.failures import in_words, is_silence
from adapters.discord.hearing import Hearing
from adapters.discord.interactions import Interactions
from adapters.discord.link import Link
from adapters.discord.sending import Sender
from adapters.discord.waits import Waits
from adapters.messages import Choice, Chunk, CommandSpec, Target
from config.names import AccountId, PlatformMessageId
from config.settings import AccountSettings

TOKEN_HINT = (
    "Make a new one under Bot, Reset Token, at https://discord.com/developers/applications and set it as this "
    "account's token (DISCORD_BOT_TOKEN)."
)
INTENT_HINT = (
    "the message content intent is not granted, so in servers only messages that mention the bot can be read; switch it on "
    "under Bot, Message Content Intent, at https://discord.com/developers/applications, or set message_content = false"
)
CLOSE_HINTS = {
    4004: f"Discord refused this token. {TOKEN_HINT}",
    4011: "the bot is in too many servers for one connection; Discord asks for sharding, which this version has not",
    4013: "Discord calls the intents invalid",
}

logger = structlog.get_logger()


class DiscordAdapter:
    """A bot account on Discord. `waits` is for tests."""

    def __init__(
        self,
        account: AccountId,
        settings: AccountSettings,
        commands: Callable[[str], Sequence[CommandSpec]],
        *,
        language: str = "en",
        waits: Waits | None = None,
    ) -> None:
        self._account = account
        self._settings = settings
        self._commands = commands
        self._waits = waits or Waits()
        self._has_content = settings.message_content
        self._health = Health("starting")
        self._link: Link | None = None
        self._was_connected = False
        answers = Answers(
            account, settings.api_url or Route.BASE, request_timeout_s=self._waits.request_timeout_s
        )
        personal = frozenset(spec.name for spec in commands(language) if spec.is_personal)
        self._interactions = Interactions(
            account, answers, self._waits, language=language, is_personal=personal.__contains__
        )
        self._sender = Sender(account, self._logged_in, self._interactions)
        self._capabilities = Capabilities(
            max_text=rendering.MAX_TEXT,
            can_edit=True,
            can_type=True,
            can_choose=True,
            must_greet=True,
            has_threads=True,
            is_idempotent=True,
            forgets_keys=True,
            max_attachment_bytes=settings.max_attachment_bytes,
            pace=Pace(per_account_per_s=45),
        )

    @property
    def account(self) -> AccountId:
        return self._account

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def routes(self) -> Sequence[WebhookRoute]:
        return ()

    def health(self) -> Health:
        return self._health

    def render(self, markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
        return rendering.render(markdown, choices)

    async def send(
        self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool = False
    ) -> PlatformMessageId:
        return await self._sender.send(target, chunk, key, is_repeat=is_repeat)

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        await self._sender.edit(target, message_id, chunk)

    async def typing(self, target: Target) -> None:
        await self._sender.typing(target)

    async def run(self, intake: Intake) -> None:
        hearing = Hearing(
            self._account,
            intake,
            self._interactions,
            self._logged_in,
            self._waits,
            max_attachment_bytes=self._settings.max_attachment_bytes,
            on_state=self._note_connection,
            on_heard=self._note_heard,
        )
        logger.info("adapter.started", account=self._account)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(hearing.run())
                tasks.create_task(self._stay_connected(hearing, intake))
        finally:
            self._health = replace(self._health, state="stopped", is_cut_off=False)
            await self._interactions.stop()
            with suppress(
                Exception
            ):  # stored a little late or not at all, a watermark costs a few messages read twice
                async with asyncio.timeout(1):
                    await hearing.flush()

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        await self._interactions.answers.close()

    # connected

    async def _stay_connected(self, hearing: Hearing, intake: Intake) -> None:
        failures = 0
        while True:
            started_at = time.monotonic()
            try:
                await self._connect_once(hearing, intake)
            except discord.PrivilegedIntentsRequired:
                if not self._has_content:
                    await self._rest_refused("Discord refuses intents that need no grant (close code 4014)")
                    continue
                self._has_content = False
                logger.error("adapter.intent_missing", account=self._account, hint=INTENT_HINT)
                continue
            except discord.LoginFailure:
                await self._rest_refused(f"Discord refused this token (401). {TOKEN_HINT}")
                continue
            except discord.ConnectionClosed as closed:
                hint = CLOSE_HINTS.get(closed.code, "Discord closed the connection for good")
                await self._rest_refused(f"{hint} (close code {closed.code})")
                continue
            except Exception as error:
                # an outage, or a mistake of ours: either way the account comes back by itself
                is_outage = isinstance(error, OSError | aiohttp.ClientError | discord.DiscordException)
                failures = 1 if time.monotonic() - started_at > self._waits.longest_retry_s else failures + 1
                logger.warning(
                    "adapter.failed",
                    account=self._account,
                    reason=in_words(error),
                    exc_info=None if is_outage else error,
                )
                self._health = replace(
                    self._health, state="retrying", detail=in_words(error), is_cut_off=is_silence(error)
                )
                await asyncio.sleep(self._waits.backed_off_s(failures))

    async def _connect_once(self, hearing: Hearing, intake: Intake) -> None:
        """Log in and listen until that ends, by an error or a cancellation."""
        link = Link(
            hearing,
            self._waits,
            api_url=self._settings.api_url,
            gateway_url=self._settings.gateway_url,
            message_content=self._has_content,
        )
        try:
            token = self._settings.token
            await link.login(token.get_secret_value() if token else "")
            self._link = link
            publishing = asyncio.create_task(self._publish(link, intake))
            try:
                await link.connect()
            finally:
                publishing.cancel()
                await asyncio.wait({publishing})
        except asyncio.CancelledError:
            # no longer listening, but replies under way still need the login: `close` ends it
            if self._link is not link:
                await link.close()
            raise
        except BaseException:
            self._link = None
            await link.close()
            raise

    async def _publish(self, link: Link, intake: Intake) -> None:
        if self._settings.sync_commands:
            await command_table.publish(self._account, link, intake, self._commands)

    async def _rest_refused(self, detail: str) -> None:
        logger.error("adapter.failed", account=self._account, reason=detail)
        self._health = replace(self._health, state="refused", detail=detail, is_cut_off=False)
        await asyncio.sleep(self._waits.refused_retry_s)

    def _logged_in(self) -> Link | None:
        return self._link

    # what health says

    def _note_connection(self, is_connected: bool, reason: str, is_cut_off: bool) -> None:
        detail = (
            reason
            if not is_connected
            else ("" if self._has_content == self._settings.message_content else INTENT_HINT)
        )
        self._health = replace(
            self._health,
            state="hearing" if is_connected else "retrying",
            detail=detail,
            is_cut_off=is_cut_off,
        )
        if is_connected:
            event = "adapter.reconnected" if self._was_connected else "adapter.connected"
            self._was_connected = True
            logger.info(event, account=self._account)
        else:
            event = "adapter.connection_lost" if self._was_connected else "adapter.not_connected"
            logger.warning(event, account=self._account, reason=reason)

    def _note_heard(self) -> None:
        self._health = replace(self._health, last_heard_at=time.time())
