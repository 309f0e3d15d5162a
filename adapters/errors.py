"""What can go wrong on a platform's wire. SDK exceptions are translated at the adapter's edge, chained with `from`.

AdapterError(account)
├── StartError            the account cannot work as configured (token refused, intents missing); needs the operator
├── MalformedUpdate       an update nobody can parse: quarantined by the adapter, never fatal to the feed
└── DeliveryError         a send, edit or typing call did not succeed
    ├── RateLimited       certainly not sent; try again after `retry_after_s`
    ├── Unreachable       certainly not sent; try again with back-off
    ├── Uncertain         may or may not have been sent (answer lost); the outbox decides by its policy
    ├── Moved             certainly not sent; the channel has a new id
    └── Rejected          certainly not sent, and never will be (forbidden, chat gone, message refused)
        └── MessageGone   an edit's message no longer exists; sending anew may work

Retry policy reads the class, never a message text.
"""

from typing import Literal

from config.names import AccountId, ChannelId


class AdapterError(Exception):
    """Something went wrong on an account's platform."""

    def __init__(self, account: AccountId, reason: str) -> None:
        super().__init__(f"{account}: {reason}")
        self.account = account
        self.reason = reason


class StartError(AdapterError):
    """The account cannot work as configured; only the operator can change that.

    `hint` is one sentence on what to do, shown with the error.
    """

    def __init__(self, account: AccountId, reason: str, hint: str = "") -> None:
        super().__init__(account, reason)
        self.hint = hint


class MalformedUpdate(AdapterError):
    """An update that cannot be parsed."""


class DeliveryError(AdapterError):
    """A call to the platform did not succeed."""


class RateLimited(DeliveryError):
    """The platform asks to wait. `scope` says whether the whole account or only this channel is held."""

    def __init__(
        self,
        account: AccountId,
        reason: str,
        retry_after_s: float,
        scope: Literal["account", "channel"] = "channel",
    ) -> None:
        super().__init__(account, reason)
        self.retry_after_s = retry_after_s
        self.scope = scope


class Unreachable(DeliveryError):
    """The platform was not reached; the message certainly was not sent."""


class Uncertain(DeliveryError):
    """The request went out but its answer was lost; nobody can tell whether the message was sent."""


class Moved(DeliveryError):
    """The channel now lives under another id (a Telegram group became a supergroup)."""

    def __init__(self, account: AccountId, reason: str, channel: ChannelId) -> None:
        super().__init__(account, reason)
        self.channel = channel


class Rejected(DeliveryError):
    """The platform refused this message for good."""


class MessageGone(Rejected):
    """The message to edit does not exist any more."""
