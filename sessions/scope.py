"""Who is asking: every read of sessions, messages, memory or statistics takes a `Scope` and filters by it in SQL.

Owns the scopes, the condition each one means, and `within`, by which a database with row security filters once more. There is no
read without a scope, so no caller can forget it.
"""

from dataclasses import dataclass

from config.names import AccountId, ChannelId, PersonId, SessionId, ThreadId
from sessions.database.base import Parameters, Transaction


@dataclass(frozen=True, slots=True)
class PersonScope:
    """A person sees the sessions that are theirs alone, on every platform."""

    person_id: PersonId


@dataclass(frozen=True, slots=True)
class ChannelScope:
    """Everybody in a channel (or thread) sees the session it shares, and no member's own."""

    account: AccountId
    channel: ChannelId
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True)
class SessionOnly:
    """A turn sees its own session."""

    session_id: SessionId


@dataclass(frozen=True, slots=True)
class OperatorScope:
    """Whoever runs the daemon sees everything; only the command line and the health checks use it."""


Scope = PersonScope | ChannelScope | SessionOnly | OperatorScope


def condition(scope: Scope, alias: str = "s") -> tuple[str, Parameters]:
    """SQL that is true for the rows of `sessions` (under `alias`) that the scope may see, and its parameters.

    The parameters' names begin with `scope_`, so that they cannot collide with a caller's own.
    """
    hidden = f"({alias}.end_reason IS NULL OR {alias}.end_reason <> 'deleted')"
    match scope:
        case PersonScope():
            return f"({alias}.person_id = :scope_person AND {hidden})", {"scope_person": scope.person_id}
        case ChannelScope():
            place = {"scope_account": scope.account, "scope_channel": scope.channel}
            thread = "IS NULL"
            if scope.thread is not None:
                thread, place["scope_thread"] = "= :scope_thread", scope.thread
            mine = f"{alias}.account = :scope_account AND {alias}.channel = :scope_channel AND {alias}.thread {thread}"
            return f"({mine} AND {alias}.person_id IS NULL AND {hidden})", place
        case SessionOnly():
            return f"({alias}.id = :scope_session AND {hidden})", {"scope_session": scope.session_id}
        case OperatorScope():
            return "(1 = 1)", {}


def within(tx: Transaction, scope: Scope) -> Transaction:
    """The transaction for reading on behalf of a scope: PostgreSQL's row security then shows no row beyond it, whatever the SQL says.

    The operator's, and one on SQLite, is the transaction itself. It is for reading only.
    """
    match scope:
        case PersonScope():
            return tx.narrowed({"scope_person": scope.person_id})
        case ChannelScope():
            place = {"scope_account": scope.account, "scope_channel": scope.channel}
            # a thread without a name is one, too
            return tx.narrowed(
                place if scope.thread is None else {**place, "scope_thread": f"={scope.thread}"}
            )
        case SessionOnly():
            return tx.narrowed({"scope_session": scope.session_id})
        case OperatorScope():
            return tx
