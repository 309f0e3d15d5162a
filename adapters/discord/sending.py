"""Replies out to Discord, each visible once: channel messages with a nonce, and the answers to slash commands.

Owns the choice of way. The first chunk for a slash command fills its "is thinking…"; everything else, and whatever comes
when the token is spent, is an ordinary message of the channel, because only those take a nonce; except what only one person
is to see, whose further chunks follow up on the command. A chunk that may have
gone out before is looked for in the channel's history first: Discord forgets a nonce after a few minutes.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import discord

from adapters.discord.answers import EPHEMERAL, LOADING, Handle, TokenSpent
from adapters.discord.failures import NotConnected, translate
from adapters.discord.interactions import Interactions
from adapters.discord.link import Link
from adapters.errors import MessageGone, Rejected, Uncertain
from adapters.messages import Chunk, Target
from config.names import AccountId, PlatformMessageId

HISTORY_PAGE = 100
MAX_PAGES = 5
"""How much is looked through for an earlier copy of a message."""

MAX_REMEMBERED = 2000


class _Buttons(discord.ui.View):
    """A chunk's components as the library wants them. Ended at once: presses are heard as interactions, not by the library."""

    def __init__(self, components: list[dict[str, Any]]) -> None:
        super().__init__(timeout=None)
        self._components = components
        self.stop()

    def to_components(self) -> list[dict[str, Any]]:
        return self._components


def components_of(chunk: Chunk) -> list[dict[str, Any]]:
    """The buttons that `render` made, none if the markup is not its own."""
    markup: Any = chunk.markup
    found = markup.get("components") if isinstance(markup, dict) else None
    return found if isinstance(found, list) else []


def _buttons(chunk: Chunk) -> _Buttons | None:
    components = components_of(chunk)
    return _Buttons(components) if components else None


class Sender:
    """Sends and edits for one account; `link` gives the login of the moment, None if there is none."""

    def __init__(
        self, account: AccountId, link: Callable[[], Link | None], interactions: Interactions
    ) -> None:
        self._account = account
        self._link_now = link
        self._interactions = interactions
        self._sent: OrderedDict[str, str] = OrderedDict()
        """Message id by key, of what this process knows to have been sent."""

    async def send(self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool) -> PlatformMessageId:
        try:
            message_id = self._sent.get(key) if is_repeat else None
            handle = Handle.read(target.reply_handle)
            reference = target.reply_to
            if handle is not None:
                reference = None  # an interaction is no message that could be answered
                if message_id is None:
                    message_id, reference = await self._fill_answer(handle, chunk, key, is_repeat=is_repeat)
                if message_id is None and not handle.is_expired and self._interactions.is_private(handle):
                    message_id = await self._whisper(handle, chunk)
            if message_id is None:
                try:
                    message_id = await self._post(target, chunk, key, reference, handle, is_repeat=is_repeat)
                except discord.Forbidden:
                    if handle is None or handle.is_expired:
                        raise
                    message_id = await self._follow_up(handle, chunk)
        except Exception as error:
            delivery_error = translate(error, self._account)
            if delivery_error is error:
                raise
            raise delivery_error from error
        self._sent[key] = message_id
        while len(self._sent) > MAX_REMEMBERED:
            self._sent.popitem(last=False)
        return PlatformMessageId(message_id)

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        handle = Handle.read(target.reply_handle)
        try:
            if (
                handle is not None
                and not handle.is_expired
                and await self._edit_answer(handle, message_id, chunk)
            ):
                return
            channel = self._link().get_partial_messageable(self._number(target.thread or target.channel))
            message = channel.get_partial_message(self._number(message_id))
            nobody = discord.AllowedMentions.none()
            buttons = _buttons(chunk)
            if buttons is None:
                await message.edit(content=chunk.text, allowed_mentions=nobody)
            else:
                await message.edit(content=chunk.text, allowed_mentions=nobody, view=buttons)
        except Exception as error:
            delivery_error = translate(error, self._account)
            if delivery_error is error:
                raise
            raise delivery_error from error

    async def typing(self, target: Target) -> None:
        if Handle.read(target.reply_handle) is not None:
            return  # "is thinking…" shows it already
        try:
            await self._link().http.send_typing(self._number(target.thread or target.channel))
        except Exception as error:
            raise translate(error, self._account) from error

    # slash commands

    async def _fill_answer(
        self, handle: Handle, chunk: Chunk, key: str, *, is_repeat: bool
    ) -> tuple[str | None, PlatformMessageId | None]:
        """The id of the answer's message if this chunk is there now; else the message that it should follow, if any."""
        if handle.is_expired:
            return None, None
        has_answer = await self._interactions.has_answer(handle)
        if has_answer is False:
            return None, None
        try:
            taken = self._interactions.answer_of(handle)
            if taken is None and has_answer is None:
                standing = await self._interactions.answers.look(handle)
                if standing.get("flags", 0) & EPHEMERAL:
                    self._interactions.note_private(handle)
                is_free = bool(standing.get("flags", 0) & LOADING) or self._interactions.is_notice(standing)
                if not is_free:
                    original = str(standing["id"])
                    if is_repeat and str(standing.get("content", "")).strip() == chunk.text.strip():
                        return original, None
                    return None, PlatformMessageId(original)
            elif taken is not None and taken[0] != key:
                return None, PlatformMessageId(taken[1]) if taken[1] else None
            # from here on the answer is this chunk's, whether or not we hear that it was written
            self._interactions.note_answer(handle, key, taken[1] if taken else "")
            message_id = await self._interactions.answers.write(
                handle, "@original", chunk.text, components_of(chunk)
            )
            self._interactions.note_answer(handle, key, message_id)
        except TokenSpent:
            return None, None
        return message_id, None

    async def _follow_up(self, handle: Handle, chunk: Chunk) -> str:
        """The way into a channel where the bot may answer commands but not write."""
        try:
            return await self._interactions.answers.follow_up(handle, chunk.text, components_of(chunk))
        except TokenSpent as spent:
            raise Rejected(
                self._account, "may not write here, and the command is too old to be answered"
            ) from spent

    async def _whisper(self, handle: Handle, chunk: Chunk) -> str | None:
        """A further piece of an answer that others do not see; None if there is no way left but the channel."""
        try:
            return await self._interactions.answers.follow_up(
                handle, chunk.text, components_of(chunk), is_private=True
            )
        except TokenSpent:
            return None

    async def _edit_answer(self, handle: Handle, message_id: str, chunk: Chunk) -> bool:
        """Edit through the interaction's token; False if the message is not the interaction's or the token is spent."""
        taken = self._interactions.answer_of(handle)
        if taken is not None and taken[1] and taken[1] != message_id:
            return False
        try:
            await self._interactions.answers.write(handle, message_id, chunk.text, components_of(chunk))
        except (TokenSpent, MessageGone):
            return False
        return True

    # ordinary messages

    async def _post(
        self,
        target: Target,
        chunk: Chunk,
        key: str,
        reference: PlatformMessageId | None,
        handle: Handle | None,
        *,
        is_repeat: bool,
    ) -> str:
        place = self._number(target.thread or target.channel)
        link = self._link()
        if is_repeat:
            after = reference or (handle.interaction_id if handle else None) or target.answers
            earlier = await self._find_earlier(link, place, chunk.text, key, reference, after)
            if earlier is not None:
                return earlier
        channel = link.get_partial_messageable(place)
        further: dict[str, Any] = {}
        if reference is not None:
            further["mention_author"] = False
            further["reference"] = discord.MessageReference(
                message_id=self._number(reference), channel_id=place, fail_if_not_exists=False
            )
        if (buttons := _buttons(chunk)) is not None:
            further["view"] = buttons
        message = await channel.send(
            chunk.text, nonce=key, allowed_mentions=discord.AllowedMentions.none(), **further
        )
        return str(message.id)

    async def _find_earlier(
        self, link: Link, place: int, text: str, key: str, reference: str | None, after: str | None
    ) -> str | None:
        """The message that an earlier try left in the channel. Without anything to begin at, the nonce must do."""
        if after is None:
            return None
        cursor = self._number(after)
        others = {message_id for other, message_id in self._sent.items() if other != key}
        for _ in range(MAX_PAGES):
            try:
                page: list[Any] = await link.http.logs_from(place, HISTORY_PAGE, after=cursor)
            except discord.Forbidden:
                return None  # may write but not read here
            except Exception as error:
                # the look-up failed, so it is as open as before whether the message is there
                raise Uncertain(self._account, f"look-up failed: {error!r}") from error
            for message in sorted(page, key=lambda one: int(one["id"])):
                if str(message["id"]) not in others and self._is_copy(message, link, text, key, reference):
                    return str(message["id"])
            if len(page) < HISTORY_PAGE:
                return None
            cursor = max(int(message["id"]) for message in page)
        return None

    def _is_copy(self, message: Any, link: Link, text: str, key: str, reference: str | None) -> bool:
        if link.user is None or str(message["author"]["id"]) != str(link.user.id):
            return False
        nonce = message.get("nonce")
        if nonce is not None:
            return str(nonce) == key
        answered = (message.get("message_reference") or {}).get("message_id")
        is_same_reference = (None if answered is None else str(answered)) == reference
        if not is_same_reference or "webhook_id" in message:
            return False
        content, whole = message["content"].strip(), text.strip()
        if reference is None or not content:
            return bool(content == whole)
        # What replies to a question may have been the preview of this answer, to be edited into the whole: its beginning, or,
        # where the whole is cut into pieces, a little more than the first of them.
        return bool(whole.startswith(content) or content.startswith(whole))

    def _link(self) -> Link:
        link = self._link_now()
        if link is None:
            raise NotConnected
        return link

    def _number(self, discord_id: str) -> int:
        try:
            return int(discord_id)
        except ValueError:
            raise Rejected(self._account, f"not a Discord id: {discord_id!r:.60}") from None
