"""The agent that asks a language model: OpenAI, Anthropic, or any server that speaks OpenAI's chat completions.

`agent` is the loop of answers and tool calls, `loading` makes it when its libraries are there, `endpoints` says whom to ask,
`conversation` turns our record into the library's messages and back, `text` what of a stream people see, `errors` what went
wrong, `wire` the HTTP client and its limits, `checkup` the look that `palaver doctor` takes.

The only place that imports the LLM libraries. They take seconds, so nothing here imports them but `agent` and what it needs.
"""

from bot.agents.llm.checkup import look_at
from bot.agents.llm.loading import LoadingAgent

__all__ = ["LoadingAgent", "look_at"]
