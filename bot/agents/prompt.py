"""What an agent tells a model besides the conversation: whom it talks to, which day it is, which tools it has.

Owns these words, which the agent sends and `bot/windows.py` counts; no library of a vendor is needed for them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bot.agents.base import ToolRequest, ToolSpec
from sessions.wording import one_line

LEFT_OUT: Final = "(Earlier messages are left out.)"
"""Before an answer that nothing stands before: vendors want a person to speak first."""


def facts(person_name: str | None, now: datetime | None, *, is_shared: bool) -> str:
    told = []
    if is_shared:
        told.append(
            "Several people share this conversation. Each of their messages begins with its author's name;"
            " do not begin your own answers with a name."
        )
    elif person_name:
        told.append(f"You are talking with {one_line(person_name)}.")
    if now:
        # Only the day: with the time of day no two requests would begin alike, and vendors could cache nothing.
        told.append(f"Today is {now:%Y-%m-%d}, a {now:%A}.")
    return " ".join(told)


def described(spec: ToolSpec) -> Mapping[str, Any]:
    """A tool as chat completions describe it, which is what others make of it, too."""
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function}


def called(request: ToolRequest, arguments: str) -> Mapping[str, Any]:
    """A call of a tool as chat completions repeat it."""
    return {
        "id": request.call_id,
        "type": "function",
        "function": {"name": request.name, "arguments": arguments},
    }
