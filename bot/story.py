"""What operators read on the command line: the story of a message, tables of sessions, the welcome in the terminal.

Owns the layout only; the facts come from `sessions/history.py` and the settings.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import orjson

from bot.reports import escaped
from config.settings import Settings
from sessions.history import Trace
from sessions.models import Session

_WIDTH = 12


def tell(trace: Trace) -> str:
    """The story of one message, a line for each thing that happened."""
    lines = [_received(trace), *_decided(trace)]
    if trace.turn is not None:
        lines += _answered(trace)
    lines += _delivered(trace)
    return "\n".join(lines)


def _received(trace: Trace) -> str:
    inbox = trace.inbox
    who = "somebody"
    if trace.person is not None:
        who = f"{escaped(trace.person['display_name'])} ({inbox['account'].partition('.')[0]} {trace.person['platform_user_id']})"
    title = f'"{escaped(trace.title)}", ' if trace.title else ""
    thread = f", thread {inbox['thread']}" if inbox["thread"] else ""
    where = f"{title}{inbox['channel_kind']} channel {inbox['channel']}{thread}"
    return _line("received", f"{_time(inbox['received_at'])}  from {who} on {inbox['account']} in {where}")


def _decided(trace: Trace) -> list[str]:
    inbox = trace.inbox
    match inbox["outcome"]:
        case "declined":
            return [_line("declined", f"{_time(inbox['received_at'])}  {inbox['reason'].replace('_', ' ')}")]
        case "command":
            return [_line("command", f"{_time(inbox['received_at'])}  /{inbox['reason']}")]
    if trace.turn is None:
        return [_line("accepted", inbox["reason"] or "its session was removed since")]
    scope = trace.session["scope"] if trace.session else "?"
    lines = [
        _line(
            "accepted",
            f"{_time(inbox['received_at'])}  session {trace.turn['session_id']} (per {scope}), turn {trace.turn['id']}",
        )
    ]
    started, queued = trace.turn["started_at"], trace.turn["queued_at"]
    if trace.ahead and started is not None:
        lines.append(
            _line(
                "queued",
                f"behind {trace.ahead} turn{'s' * (trace.ahead != 1)} for {(started - queued) / 1000:.1f} s",
            )
        )
    return lines


def _answered(trace: Trace) -> list[str]:
    turn = trace.turn
    assert turn is not None
    facts = [turn["agent"] or "no agent yet"]
    if turn["input_tokens"] or turn["output_tokens"]:
        facts.append(f"{turn['input_tokens']} in / {turn['output_tokens']} out tokens")
    used: dict[str, list[Mapping[str, int]]] = {}
    for call in trace.tool_calls:
        used.setdefault(call["name"], []).append(call)
    if used:
        tools = ", ".join(
            f"{name} ×{len(calls)} ({sum(c['duration_ms'] for c in calls) / 1000:.1f} s)"
            for name, calls in used.items()
        )
        facts.append(f"tools: {tools}")
    if turn.get("node"):
        facts.append(f"on node {turn['node']}")
    if turn["attempts"] > 1:
        facts.append(f"started {turn['attempts']} times")
    word = "answered" if turn["status"] == "completed" else turn["status"]
    at = _time(turn["finished_at"]) if turn["finished_at"] else "            "
    lines = [_line(word, f"{at}  {', '.join(facts)}")]
    lines += [
        _line(
            "",
            f"tool {call['name']} failed: {call['result']}"
            + (f" ({call['cause']})" if call["cause"] else ""),
        )
        for call in trace.tool_calls
        if call["outcome"] != "ok"
    ]
    for error in trace.errors:
        lines.append(
            _line(
                "error",
                f"{_time(error['created_at'])}  ref {error['ref']}: {error['kind']}: {error['message']}",
            )
        )
        if error["cause"] and not error["cause"].endswith(f"{error['kind']}: {error['message']}"):
            lines.append(_line("", error["cause"]))
    return lines


def _delivered(trace: Trace) -> list[str]:
    if not trace.chunks:
        return [_line("no reply", "nothing was to be said")] if trace.inbox["outcome"] == "declined" else []
    lines = []
    for chunk in trace.chunks:
        facts = [f"{chunk['kind']} part {chunk['part'] + 1}", chunk["state"]]
        if chunk["platform_message_id"]:
            facts.append(f"message {chunk['platform_message_id']}")
        if chunk["waited_ms"] >= 100:
            facts.append(f"waited {chunk['waited_ms'] / 1000:.1f} s for the platform's pace")
        if chunk["attempts"]:
            facts.append("1 failed try" if chunk["attempts"] == 1 else f"{chunk['attempts']} failed tries")
        if chunk["repeats"]:
            facts.append("may have been shown twice, marked")
        if chunk["error"]:
            facts.append(chunk["error"])
        at = _time(chunk["sent_at"]) if chunk["sent_at"] else "            "
        lines.append(
            _line(
                "delivered"
                if chunk["state"] == "sent"
                else "waiting"
                if chunk["sent_at"] is None
                else chunk["state"],
                f"{at}  {', '.join(facts)}",
            )
        )
    return lines


def as_json(traces: Sequence[Trace]) -> str:
    """The traces whole. Bodies of replies are left out: they are conversation, not story."""
    hidden = ("body", "reply_handle", "result", "arguments", "metadata")

    def clean(row: Mapping[str, object] | None) -> dict[str, object] | None:
        return None if row is None else {name: value for name, value in row.items() if name not in hidden}

    found = [
        {
            "inbox": clean(trace.inbox),
            "person": clean(trace.person),
            "session": clean(trace.session),
            "turn": clean(trace.turn),
            "ahead": trace.ahead,
            "tool_calls": [clean(row) for row in trace.tool_calls],
            "errors": [clean(row) for row in trace.errors],
            "chunks": [clean(row) for row in trace.chunks],
        }
        for trace in traces
    ]
    return orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()


def sessions_table(sessions: Sequence[Session]) -> str:
    """A line for each session."""
    if not sessions:
        return "There are no sessions."
    rows = [
        (
            "SESSION",
            "STATUS",
            "ACCOUNT",
            "CHANNEL",
            "MESSAGES",
            "TOOLS",
            "ERRORS",
            "TOKENS",
            "LAST ACTIVE (UTC)",
        )
    ]
    rows += [
        (
            session.id,
            session.status + (f" ({session.end_reason})" if session.end_reason else ""),
            session.account,
            escaped(session.channel),
            str(session.message_count),
            str(session.tool_call_count),
            str(session.error_count),
            f"{session.input_tokens}/{session.output_tokens}",
            f"{datetime.fromtimestamp(session.last_activity_at / 1000, UTC):%Y-%m-%d %H:%M}",
        )
        for session in sessions
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def sessions_as_json(sessions: Sequence[Session]) -> str:
    return orjson.dumps(list(sessions), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_DATACLASS).decode()


def welcome(settings: Settings, agent: str, database: str, log_destination: str) -> list[str]:
    """What a newcomer sees above the first prompt; `database` and `log_destination` are places as people read them."""
    kind = "the built-in agent (no model configured)" if settings.agent.kind == "offline" else agent
    following = "TELEGRAM_BOT_TOKEN=… or DISCORD_BOT_TOKEN=… to chat there · "
    if settings.agent.kind == "offline":
        following += "OPENAI_API_KEY=… for a real model · "
    return [
        f"palaver {version('palaver')} — talking in the terminal, answers by {kind}",
        f"  database   {database}",
        f"  log        {log_destination}",
        f"  next       {following}/help",
    ]


def _line(word: str, text: str) -> str:
    return f"{word:<{_WIDTH}}{text}"


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%H:%M:%S.%f}"[:-3]
