"""How a mistake in the configuration reads: which setting, what is wrong, what to do, where it was written.

    Exception
    ├── ConfigError     one mistake
    └── ConfigErrors    every mistake found in one load; `problems` holds them in the order to read

Owns only the wording's frame. What counts as a mistake is `config/checks.py`; the exit code (78) is the command line's.
"""

from collections.abc import Iterable


class ConfigError(Exception):
    """One mistake: `accounts.main.token: is not set. @BotFather gives one with /newbot  (config.toml line 3)`.

    `path` is the setting, or the variable or file when the mistake is about that. `hint` says what to do next. `origin`
    is where the value came from. None of the four may hold a secret.
    """

    def __init__(self, path: str, reason: str, hint: str = "", origin: str = "") -> None:
        super().__init__(path, reason, hint, origin)
        self.path = path
        self.reason = reason
        self.hint = hint
        self.origin = origin

    def __str__(self) -> str:
        text = f"{self.path}: {self.reason}" if self.path else self.reason
        if self.hint:
            text = f"{text.rstrip('.')}. {self.hint}"
        if self.origin:
            text = f"{text}  ({self.origin})"
        # One mistake is one line, whatever the value that was complained about held.
        return " ".join(text.splitlines())

    def lines(self) -> list[str]:
        """The mistake as one line, without the leading `palaver:`."""
        return [str(self)]


class ConfigErrors(Exception):
    """Every mistake found in one load, so that they can be mended in one go."""

    def __init__(self, problems: Iterable[ConfigError]) -> None:
        self.problems = tuple(problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """One line for each mistake."""
        return [str(problem) for problem in self.problems]
