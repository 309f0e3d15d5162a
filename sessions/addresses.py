"""Where replies to a message that came go.

Owns that a channel's session may have moved, and that an edit is kept under an id of its own. Sending is `bot/delivery.py`.
"""

import orjson

from config.names import ChannelId, PlatformMessageId
from sessions.database.base import Transaction
from sessions.models import Address


def reply_channel(scope: str, session_channel: ChannelId, heard_in: ChannelId) -> ChannelId | None:
    """Where to answer instead, if the channel has another id by now: its session moved, the inbox keeps what came from where."""
    return session_channel if scope in ("channel", "member") and session_channel != heard_in else None


def platforms_id(message_id: str, sent_at: int) -> PlatformMessageId:
    """An edit is kept as `<message>:<time of the edit>`, so that it is not taken for the message; the platform knows neither."""
    return PlatformMessageId(message_id.removesuffix(f":{sent_at}"))


def address_of(tx: Transaction, inbox_id: int) -> Address | None:
    """Where replies to an inbox row go."""
    row = tx.row(
        "SELECT account, channel, channel_kind, thread, message_id, sent_at, reply_handle FROM inbox WHERE id = :id",
        {"id": inbox_id},
    )
    if row is None:
        return None
    message_id = platforms_id(row["message_id"], row["sent_at"])
    return Address(
        row["account"],
        row["channel"],
        row["channel_kind"],
        row["thread"],
        message_id,
        orjson.loads(row["reply_handle"]) if row["reply_handle"] else None,
        inbox_id,
    )
