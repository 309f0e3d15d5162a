"""Search over what was said: words in the messages that a scope may see, the best first.

Owns the two indexes (SQLite's FTS5, PostgreSQL's tsvector), the SQL around them, ranking and pages. A person's words are read in
`terms.py` and reach the database as values, never as its syntax. Meaning instead of words is `semantic.py`.

Ranking is bm25's formula on SQLite (see `_score`) and ts_rank on PostgreSQL, the newer of equals first. Of a very common word
the newest five hundred messages are ranked, so that a search stays quick. A message that arrived within the last seconds may not
be in SQLite's index yet; it is read besides.
Sealed messages cannot be searched: the page says how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config.names import AccountId, ChannelId, PersonId, SessionId
from sessions.database.base import Parameters, Row, Transaction
from sessions.database.values import escape_like
from sessions.forking import NOT_TWICE
from sessions.lane import read_message
from sessions.models import Message, Role
from sessions.scope import OperatorScope, Scope, condition, within
from sessions.terms import Excerpt, Term, excerpt, matches, read, widened

RANKED: Final = 500
"""Messages that are ranked: the newest of those that match."""
_MERGED_PAGES: Final = 16
"""Of the index, in one step."""
SEALED_COUNTED: Final = 10_000
_SESSIONS_IN_QUERY: Final = 500
_FRESH_READ: Final = 2000

_TYPICAL_CHARS: Final = 200
_COUNTED_CHARS: Final = 2000

COLUMNS: Final = (
    "m.id, m.session_id, m.position, m.part, m.role, m.content, m.author, m.created_at, m.turn_id, m.attachments, m.metadata,"
    " s.platform, s.account, s.channel, s.title"
)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is looked for, and where."""

    text: str
    """Words, "words in a row", -without, begin*."""
    since: int | None = None
    until: int | None = None
    """Not itself included."""
    platform: str | None = None
    account: AccountId | None = None
    session_id: SessionId | None = None
    person_id: PersonId | None = None
    """Whose sessions; for operators."""
    author_id: PersonId | None = None
    """Who said it."""
    role: Role | None = None
    number: int = 1
    """Of the page; 1 is the best."""
    size: int = 10


@dataclass(frozen=True, slots=True)
class Hit:
    """One message that was found."""

    id: int
    message: Message
    platform: str
    account: AccountId
    channel: ChannelId
    title: str | None
    """Of its session."""
    excerpt: Excerpt


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Hits, the best first, and what the search could not do."""

    hits: Sequence[Hit]
    number: int
    total: int
    """Messages found. With `is_cut` there are more."""
    is_cut: bool = False
    is_widened: bool = False
    """Nothing held the very words, so they were taken as beginnings of words."""
    sealed: int = 0
    """Messages in reach that are sealed and could not be searched; counted up to 10,000."""
    unread: int = 0
    """Messages not in the index yet that were too many to be read besides: look again in a moment."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that matches, before it is read whole."""

    id: int
    score: float
    """The smaller, the better."""
    created_at: int


def search(tx: Transaction, scope: Scope, query: SearchQuery) -> SearchPage:
    """One page of the messages within the scope that hold all the words. Text without a word to look for finds nothing."""
    terms = read(query.text)
    sealed = _sealed(tx, scope, query)
    if all(term.is_excluded for term in terms):
        return SearchPage((), query.number, 0, sealed=sealed)
    found, unread = candidates(tx, scope, query, terms)
    is_widened = False
    if not found and (wider := widened(terms)) != terms:
        terms = wider
        found, unread = candidates(tx, scope, query, terms)
        is_widened = bool(found)
    first = (query.number - 1) * query.size
    hits = read_hits(tx, scope, [one.id for one in found[first : first + query.size]], terms)
    return SearchPage(hits, query.number, len(found), len(found) >= RANKED, is_widened, sealed, unread)


def candidates(
    tx: Transaction, scope: Scope, query: SearchQuery, terms: Sequence[Term]
) -> tuple[list[Candidate], int]:
    """What matches, the best first, and how many messages could not be looked at yet."""
    tx = within(tx, scope)
    where, parameters = reach(scope, query)
    literal, values = _literals(terms)
    where, parameters = f"{where}{literal}", {**parameters, **values}
    if all(term.is_literal for term in terms if not term.is_excluded):
        rows, unread = _by_letters(tx, where, parameters, terms), 0
    elif tx.dialect == "sqlite":
        rows, unread = _by_words_sqlite(tx, scope, query, where, parameters, terms)
    else:
        rows, unread = _by_words_postgresql(tx, where, parameters, terms), 0
    found = [Candidate(row["id"], float(row["score"]), row["created_at"]) for row in rows]
    found.sort(key=lambda one: (one.score, -one.created_at, -one.id))
    return found[:RANKED], unread


def reach(scope: Scope, query: SearchQuery) -> tuple[str, Parameters]:
    """SQL that is true for a message `m` of a session `s` that the scope may see and the filters let through."""
    allowed, parameters = condition(scope)
    filters = {
        "m.created_at >= :since": query.since,
        "m.created_at < :until": query.until,
        "m.role = :role": query.role,
        "m.person_id = :author": query.author_id,
        "s.platform = :platform": query.platform,
        "s.account = :account": query.account,
        "s.id = :session": query.session_id,
        "s.person_id = :person": query.person_id,
    }
    chosen = {text: value for text, value in filters.items() if value is not None}
    once = [NOT_TWICE] if query.session_id is None else []  # a copy's own search finds what was copied
    return (
        " AND ".join([allowed, "m.is_sealed = 0", *once, *chosen]),
        {**parameters, **{text.rpartition(":")[2]: value for text, value in chosen.items()}},
    )


def platforms(tx: Transaction, scope: Scope) -> list[str]:
    """The platforms of what the scope may see; those of imported archives, too."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    rows = tx.rows(
        f"SELECT DISTINCT s.platform FROM sessions s WHERE {where} ORDER BY s.platform", parameters
    )
    return [row["platform"] for row in rows]


def read_hits(tx: Transaction, scope: Scope, ids: Sequence[int], terms: Sequence[Term]) -> list[Hit]:
    """The messages whole, in this order; the scope is asked once more."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    hits = []
    for message_id in ids:
        row = tx.row(
            f"SELECT {COLUMNS} FROM messages m JOIN sessions s ON s.id = m.session_id WHERE m.id = :id AND {where}",
            {"id": message_id, **parameters},
        )
        if row is not None:
            message = read_message(row)
            hits.append(
                Hit(
                    message_id,
                    message,
                    row["platform"],
                    row["account"],
                    row["channel"],
                    row["title"],
                    excerpt(message.content, terms),
                )
            )
    return hits


def index_pending(tx: Transaction, batch: int = 100) -> int:
    """Take the next messages into SQLite's index; gives how many, 0 when all are in. PostgreSQL's is always up to date."""
    if tx.dialect != "sqlite":
        return 0
    rows = tx.rows(
        "SELECT id FROM messages WHERE id > (SELECT indexed_to FROM search_progress) ORDER BY id LIMIT :batch",
        {"batch": batch},
    )
    if not rows:
        return 0
    span = {"first": rows[0]["id"], "last": rows[-1]["id"]}
    tx.execute(
        "INSERT INTO message_words (rowid, content, session_id) SELECT id, content, session_id FROM messages"
        " WHERE id BETWEEN :first AND :last AND is_sealed = 0 ORDER BY id",
        span,
    )
    tx.execute("UPDATE search_progress SET indexed_to = :last", {"last": span["last"]})
    return len(rows)


def has_pending(tx: Transaction) -> bool:
    """Whether `index_pending` has something to do."""
    return (
        tx.dialect == "sqlite"
        and tx.row("SELECT 1 AS x FROM messages WHERE id > (SELECT indexed_to FROM search_progress) LIMIT 1")
        is not None
    )


def wipe_removed_words(tx: Transaction) -> None:
    """Write SQLite's index anew without the words of removed messages, which it otherwise keeps until it merges on its own.

    For erasing: takes seconds for a million messages, and the freed pages still want a VACUUM. On PostgreSQL VACUUM does it all.
    """
    if tx.dialect == "sqlite":
        tx.execute("INSERT INTO message_words (message_words) VALUES ('optimize')")


def merge_removed_words(tx: Transaction, *, is_first: bool) -> bool:
    """`wipe_removed_words` in steps of some hundredths of a second, between which others write. True while there is more to do.

    Source: SQLite's documentation of FTS5, "The 'merge' Command": a negative number begins to merge everything, positive ones go on,
    and whoever changes fewer than two rows has nothing left to do.
    """
    if tx.dialect != "sqlite":
        return False
    before = _changes(tx)
    tx.execute(
        "INSERT INTO message_words (message_words, rank) VALUES ('merge', :pages)",
        {"pages": -_MERGED_PAGES if is_first else _MERGED_PAGES},
    )
    return is_first or _changes(tx) - before >= 2


def _changes(tx: Transaction) -> int:
    row = tx.row("SELECT total_changes() AS n")
    return int(row["n"]) if row else 0


def check_index(tx: Transaction) -> None:
    """Check that SQLite's index is sound. A write, as SQLite has it. Raises: the database's error for a damaged index."""
    if tx.dialect == "sqlite":
        tx.execute("INSERT INTO message_words (message_words, rank) VALUES ('integrity-check', 0)")


def rebuild_index(tx: Transaction) -> None:
    """Empty SQLite's index; `index_pending` fills it again, and searches read besides what is not in yet."""
    if tx.dialect == "sqlite":
        tx.execute("INSERT INTO message_words (message_words) VALUES ('delete-all')")
        tx.execute("UPDATE search_progress SET indexed_to = 0")


def _literals(terms: Sequence[Term]) -> tuple[str, Parameters]:
    """Conditions for the terms that are letters in a row."""
    text, values = "", {}
    for number, term in enumerate(term for term in terms if term.is_literal):
        values[f"literal_{number}"] = f"%{escape_like(term.text)}%"
        text += f" AND LOWER(m.content) {'NOT ' * term.is_excluded}LIKE LOWER(:literal_{number}) ESCAPE '!'"
    return text, values


def _by_letters(tx: Transaction, where: str, parameters: Parameters, terms: Sequence[Term]) -> list[Row]:
    """No word to look up: the scope's messages are read, the newest first."""
    rows = tx.rows(
        "SELECT m.id, 0 AS score, m.created_at, m.content FROM messages m JOIN sessions s ON s.id = m.session_id"
        f" WHERE {where} ORDER BY m.id DESC LIMIT :ranked",
        {**parameters, "ranked": RANKED},
    )
    return [row for row in rows if matches(row["content"], [term for term in terms if not term.is_literal])]


def _by_words_sqlite(
    tx: Transaction,
    scope: Scope,
    query: SearchQuery,
    where: str,
    parameters: Parameters,
    terms: Sequence[Term],
) -> tuple[list[Row], int]:
    sessions = _sessions_in_reach(tx, scope, query)
    if sessions is not None and not sessions:
        return [], 0
    rows = tx.rows(
        "SELECT m.id, m.created_at, LENGTH(m.content) AS length, CASE WHEN LENGTH(m.content) > :counted THEN 1"
        " ELSE LENGTH(HIGHLIGHT(message_words, 0, '', '|')) - LENGTH(m.content) END AS times FROM message_words"
        " CROSS JOIN messages m ON m.id = message_words.rowid CROSS JOIN sessions s ON s.id = m.session_id"
        f" WHERE message_words MATCH :match AND {where} ORDER BY message_words.rowid DESC LIMIT :ranked",
        {**parameters, "match": _fts5(terms, sessions), "ranked": RANKED, "counted": _COUNTED_CHARS},
    )
    scored = [
        {"id": row["id"], "score": _score(row["times"], row["length"]), "created_at": row["created_at"]}
        for row in rows
    ]
    fresh = tx.rows(
        "SELECT m.id, m.created_at, m.content FROM messages m CROSS JOIN sessions s ON s.id = m.session_id"
        f" WHERE m.id > (SELECT indexed_to FROM search_progress) AND {where} ORDER BY m.id DESC LIMIT :most",
        {**parameters, "most": _FRESH_READ},
    )
    unread = 0
    if len(fresh) == _FRESH_READ:
        waiting = tx.row(
            "SELECT COUNT(*) AS n FROM messages WHERE id > (SELECT indexed_to FROM search_progress) AND id < :last",
            {"last": fresh[-1]["id"]},
        )
        unread = int(waiting["n"]) if waiting else 0
    best = min((row["score"] for row in scored), default=0.0)
    new = [
        {"id": row["id"], "score": best, "created_at": row["created_at"]}
        for row in fresh
        if matches(row["content"], terms)
    ]
    return [*new, *scored], unread


def _score(times: int, length: int) -> float:
    """bm25 (k1 1.2, b 0.75) of how often the words stand in a message, without the weight of rare words; less is better.

    FTS5's own bm25 first counts every hit of every word in all messages: 35 ms for a common word among a million. All words must
    be in each hit, so their rarity tells little between hits. In long messages the words count as once.
    """
    return -2.2 * times / (times + 1.2 * (0.25 + 0.75 * length / _TYPICAL_CHARS))


def _sessions_in_reach(tx: Transaction, scope: Scope, query: SearchQuery) -> list[str] | None:
    """The sessions to look in, or None where there are too many to name or everything is meant.

    Only a short cut: the condition on every row stands all the same.
    """
    tx = within(tx, scope)
    if isinstance(scope, OperatorScope) and query.person_id is None and query.session_id is None:
        return None
    allowed, parameters = condition(scope)
    chosen = {
        f"s.{name} = :{key}": (key, value)
        for name, key, value in (
            ("id", "session", query.session_id),
            ("person_id", "person", query.person_id),
            ("platform", "platform", query.platform),
            ("account", "account", query.account),
        )
        if value is not None
    }
    rows = tx.rows(
        f"SELECT s.id FROM sessions s WHERE {' AND '.join([allowed, *chosen])} LIMIT :most",
        {**parameters, **dict(chosen.values()), "most": _SESSIONS_IN_QUERY + 1},
    )
    return [row["id"] for row in rows] if len(rows) <= _SESSIONS_IN_QUERY else None


def _fts5(terms: Sequence[Term], sessions: Sequence[str] | None) -> str:
    """FTS5's expression. Everything from outside stands in quotes, where only the quote itself and NUL mean anything."""

    def phrase(term: Term) -> str:
        text = term.text.replace('"', " ").replace("\0", " ")
        return f'"{text}"{" *" * term.is_prefix}'

    wanted = [phrase(term) for term in terms if not term.is_literal and not term.is_excluded]
    unwanted = [phrase(term) for term in terms if not term.is_literal and term.is_excluded]
    expression = f"content : ({' AND '.join(wanted)})"
    if sessions is not None:
        names = " OR ".join(f'"{name.replace(chr(34), " ")}"' for name in sessions)
        expression = f"({expression}) AND (session_id : ({names}))"
    if unwanted:
        expression = f"({expression}) NOT (content : ({' OR '.join(unwanted)}))"
    return expression


def _by_words_postgresql(
    tx: Transaction, where: str, parameters: Parameters, terms: Sequence[Term]
) -> list[Row]:
    values: dict[str, object] = {}
    wanted: list[str] = []
    unwanted: list[str] = []
    for number, term in enumerate(term for term in terms if not term.is_literal):
        values |= {f"term_{number}": term.text, f"prefix_{number}": int(term.is_prefix)}
        call = f"palaver_query(:term_{number}, CAST(:prefix_{number} AS INTEGER))"
        (unwanted if term.is_excluded else wanted).append(call)
    unwelcome = "".join(f" AND NOT m.words @@ {call}" for call in unwanted)
    return tx.rows(
        "SELECT m.id, -ts_rank(m.words, q.query, 1) AS score, m.created_at"
        f" FROM (SELECT {' && '.join(wanted)} AS query) q, messages m JOIN sessions s ON s.id = m.session_id"
        f" WHERE m.words @@ q.query AND {where}{unwelcome} ORDER BY m.id DESC LIMIT :ranked",
        {**parameters, **values, "ranked": RANKED},
    )


def _sealed(tx: Transaction, scope: Scope, query: SearchQuery) -> int:
    tx = within(tx, scope)
    where, parameters = reach(scope, query)
    row = tx.row(
        "SELECT COUNT(*) AS n FROM (SELECT 1 AS x FROM messages m JOIN sessions s ON s.id = m.session_id"
        f" WHERE {where.replace('m.is_sealed = 0', 'm.is_sealed = 1')} LIMIT :most) AS counted",
        {**parameters, "most": SEALED_COUNTED},
    )
    return int(row["n"]) if row else 0
