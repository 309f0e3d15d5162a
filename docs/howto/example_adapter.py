"""`PinboardAdapter`: a whole adapter for an imaginary platform, to copy from. `write-an-adapter.md` walks through it.

The pinboard has what most platforms have: numbered posts that can be asked for, private and shared rooms, a token, an
idempotency key, and edits. Its wire:

    GET  /me                                   {"id", "name"}
    GET  /posts?after=N&wait=S                 {"posts": [{"number", "id", "room", "is_private", "author", "text", …}]}
    POST /rooms/ROOM/posts   Idempotency-Key   {"text", "answers"}  ->  {"id"}
    PUT  /posts/ID                             {"text"}

Owns hearing, reading the pinboard's JSON, and what each of its errors means. Pace, order, retries and what a message is
answered with belong to the daemon.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx2
import structlog

from adapters.base import Capabilities, Health, Intake, Pace, WebhookRoute
from adapters.choices import as_lines
from adapters.errors import (
    AdapterError,
    DeliveryError,
    MalformedUpdate,
    MessageGone,
    RateLimited,
    Rejected,
    StartError,
    Uncertain,
    Unreachable,
)
from adapters.handover import hand_over, until_taken
from adapters.messages import Choice, Chunk, CommandSpec, InboundMessage, Sender, Target
from adapters.text import split_markdown
from config.names import AccountId, ChannelId, PlatformMessageId, PlatformUserId
from config.settings import AccountSettings

CAPABILITIES = Capabilities(
    max_text=2000,
    can_edit=True,
    is_idempotent=True,
    pace=Pace(per_account_per_s=20, per_direct_channel_per_s=5),
)
CURSOR = "last_post"
POLL_S = 20.0
ANSWER_TIMEOUT_S = 10.0
LONGEST_RETRY_S = 30.0

log = structlog.get_logger()


class PinboardAdapter:
    """One bot account on one pinboard."""

    def __init__(
        self,
        account: AccountId,
        settings: AccountSettings,
        commands: Callable[[str], Sequence[CommandSpec]],
        *,
        language: str = "en",
        first_retry_s: float = 1.0,
    ) -> None:
        """Makes no connection. Raises: StartError if the settings cannot work."""
        if settings.api_url is None or settings.token is None:
            raise StartError(
                account, "api_url or token is not set", "Both are on the pinboard's page for bots."
            )
        self._account = account
        self._first_retry_s = first_retry_s
        self._health = Health("starting")
        self._client = httpx2.AsyncClient(
            base_url=settings.api_url,
            headers={"Authorization": f"Bearer {settings.token.get_secret_value()}"},
            timeout=httpx2.Timeout(ANSWER_TIMEOUT_S, read=POLL_S + ANSWER_TIMEOUT_S),
        )

    @property
    def account(self) -> AccountId:
        return self._account

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    @property
    def routes(self) -> Sequence[WebhookRoute]:
        return ()

    def health(self) -> Health:
        return self._health

    # hearing

    async def run(self, intake: Intake) -> None:
        log.info("adapter.started", account=self._account)
        retry_s = self._first_retry_s
        me: Mapping[str, Any] | None = None
        try:
            after = int(await until_taken(lambda: intake.cursor(self._account, CURSOR), self._account) or 0)
            while True:
                try:
                    me = me or await self._get("/me")
                    # The first poll does not wait: whether the platform is there is known at once.
                    wait_s = POLL_S if self._health.state == "hearing" else 0
                    posts = self._numbered(await self._get("/posts", after=after, wait=wait_s))
                except AdapterError as error:
                    self._note_failure(error, retry_s)
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                    continue
                self._health = Health("hearing", time.time())
                retry_s = self._first_retry_s
                for number, post in posts:
                    await self._take_in(intake, post, me)
                    after = number
                if posts:
                    await self._keep(intake, after)
        finally:
            self._health = Health("stopped", self._health.last_heard_at)

    async def _take_in(self, intake: Intake, post: Mapping[str, Any], me: Mapping[str, Any]) -> None:
        """Returns when the post is on disk, however long that takes."""
        try:
            message = read_post(self._account, post, me)
        except MalformedUpdate as error:
            raw, reason = json.dumps(post).encode(), error.reason
            await until_taken(lambda: intake.quarantine(self._account, raw, reason), self._account)
            return
        if message is not None:
            await hand_over(intake, message)

    async def _keep(self, intake: Intake, after: int) -> None:
        """If we die before this, the same posts come again and are refused as duplicates."""
        await until_taken(lambda: intake.set_cursor(self._account, CURSOR, str(after)), self._account)

    def _numbered(self, answer: Any) -> list[tuple[int, Mapping[str, Any]]]:
        """Raises: Unreachable if this is not the pinboard's answer (a proxy's page, for example)."""
        try:
            return sorted(((int(post["number"]), post) for post in answer["posts"]), key=lambda item: item[0])
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(self._account, "the answer is not a list of numbered posts") from error

    def _note_failure(self, error: AdapterError, retry_s: float) -> None:
        state = "refused" if isinstance(error, StartError) else "retrying"
        is_cut_off = isinstance(error, Unreachable)
        self._health = Health(state, self._health.last_heard_at, error.reason, is_cut_off)  # type: ignore[arg-type]  # one of two
        log.warning("adapter.failed", account=self._account, reason=error.reason, retry_after_s=retry_s)

    # sending

    def render(self, markdown: str, choices: Sequence[Choice] = ()) -> list[Chunk]:
        source = as_lines(markdown, choices)  # the pinboard has no buttons
        text = source.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return [Chunk(piece) for piece in split_markdown(text, CAPABILITIES.max_text)]

    async def send(
        self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool = False
    ) -> PlatformMessageId:
        body = {"text": chunk.text, "answers": target.reply_to}
        path = f"/rooms/{target.channel}/posts"
        answer = await self._change("POST", path, body, {"Idempotency-Key": key})
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
            raise Uncertain(self._account, "the answer names no post")
        return PlatformMessageId(answer["id"])

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None:
        await self._change("PUT", f"/posts/{message_id}", {"text": chunk.text}, {})

    async def typing(self, target: Target) -> None:
        """The pinboard shows nothing of the kind, and `can_type` says so."""

    async def close(self) -> None:
        await self._client.aclose()

    # the wire

    async def _get(self, path: str, **query: float) -> Any:
        """Raises: StartError if the token is refused, Unreachable for everything that may pass."""
        try:
            response = await self._client.get(path, params=query)
            if response.status_code in (401, 403):
                raise StartError(self._account, "the pinboard refuses this token", "Make a new one there.")
            response.raise_for_status()
            return response.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise Unreachable(self._account, f"{path}: {type(error).__name__}") from error

    async def _change(
        self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Any:
        """Raises: a DeliveryError. What is not known to have stayed here counts as perhaps done."""
        try:
            response = await self._client.request(method, path, json=body, headers=dict(headers))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise Unreachable(self._account, type(error).__name__) from error
        except httpx2.HTTPError as error:
            raise Uncertain(self._account, type(error).__name__) from error
        if not response.is_success:
            raise self._meaning(response)
        try:
            return response.json()
        except ValueError as error:
            raise Uncertain(self._account, "the answer is not JSON") from error

    def _meaning(self, response: httpx2.Response) -> DeliveryError:
        reason = f"answered {response.status_code}"
        match response.status_code:
            case 429:
                return RateLimited(self._account, reason, float(response.headers.get("Retry-After", 1)))
            case 401 | 503:  # the operator, or time, can mend it; then the reply should still go out
                return Unreachable(self._account, reason)
            case 404 if response.request.method == "PUT":
                return MessageGone(self._account, reason)
            case status if status >= 500:
                return Uncertain(self._account, reason)
        return Rejected(self._account, reason)


def read_post(account: AccountId, post: Mapping[str, Any], me: Mapping[str, Any]) -> InboundMessage | None:
    """A post as a message; None for the bot's own. Raises: MalformedUpdate."""
    try:
        author = post["author"]
        if author["id"] == me["id"]:
            return None
        text, mention = _text(post["text"]), f"@{me['name']}"
        is_private, is_mentioned = bool(post["is_private"]), mention in text
        if text.startswith(mention):
            text = text.removeprefix(mention).lstrip(" ,:")
        return InboundMessage(
            account=account,
            channel=ChannelId(_text(post["room"])),
            message_id=PlatformMessageId(_text(post["id"])),
            sender=Sender(
                PlatformUserId(_text(author["id"])), _text(author["name"]), is_bot=bool(author.get("is_bot"))
            ),
            text=text,
            sent_at_ms=int(datetime.fromisoformat(post["written_at"]).timestamp() * 1000),
            channel_kind="direct" if is_private else "group",
            is_addressed=is_private or is_mentioned or text.startswith("/"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MalformedUpdate(account, f"{type(error).__name__}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is needed, not {type(value).__name__}")
    return value
