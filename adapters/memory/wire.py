"""`Wire`: what the memory adapter needs from either of its counterparties, the room in the process or a bridge.

Owns the protocol and how an inbound message reads as JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from adapters.errors import MalformedUpdate
from adapters.messages import Chunk, InboundMessage, Target
from config.names import AccountId, Json, PlatformMessageId


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message waiting at the platform: numbered, kept there until a poll asks for what comes after it."""

    number: int
    content: InboundMessage | bytes
    """Bytes are JSON that nobody has looked at yet."""


class Wire(Protocol):
    async def inbound(self, after: int, wait_s: float) -> Sequence[Arrival]:
        """Forget everything up to `after`, then wait that long for what comes next; empty when nothing came.

        Raises: StartError if the platform refuses this account, DeliveryError if it cannot be heard.
        """

    async def send(self, target: Target, chunk: Chunk, key: str, *, is_repeat: bool) -> PlatformMessageId: ...

    async def edit(self, target: Target, message_id: PlatformMessageId, chunk: Chunk) -> None: ...

    async def typing(self, target: Target) -> None: ...

    async def close(self) -> None: ...


_messages = TypeAdapter(InboundMessage)


def parse_message(account: AccountId, raw: Json) -> InboundMessage:
    """An `InboundMessage` from its JSON form: the same field names, without `account`.

    Raises: MalformedUpdate naming the first field that is wrong, never its content.
    """
    if not isinstance(raw, dict):
        raise MalformedUpdate(account, f"a message is a JSON object, not {type(raw).__name__}")
    try:
        message = _messages.validate_python({**raw, "account": account}, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise MalformedUpdate(account, f"{field}: {first['msg']}") from None
    if not message.channel or not message.message_id or not message.sender.user_id:
        raise MalformedUpdate(account, "channel, message_id and sender.user_id must not be empty")
    return message
