"""May this person talk here, is the bot addressed, whose session is it: every decision with its reason.

Owns the rules, as plain functions of settings and facts; nothing here reads the store or sends anything. The reasons
are words of a fixed list that the log, `palaver why` and the tests share.
"""

from dataclasses import dataclass
from typing import Literal

from adapters.messages import InboundMessage
from config.settings import AccessSettings, AccountSettings, ScopeSettings, Settings
from sessions.models import Person

Reason = Literal[
    "",
    "from_bot",
    "not_addressed",
    "command_for_other_bot",
    "blocked",
    "stranger",
    "channel_not_allowed",
    "unsupported",
    "empty",
    "too_long",
    "queue_full",
    "session_paused",
    "edited_after_answer",
    "unknown_command",
]


@dataclass(frozen=True, slots=True)
class Decision:
    """Accept (`reason` empty) or decline. `text` names the sentence of the catalogue that the person is told, if any."""

    reason: Reason
    text: str | None = None
    is_told_once: bool = False

    @property
    def is_accepted(self) -> bool:
        return not self.reason


ACCEPTED = Decision("")


def decide(message: InboundMessage, person: Person, access: AccessSettings, max_chars: int) -> Decision:
    """The first rule that declines wins; groups never hear why, unless somebody spoke to the bot."""
    if message.sender.is_bot:
        return Decision("from_bot")
    if message.is_command_for_other:
        return Decision("command_for_other_bot")
    if message.channel_kind == "group" and not message.is_addressed:
        return Decision("not_addressed")
    if person.role == "blocked" or _is_listed(message, access.block):
        return Decision("blocked")
    if (
        message.channel_kind == "group"
        and "*" not in access.allow_channels
        and message.channel not in access.allow_channels
    ):
        return Decision("channel_not_allowed")
    if person.role != "operator" and not _is_listed(message, access.allow):
        text = "stranger" if access.contact else "stranger_anyone"
        return Decision("stranger", text, is_told_once=True)
    if message.unsupported is not None:
        return Decision("unsupported", f"unsupported_{message.unsupported}")
    if not message.text.strip() and not message.attachments:
        # in a group that is somebody who mentions the bot and says nothing else: they want to know what it does
        return Decision("empty", "start_group" if message.channel_kind == "group" else "empty")
    if len(message.text) > max_chars:
        return Decision("too_long", "too_long")
    return ACCEPTED


def _is_listed(message: InboundMessage, entries: tuple[str, ...]) -> bool:
    """Ids compare exactly, @usernames without regard to case. A display name never counts: anybody can choose one."""
    username = message.sender.username
    names = {"*", str(message.sender.user_id)}
    if username:
        names.add(f"@{username.lower()}")
    return any((entry.lower() if entry.startswith("@") else entry) in names for entry in entries)


def access_for(settings: Settings, account: AccountSettings) -> AccessSettings:
    """The account's own rules, or the general ones."""
    return account.access or settings.access


def scope_for(settings: Settings, account: AccountSettings, channel: str) -> ScopeSettings:
    """The scope rules of the channel, else of the account, else the general ones."""
    return account.channel_scopes.get(channel) or account.scope or settings.sessions.scope
