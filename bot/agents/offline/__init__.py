"""The built-in agent: answers with no model, so that a newcomer sees the whole machine at work in the first minute.

`understanding` reads a message, `phrases` holds every sentence in English and German, `agent` plays both through the port.
"""

from bot.agents.offline.agent import OfflineAgent

__all__ = ["OfflineAgent"]
