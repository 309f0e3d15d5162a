"""A language model over real HTTP on the loopback: OpenAI's chat completions and Responses, Anthropic's Messages.

Owns the wire of the three APIs as their vendors document it (streams, tool calls in pieces, usage, error bodies), a journal of
what the model was sent, and faults. It is no model: what it answers is told by the last message of the person.

    anything                          echo: anything [3 messages]
    tool:clock {"place": "Tokyo"}     a tool call (several may follow one another); then: tool said: …
    long:5000                         so many characters
    fault:500                         that fault, every time (see `FAULTS`)

A wider choice is had from Python: `server.rules`, `server.fail_next`, `server.chaos`. In a process of its own, POST
/_control takes {"fail_next": "500", "times": 2}, {"chaos": 0.3, "faults": […], "seed": 1} or {"clear": true}, and GET /_journal
gives the journal. Start: python -m tests.fakes.llm --port 4010
"""

from tests.fakes.llm.server import CHAOS_FAULTS, FAULTS, Entry, FakeLlm, Rule
from tests.fakes.llm.wires import Answer, Call, Seen

__all__ = ["CHAOS_FAULTS", "FAULTS", "Answer", "Call", "Entry", "FakeLlm", "Rule", "Seen"]
