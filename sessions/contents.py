"""What a session holds besides its messages: variables, notebooks, integrations, its task, title, description and metadata.

Owns reading and writing them, and the view of a turn as one exchange (question, answer, tools, time, error, device). Whoever
reads gives a `Scope`; whoever writes has found the session within one. Status changes are `lifecycle.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from config.names import Json, SessionId, TurnId
from sessions.database.base import Row, Transaction, row_lock
from sessions.database.values import as_json
from sessions.errors import SessionNotFound
from sessions.lane import read_message
from sessions.scope import Scope, condition, within

LinkKind = Literal["notebook", "integration"]
TaskOutcome = Literal["done", "dropped", "replaced", "abandoned"]

MAX_TITLE: Final = 100
MAX_NAME: Final = 200
_TITLE_FROM: Final = 60
"""Characters of the first message that become the title of a session nobody has named."""


# state variables


def set_variable(tx: Transaction, session_id: SessionId, name: str, value: Json, now: int) -> None:
    """Set a state variable to any JSON value. Raises: SessionNotFound."""
    _check(tx, session_id)
    tx.execute(
        "INSERT INTO session_variables (session_id, name, value, updated_at) VALUES (:id, :name, :value, :now)"
        " ON CONFLICT (session_id, name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        {"id": session_id, "name": name, "value": tx.seal.seal(as_json(value)), "now": now},
    )


def variables(
    tx: Transaction, session_id: SessionId, scope: Scope, name: str | None = None
) -> dict[str, Json]:
    """The state variables of a session within the scope, or the one named."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    rows = tx.rows(
        "SELECT v.name, v.value FROM session_variables v JOIN sessions s ON s.id = v.session_id"
        f" WHERE v.session_id = :id AND {where}"
        + (" AND v.name = :name" if name is not None else "")
        + " ORDER BY v.name",
        {"id": session_id, **parameters} | ({"name": name} if name is not None else {}),
    )
    return {row["name"]: orjson.loads(row["value"]) for row in rows}


def delete_variable(tx: Transaction, session_id: SessionId, name: str) -> bool:
    """False if there was none of that name."""
    return (
        tx.execute(
            "DELETE FROM session_variables WHERE session_id = :id AND name = :name",
            {"id": session_id, "name": name},
        )
        == 1
    )


# notebooks and integrations


def add_link(tx: Transaction, session_id: SessionId, kind: LinkKind, name: str, now: int) -> bool:
    """Add a notebook or integration; False if it was there already. Raises: SessionNotFound, ValueError for no name."""
    _check(tx, session_id)
    return (
        tx.execute(
            "INSERT INTO session_links (session_id, kind, name, added_at) VALUES (:id, :kind, :name, :now)"
            " ON CONFLICT (session_id, kind, name) DO NOTHING",
            {"id": session_id, "kind": kind, "name": _named(name, MAX_NAME), "now": now},
        )
        == 1
    )


def remove_link(tx: Transaction, session_id: SessionId, kind: LinkKind, name: str) -> bool:
    """False if it was not there."""
    return (
        tx.execute(
            "DELETE FROM session_links WHERE session_id = :id AND kind = :kind AND name = :name",
            {"id": session_id, "kind": kind, "name": " ".join(name.split())},
        )
        == 1
    )


def links(tx: Transaction, session_id: SessionId, scope: Scope, kind: LinkKind) -> list[str]:
    """The session's notebooks or integrations, in the order they were added."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    rows = tx.rows(
        "SELECT l.name FROM session_links l JOIN sessions s ON s.id = l.session_id"
        f" WHERE l.session_id = :id AND l.kind = :kind AND {where} ORDER BY l.added_at, l.name",
        {"id": session_id, "kind": kind, **parameters},
    )
    return [row["name"] for row in rows]


# the task


@dataclass(frozen=True, slots=True)
class Task:
    """Something a session works or worked on."""

    task: str
    set_at: int
    ended_at: int | None
    """None for the current one."""
    outcome: TaskOutcome | None


def set_current_task(tx: Transaction, session_id: SessionId, task: str, now: int) -> None:
    """Say what the session is working on; another task that was under way is noted as replaced. Raises: SessionNotFound."""
    _check(tx, session_id)
    sealed = tx.seal.seal(_named(task, 1000))
    _end_task(tx, session_id, "replaced", now)
    tx.execute(
        "INSERT INTO session_tasks (session_id, task, set_at) VALUES (:id, :task, :now)",
        {"id": session_id, "task": sealed, "now": now},
    )
    tx.execute("UPDATE sessions SET current_task = :task WHERE id = :id", {"id": session_id, "task": sealed})


def clear_current_task(
    tx: Transaction, session_id: SessionId, now: int, outcome: TaskOutcome = "done"
) -> bool:
    """The task is over; False if there was none."""
    tx.execute("UPDATE sessions SET current_task = NULL WHERE id = :id", {"id": session_id})
    return _end_task(tx, session_id, outcome, now)


def tasks(tx: Transaction, session_id: SessionId, scope: Scope, limit: int = 50) -> list[Task]:
    """What the session worked on, the latest first."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    rows = tx.rows(
        "SELECT k.task, k.set_at, k.ended_at, k.outcome FROM session_tasks k JOIN sessions s ON s.id = k.session_id"
        f" WHERE k.session_id = :id AND {where} ORDER BY k.id DESC LIMIT :limit",
        {"id": session_id, "limit": limit, **parameters},
    )
    return [Task(row["task"], row["set_at"], row["ended_at"], row["outcome"]) for row in rows]


def _end_task(tx: Transaction, session_id: SessionId, outcome: TaskOutcome, now: int) -> bool:
    return (
        tx.execute(
            "UPDATE session_tasks SET ended_at = :now, outcome = :outcome WHERE session_id = :id AND ended_at IS NULL",
            {"id": session_id, "now": now, "outcome": outcome},
        )
        == 1
    )


# title, description, metadata


def set_title(tx: Transaction, session_id: SessionId, title: str | None) -> str | None:
    """Name a session; None gives it back its own title. Gives the title as it was stored.

    Raises: SessionNotFound; ValueError for a title without anything in it.
    """
    _check(tx, session_id)
    stored = None if title is None else _named(title, MAX_TITLE)
    tx.execute(
        "UPDATE sessions SET title = :title WHERE id = :id",
        {"title": None if stored is None else tx.seal.seal(stored), "id": session_id},
    )
    return stored


def set_description(tx: Transaction, session_id: SessionId, description: str | None) -> None:
    """Raises: SessionNotFound."""
    _check(tx, session_id)
    tx.execute(
        "UPDATE sessions SET description = :text WHERE id = :id",
        {"text": None if description is None else tx.seal.seal(description), "id": session_id},
    )


def titles(tx: Transaction, session_ids: Sequence[SessionId], scope: Scope) -> dict[SessionId, str]:
    """The titles of sessions within the scope: the one given to it, else a line of its first message.

    The line is read anew each time and stored nowhere: what is forgotten or sealed leaves no copy in a title. A session in
    which nobody has said anything yet has none.
    """
    tx = within(tx, scope)
    where, parameters = condition(scope)
    found: dict[SessionId, str] = {}
    for session_id in session_ids:
        row = tx.row(
            f"SELECT s.title, s.forked_from FROM sessions s WHERE s.id = :id AND {where}",
            {"id": session_id, **parameters},
        )
        if row is None:
            continue
        title = row["title"] or _own_title(tx, session_id)
        if title is None and row["forked_from"] is not None:  # it began with an answer alone
            title = titles(tx, [row["forked_from"]], scope).get(row["forked_from"])
        if title:
            found[session_id] = title
    return found


def _own_title(tx: Transaction, session_id: SessionId) -> str | None:
    # the first one with words: a conversation may well begin with a picture
    opening = tx.rows(
        "SELECT content FROM messages WHERE session_id = :id AND role = 'user' ORDER BY position, part LIMIT 5",
        {"id": session_id},
    )
    return next(filter(None, (title_from(message["content"]) for message in opening)), None)


def title_from(text: str) -> str | None:
    """The first line with something in it, cut at a word; None if there is none. The same text gives the same title."""
    line = next((line for line in (" ".join(line.split()) for line in text.splitlines()) if line), "")
    line = line.lstrip("#>*- ").strip() or line
    if len(line) <= _TITLE_FROM:
        return line or None
    head = line[: _TITLE_FROM - 1]
    at_word = head.rsplit(" ", 1)[0]
    return (at_word if len(at_word) > _TITLE_FROM // 2 else head).rstrip(" ,;:.") + "…"


def merge_metadata(tx: Transaction, session_id: SessionId, patch: Mapping[str, Json]) -> dict[str, Json]:
    """Apply a JSON merge patch (RFC 7396) and give the result. Raises: SessionNotFound."""
    row = tx.row("SELECT metadata FROM sessions WHERE id = :id" + row_lock(tx), {"id": session_id})
    if row is None:
        raise SessionNotFound(session_id)
    merged = _merge(orjson.loads(row["metadata"]), patch)
    tx.execute(
        "UPDATE sessions SET metadata = :metadata WHERE id = :id",
        {"metadata": tx.seal.seal(as_json(merged)), "id": session_id},
    )
    return merged


def _merge(target: Json, patch: Mapping[str, Json]) -> dict[str, Json]:
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = _merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged


# exchanges


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn as one question and its answer, with all that is known of how the answer came about."""

    turn_id: TurnId
    position: int
    status: str
    question: str | None
    answer: str | None
    author: str | None
    origin: Mapping[str, Json]
    """Where the question came from, as the adapter told: client, device, kind of update."""
    asked_at: int
    answered_at: int | None
    input_tokens: int
    """Of all requests that the answer took, as the provider reported them."""
    output_tokens: int
    tools_used: Sequence[str]
    processing_ms: int | None
    error_kind: str | None
    error: str | None
    """What went wrong, in the operator's words."""
    error_ref: str | None

    @property
    def device(self) -> str | None:
        found = self.origin.get("device")
        return found if isinstance(found, str) else None


def exchanges(
    tx: Transaction, session_id: SessionId, scope: Scope, *, limit: int = 50, before: int | None = None
) -> list[Exchange]:
    """The latest exchanges of a session, oldest first; `before` is a position from which to page back."""
    tx = within(tx, scope)
    where, parameters = condition(scope)
    rows = tx.rows(
        "SELECT t.id, t.position, t.status, t.queued_at, t.started_at, t.finished_at, t.error_ref, t.input_tokens,"
        " t.output_tokens FROM turns t"
        f" JOIN sessions s ON s.id = t.session_id WHERE t.session_id = :id AND {where}"
        + (" AND t.position < :before" if before is not None else "")
        + " ORDER BY t.position DESC LIMIT :limit",
        {"id": session_id, "limit": limit, **parameters} | ({"before": before} if before is not None else {}),
    )
    return [_exchange(tx, session_id, row) for row in reversed(rows)]


def _exchange(tx: Transaction, session_id: SessionId, turn: Row) -> Exchange:
    said = {
        message.part: message
        for message in (
            read_message(row)
            for row in tx.rows(
                "SELECT session_id, position, part, role, content, author, created_at, turn_id, attachments, metadata"
                " FROM messages WHERE session_id = :id AND position = :position ORDER BY part",
                {"id": session_id, "position": turn["position"]},
            )
        )
    }
    error = tx.row(
        "SELECT kind, message FROM errors WHERE turn_id = :turn ORDER BY created_at DESC LIMIT 1",
        {"turn": turn["id"]},
    )
    calls = tx.rows("SELECT name FROM tool_calls WHERE turn_id = :turn ORDER BY id", {"turn": turn["id"]})
    question, answer = said.get(0), said.get(1)
    ran = turn["started_at"] is not None and turn["finished_at"] is not None
    measured = answer.metadata.get("processing_ms") if answer else None
    return Exchange(
        turn_id=turn["id"],
        position=turn["position"],
        status=turn["status"],
        question=question.content if question else None,
        answer=answer.content if answer else None,
        author=question.author if question else None,
        origin=_object(question.metadata.get("origin")) if question else {},
        asked_at=turn["queued_at"],
        answered_at=turn["finished_at"],
        input_tokens=turn["input_tokens"],
        output_tokens=turn["output_tokens"],
        tools_used=[row["name"] for row in calls],
        processing_ms=measured
        if isinstance(measured, int)
        else (turn["finished_at"] - turn["started_at"] if ran else None),
        error_kind=error["kind"] if error else None,
        error=error["message"] if error else None,
        error_ref=turn["error_ref"],
    )


def devices(tx: Transaction, session_id: SessionId, scope: Scope, *, last: int = 200) -> list[str]:
    """The devices that the session's last messages came from, the latest first."""
    names = [one.device for one in reversed(exchanges(tx, session_id, scope, limit=last)) if one.device]
    return list(dict.fromkeys(names))


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _check(tx: Transaction, session_id: SessionId) -> None:
    if tx.row("SELECT 1 AS x FROM sessions WHERE id = :id", {"id": session_id}) is None:
        raise SessionNotFound(session_id)


def _named(text: str, most: int) -> str:
    """One line without control characters, at most so long. Raises: ValueError if nothing is left of it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not line:
        raise ValueError("nothing is written there")
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
