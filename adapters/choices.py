"""Choices as text: the numbered lines that stand where a platform has no buttons, or not enough of them.

Owns those lines and which choices cannot be buttons. The buttons themselves are each adapter's own.
"""

from collections.abc import Sequence

from adapters.messages import Choice

MAX_COMMAND_BYTES = 64
"""Longest command that fits a button on every platform. Source: Bot API, InlineKeyboardButton.callback_data."""


def as_lines(markdown: str, choices: Sequence[Choice], *, first: int = 1) -> str:
    """The text with a line for each choice below it: `1. label — /command`. `first` numbers the first of them."""
    lines = [
        f"{number}. {_one_line(choice.label)} — {choice.command}"
        for number, choice in enumerate(choices, first)
    ]
    return "\n".join([markdown, "", *lines]) if lines else markdown


def divide(choices: Sequence[Choice], most: int) -> tuple[list[Choice], list[Choice]]:
    """(buttons, lines): at most so many become buttons; a label without anything in it or too long a command never does."""
    buttons: list[Choice] = []
    lines: list[Choice] = []
    for choice in choices:
        fits = (
            len(buttons) < most
            and choice.label.strip()
            and len(choice.command.encode("utf-8", "replace")) <= MAX_COMMAND_BYTES
        )
        (buttons if fits else lines).append(choice)
    return buttons, lines


def shortened(label: str, most: int) -> str:
    """A label on one line, cut to so many characters."""
    line = _one_line(label).encode("utf-8", "replace").decode()
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _one_line(label: str) -> str:
    return " ".join(label.split())
