"""Scope policies: which messages share a session. Owns the session key and nothing else."""

from typing import Final, Literal

import orjson

from config.names import AccountId, ChannelId, PersonId, ThreadId
from sessions.models import SessionScope


def session_key(
    scope: SessionScope, account: AccountId, channel: ChannelId, thread: ThreadId | None, person: PersonId
) -> str:
    """The key under which at most one live session exists. Different arguments that matter give different keys.

    `person`             one session per person and account (direct messages), apart by thread
    `person_everywhere`  one per person over all accounts
    `channel`            one for everybody in the channel (or thread)
    `member`             one per person in the channel (or thread)
    """
    parts: list[str | None]
    match scope:
        case "person":
            parts = [scope, account, person, thread]
        case "person_everywhere":
            parts = [scope, person]
        case "channel":
            parts = [scope, account, channel, thread]
        case "member":
            parts = [scope, account, channel, thread, person]
    return orjson.dumps(parts).decode()  # JSON, so that no character in an id can imitate a separator


def archive_key(source: str, conversation: str, person: PersonId) -> str:
    """The key of a conversation that a person brought along from another program: no message ever leads to it."""
    return orjson.dumps([_ARCHIVE, source, conversation, person]).decode()


_ARCHIVE: Final = "archive"
ARCHIVE_KEYS: Final = f'["{_ARCHIVE}",%'
"""What those keys are LIKE."""


def is_archive(key: str) -> bool:
    return key.startswith(ARCHIVE_KEYS.removesuffix("%"))


def choose_scope(
    channel_kind: Literal["direct", "group"],
    direct: Literal["person", "person_everywhere"],
    group: Literal["channel", "person"],
) -> SessionScope:
    """The scope for a kind of channel under the operator's policy."""
    if channel_kind == "direct":
        return direct
    return "channel" if group == "channel" else "member"
