"""The commands of the chat, published to every platform and run inside the transaction that takes the message in.

Owns names, arguments and what each command does. A command is a plain function of a transaction: it happens exactly
once, together with its reply, and never waits behind a running turn. `table.py` has them all; what they do is in
`conversation.py`, `sessions.py`, `finding.py` and `forgetting.py`.
"""

from bot.commands.calls import Command, CommandCall, CommandContext, CommandResult, parse
from bot.commands.conversation import HISTORY_PAGE
from bot.commands.table import TABLE, is_for_us, run, specs, table_for

__all__ = [
    "HISTORY_PAGE",
    "TABLE",
    "Command",
    "CommandCall",
    "CommandContext",
    "CommandResult",
    "is_for_us",
    "parse",
    "run",
    "specs",
    "table_for",
]
