"""Questions that wait for a yes: one for each person and channel, good for one answer.

Owns the table of them. What is asked and what a yes does is `bot/commands/forgetting.py`'s.
"""

from dataclasses import dataclass
from typing import Literal

from config.names import PersonId, SessionId
from sessions.database.base import Transaction
from sessions.models import Incoming

Subject = Literal["session", "me"]


@dataclass(frozen=True, slots=True)
class Question:
    subject: Subject
    session_id: SessionId | None


def ask(
    tx: Transaction,
    person_id: PersonId,
    message: Incoming,
    subject: Subject,
    session_id: SessionId | None,
    now: int,
) -> None:
    """Remember what the person was asked in this channel; an earlier question there is forgotten."""
    tx.execute(
        "INSERT INTO questions (person_id, account, channel, subject, session_id, asked_at)"
        " VALUES (:person, :account, :channel, :subject, :session, :now)"
        " ON CONFLICT (person_id, account, channel) DO UPDATE SET subject = excluded.subject,"
        " session_id = excluded.session_id, asked_at = excluded.asked_at",
        {
            "person": person_id,
            "account": message.account,
            "channel": message.channel,
            "subject": subject,
            "session": session_id,
            "now": now,
        },
    )


def take(tx: Transaction, person_id: PersonId, message: Incoming, since: int) -> Question | None:
    """The question that this person was asked in this channel since then, if any; it is answered by that."""
    row = tx.row(
        "DELETE FROM questions WHERE person_id = :person AND account = :account AND channel = :channel"
        " RETURNING subject, session_id, asked_at",
        {"person": person_id, "account": message.account, "channel": message.channel},
    )
    if row is None or row["asked_at"] < since:
        return None
    return Question(row["subject"], row["session_id"])
