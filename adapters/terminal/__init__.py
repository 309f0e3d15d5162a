"""The terminal as a platform: a chat at a prompt, or a script's lines through a pipe."""

from adapters.settling import Settling
from adapters.terminal.adapter import TerminalAdapter

__all__ = ["Settling", "TerminalAdapter"]
