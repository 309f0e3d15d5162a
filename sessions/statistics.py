"""Statistics: how much is said, how it ends and how long it takes, for everything, a platform, persona, person or session.

Owns reading them, folding them and what each number means. They are exact at any moment. Triggers (`migrations/0003_statistics`)
add every fact to `statistics_changes` in the fact's own transaction; `fold` sums those rows up in the background, and a read
counts both. A session's own statistics are read from its rows.

What counts: sessions that are not deleted, with their turns, errors and counters. Removing rows takes their part away, so every
number is what could be counted again from the rows. Only the messages by hour and day keep what came and is gone.

Response times (from acceptance to the end of the turn) are kept as a histogram of fixed logarithmic buckets, each beginning a
tenth above the one before. A percentile is the longest time of the bucket that holds it: exact with respect to the buckets, at
most a tenth above the true value. The mean takes the middle of each bucket: within a twentieth of the true value.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from config.names import PersonId, SessionId
from sessions.database.base import Dialect, Parameters, Transaction
from sessions.scope import ChannelScope, OperatorScope, PersonScope, Scope, SessionOnly, condition, within

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
HOURS_KEPT_MS: Final = 16 * DAY_MS
_LONGEST_MS: Final = 7 * DAY_MS
_UNKNOWN: Final = -1
_FOLDED: Final[Mapping[Dialect, int]] = {"sqlite": 500, "postgresql": 2000}
"""Changes that are summed up at a time: few, because chats share the writer; where a statement costs more, not so few."""
_FOLDING_LOCK: Final = 0x50414C46  # "PALF": one node folds at a time

Dimension = Literal["all", "platform", "persona", "person", "session"]

_COLUMN: Final[Mapping[Dimension, str]] = {
    "all": "''",
    "platform": "platform",
    "persona": "persona",
    "person": "person_id",
}
"""Where a change says whose it is. (`session` has no sums of its own.)"""


def _bounds() -> list[int]:
    found = [0]
    while found[-1] < _LONGEST_MS:
        found.append(max(found[-1] + 1, round(found[-1] * 1.1)))
    return found


BOUNDS: Final[Sequence[int]] = _bounds()
"""The shortest time of each bucket in ms. The migrations hold the same numbers."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the statistics are about."""

    dimension: Dimension = "all"
    name: str = ""
    """A platform, persona ('' is the one without a name), person or session."""


EVERYTHING: Final = Subject()


@dataclass(frozen=True, slots=True)
class ResponseTimes:
    """In ms; None before the first turn has ended."""

    p50_ms: int | None = None
    p95_ms: int | None = None
    p99_ms: int | None = None
    mean_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """All numbers about one subject."""

    subject: Subject
    sessions: Mapping[str, int] = field(default_factory=dict)
    """By status."""
    sessions_by_platform: Mapping[str, int] = field(default_factory=dict)
    turns: Mapping[str, int] = field(default_factory=dict)
    """By status."""
    messages: int = 0
    tool_calls: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    """By kind; `tool` are tools that failed."""
    input_tokens: int = 0
    output_tokens: int = 0
    success_rate: float | None = None
    """Completed turns of all that ended; None before the first has."""
    response: ResponseTimes = field(default_factory=ResponseTimes)
    mean_session_messages: float | None = None
    mean_session_duration_ms: float | None = None
    """From the creation of a session to its last activity."""
    cache_hit_rate: float | None = None
    """Turns of the last 14 days whose conversation was in memory, of all; for everything only, None before the first."""
    messages_by_hour: Sequence[int] = ()
    """The last 24 hours, the current one last."""
    messages_by_day: Sequence[int] = ()
    """The last 14 days (UTC), today last."""


def read(tx: Transaction, scope: Scope, subject: Subject, now: int) -> Statistics:
    """The statistics of a subject; all zero for one that the scope may not see or that does not exist.

    A person sees their own and those of their sessions, a channel the sessions it shares, a turn its session, an operator all.
    """
    tx = within(tx, scope)
    if subject.dimension == "session":
        return _of_session(tx, scope, subject, now)
    allowed, parameters = _permission(scope, subject)
    about = {"dimension": subject.dimension, "subject": subject.name, **parameters}
    column = _COLUMN[subject.dimension]
    changed = f"{column} = :subject AND {allowed}" + (
        "" if subject.dimension == "all" else " AND platform <> ''"
    )
    totals = tx.row(
        "SELECT SUM(messages) AS messages, SUM(tool_calls) AS tool_calls, SUM(input_tokens) AS input_tokens,"
        " SUM(output_tokens) AS output_tokens, SUM(duration_ms) AS duration_ms FROM ("
        " SELECT messages, tool_calls, input_tokens, output_tokens, duration_ms FROM statistics_totals"
        f" WHERE dimension = :dimension AND subject = :subject AND {allowed} UNION ALL"
        " SELECT messages, tool_calls, input_tokens, output_tokens, duration_ms FROM statistics_changes"
        f" WHERE {changed}) AS known",
        about,
    )
    counts = tx.rows(
        "SELECT fact, word, platform, bucket, SUM(amount) AS amount FROM ("
        " SELECT fact, word, platform, bucket, amount FROM statistics_counts"
        f" WHERE dimension = :dimension AND subject = :subject AND {allowed} UNION ALL"
        " SELECT fact, word, platform, bucket, amount FROM statistics_changes"
        f" WHERE fact IS NOT NULL AND {changed}) AS known"
        " GROUP BY fact, word, platform, bucket HAVING SUM(amount) <> 0",
        about,
    )
    unfinished = tx.rows(
        "SELECT t.status AS word, COUNT(*) AS amount FROM turns t JOIN sessions s ON s.id = t.session_id"
        " WHERE t.status IN ('queued', 'running') AND (s.end_reason IS NULL OR s.end_reason <> 'deleted')"
        + ("" if subject.dimension == "all" else f" AND COALESCE(s.{column}, '') = :subject")
        + f" AND {allowed} GROUP BY t.status",
        about,
    )
    hours = tx.rows(
        "SELECT hour, SUM(messages) AS messages FROM ("
        " SELECT hour, messages FROM statistics_hours"
        f" WHERE dimension = :dimension AND subject = :subject AND hour >= :since AND {allowed} UNION ALL"
        " SELECT hour, messages FROM statistics_changes"
        f" WHERE hour >= :since AND {changed}) AS known GROUP BY hour",
        {**about, "since": now - now % DAY_MS - 13 * DAY_MS},
    )
    facts = [(row["fact"], row["word"], row["platform"], row["bucket"], int(row["amount"])) for row in counts]
    facts += [("turns", row["word"], "", _UNKNOWN, int(row["amount"])) for row in unfinished]
    sums = {name: int(totals[name] or 0) for name in totals} if totals else {}
    timeline = {int(row["hour"]): int(row["messages"]) for row in hours}
    hit_rate = (
        _cache_hit_rate(tx, now) if subject.dimension == "all" and isinstance(scope, OperatorScope) else None
    )
    return _made(subject, sums, facts, timeline, now, hit_rate)


def fold(tx: Transaction, batch: int | None = None) -> int:
    """Sum up the oldest changes; gives how many, 0 when none are left."""
    fold_some = _fold_sqlite if tx.dialect == "sqlite" else _fold_postgresql
    return fold_some(tx, _FOLDED[tx.dialect] if batch is None else batch)


def has_changes(tx: Transaction) -> bool:
    """Whether `fold` has something to do."""
    return tx.row("SELECT 1 AS x FROM statistics_changes LIMIT 1") is not None


def forget_old_hours(tx: Transaction, now: int, batch: int = 500) -> int:
    """Remove hours that no read asks for any more. Gives how many rows; call again until it is 0."""
    return tx.execute(
        "DELETE FROM statistics_hours WHERE hour < :before AND hour <= COALESCE("
        "(SELECT hour FROM statistics_hours WHERE hour < :before ORDER BY hour LIMIT 1 OFFSET :batch), :before)",
        {"before": now - HOURS_KEPT_MS, "batch": batch},
    )


def count_cache(tx: Transaction, hits: int, misses: int, now: int) -> None:
    """Add what a daemon's cache of hot sessions did since it said so last, and let go of days that are past."""
    day = now - now % DAY_MS
    tx.execute("DELETE FROM cache_counts WHERE day < :before", {"before": day - 13 * DAY_MS})
    tx.execute(
        "INSERT INTO cache_counts (day, hits, misses) VALUES (:day, :hits, :misses) ON CONFLICT (day) DO UPDATE SET"
        " hits = cache_counts.hits + excluded.hits, misses = cache_counts.misses + excluded.misses",
        {"day": day, "hits": hits, "misses": misses},
    )


def _cache_hit_rate(tx: Transaction, now: int) -> float | None:
    row = tx.row(
        "SELECT SUM(hits) AS hits, SUM(misses) AS misses FROM cache_counts WHERE day >= :since",
        {"since": now - now % DAY_MS - 13 * DAY_MS},
    )
    if row is None or not (row["hits"] or row["misses"]):
        return None
    return int(row["hits"]) / (int(row["hits"]) + int(row["misses"]))


def forget_person(tx: Transaction, person_id: PersonId) -> None:
    """Remove a person's statistics and id, once their sessions are removed; what they said stays in the sums of all."""
    while fold(tx, 5000):
        pass
    for table in ("statistics_totals", "statistics_counts", "statistics_hours"):
        tx.execute(
            f"DELETE FROM {table} WHERE dimension = 'person' AND subject = :person", {"person": person_id}
        )


def _permission(scope: Scope, subject: Subject) -> tuple[str, Parameters]:
    """SQL that is true if the scope may see the sums of this subject."""
    match scope:
        case OperatorScope():
            return "1 = 1", {}
        case PersonScope():
            is_person = "1 = 1" if subject.dimension == "person" else "1 = 0"
            return f"{is_person} AND :subject = :scope_person", {"scope_person": scope.person_id}
        case ChannelScope() | SessionOnly():
            return "1 = 0", {}


def _made(
    subject: Subject,
    sums: Mapping[str, int],
    facts: Sequence[tuple[str, str, str, int, int]],
    timeline: Mapping[int, int],
    now: int,
    cache_hit_rate: float | None,
) -> Statistics:
    by_fact: dict[str, dict[str, int]] = {"sessions": {}, "turns": {}, "errors": {}}
    platforms: dict[str, int] = {}
    histogram: dict[int, int] = {}
    ended = 0
    for fact, word, platform, bucket, amount in facts:
        by_fact[fact][word] = by_fact[fact].get(word, 0) + amount
        if fact == "sessions":
            platforms[platform] = platforms.get(platform, 0) + amount
        if fact == "turns" and word not in ("queued", "running"):
            ended += amount
            histogram[bucket] = histogram.get(bucket, 0) + amount
    known = {
        name: {word: number for word, number in sorted(words.items()) if number}
        for name, words in by_fact.items()
    }
    number = sum(known["sessions"].values())
    this_hour, this_day = now - now % HOUR_MS, now - now % DAY_MS
    by_day: dict[int, int] = {}
    for hour, messages in timeline.items():
        by_day[hour - hour % DAY_MS] = by_day.get(hour - hour % DAY_MS, 0) + messages
    return Statistics(
        subject=subject,
        sessions=known["sessions"],
        sessions_by_platform={name: amount for name, amount in sorted(platforms.items()) if amount},
        turns=known["turns"],
        messages=sums.get("messages", 0),
        tool_calls=sums.get("tool_calls", 0),
        errors=known["errors"],
        input_tokens=sums.get("input_tokens", 0),
        output_tokens=sums.get("output_tokens", 0),
        success_rate=known["turns"].get("completed", 0) / ended if ended else None,
        response=response_times(histogram),
        mean_session_messages=sums.get("messages", 0) / number if number else None,
        mean_session_duration_ms=sums.get("duration_ms", 0) / number if number else None,
        cache_hit_rate=cache_hit_rate,
        messages_by_hour=[timeline.get(this_hour - back * HOUR_MS, 0) for back in reversed(range(24))],
        messages_by_day=[by_day.get(this_day - back * DAY_MS, 0) for back in reversed(range(14))],
    )


def bucket_of(response_ms: int | None) -> int:
    """The shortest time of the bucket that a response time belongs to; -1 for one that is not known."""
    if response_ms is None or response_ms < 0:
        return _UNKNOWN
    return BOUNDS[bisect_right(BOUNDS, response_ms) - 1]


def response_times(histogram: Mapping[int, int]) -> ResponseTimes:
    """Percentiles by nearest rank, and the mean, of the turns whose time is known (buckets by their shortest time)."""
    known = sorted((bucket, amount) for bucket, amount in histogram.items() if bucket >= 0 and amount > 0)
    total = sum(amount for _, amount in known)
    longest = dict(pairwise(BOUNDS))

    def end(bucket: int) -> int:
        return longest.get(bucket, bucket + 1) - 1

    def at(percent: int) -> int | None:
        rank, seen = -(-percent * total // 100), 0
        for bucket, amount in known:
            seen += amount
            if seen >= rank:
                return end(bucket)
        return None

    mean = (
        round(sum(amount * (bucket + end(bucket)) for bucket, amount in known) / (2 * total))
        if total
        else None
    )
    return ResponseTimes(at(50), at(95), at(99), mean)


def _of_session(tx: Transaction, scope: Scope, subject: Subject, now: int) -> Statistics:
    tx = within(tx, scope)
    where, parameters = condition(scope)
    about: Parameters = {"session": SessionId(subject.name), **parameters}
    session = tx.row(
        "SELECT s.status, s.platform, s.message_count AS messages, s.tool_call_count AS tool_calls, s.input_tokens,"
        " s.output_tokens, s.last_activity_at - s.created_at AS duration_ms FROM sessions s"
        f" WHERE s.id = :session AND (s.end_reason IS NULL OR s.end_reason <> 'deleted') AND {where}",
        about,
    )
    if session is None:
        return _made(subject, {}, [], {}, now, None)
    here = {"session": subject.name}
    facts = [("sessions", session["status"], session["platform"], 0, 1)]
    facts += [
        ("turns", row["status"], "", bucket_of(row["response_ms"]), int(row["amount"]))
        for row in tx.rows(
            "SELECT status, finished_at - queued_at AS response_ms, COUNT(*) AS amount FROM turns"
            " WHERE session_id = :session GROUP BY status, finished_at - queued_at",
            here,
        )
    ]
    facts += [
        ("errors", row["kind"], "", 0, int(row["amount"]))
        for row in tx.rows(
            "SELECT kind, COUNT(*) AS amount FROM errors WHERE session_id = :session GROUP BY kind UNION ALL"
            " SELECT 'tool', COUNT(*) FROM tool_calls WHERE session_id = :session AND outcome = 'error'",
            here,
        )
    ]
    hours = tx.rows(
        "SELECT created_at - created_at % 3600000 AS hour, COUNT(*) AS messages FROM messages"
        " WHERE session_id = :session AND created_at >= :since GROUP BY created_at - created_at % 3600000",
        {**here, "since": now - now % DAY_MS - 13 * DAY_MS},
    )
    sums = {name: int(session[name]) for name in session if name not in ("status", "platform")}
    return _made(subject, sums, facts, {int(row["hour"]): int(row["messages"]) for row in hours}, now, None)


_DIMENSIONS: Final = """(
    SELECT 'all' AS dimension UNION ALL SELECT 'platform' UNION ALL SELECT 'persona' UNION ALL SELECT 'person'
) AS d"""
_SUBJECT: Final = """CASE d.dimension
    WHEN 'platform' THEN c.platform WHEN 'persona' THEN c.persona WHEN 'person' THEN c.person_id ELSE '' END"""
_COUNTS_FOR: Final = (
    "(d.dimension = 'all' OR (c.platform <> '' AND (d.dimension <> 'person' OR c.person_id <> '')))"
)
"""What belongs to no session (an error before there was one) has no platform and counts for all alone."""


def _sums(source: str) -> tuple[str, str, str]:
    """The three statements that add the changes of a source to the sums."""
    totals = (
        "INSERT INTO statistics_totals (dimension, subject, messages, tool_calls, input_tokens, output_tokens, duration_ms)"
        f" SELECT d.dimension, {_SUBJECT}, SUM(c.messages), SUM(c.tool_calls), SUM(c.input_tokens), SUM(c.output_tokens),"
        " SUM(c.duration_ms) FROM (SELECT platform, persona, person_id, SUM(messages) AS messages,"
        " SUM(tool_calls) AS tool_calls, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,"
        f" SUM(duration_ms) AS duration_ms FROM {source} GROUP BY platform, persona, person_id) AS c"
        f" CROSS JOIN {_DIMENSIONS} WHERE {_COUNTS_FOR} GROUP BY 1, 2"
        " ON CONFLICT (dimension, subject) DO UPDATE SET messages = statistics_totals.messages + excluded.messages,"
        " tool_calls = statistics_totals.tool_calls + excluded.tool_calls,"
        " input_tokens = statistics_totals.input_tokens + excluded.input_tokens,"
        " output_tokens = statistics_totals.output_tokens + excluded.output_tokens,"
        " duration_ms = statistics_totals.duration_ms + excluded.duration_ms"
    )
    counts = (
        "INSERT INTO statistics_counts (dimension, subject, fact, word, platform, bucket, amount)"
        f" SELECT d.dimension, {_SUBJECT}, c.fact, c.word, c.platform, c.bucket, SUM(c.amount)"
        " FROM (SELECT platform, persona, person_id, fact, word, bucket,"
        f" SUM(amount) AS amount FROM {source} AND fact IS NOT NULL"
        " GROUP BY platform, persona, person_id, fact, word, bucket) AS c"
        f" CROSS JOIN {_DIMENSIONS} WHERE {_COUNTS_FOR} GROUP BY 1, 2, 3, 4, 5, 6"
        " ON CONFLICT (dimension, subject, fact, word, platform, bucket)"
        " DO UPDATE SET amount = statistics_counts.amount + excluded.amount"
    )
    hours = (
        "INSERT INTO statistics_hours (dimension, subject, hour, messages)"
        f" SELECT d.dimension, {_SUBJECT}, c.hour, SUM(c.messages) FROM (SELECT platform, persona, person_id, hour,"
        f" SUM(messages) AS messages FROM {source} AND hour IS NOT NULL GROUP BY platform, persona, person_id, hour) AS c"
        f" CROSS JOIN {_DIMENSIONS} WHERE {_COUNTS_FOR} GROUP BY 1, 2, 3"
        " ON CONFLICT (dimension, subject, hour) DO UPDATE SET messages = statistics_hours.messages + excluded.messages"
    )
    return totals, counts, hours


_SUMS_SQLITE: Final = _sums("statistics_changes WHERE rowid <= :last")
_SUMS_POSTGRESQL: Final = (
    "WITH taken AS (DELETE FROM statistics_changes WHERE id IN (SELECT id FROM statistics_changes ORDER BY id LIMIT :batch)"
    " RETURNING *), totals AS ({}), counts AS ({}), hours AS ({}) SELECT COUNT(*) AS n FROM taken".format(
        *_sums("taken WHERE true")
    )
)


def _fold_sqlite(tx: Transaction, batch: int) -> int:
    row = tx.row(
        "SELECT MAX(id) AS last FROM (SELECT rowid AS id FROM statistics_changes ORDER BY rowid LIMIT :batch)",
        {"batch": batch},
    )
    if row is None or row["last"] is None:
        return 0
    for statement in _SUMS_SQLITE:
        tx.execute(statement, {"last": row["last"]})
    return tx.execute("DELETE FROM statistics_changes WHERE rowid <= :last", {"last": row["last"]})


def _fold_postgresql(tx: Transaction, batch: int) -> int:
    """One statement, because other nodes go on adding changes meanwhile: it sums up exactly the rows that it removes."""
    free = tx.row("SELECT pg_try_advisory_xact_lock(:lock) AS taken", {"lock": _FOLDING_LOCK})
    if free is None or not free["taken"]:
        return 0
    row = tx.row(_SUMS_POSTGRESQL, {"batch": batch})
    return int(row["n"]) if row else 0
