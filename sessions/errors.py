"""What can go wrong in the store and with sessions.

SessionError
├── SessionNotFound       no such session within the caller's scope
├── SessionClosed         the session's status does not allow this
├── IllegalTransition     the lifecycle table has no such step
│   └── LostRace          the row was changed by another transaction since it was read; a second try sees it as it is now
├── StaleClaim            the turn was claimed anew (or cancelled) meanwhile: this result must not be stored
├── StaleLease            another node has taken over what this one may have gone on with
├── TransferError         a file to be imported is not what it claims to be
└── StoreError
    ├── StoreUnavailable  nothing can be stored now (disk full, locked, connection lost); may heal
    │   └── NothingStored a server's database in which no daemon has been yet; whoever only looks finds no tables
    ├── StoreCorrupt      the file is damaged or not ours; needs the operator
    └── SchemaTooNew      the database was written by a newer Palaver
"""


class SessionError(Exception):
    """Something about sessions or their store."""


class SessionNotFound(SessionError):
    """No such session within this scope."""


class SessionClosed(SessionError):
    """The session's status does not allow this."""


class IllegalTransition(SessionError):
    """The lifecycle table has no such step."""


class LostRace(IllegalTransition):
    """Another transaction changed the row since it was read; a second try sees it as it is now."""


class StaleClaim(SessionError):
    """The turn was claimed anew or cancelled meanwhile; nothing was stored."""


class StaleLease(SessionError):
    """Another node has taken the lease over; nothing was stored."""


class TransferError(SessionError):
    """A file to be imported is not what it claims to be; nothing of the session at fault was stored."""


class StoreError(SessionError):
    """The store cannot do what was asked. `hint` is one sentence on what to do."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class StoreUnavailable(StoreError):
    """Nothing can be stored now; this may heal by itself."""


class NothingStored(StoreUnavailable):
    """No daemon has made its tables in this database yet."""


class StoreCorrupt(StoreError):
    """The database file is damaged, or is not Palaver's."""


class SchemaTooNew(StoreError):
    """The database was written by a newer version."""


def in_one_line(verdict: str) -> str:
    """What SQLite's checks find, without the heading that they give it."""
    return " ".join(verdict.removeprefix("*** in database main ***").split())
