"""The typed strings that every package uses to name things: accounts, channels, people, sessions.

Owns only the names. They live in the lowest layer because `adapters` and `sessions` both speak of a channel but
never import each other. All are opaque: nobody parses them except the package that made them.
"""

from typing import Any, NewType

AccountId = NewType("AccountId", str)
"""One configured bot on one platform: `telegram.main` (`<platform>.<name of the table in [accounts]>`)."""

ChannelId = NewType("ChannelId", str)
"""Where messages are exchanged, in the platform's own spelling. A direct conversation is a channel too."""

ThreadId = NewType("ThreadId", str)
"""A topic inside a channel (Telegram forum topic; a Discord thread is a channel of its own with a thread id)."""

PlatformMessageId = NewType("PlatformMessageId", str)
"""One message, unique within (account, channel)."""

PlatformUserId = NewType("PlatformUserId", str)
"""One user of a platform, in the platform's own spelling."""

PersonId = NewType("PersonId", str)
SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
ReplyId = NewType("ReplyId", str)

Json = Any
"""A value that JSON can hold (None, bool, int, float, str, list, dict). Checked where it enters, not by the type."""
