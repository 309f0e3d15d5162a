"""A question together with the message that it replies to: "what does she mean?" asks about words nobody said to the bot.

Owns how they stand below the question. Which message is quoted, and that the bot's own are not, is the adapters'.
"""

from typing import Final

LONGEST_QUOTE: Final = 1000
"""How much of the other message is taken along, in characters."""


def with_quote(text: str, name: str, said: str) -> str:
    """The text with somebody's words below it, as a Markdown quotation; a command, and words that are none, change nothing."""
    if text.startswith("/") or not said:
        return text
    if len(said) > LONGEST_QUOTE:
        said = said[:LONGEST_QUOTE] + "…"
    quote = "\n".join(f"> {line}" for line in f"{name}: {said}".split("\n"))
    return f"{text}\n\n{quote}".strip()
