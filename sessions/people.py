"""Persons and their identities: who is behind a platform's user id.

Owns meeting people, their roles and the one-time word to strangers. Whether somebody may talk is `bot/policy.py`.
"""

from config.names import PersonId, PlatformUserId
from sessions.database.base import Row, Transaction
from sessions.models import Incoming, Person, PersonRole, new_id

_REFRESH_MS = 3_600_000  # how stale "last seen" may be: a write per message would buy nothing


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


def identities(tx: Transaction, person_id: PersonId) -> list[Row]:
    """A person's identities: platform, platform_user_id, username, display_name, first_seen_at."""
    return tx.rows(
        "SELECT platform, platform_user_id, username, display_name, first_seen_at FROM identities"
        " WHERE person_id = :person ORDER BY platform, platform_user_id",
        {"person": person_id},
    )
