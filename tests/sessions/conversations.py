"""Stores with something in them: conversations of several people, private and shared, with tools, errors and variables."""

import io
import random
from collections.abc import Sequence
from typing import Any

from config.names import ChannelId, PlatformUserId
from sessions import contents, lane, lifecycle, outbox
from sessions.database.base import Database, Transaction
from sessions.models import ErrorRecord, ToolCall
from sessions.scope import OperatorScope
from sessions.transfer import exporting, importing
from sessions.transfer.storing import Imported
from tests.sessions import records
from tests.sessions.records import NOW


def talk(
    tx: Transaction,
    *,
    seed: int,
    turns: int,
    people: Sequence[str] = ("ada", "bob", "cleo"),
    words: str = "word",
) -> None:
    """Some turns of some people, each with its own kind of end. The same seed gives the same talk."""
    chance = random.Random(seed)
    for number in range(turns):
        person = chance.choice(people)
        is_shared = chance.random() < 0.4
        text = f"{words} of {person} {number} " * chance.randrange(1, 12)
        message = records.incoming(
            text,
            user_id=PlatformUserId(f"id-of-{person}"),
            channel=ChannelId("group" if is_shared else f"direct-{person}"),
            channel_kind="group" if is_shared else "direct",
            display_name=f"Name of {person}",
            username=f"user-{person}",
            message_id=f"{seed}-{number}",
            attachments=[{"kind": "file", "name": f"file-{words}.txt"}] if chance.random() < 0.2 else (),
        )
        now = NOW + number * 1000
        queued = records.arrive(tx, message, scope="channel" if is_shared else "person", now=now)
        claim = records.claimed(tx, queued.session_id, now)
        if chance.random() < 0.4:
            call = ToolCall(
                1, f"call-{number}", "remember", {"name": f"{words}-{number}", "value": text}, text[:40],
                chance.random() < 0.3, f"cause {words}", now, 3,
            )  # fmt: skip
            lane.record_step(tx, claim, records.answer_step(1, text[:50]), now, tool_call=call)
            contents.set_variable(tx, queued.session_id, f"{words}-{number}", text[:30], now)
        if chance.random() < 0.2:
            error = ErrorRecord(f"R{seed}{number:04}", "timeout", f"no answer to {words}", text[:30])
            lane.finish(tx, claim, "failed", now + 5, error=error)
        else:
            lane.finish(
                tx, claim, "completed", now + 5, answer=f"you said {text}", agent="test", input_tokens=3, output_tokens=4
            )  # fmt: skip
            outbox.add(
                tx,
                claim.address,
                "answer",
                [{"text": f"you said {text}"}],
                now,
                turn_id=claim.turn_id,
                session_id=claim.session_id,
            )
        if chance.random() < 0.1:
            session = lifecycle.find(tx, queued.session_id, OperatorScope())
            lifecycle.end(tx, session, "completed", now + 6)


async def exported(database: Database, **how: Any) -> bytes:
    target = io.BytesIO()
    await exporting.export(database, target.write, **how)
    return target.getvalue()


async def imported(database: Database, raw: bytes) -> Imported:
    return await importing.load(database, io.BytesIO(raw), lambda: NOW)


def send_all(tx: Transaction) -> None:
    """Every reply has gone out."""
    for row in tx.rows("SELECT id FROM outbox WHERE state = 'ready'"):
        outbox.begin(tx, row["id"])
        outbox.mark_sent(tx, row["id"], None, NOW, body=None)
    tx.execute("UPDATE outbox SET state = 'sent', sent_at = :now WHERE state <> 'sent'", {"now": NOW})
