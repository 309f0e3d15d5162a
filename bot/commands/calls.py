"""What a command is given and what it gives back.

Owns how a call is spelt and the three records around one. The commands themselves are in the other modules here.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.messages import Choice
from bot.catalogue import Catalogue
from config.names import PersonId, SessionId, TurnId
from config.settings import Settings
from sessions import lifecycle
from sessions.database.base import Transaction
from sessions.models import Incoming, Person, Session
from sessions.scope import ChannelScope, Scope
from sessions.statistics import DAY_MS

_COMMAND = re.compile(r"/([a-zA-Z][a-zA-Z0-9_]{0,31})(?:\s+(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CommandCall:
    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class CommandContext:
    tx: Transaction
    message: Incoming
    person: Person
    key: str
    """Of the session that messages here belong to."""
    session: Session | None
    """The live one, None before the first message."""
    begin: Callable[[], Session]
    """Gives the live one, and makes it where there is none."""
    scope: Scope
    """What this person may read here: a shared session with everybody in the channel, else only their own."""
    catalogue: Catalogue
    language: str
    now: int
    agent: str
    """What answers here, for /status."""
    settings: Settings
    meaning: bytes | None = None
    """The vector of a search's words, where it goes by meaning too."""

    def say(self, text: str, /, **values: object) -> str:
        return self.catalogue.say(text, self.language, **values)

    def count(self, text: str, count: int, /, **values: object) -> str:
        """A sentence that has a form for one (`…_one`) and one for any other number (`…_many`)."""
        return self.say(f"{text}_one" if count == 1 else f"{text}_many", count=count, **values)

    def moment(self, milliseconds: int, text: str = "moment") -> str:
        """A time in UTC as people write it in their language; `text` names the form."""
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
        return self.say(
            text, year=at.year, month=f"{at:%m}", day=f"{at:%d}", hour=f"{at:%H}", minute=f"{at:%M}"
        )

    def figure(self, number: float, digits: int = 0) -> str:
        """A number as people write it in their language."""
        plain = f"{number:,.{digits}f}"
        marks = {",": self.say("thousands_mark"), ".": self.say("decimal_mark")}
        return "".join(marks.get(sign, sign) for sign in plain)

    def near_moment(self, milliseconds: int) -> str:
        """The day, or the time of day if it is today's."""
        is_today = milliseconds // DAY_MS == self.now // DAY_MS
        return self.moment(milliseconds, "moment_today" if is_today else "moment_day")

    def nothing_here(self) -> "CommandResult":
        """No conversation is going on: there never was one, or the one before is over."""
        is_known = lifecycle.list_sessions(self.tx, self.scope, key=self.key, limit=1)
        return CommandResult(self.say("status_fresh" if is_known else "status_none"))

    @property
    def is_shared(self) -> bool:
        """Whether everybody in the channel talks in the session meant here."""
        return isinstance(self.scope, ChannelScope)

    @property
    def only_of(self) -> PersonId | None:
        """Whose turns this person may stop: among others their own only; alone, and as an operator, any (None)."""
        return self.person.id if self.is_shared and self.person.role != "operator" else None


@dataclass(frozen=True, slots=True)
class CommandResult:
    text: str
    stop_turns: Sequence[TurnId] = ()
    """Running turns to end once this is committed."""
    wake_sessions: Sequence[SessionId] = ()
    choices: Sequence[Choice] = ()
    """What the person may pick next, as buttons where there are any."""


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    run: Callable[[CommandContext, str], CommandResult] | None
    """None: not run here, its argument is a message for the agent (/ask)."""
    argument: str | None = None
    is_argument_required: bool = False
    usage: str = "usage_none"
    is_personal: bool = False
    """It changes nothing for others and its reply is of no use to them."""


def parse(text: str) -> CommandCall | None:
    """A command call, or None if the text is not spelt like one. Names are compared in lower case."""
    match = _COMMAND.match(text.strip())
    return CommandCall(match[1].lower(), (match[2] or "").strip()) if match else None


def wrong_argument(at: CommandContext, name: str, argument: str, usage: str) -> CommandResult:
    """What was written behind the command does not fit: how to use it (`usage` names the sentence)."""
    sentence = at.say(usage)
    if not argument:
        return CommandResult(sentence)
    return CommandResult(at.say("wrong_argument", name=name, argument=argument[:50], usage=sentence))


def number(argument: str) -> int | None:
    """A whole number above zero as people write it; None for anything else."""
    is_number = argument.isascii() and argument.isdecimal() and 0 < int(argument[:9]) < 10**8
    return int(argument) if is_number and len(argument) < 10 else None
