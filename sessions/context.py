"""What the model sees of a conversation: the newest messages that fit a budget of tokens.

Owns choosing and counting. Counts are estimates made before a request; what a provider reports afterwards is what is recorded.
"""

from collections.abc import Sequence

from sessions.models import Message

_PER_MESSAGE = 4  # role and separators, as chat formats add them


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, by script: dense scripts and emoji weigh more than Latin letters."""
    weight = 0.0
    for character in text:
        code = ord(character)
        if code < 0x80:
            weight += 0.25
        elif code < 0x0600:
            weight += 0.3
        elif code >= 0x1F000:
            weight += 1.6
        else:
            weight += 0.8
    return int(weight) + 1


def fit(messages: Sequence[Message], limit_tokens: int) -> list[Message]:
    """The newest messages within the budget, oldest first. The last one is always kept, cut only by the model itself."""
    kept: list[Message] = []
    used = 0
    for message in reversed(messages):
        used += estimate_tokens(message.content) + _PER_MESSAGE
        if kept and used > limit_tokens:
            break
        kept.append(message)
    kept.reverse()
    return kept
