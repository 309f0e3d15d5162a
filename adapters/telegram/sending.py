"""Sending, editing and typing on Telegram: the shape of each call, and what to make of its refusal.

Owns the repeat mark and the few refusals that are answered by asking differently at once. Everything else is raised as a
`DeliveryError`: the outbox decides when to try again.
"""

import re
from collections.abc import Mapping
from typing import Any

import structlog
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
)
from telegram.constants import ChatAction
from telegram.error import BadRequest, TelegramError

from adapters.errors import DeliveryError, RateLimited, Uncertain
from adapters.messages import Chunk, Target
from adapters.telegram.entities import utf16_length
from adapters.telegram.flood import FloodWatch
from adapters.telegram.render import MAX_TEXT_UTF16
from adapters.telegram.wire import Bot, meaning, plain_reason, says
from config.names import AccountId, ChannelId, PlatformMessageId

log = structlog.get_logger()

REPEAT_MARKS = {
    "en": "\n\n↻ sent again after an interruption",
    "de": "\n\n↻ nach einer Unterbrechung erneut gesendet",
}


class Sender:
    """The outbound side of one account."""

    def __init__(self, account: AccountId, bot: Bot, language: str) -> None:
        self._account = account
        self._bot = bot
        self._repeat_mark = REPEAT_MARKS.get(language, REPEAT_MARKS["en"])
        self._flood = FloodWatch()

    async def send(self, target: Target, chunk: Chunk, *, is_repeat: bool) -> PlatformMessageId:
        """Raises: a `DeliveryError`."""
        text = chunk.text
        if is_repeat and utf16_length(text + self._repeat_mark) <= MAX_TEXT_UTF16:
            text += self._repeat_mark
        try:
            sent = await self._post(target, text, _entities(chunk), _preview(chunk.text), _keyboard(chunk))
            return PlatformMessageId(str(sent["message_id"]))
        except Exception as error:
            raise self._delivery_error(error, target) from error

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        """Raises: a `DeliveryError`."""
        try:
            await self._replace(target, message_id, chunk)
        except Exception as error:
            if isinstance(error, BadRequest) and says(error, "message is not modified"):
                return
            raise self._delivery_error(error, target) from error

    async def typing(self, target: Target) -> None:
        """Raises: a `DeliveryError`."""
        try:
            await self._bot.send_chat_action(
                _chat(target.channel), ChatAction.TYPING, message_thread_id=_thread(target)
            )
        except Exception as error:
            raise self._delivery_error(error, target) from error

    async def _post(
        self,
        target: Target,
        text: str,
        entities: list[MessageEntity],
        preview: LinkPreviewOptions,
        keyboard: InlineKeyboardMarkup | None,
    ) -> Any:
        thread = _thread(target)
        while True:
            try:
                return await self._bot.raw_call(
                    "sendMessage",
                    chat_id=_chat(target.channel),
                    text=text,
                    entities=entities,
                    message_thread_id=thread,
                    reply_parameters=_reply_parameters(target),
                    link_preview_options=preview,
                    reply_markup=keyboard,
                )
            except BadRequest as error:
                if entities and self._refuses_markup(error):
                    entities = []
                elif thread is not None and says(error, "message thread not found", "TOPIC_DELETED"):
                    # the topic is gone, the people are not: say it in the group's general topic. A topic that was
                    # closed stays refused, since somebody wanted quiet there.
                    thread = None
                else:
                    raise

    async def _replace(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        entities = _entities(chunk)
        while True:
            try:
                await self._bot.raw_call(
                    "editMessageText",
                    text=chunk.text,
                    chat_id=_chat(target.channel),
                    message_id=int(message_id) if _is_number(message_id) else 0,
                    entities=entities,
                    link_preview_options=_preview(chunk.text),
                    reply_markup=_keyboard(chunk),  # an edit without one takes the buttons away
                )
            except BadRequest as error:
                if not entities or not self._refuses_markup(error):
                    raise
                entities = []
            else:
                return

    def _refuses_markup(self, error: BadRequest) -> bool:
        if not says(error, "can't parse entities"):
            return False
        log.warning("adapter.markup_refused", account=self._account, reason=plain_reason(error))
        return True

    def _delivery_error(self, error: Exception, target: Target) -> DeliveryError:
        if not isinstance(error, TelegramError):
            # the answer could not be read, or something in between broke: the message may well be out
            return Uncertain(self._account, plain_reason(error))
        found = meaning(error, self._account, target.channel)
        if isinstance(found, RateLimited):
            found.scope = self._flood.scope(target.channel, found.retry_after_s)
        return found


def _entities(chunk: Chunk) -> list[MessageEntity]:
    """The chunk's markup; nothing at all if it is not what `render` made, since the text matters more."""
    markup: Any = chunk.markup or []
    try:
        return [
            MessageEntity(
                each["type"],
                each["offset"],
                each["length"],
                url=each.get("url"),
                language=each.get("language"),
            )
            for each in (markup["entities"] if isinstance(markup, Mapping) else markup)
        ]
    except (KeyError, TypeError, AttributeError):
        return []


def _keyboard(chunk: Chunk) -> InlineKeyboardMarkup | None:
    """The chunk's buttons, if it has any; a press comes back as the command in its data."""
    markup: Any = chunk.markup
    if not isinstance(markup, Mapping) or not markup.get("buttons"):
        return None
    return InlineKeyboardMarkup(
        [
            [InlineKeyboardButton(button["text"], callback_data=button["data"]) for button in row]
            for row in markup["buttons"]
        ]
    )


def _preview(text: str) -> LinkPreviewOptions:
    """No preview, which would dwarf an answer that cites something; except for a message that is nothing but a link."""
    return LinkPreviewOptions(is_disabled=re.fullmatch(r"https?://\S+", text.strip()) is None)


def _reply_parameters(target: Target) -> ReplyParameters | None:
    if target.reply_to is None or not _is_number(target.reply_to):
        return None  # a pressed button is no message that one could reply to
    return ReplyParameters(int(target.reply_to), allow_sending_without_reply=True)


def _chat(channel: ChannelId) -> int | str:
    return int(channel) if _is_number(channel) else channel


def _thread(target: Target) -> int | None:
    return int(target.thread) if target.thread is not None and _is_number(target.thread) else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,18}", text, re.ASCII) is not None
