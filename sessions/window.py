"""A session's window: its limit of tokens, what was learned about it, and the summaries in force.

Owns the columns of `sessions` that say so and the reading of `summaries`. What fits a window is `context.py`; making summaries
is `summaries.py`.
"""

from typing import Final

from config.names import AccountId, ChannelId, SessionId
from config.settings import Settings
from sessions.database.base import Row, Transaction
from sessions.models import Summary, Window

COLUMNS: Final = "context_tokens learned_tokens learned_for token_ratio revision summarised_to".split()
"""Of `sessions`, as `read` wants them."""

LOWEST_RATIO, HIGHEST_RATIO = 0.5, 3.0
"""Outside of these the report, not our count, is the stranger: a provider that counts only what was not cached, for one."""

_WEIGHT: Final = 0.3
"""Of the newest report in the smoothed ratio."""
_WORTH_KEEPING: Final = 0.03


def read(row: Row) -> Window:
    """The window, from a row that has `COLUMNS`."""
    return Window(
        row["context_tokens"],
        row["learned_tokens"],
        row["learned_for"],
        row["token_ratio"] / 1000,
        row["revision"],
        row["summarised_to"],
    )


def limit_of(
    settings: Settings, account: AccountId, channel: ChannelId, window: Window, agent: str | None = None
) -> int:
    """Most tokens that the model sees: what was set nearest to the session, and no more than the agent was learned to take."""
    of_account = settings.accounts.get(account.partition(".")[2])
    limit = window.own_tokens
    if limit is None and of_account is not None:
        of_channel = of_account.context.channels.get(channel)
        limit = (of_channel and of_channel.tokens) or of_account.context.tokens
    if limit is None:
        limit = settings.agent.context_tokens
    if window.learned_tokens is not None and agent in (None, window.learned_for):
        limit = min(limit, window.learned_tokens)
    return limit


def instructions_of(settings: Settings, persona: str | None) -> str:
    """The system prompt of whoever answers in a session."""
    own = settings.personas.get(persona) if persona else None
    return (own and own.instructions) or settings.agent.instructions


def set_limit(tx: Transaction, session_id: SessionId, tokens: int | None) -> None:
    """Give a session a limit of its own; None takes it away. Raises: ValueError for one that holds no conversation."""
    if tokens is not None and tokens <= 200:
        raise ValueError("a window of 200 tokens or fewer holds no conversation")
    tx.execute(
        "UPDATE sessions SET context_tokens = :tokens WHERE id = :id", {"tokens": tokens, "id": session_id}
    )


def corrected(ratio: float, counted: int, reported: int) -> float | None:
    """The ratio after a report; None if that changes nothing worth keeping."""
    if counted <= 0 or reported <= 0:
        return None
    told = min(HIGHEST_RATIO, max(LOWEST_RATIO, reported / counted))
    new = round(ratio + _WEIGHT * (told - ratio), 3)
    return new if abs(new - ratio) >= _WORTH_KEEPING * ratio else None


def learn(
    tx: Transaction,
    session_id: SessionId,
    *,
    ratio: float | None = None,
    tokens: int | None = None,
    agent: str | None = None,
) -> None:
    """Keep what a turn taught: how the provider counts, or how much its model takes."""
    if ratio is not None:
        tx.execute(
            "UPDATE sessions SET token_ratio = :ratio WHERE id = :id",
            {"ratio": round(ratio * 1000), "id": session_id},
        )
    if tokens is not None:
        tx.execute(
            "UPDATE sessions SET learned_tokens = :tokens, learned_for = :agent WHERE id = :id",
            {"tokens": tokens, "agent": agent, "id": session_id},
        )


def summaries_of(tx: Transaction, session_id: SessionId) -> list[Summary]:
    """The summaries in force, oldest first."""
    return [
        Summary(
            row["version"],
            row["level"],
            row["from_position"],
            row["to_position"],
            row["content"],
            row["tokens"],
            row["made_by"],
            row["created_at"],
        )
        for row in tx.rows(
            "SELECT version, level, from_position, to_position, content, tokens, made_by, created_at FROM summaries"
            " WHERE session_id = :id AND replaced_by IS NULL ORDER BY from_position",
            {"id": session_id},
        )
    ]
