"""The agent that asks a language model: OpenAI, Anthropic, or any server that speaks OpenAI's chat completions.

`agent` is the loop of answers and tool calls, `endpoints` says whom to ask, `conversation` turns our record into the library's
messages and back, `text` what of a stream people see, `errors` what went wrong, `wire` the HTTP client and its limits.

The only place that imports the LLM libraries; importing it takes a second, so it is done when such an agent is made.
"""

from bot.agents.llm.agent import LlmAgent

__all__ = ["LlmAgent"]
