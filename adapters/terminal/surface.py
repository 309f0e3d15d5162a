"""`Surface`: what the terminal adapter reads from and shows on, a prompt (`screen.py`) or a pipe (`pipe.py`).

Owns the protocol and the few words both say.
"""

from collections.abc import AsyncGenerator, Sequence
from types import MappingProxyType
from typing import Protocol


class Surface(Protocol):
    is_sequential: bool
    """Whether the next line is read only after the last one was answered."""

    def lines(self) -> AsyncGenerator[str, None]:
        """What the person writes, one message each, until the input ends or the person leaves."""

    async def show(self, markdown: str) -> None:
        """Show a reply; returns once it is out. Raises: SurfaceGone when nobody can see anything any more."""

    def show_typing(self) -> None: ...

    def announce(self, lines: Sequence[str]) -> None:
        """Tell the person something that is not a reply."""

    def warn(self, sentence: str) -> None:
        """Tell the person that something is wrong."""


class SurfaceGone(Exception):
    """The terminal or the reading end of stdout was closed."""


LEAVE = frozenset({"/quit", "/exit"})

TEXTS = MappingProxyType(
    {
        "en": {
            "you": "you › ",
            "bot": "bot › ",
            "typing": "writing",
            "leave": "Ctrl-D or /quit leaves.",
            "quit": "Leave the chat",
            "waiting": "Nothing can be stored just now. Your message is kept here and tried again.",
            "not_utf8": "Line {number} of the input is not valid UTF-8; unreadable bytes were replaced.",
            "too_long": "Line {number} of the input is longer than {limit} MB and was left out.",
            "unwritable": "Replies cannot be written to stdout: {reason}.",
            "unanswered": "No end of the answer after {minutes} minutes; going on with the next line.",
        },
        "de": {
            "you": "du › ",
            "bot": "bot › ",
            "typing": "schreibt",
            "leave": "Strg-D oder /quit beendet.",
            "quit": "Den Chat verlassen",
            "waiting": "Gerade kann nichts gespeichert werden. Deine Nachricht bleibt hier und wird erneut versucht.",
            "not_utf8": "Zeile {number} der Eingabe ist kein gültiges UTF-8; unlesbare Bytes wurden ersetzt.",
            "too_long": "Zeile {number} der Eingabe ist länger als {limit} MB und wurde ausgelassen.",
            "unwritable": "Antworten können nicht nach stdout geschrieben werden: {reason}.",
            "unanswered": "Kein Ende der Antwort nach {minutes} Minuten; weiter mit der nächsten Zeile.",
        },
    }
)
"""What the adapter itself says, by language. Replies come from the daemon."""


def texts(language: str | None) -> dict[str, str]:
    """The words in a person's language (`de-at`), English where there are none."""
    return TEXTS.get((language or "en").split("-")[0], TEXTS["en"])
