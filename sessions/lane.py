"""A session's lane: claim its first turn, record the steps, finish it (fenced), stop it, recover.

Owns the turns and steps tables. A lane is the unfinished turns of a session in order of position, and at most one of them is
running. On SQLite that is all, and start-up recovery is `recover`, one statement. On PostgreSQL, where several nodes take turns, each
stands in a queue as well (`sessions/queue.py`), which says who holds it and gives it to somebody else when its lease is over. How a
turn comes into its lane is `sessions/inbox.py`, running turns is `bot/lanes.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import orjson

from config.names import Json, PersonId, SessionId, TurnId
from sessions import queue, window
from sessions.addresses import address_of, platforms_id, reply_channel
from sessions.database.base import Row, Statement, Transaction, row_lock
from sessions.database.values import as_json
from sessions.errors import StaleClaim
from sessions.hot import Tail
from sessions.models import (
    Address,
    Claim,
    ErrorRecord,
    Message,
    StepRecord,
    Summary,
    ToolCall,
    TurnStatus,
    Window,
)

_WINDOW = ", ".join(f"s.{column}" for column in window.COLUMNS)


_UNFINISHED = "status IN ('queued', 'running')"
"""The condition of the partial index over unfinished turns. A query that wants one of the two says this as well: SQLite does not
see by itself that the index covers it, and would read every turn the session ever had."""


_ASKED_BY = " AND EXISTS (SELECT 1 FROM inbox i WHERE i.id = turns.inbox_id AND i.person_id = :person)"
"""The condition for turns of one person's messages."""


_COUNT = "SELECT COUNT(*) AS n FROM turns WHERE session_id"


def waiting(tx: Transaction, session_id: SessionId, *, person_id: PersonId | None = None) -> int:
    """Unfinished turns of a session; of one person's messages only, if one is given."""
    row = tx.row(
        f"{_COUNT} = :id AND {_UNFINISHED}" + ("" if person_id is None else _ASKED_BY),
        {"id": session_id} if person_id is None else {"id": session_id, "person": person_id},
    )
    return int(row["n"]) if row else 0


def counting_under(key: str) -> Statement:
    """Gives the unfinished turns of the live session under a key, as `n`."""
    return (
        (
            f"{_COUNT} = (SELECT id FROM sessions WHERE key = :key AND status IN ('active', 'paused'))"
            f" AND {_UNFINISHED}"
        ),
        {"key": key},
    )


def sessions_with_work(tx: Transaction) -> list[SessionId]:
    """Sessions that have queued turns, the longest waiting first."""
    return [
        row["session_id"]
        for row in tx.rows(
            "SELECT session_id, MIN(queued_at) AS since FROM turns WHERE status = 'queued'"
            f" AND {_UNFINISHED} GROUP BY session_id ORDER BY since"
        )
    ]


def recover(tx: Transaction) -> int:
    """Turns that ran when the last process died go back to their place; for a database that no other node works on. Gives how many."""
    if tx.dialect == "postgresql":
        queue.give_all_back(tx)
    return tx.execute(f"UPDATE turns SET status = 'queued' WHERE status = 'running' AND {_UNFINISHED}")


def cancelled_elsewhere(tx: Transaction, node: str) -> list[TurnId]:
    """Turns that run on a node and that somebody asked to stop, wherever that was heard."""
    return [
        row["id"]
        for row in tx.rows(
            f"SELECT id FROM turns WHERE status = 'running' AND {_UNFINISHED} AND node = :node"
            " AND cancel_requested_at IS NOT NULL",
            {"node": node},
        )
    ]


def claim(
    tx: Transaction,
    session_id: SessionId,
    now: int,
    *,
    context_messages: int,
    recent: Tail | None = None,
    node: str | None = None,
    lease_ms: int = 10_000,
) -> Claim | None:
    """Take the first turn of a lane to run it (on that node); None if one is running already or nothing waits.

    `recent` is what is remembered of the session's end: taken if the session says that it still holds, else read anew. Where
    there are other nodes, the turn is theirs again after the lease, unless it was renewed.
    """
    take = _take_alone if tx.dialect == "sqlite" else queue.take
    row = take(tx, session_id, now, node, lease_ms, _ABOUT)
    return None if row is None else _load(tx, row, session_id, context_messages, recent)


def claim_heads(
    tx: Transaction,
    limit: int,
    now: int,
    *,
    context_messages: int,
    recent: Callable[[SessionId], Tail | None] = lambda _session_id: None,
    node: str | None = None,
    lease_ms: int = 10_000,
) -> list[Claim]:
    """Take the first turns of the lanes that wait longest, whoever took them in; for several nodes on one database."""
    return [
        _load(tx, row, row["session_id"], context_messages, recent(row["session_id"]))
        for row in queue.take_heads(tx, limit, now, node, lease_ms, _ABOUT)
    ]


_ABOUT = (
    "i.account, i.channel, i.channel_kind, i.thread, i.message_id, i.sent_at, i.reply_handle, s.persona, s.scope,"
    f" s.channel AS session_channel, i.person_id, s.person_id AS owner, p.display_name, p.language, p.role, {_WINDOW}"
)
"""What a claim says of its message (`i`), its session (`s`) and its person (`p`)."""


def _take_alone(
    tx: Transaction, session_id: SessionId, now: int, node: str | None, _lease_ms: int, about: str
) -> Row | None:
    """Without a queue: the lane itself says whether its first turn is free."""
    row = tx.row(
        "UPDATE turns SET status = 'running', epoch = epoch + 1, attempts = attempts + 1, started_at = :now, node = :node"
        " WHERE id = ("
        " SELECT t.id FROM turns t WHERE t.session_id = :session AND t.status = 'queued'"
        f" AND t.{_UNFINISHED} AND NOT EXISTS"
        " (SELECT 1 FROM turns r WHERE r.session_id = :session AND r.status = 'running'"
        f" AND r.{_UNFINISHED}) ORDER BY t.position LIMIT 1)"
        " RETURNING id, position, epoch, attempts, queued_at, cancel_requested_at, noticed_at, inbox_id, NULL AS msg_id",
        {"now": now, "session": session_id, "node": node},
    )
    if row is None:
        return None
    rest = tx.row(
        f"SELECT {about} FROM inbox i JOIN sessions s ON s.id = :session LEFT JOIN persons p ON p.id = i.person_id"
        " WHERE i.id = :inbox",
        {"session": session_id, "inbox": row["inbox_id"]},
    )
    assert rest is not None
    return {**row, **rest}


def _load(
    tx: Transaction, about: Row, session_id: SessionId, context_messages: int, recent: Tail | None
) -> Claim:
    """All that is needed to run a turn that was taken."""
    if about["noticed_at"] is not None:
        # A word about the wait that has not gone out by now would only be untrue.
        tx.execute(
            "DELETE FROM outbox WHERE turn_id = :turn AND kind = 'notice' AND state = 'ready'",
            {"turn": about["id"]},
        )
    moved_to = reply_channel(about["scope"], about["session_channel"], about["channel"])
    state = window.read(about)
    messages, is_from_memory = end_of_conversation(
        tx, session_id, about["position"], context_messages, state, recent
    )
    steps = (
        tx.rows(
            "SELECT number, kind, payload FROM steps WHERE turn_id = :turn ORDER BY number",
            {"turn": about["id"]},
        )
        if about["epoch"] > 1  # not the attempts: a turn that was given back at a stop has steps as well
        else []
    )
    return Claim(
        turn_id=about["id"],
        session_id=session_id,
        position=about["position"],
        epoch=about["epoch"],
        attempts=about["attempts"],
        queued_at=about["queued_at"],
        is_cancelled=about["cancel_requested_at"] is not None,
        address=Address(
            account=about["account"],
            channel=moved_to or about["channel"],
            channel_kind=about["channel_kind"],
            thread=about["thread"],
            reply_to=None if moved_to else platforms_id(about["message_id"], about["sent_at"]),
            reply_handle=orjson.loads(about["reply_handle"]) if about["reply_handle"] else None,
            inbox_id=about["inbox_id"],
        ),
        persona=about["persona"],
        person_id=about["person_id"],
        person_name=about["display_name"],
        is_blocked=about["role"] == "blocked",
        language=about["language"],
        is_shared=about["owner"] is None,
        messages=messages,
        steps=[StepRecord(step["number"], step["kind"], orjson.loads(step["payload"])) for step in steps],
        summaries=summaries_in_force(tx, session_id, state, recent),
        window=state,
        is_from_memory=is_from_memory,
        msg_id=about["msg_id"],
    )


def end_of_conversation(
    tx: Transaction,
    session_id: SessionId,
    position: int,
    limit: int,
    state: Window,
    recent: Tail | None,
    own: Message | None = None,
) -> tuple[Sequence[Message], bool]:
    """The last messages that no summary covers, up to and with a turn's own; and whether most were remembered.

    `own` spares reading the turn's own where it is at hand.
    """
    if (
        recent is None
        or recent.revision != state.revision
        or recent.since > state.summarised_to
        or recent.asked < limit
        or recent.position >= position
    ):
        return conversation_until(tx, session_id, position, limit, after=state.summarised_to), False
    kept = [message for message in recent.messages if message.position > state.summarised_to]
    added: Sequence[Message]
    if own is not None and recent.position == position - 1:
        added = (own,)
    else:
        added = conversation_until(
            tx, session_id, position, limit, after=max(recent.position, state.summarised_to)
        )
    return (*kept, *added)[-limit:], True


def summaries_in_force(
    tx: Transaction, session_id: SessionId, state: Window, recent: Tail | None
) -> Sequence[Summary]:
    """The summaries in force, remembered or read."""
    if not state.summarised_to:
        return ()
    if recent is not None and (recent.revision, recent.since) == (state.revision, state.summarised_to):
        return recent.summaries
    return window.summaries_of(tx, session_id)


def conversation_until(
    tx: Transaction, session_id: SessionId, position: int, limit: int, *, after: int = 0
) -> list[Message]:
    """The last messages up to and with a turn's own, oldest first; those after a position if one is given."""
    rows = tx.rows(
        "SELECT session_id, position, part, role, content, author, created_at, turn_id, attachments, metadata FROM messages"
        " WHERE session_id = :session AND position > :after"
        " AND (position < :position OR (position = :position AND part = 0))"
        " ORDER BY position DESC, part DESC LIMIT :limit",
        {"session": session_id, "position": position, "limit": limit, "after": after},
    )
    return [read_message(row) for row in reversed(rows)]


def read_message(row: Row) -> Message:
    """A row of `messages` as a record."""
    return Message(
        session_id=row["session_id"],
        position=row["position"],
        part=row["part"],
        role=row["role"],
        content=row["content"],
        author=row["author"],
        created_at=row["created_at"],
        turn_id=row["turn_id"],
        attachments=orjson.loads(row["attachments"]) if row["attachments"] != "[]" else (),
        metadata=orjson.loads(row["metadata"]) if row["metadata"] != "{}" else {},
    )


def record_step(
    tx: Transaction, claim: Claim, step: StepRecord, now: int, *, tool_call: ToolCall | None = None
) -> None:
    """Make a model answer or a tool result durable. Raises: StaleClaim."""
    check_claim(tx, claim)
    is_new = tx.execute(*_inserting_step(tx, claim, step, now)) == 1
    if is_new and tool_call is not None:
        tx.execute(
            "INSERT INTO tool_calls (turn_id, session_id, step, call_id, name, arguments, result, outcome, cause, started_at,"
            " duration_ms) VALUES (:turn, :session, :step, :call, :name, :arguments, :result, :outcome, :cause, :started,"
            " :duration)",
            {
                "turn": claim.turn_id,
                "session": claim.session_id,
                "step": tool_call.step,
                "call": tool_call.call_id,
                "name": tool_call.name,
                "arguments": tx.seal.seal(as_json(tool_call.arguments)),
                "result": tx.seal.seal(tool_call.result),
                "outcome": "error" if tool_call.is_error else "ok",
                "cause": tx.seal.seal(tool_call.cause) if tool_call.cause is not None else None,
                "started": tool_call.started_at,
                "duration": tool_call.duration_ms,
            },
        )
        tx.execute(
            "UPDATE sessions SET tool_call_count = tool_call_count + 1, error_count = error_count + :failed WHERE id = :id",
            {"failed": int(tool_call.is_error), "id": claim.session_id},
        )
        tx.execute("UPDATE turns SET tool_calls = tool_calls + 1 WHERE id = :id", {"id": claim.turn_id})


def _inserting_step(tx: Transaction, claim: Claim, step: StepRecord, now: int) -> Statement:
    """Changes no row if it is there already: the write was repeated because nobody heard that it had worked."""
    return (
        (
            "INSERT INTO steps (turn_id, number, kind, payload, created_at) VALUES (:turn, :number, :kind, :payload, :now)"
            " ON CONFLICT (turn_id, number) DO NOTHING"
        ),
        {
            "turn": claim.turn_id,
            "number": step.number,
            "kind": step.kind,
            "payload": tx.seal.seal(as_json(step.payload)),
            "now": now,
        },
    )


def check_claim(tx: Transaction, claim: Claim) -> None:
    """Keep the claim valid until the end of the transaction. Raises: StaleClaim when the turn is no longer this claim's."""
    row = tx.row(
        "SELECT 1 AS x FROM turns WHERE id = :id AND session_id = :session AND epoch = :epoch AND status = 'running'"
        + row_lock(tx),
        {"id": claim.turn_id, "session": claim.session_id, "epoch": claim.epoch},
    )
    if row is None:
        raise StaleClaim(claim.turn_id)


def finish(
    tx: Transaction,
    claim: Claim,
    status: TurnStatus,
    now: int,
    *,
    answer: str | None = None,
    agent: str | None = None,
    input_tokens: int = 0,
    output_tokens: int = 0,
    error: ErrorRecord | None = None,
    metadata: Mapping[str, Json] | None = None,
    last_step: StepRecord | None = None,
) -> bool:
    """End a turn: its last step, its status, the answer in the conversation, the session's counters, the error's record.

    The caller adds the reply to the outbox in the same transaction. Gives whether turns were queued behind this one, which may
    have ended since: without any, `waiting` need not be asked.

    Raises: StaleClaim when the turn is no longer this claim's; nothing is stored then.
    """
    statements: list[Statement] = []
    if claim.msg_id is not None:
        held = queue.Held(claim.msg_id, claim.epoch)
        if error is not None and error.kind == "poison":
            if not queue.bury(tx, held):
                raise StaleClaim(claim.turn_id)
        else:
            statements.append(queue.removing(held))
    statements.append(
        (
            (
                "UPDATE turns SET status = :status, finished_at = :now, agent = :agent,"
                " input_tokens = :input, output_tokens = :output,"
                # The session tells the index of running turns where to look.
                " error_ref = :ref WHERE id = :id AND session_id = :session AND epoch = :epoch AND status = 'running'"
            ),
            {
                "status": status,
                "now": now,
                "agent": agent,
                "input": input_tokens,
                "output": output_tokens,
                "ref": error.ref if error else None,
                "id": claim.turn_id,
                "session": claim.session_id,
                "epoch": claim.epoch,
            },
        )
    )
    if any(ran.count != 1 for ran in tx.together(statements)):
        raise StaleClaim(claim.turn_id)
    statements = [] if last_step is None else [_inserting_step(tx, claim, last_step, now)]
    if answer is not None:
        statements.append(
            (
                (
                    "INSERT INTO messages (session_id, position, part, role, content, turn_id, metadata, created_at, is_sealed)"
                    " VALUES (:session, :position, 1, 'assistant', :content, :turn, :metadata, :now, :sealed)"
                ),
                {
                    "session": claim.session_id,
                    "position": claim.position,
                    "content": tx.seal.seal(answer),
                    "sealed": int(tx.seal.is_on),
                    "turn": claim.turn_id,
                    "metadata": as_json(metadata or {}),
                    "now": now,
                },
            )
        )
    if error is not None:
        record_error(tx, error, now, turn_id=claim.turn_id, session_id=claim.session_id)
    statements.append(
        (
            (
                "UPDATE sessions SET message_count = message_count + :messages, error_count = error_count + :errors,"
                " input_tokens = input_tokens + :input, output_tokens = output_tokens + :output, last_activity_at = :now"
                " WHERE id = :id RETURNING next_position - 1 AS last_position"
            ),
            {
                "messages": int(answer is not None),
                "errors": int(error is not None),
                "input": input_tokens,
                "output": output_tokens,
                "now": now,
                "id": claim.session_id,
            },
        )
    )
    *_, session = tx.together(statements)
    return bool(session.rows) and session.rows[0]["last_position"] > claim.position


def record_error(
    tx: Transaction, error: ErrorRecord, now: int, *, turn_id: TurnId | None, session_id: SessionId | None
) -> None:
    """Keep what went wrong under the reference that the person was told."""
    tx.execute(
        "INSERT INTO errors (ref, turn_id, session_id, kind, message, cause, created_at)"
        " VALUES (:ref, :turn, :session, :kind, :message, :cause, :now)",
        {
            "ref": error.ref,
            "turn": turn_id,
            "session": session_id,
            "kind": error.kind,
            "message": error.message,
            "cause": tx.seal.seal(error.cause) if error.cause is not None else None,
            "now": now,
        },
    )


def request_cancel(
    tx: Transaction,
    session_ids: Sequence[SessionId],
    now: int,
    *,
    with_queued: bool,
    person_id: PersonId | None = None,
) -> list[TurnId]:
    """Ask that the running turns of these sessions (and, if told so, the waiting ones) stop. Gives the turns.

    With a person, only turns of their own messages. Only asks: whoever runs the turn ends it, so that what was written
    so far is kept.
    """
    which = _UNFINISHED if with_queued else f"status = 'running' AND {_UNFINISHED}"
    values: dict[str, object] = {"now": now}
    if person_id is not None:
        which, values["person"] = which + _ASKED_BY, person_id
    stopped: list[TurnId] = []
    for session_id in session_ids:
        stopped += [
            row["id"]
            for row in tx.rows(
                "UPDATE turns SET cancel_requested_at = :now WHERE session_id = :id AND cancel_requested_at IS NULL"
                f" AND {which} RETURNING id",
                {**values, "id": session_id},
            )
        ]
    return stopped


def unfinished_sessions(tx: Transaction, key: str) -> list[SessionId]:
    """Sessions under a key, ended ones too, that still have turns to run."""
    return [
        row["id"]
        for row in tx.rows(
            "SELECT s.id FROM sessions s WHERE s.key = :key AND EXISTS"
            " (SELECT 1 FROM turns t WHERE t.session_id = s.id AND t.status IN ('queued', 'running'))",
            {"key": key},
        )
    ]


def mark_noticed(tx: Transaction, turn_id: TurnId, now: int) -> tuple[int, Address] | None:
    """For a turn that still waits and whose person was not told yet: how many are ahead, and where to tell.

    None also while another message of the same person waits that they were told about: one note a wait, however much they write.
    """
    row = tx.row(
        "UPDATE turns SET noticed_at = :now WHERE id = :id AND status = 'queued' AND noticed_at IS NULL"
        " RETURNING session_id, position, inbox_id",
        {"now": now, "id": turn_id},
    )
    if row is None:
        return None
    told = tx.row(
        "SELECT 1 AS x FROM turns t JOIN inbox i ON i.id = t.inbox_id WHERE t.session_id = :session AND t.id <> :id"
        " AND t.status = 'queued' AND t.noticed_at IS NOT NULL"
        " AND i.person_id = (SELECT person_id FROM inbox WHERE id = :inbox) LIMIT 1",
        {"session": row["session_id"], "id": turn_id, "inbox": row["inbox_id"]},
    )
    if told is not None:
        return None
    ahead = tx.row(
        "SELECT COUNT(*) AS n FROM turns WHERE session_id = :session AND position < :position"
        " AND status IN ('queued', 'running')",
        {"session": row["session_id"], "position": row["position"]},
    )
    address = address_of(tx, row["inbox_id"])
    if address is None:
        return None
    place = tx.row("SELECT scope, channel FROM sessions WHERE id = :id", {"id": row["session_id"]})
    if place is not None and (channel := reply_channel(place["scope"], place["channel"], address.channel)):
        address = replace(address, channel=channel, reply_to=None)
    return int(ahead["n"]) if ahead else 0, address
