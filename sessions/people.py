"""Persons and their identities: who is behind a platform's user id.

Owns meeting people, their roles, the one-time word to strangers and the operator's list of everybody. Whether somebody may talk is
`bot/policy.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config.names import PersonId, PlatformUserId
from sessions.database.base import Row, Transaction
from sessions.database.values import escape_like
from sessions.models import Incoming, Person, PersonRole, new_id

_REFRESH_MS = 3_600_000  # how stale "last seen" may be: a write per message would buy nothing
_USERNAME: Final = "COALESCE(i.username, '')"


@dataclass(frozen=True, slots=True)
class PersonSummary:
    id: PersonId
    display_name: str
    role: str
    identities: Sequence[tuple[str, str, str | None]]
    """Platform, the platform's id, username."""
    sessions: int
    messages: int
    created_at: int
    last_seen_at: int
    is_being_erased: bool


def meet(tx: Transaction, message: Incoming, now: int) -> Person:
    """The person who wrote, made on first contact; names and language follow the platform."""
    row = tx.row(
        "SELECT p.id, p.display_name, p.role, p.language, p.last_seen_at, i.username, i.display_name AS shown,"
        " i.told_declined_at"
        " FROM identities i JOIN persons p ON p.id = i.person_id"
        " WHERE i.platform = :platform AND i.platform_user_id = :user",
        {"platform": message.platform, "user": message.user_id},
    )
    if row is None:
        return _make(tx, message, now)
    is_changed = (
        row["shown"] != message.display_name
        or row["username"] != message.username
        or (message.language is not None and row["language"] != message.language)
    )
    if is_changed or now - row["last_seen_at"] > _REFRESH_MS:
        tx.execute(
            "UPDATE identities SET username = :username, display_name = :name"
            " WHERE platform = :platform AND platform_user_id = :user",
            {
                "username": message.username,
                "name": message.display_name,
                "platform": message.platform,
                "user": message.user_id,
            },
        )
        tx.execute(
            "UPDATE persons SET display_name = :name, language = COALESCE(:language, language), last_seen_at = :now WHERE id = :id",
            {"name": message.display_name, "language": message.language, "now": now, "id": row["id"]},
        )
    return Person(
        row["id"],
        message.display_name,
        row["role"],
        message.language or row["language"],
        was_told_declined=row["told_declined_at"] is not None,
    )


def _make(tx: Transaction, message: Incoming, now: int) -> Person:
    person = Person(PersonId(new_id()), message.display_name, "member", message.language)
    tx.execute(
        "INSERT INTO persons (id, display_name, role, language, created_at, last_seen_at)"
        " VALUES (:id, :name, 'member', :language, :now, :now)",
        {"id": person.id, "name": person.display_name, "language": person.language, "now": now},
    )
    tx.execute(
        "INSERT INTO identities (platform, platform_user_id, person_id, username, display_name, first_seen_at)"
        " VALUES (:platform, :user, :person, :username, :name, :now)",
        {
            "platform": message.platform,
            "user": message.user_id,
            "person": person.id,
            "username": message.username,
            "name": message.display_name,
            "now": now,
        },
    )
    return person


def tell_declined_once(tx: Transaction, platform: str, user_id: PlatformUserId, now: int) -> bool:
    """True the first time it is asked for this identity: then the person is told, afterwards there is silence."""
    return (
        tx.execute(
            "UPDATE identities SET told_declined_at = :now"
            " WHERE platform = :platform AND platform_user_id = :user AND told_declined_at IS NULL",
            {"now": now, "platform": platform, "user": user_id},
        )
        == 1
    )


def forget_declined(tx: Transaction, platform: str, user_id: PlatformUserId) -> None:
    """Somebody is welcome again: should they be declined later, they are told once more."""
    tx.execute(
        "UPDATE identities SET told_declined_at = NULL"
        " WHERE platform = :platform AND platform_user_id = :user AND told_declined_at IS NOT NULL",
        {"platform": platform, "user": user_id},
    )


def set_role(tx: Transaction, person_id: PersonId, role: PersonRole) -> bool:
    """Change what a person may do. False if there is no such person."""
    return tx.execute("UPDATE persons SET role = :role WHERE id = :id", {"role": role, "id": person_id}) == 1


def by_identity(tx: Transaction, platform: str, user_id: str) -> PersonId | None:
    """Who has this identity. For operators."""
    row = tx.row(
        "SELECT person_id FROM identities WHERE platform = :platform AND platform_user_id = :user",
        {"platform": platform, "user": user_id},
    )
    return row["person_id"] if row else None


def identities(tx: Transaction, person_id: PersonId) -> list[Row]:
    """A person's identities: platform, platform_user_id, username, display_name, first_seen_at."""
    return tx.rows(
        "SELECT platform, platform_user_id, username, display_name, first_seen_at FROM identities"
        " WHERE person_id = :person ORDER BY platform, platform_user_id",
        {"person": person_id},
    )


def list_people(tx: Transaction, *, words: str = "", limit: int = 100) -> list[PersonSummary]:
    """People the bot has met, the latest seen first; with words, those whose name, username or id has them. For operators."""
    # SQLite knows capitals of ASCII letters only, so others are asked for in each form in which a name is likely to be written.
    forms = dict.fromkeys((words, words.lower(), words.upper(), words.title()))
    patterns = {f"pattern_{number}": f"%{escape_like(form)}%" for number, form in enumerate(forms)}

    def has(value: str) -> str:
        return "(" + " OR ".join(f"LOWER({value}) LIKE LOWER(:{name}) ESCAPE '!'" for name in patterns) + ")"

    rows = tx.rows(
        "SELECT p.*, (SELECT COUNT(*) FROM sessions s WHERE s.person_id = p.id) AS sessions,"
        " (SELECT COALESCE(SUM(s.message_count), 0) FROM sessions s WHERE s.person_id = p.id) AS messages,"
        " (SELECT COUNT(*) FROM erasures e WHERE e.person_id = p.id) AS erasures FROM persons p"
        f" WHERE {has('p.display_name')} OR {has('p.id')} OR EXISTS (SELECT 1 FROM identities i WHERE i.person_id = p.id"
        f" AND ({has(_USERNAME)} OR {has('i.platform_user_id')}))"
        " ORDER BY p.last_seen_at DESC, p.id DESC LIMIT :limit",
        {**patterns, "limit": limit},
    )
    return [
        PersonSummary(
            row["id"],
            row["display_name"],
            row["role"],
            [
                (one["platform"], one["platform_user_id"], one["username"])
                for one in tx.rows(
                    "SELECT platform, platform_user_id, username FROM identities WHERE person_id = :id"
                    " ORDER BY platform, platform_user_id",
                    {"id": row["id"]},
                )
            ],
            int(row["sessions"]),
            int(row["messages"]),
            row["created_at"],
            row["last_seen_at"],
            bool(row["erasures"]),
        )
        for row in rows
    ]
