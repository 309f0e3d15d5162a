"""`Settling`: an optional verb of an adapter that wants to know when everything for a message has been said.

Owns the protocol only. Who has it: the terminal (a script's next line waits for the answer to the last one) and the
memory adapter (`ask` returns the whole answer). Who calls it: the daemon's delivery, for adapters that have it
(`isinstance(adapter, Settling)`).
"""

from typing import Protocol, runtime_checkable

from config.names import PlatformMessageId


@runtime_checkable
class Settling(Protocol):
    def settled(self, message_id: PlatformMessageId) -> None:
        """Nothing more will be sent for this inbound message: every chunk of every reply was sent or has failed for
        good, or the message was declined without a reply. Unknown ids (from before a restart) are ignored.
        """
