"""One turn: context → agent → steps recorded → finish.

Owns the deadline, the recording of steps and tool calls, what a failure becomes, and the one transaction that ends a
turn: answer, counters, status and the reply's chunks, fenced by the claim. Which turn runs when is `bot/lanes.py`; how a
reply travels is `bot/delivery.py`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import structlog

from bot.agents.base import (
    Agent,
    AgentError,
    ModelAnswer,
    RecordedStep,
    TextDelta,
    ToolOutcome,
    ToolRequest,
    ToolSpec,
    Usage,
)
from bot.agents.base import (
    Final as FinalEvent,
)
from bot.catalogue import Catalogue
from bot.tools.registry import ToolContext, ToolRegistry, ToolResult
from bot.windows import TurnWindow, allowed
from config.names import AccountId, ChannelId, Json, PlatformMessageId, SessionId, TurnId
from config.settings import Settings
from sessions import contents, lane, outbox, search
from sessions.database.base import Database, Transaction
from sessions.database.values import storable
from sessions.errors import StaleClaim, StoreError
from sessions.hot import HotSessions, Tail, tail_after
from sessions.models import (
    Address,
    Claim,
    ErrorRecord,
    OutgoingChunk,
    ReplyKind,
    StepRecord,
    ToolCall,
    TurnStatus,
)
from sessions.scope import SessionOnly
from sessions.window import learn

T = TypeVar("T")
log = structlog.get_logger()

_ENDED: Final[Mapping[TurnStatus, str]] = {
    "completed": "turn.completed",
    "failed": "turn.failed",
    "timeout": "turn.timed_out",
    "cancelled": "turn.cancelled",
    "declined": "turn.declined",
}
"""The event that a turn's one canonical line carries."""

_REFERENCE_LETTERS: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # none that are read for one another
_NO_USAGE: Final = Usage()
_STORE_RETRY_S: Final = 1.0
_STOP_GRACE_S: Final = (
    2.0  # an agent that does not end by then is left behind; the fence refuses its late result
)


class Preview(Protocol):
    """The growing answer on the person's screen."""

    def feed(self, text: str) -> None:
        """More of the answer."""

    def restart(self) -> None:
        """What comes next replaces what was shown."""

    async def stop(self) -> None:
        """Change nothing on the screen any more."""

    @property
    def text(self) -> str: ...

    @property
    def is_begun(self) -> bool:
        """Something may stand on the screen, which the turn's reply has to replace."""


class DeliveryPort(Protocol):
    """What a turn asks of the delivery."""

    def render(self, account: AccountId, text: str) -> list[Mapping[str, Json]]: ...
    def watch(self, account: AccountId, channel: ChannelId) -> Any: ...
    def notify(
        self,
        account: AccountId,
        channel: ChannelId,
        *,
        waiting: Sequence[OutgoingChunk] = (),
        since: Any = None,
    ) -> None: ...
    def settle(self, account: AccountId, message_id: PlatformMessageId) -> None: ...
    def open_preview(self, claim: Claim) -> Preview: ...
    def shows_tools(self, account: AccountId) -> bool: ...


@dataclass(slots=True)
class _Outcome:
    """How a turn ended, on its way into the store."""

    status: TurnStatus
    answer: str | None = None
    error: ErrorRecord | None = None
    reply: str | None = None
    """What the person reads; None sends nothing."""


@dataclass(slots=True)
class _Run:
    """What is known of a turn while it runs."""

    claim: Claim
    preview: Preview
    agent_name: str | None = None
    started: float = field(default_factory=time.monotonic)
    stopping: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done once its person asked for an end."""
    unsaved: ModelAnswer | None = None
    """The latest answer, not recorded yet: if it is the last one, it is committed together with the result."""
    next_step: int = 1
    answer_step: int = 0
    """Number of the answer whose tools are being called."""
    usage: Usage = _NO_USAGE
    window: TurnWindow | None = None
    tools_used: list[str] = field(default_factory=list)
    steps: list[RecordedStep] = field(default_factory=list)

    def ask_to_stop(self) -> None:
        if not self.stopping.done():
            self.stopping.set_result(None)


class Turns:
    """Runs turns. One object serves all sessions."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        catalogue: Catalogue,
        delivery: DeliveryPort,
        tools: ToolRegistry,
        agent_for: Callable[[str | None], Agent],
        *,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
        observe: Callable[[str, float], None] = lambda _status, _seconds: None,
        hot: HotSessions | None = None,
        on_due: Callable[[SessionId], None] = lambda _session_id: None,
        node: str | None = None,
    ) -> None:
        """`on_due` is told of sessions whose older messages may have to be summarised; `node` is this one, if there are others."""
        self._node = node
        self._database = database
        self._hot = HotSessions(0) if hot is None else hot
        self._on_due = on_due
        self._settings = settings
        self._catalogue = catalogue
        self._delivery = delivery
        self._tools = tools
        self._agent_for = agent_for
        self._now = now
        self._observe = observe
        self._running: dict[TurnId, _Run] = {}

    def stop(self, turn_id: TurnId) -> None:
        """End a running turn at once; a turn that is not running is not touched."""
        if (run := self._running.get(turn_id)) is not None:
            run.ask_to_stop()

    async def run(self, claim: Claim, *, may_continue: Callable[[], bool]) -> tuple[Claim | None, bool]:
        """Run a turn to its end and store the result. Cancelled from outside, it stores nothing and stays as a row."""
        with structlog.contextvars.bound_contextvars(
            platform=claim.address.account.partition(".")[0],
            account=claim.address.account,
            session_id=claim.session_id,
            turn_id=claim.turn_id,
        ):
            run = _Run(claim, self._delivery.open_preview(claim))
            self._running[claim.turn_id] = run
            self._hot.count(claim)
            try:
                try:
                    outcome = await self._work(run)
                finally:
                    await run.preview.stop()
                try:
                    return await self._finish(run, outcome, may_continue=may_continue)
                except (StaleClaim, asyncio.CancelledError):
                    raise
                except Exception as error:  # noqa: BLE001 - an answer that cannot be stored must not hold up the session
                    run.unsaved, run.usage = None, _NO_USAGE
                    failed = self._failed(run, "fault", f"{type(error).__name__}: {error}", cause=error)
                    return await self._finish(run, failed, may_continue=may_continue)
            except StaleClaim:
                log.warning("turn.result_refused", epoch=claim.epoch)
                return None, True
            finally:
                del self._running[claim.turn_id]

    async def tell_wait(self, turn_id: TurnId, language: str | None) -> None:
        """If the turn still waits and its person does not know, say how many are ahead."""

        def tell(tx: Transaction) -> Address | None:
            found = lane.mark_noticed(tx, turn_id, self._now())
            if found is None:
                return None
            ahead, address = found
            if ahead < 1:
                return None
            text = self._catalogue.say("queued_one" if ahead == 1 else "queued_many", language, count=ahead)
            outbox.add(
                tx,
                address,
                "notice",
                self._delivery.render(address.account, text),
                self._now(),
                turn_id=turn_id,
            )
            return address

        try:
            address = await self._database.write(tell)
        except StoreError as error:
            log.warning("turn.wait_not_told", turn_id=turn_id, reason=error.reason)
            return
        if address is not None:
            self._delivery.notify(address.account, address.channel)

    async def _work(self, run: _Run) -> _Outcome:
        claim = run.claim
        if claim.is_blocked:
            return _Outcome("declined")
        if claim.is_cancelled:
            return self._stopped(run)
        if claim.attempts > self._settings.turns.max_attempts:
            return self._failed(run, "poison", f"started {claim.attempts - 1} times without an end")
        log.debug("turn.started", attempt=claim.attempts, waited_ms=self._now() - claim.queued_at)
        deadline_s = self._settings.turns.deadline_s
        work = asyncio.create_task(self._ask_agent(run))
        work.add_done_callback(_forget_result)  # one that is left behind ends with nobody listening
        ends: list[asyncio.Future[Any]] = [work, run.stopping]
        try:
            await asyncio.wait(ends, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return self._read_outcome(run, work)
            work.cancel()
            await asyncio.wait([work], timeout=_STOP_GRACE_S)
            if work.done() and not work.cancelled():
                return self._read_outcome(run, work)  # it came to its own end in the last moment
            if run.stopping.done():
                return self._stopped(run)
            return self._failed(run, "timeout", f"no answer within {deadline_s:g} s", status="timeout")
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait([work], timeout=_STOP_GRACE_S)
            raise

    def _read_outcome(self, run: _Run, work: "asyncio.Task[_Outcome]") -> _Outcome:
        if work.cancelled():
            return self._failed(run, "fault", "the agent cancelled itself")
        error = work.exception()
        match error:
            case None:
                return work.result()
            case StaleClaim():
                raise error
            case AgentError():
                status: TurnStatus = "timeout" if error.kind == "timeout" else "failed"
                return self._failed(run, error.kind, error.detail, status=status, cause=error)
            case Exception():
                return self._failed(run, "fault", f"{type(error).__name__}: {error}", cause=error)
            case _:
                raise error

    def _stopped(self, run: _Run) -> _Outcome:
        """What was written so far is kept, and says that it was stopped.

        Without any words that is all that is kept: the next question must not be answered together with one that was dropped.
        """
        begun, word = run.preview.text.strip(), self._say("stopped_answer", run.claim)
        if begun:
            return _Outcome("cancelled", answer=begun, reply=f"{begun}\n\n{word}")
        return _Outcome("cancelled", answer=word, reply=self._stopped_mark(run))

    def _stopped_mark(self, run: _Run) -> str | None:
        """The end of an answer that never got any words; None where nobody waits for one.

        Whoever answers through a handle (a slash command) waits for an end, and so does what a preview, of this run or an
        earlier one, may have left on the screen. Everybody else was told by /stop.
        """
        is_awaited = run.claim.address.reply_handle is not None
        if is_awaited or run.preview.is_begun or run.claim.is_resumed:
            return self._say("stopped_answer", run.claim)
        return None

    async def _ask_agent(self, run: _Run) -> _Outcome:
        agent = self._agent_for(run.claim.persona)
        run.agent_name = agent.name
        for record in run.claim.steps:
            run.next_step = record.number + 1
            step = _read_step(record)
            run.steps.append(step)
            if isinstance(step, ModelAnswer):
                run.answer_step = record.number
                run.usage = _add(run.usage, step.usage)
            else:
                run.tools_used.append(step.name)
        run.window = window = TurnWindow(
            self._settings,
            run.claim,
            agent.name,
            self._catalogue.language(run.claim.language),
            self.tool_specs(run.claim.persona),
            self._now(),
        )
        while True:
            try:
                return await self._play(run, agent, window)
            except AgentError as error:
                if error.kind != "context_too_long" or not window.narrow(run.steps):
                    raise
                await self.save_answer(run)
                run.preview.restart()
                log.info("turn.context_narrowed", limit_tokens=window.limit_tokens, agent=agent.name)

    async def _play(self, run: _Run, agent: Agent, window: TurnWindow) -> _Outcome:
        """One run of the agent, from the steps that the turn has taken so far."""
        toolbox = _TurnTools(self, run)
        events = agent.run(window.context(run.steps), toolbox)
        try:
            async for event in events:
                match event:
                    case TextDelta():
                        run.preview.feed(storable(event.text))
                    case ModelAnswer():
                        await self._take_answer(run, event)
                    case FinalEvent():
                        text = storable(event.text)
                        if not text.strip():
                            raise AgentError("bad_answer", "the answer is empty")
                        return _Outcome("completed", answer=text, reply=self._with_notices(run, text))
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        raise AgentError("bad_answer", "the agent ended without an answer")

    async def _take_answer(self, run: _Run, answer: ModelAnswer) -> None:
        await self.save_answer(run)
        answer = replace(answer, text=storable(answer.text))
        run.unsaved = answer
        run.answer_step = run.next_step
        run.steps.append(answer)
        run.usage = _add(run.usage, answer.usage)
        if run.window is not None:
            run.window.note_usage(answer)
        if answer.tool_requests:
            await self.save_answer(run)
            run.preview.restart()

    async def save_answer(self, run: _Run) -> None:
        """Make the latest answer durable, if it is not yet."""
        if run.unsaved is None:
            return
        answer, run.unsaved = run.unsaved, None
        await self._record(run, _answer_step(run.next_step, answer))

    async def save_tool_result(self, run: _Run, outcome: ToolOutcome, call: ToolCall) -> None:
        """Make a tool's result durable before anybody goes on with it. The call gets its step's number here: of calls side by
        side, nobody knows before which one ends first.
        """
        call = replace(call, step=run.next_step)
        payload = {
            "call_id": outcome.call_id,
            "name": outcome.name,
            "content": outcome.content,
            "is_error": outcome.is_error,
        }
        run.steps.append(outcome)
        run.tools_used.append(outcome.name)
        await self._record(run, StepRecord(run.next_step, "tool_result", payload), call)

    async def _record(self, run: _Run, step: StepRecord, call: ToolCall | None = None) -> None:
        run.next_step += 1
        await self._durably(
            run.claim, lambda tx: lane.record_step(tx, run.claim, step, self._now(), tool_call=call)
        )

    async def _durably(self, claim: Claim, work: Callable[[Transaction], T]) -> T:
        """Write, waiting for as long as the store cannot: what was got is not thrown away for a full disk."""
        while True:
            try:
                return await self._database.write(work, key=claim.address.channel, may_mix=True)
            except StoreError as error:
                log.error("turn.store_waited", reason=error.reason, hint=error.hint)
                await asyncio.sleep(_STORE_RETRY_S)

    async def _finish(
        self, run: _Run, outcome: _Outcome, *, may_continue: Callable[[], bool]
    ) -> tuple[Claim | None, bool]:
        claim = run.claim
        address = claim.address
        kind: ReplyKind = "error" if outcome.error is not None else "answer"
        chunks = self._delivery.render(address.account, outcome.reply) if outcome.reply else []
        duration = time.monotonic() - run.started

        may_claim = may_continue()
        lesson = run.window.lesson if run.window is not None and outcome.status == "completed" else None

        metadata = {"tools_used": run.tools_used, "processing_ms": round(duration * 1000)}

        quiet = self._delivery.watch(address.account, address.channel) if chunks else None

        def store(tx: Transaction) -> tuple[Claim | None, bool, bool, Tail, Sequence[OutgoingChunk]]:
            now = self._now()
            has_later = lane.finish(
                tx,
                claim,
                outcome.status,
                now,
                answer=outcome.answer,
                agent=run.agent_name,
                input_tokens=run.usage.input_tokens,
                output_tokens=run.usage.output_tokens,
                error=outcome.error,
                last_step=_answer_step(run.next_step, run.unsaved) if run.unsaved is not None else None,
                metadata=metadata,
            )
            if lesson is not None and not lesson.is_empty:
                learn(
                    tx,
                    claim.session_id,
                    ratio=lesson.ratio,
                    tokens=lesson.learned_tokens,
                    agent=run.agent_name,
                )
            tail = tail_after(claim, outcome.answer, metadata, now, self._settings.agent.context_messages)
            outbox.add(tx, address, kind, chunks, now, turn_id=claim.turn_id, session_id=claim.session_id)
            is_settled = not chunks and outbox.is_settled(tx, address.inbox_id)
            waiting = outbox.waiting(tx, address.account, address.channel) if quiet is not None else ()
            # Mostly not, and a claim costs more than a look.
            has_more = has_later and lane.waiting(tx, claim.session_id) > 0
            if not (may_claim and has_more):
                return None, has_more, is_settled, tail, waiting
            following = lane.claim(
                tx,
                claim.session_id,
                now,
                context_messages=tail.asked,
                recent=tail,
                node=self._node,
                lease_ms=round(self._settings.node.lease_s * 1000),
            )
            return following, False, is_settled, tail, waiting

        following, has_more, is_settled, tail, waiting = await self._durably(claim, store)
        self._hot.keep(claim.session_id, tail)
        if chunks:
            self._delivery.notify(address.account, address.channel, waiting=waiting, since=quiet)
        elif is_settled and address.reply_to is not None:
            self._delivery.settle(address.account, address.reply_to)
        self._observe(outcome.status, duration)
        log.info(
            _ENDED[outcome.status],
            agent=run.agent_name,
            duration_s=round(duration, 3),
            input_tokens=run.usage.input_tokens,
            output_tokens=run.usage.output_tokens,
            tool_calls=len(run.tools_used),
            outcome=outcome.status,
            error_kind=outcome.error.kind if outcome.error else None,
            ref=outcome.error.ref if outcome.error else None,
        )
        if run.window is not None and run.window.is_summary_due(outcome.answer):
            self._on_due(claim.session_id)
        return following, has_more

    def _failed(
        self,
        run: _Run,
        kind: str,
        detail: str,
        *,
        status: TurnStatus = "failed",
        cause: BaseException | None = None,
    ) -> _Outcome:
        reference = "".join(secrets.choice(_REFERENCE_LETTERS) for _ in range(6))
        name = f"failed_{kind}"
        text = self._say(name if self._catalogue.has(name) else "failed", run.claim, ref=reference)
        log.warning(
            "turn.agent_failed",
            kind=kind,
            ref=reference,
            detail=detail,
            exc_info=cause if kind == "fault" else None,
        )
        chain = []
        while cause is not None:
            chain.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        return _Outcome(
            status,
            error=ErrorRecord(
                reference, kind, storable(detail)[:2000], storable(" ← ".join(chain))[:4000] or None
            ),
            reply=text,
        )

    def _with_notices(self, run: _Run, text: str) -> str:
        """The answer, and below it what the person should know about how it came about."""
        if run.window is not None and run.window.is_message_cut:
            text = f"{text}\n\n{self._say('message_cut', run.claim)}"
        if not run.tools_used or not self._delivery.shows_tools(run.claim.address.account):
            return text
        names = ", ".join(dict.fromkeys(run.tools_used))
        return f"{text}\n\n[{names} · {round((time.monotonic() - run.started) * 1000)} ms]"

    def _say(self, name: str, claim: Claim, /, **values: object) -> str:
        return self._catalogue.say(name, claim.language, **values)

    def tool_specs(self, persona: str | None) -> Sequence[ToolSpec]:
        """The tools that a persona's agent may use."""
        return allowed(self._settings, persona, self._tools.specs())

    async def call_tool(
        self, run: _Run, request: ToolRequest, *, is_allowed: bool
    ) -> tuple[ToolOutcome, ToolCall]:
        """Run a tool for a turn; whatever it does, there is an outcome."""
        started_at, started = self._now(), time.monotonic()
        at = ToolContext(
            # A model may use the same call id in each of its answers.
            idempotency_key=f"{run.claim.turn_id}:{run.answer_step}:{request.call_id}",
            now=datetime.fromtimestamp(started_at / 1000, UTC),
            memory=_OwnMemory(self._database, run.claim.session_id, self._now),
            language=self._catalogue.language(run.claim.language),
        )
        if is_allowed:
            result = await self._tools.run(request.name, request.arguments, at)
        else:
            result = ToolResult(f"There is no tool called {request.name[:100]}.", is_error=True)
        content = storable(result.content)
        outcome = ToolOutcome(request.call_id, request.name, content, result.is_error)
        call = ToolCall(
            step=0,  # known when it is saved
            call_id=request.call_id,
            name=request.name,
            arguments=request.arguments,
            result=content,
            is_error=result.is_error,
            cause=result.cause,
            started_at=started_at,
            duration_ms=round((time.monotonic() - started) * 1000),
        )
        log.info(
            "tool.failed" if result.is_error else "tool.completed",
            tool=request.name,
            duration_ms=call.duration_ms,
        )
        return outcome, call


class _TurnTools:
    """The `Toolbox` of one turn: records every result, and gives recorded ones again after a crash."""

    def __init__(self, turns: Turns, run: _Run) -> None:
        self._turns = turns
        self._run = run
        self._replayed_answer = run.answer_step
        self._recorded: dict[str, ToolOutcome] = {}
        """What the answer that was interrupted got before the crash."""
        for step in run.steps:
            if isinstance(step, ModelAnswer):
                self._recorded.clear()
            else:
                self._recorded[step.call_id] = step
        self.specs = turns.tool_specs(run.claim.persona)

    async def call(self, request: ToolRequest) -> ToolOutcome:
        window = self._run.window
        assert window is not None
        if self._run.answer_step == self._replayed_answer and request.call_id in self._recorded:
            return window.shortened(self._recorded[request.call_id])
        await self._turns.save_answer(self._run)
        is_allowed = request.name in {spec.name for spec in self.specs}
        outcome, call = await self._turns.call_tool(self._run, request, is_allowed=is_allowed)
        await self._turns.save_tool_result(self._run, outcome, call)
        return window.shortened(outcome)


class _OwnMemory:
    """What tools may reach: the running turn's own session."""

    def __init__(self, database: Database, session_id: SessionId, now: Callable[[], int]) -> None:
        self._database = database
        self._session_id = session_id
        self._scope = SessionOnly(session_id)
        self._now = now

    async def remember(self, name: str, value: Json) -> None:
        await self._database.write(
            lambda tx: contents.set_variable(tx, self._session_id, name, value, self._now())
        )

    async def recall(self, name: str | None = None) -> Mapping[str, Json]:
        return await self._database.read(
            lambda tx: contents.variables(tx, self._session_id, self._scope, name)
        )

    async def search(self, words: str, limit: int = 5) -> Sequence[tuple[str, str, datetime]]:
        query = search.SearchQuery(words, session_id=self._session_id, size=limit)
        page = await self._database.read(lambda tx: search.search(tx, self._scope, query))
        return [
            (
                hit.message.role,
                hit.message.content,
                datetime.fromtimestamp(hit.message.created_at / 1000, UTC),
            )
            for hit in page.hits
        ]


def _answer_step(number: int, answer: ModelAnswer) -> StepRecord:
    return StepRecord(
        number,
        "answer",
        {
            "text": answer.text,
            "tool_requests": [
                {"call_id": request.call_id, "name": request.name, "arguments": dict(request.arguments)}
                for request in answer.tool_requests
            ],
            "usage": [answer.usage.input_tokens, answer.usage.output_tokens],
            "model": answer.model,
        },
    )


def _read_step(step: StepRecord) -> RecordedStep:
    payload = step.payload
    if step.kind == "tool_result":
        return ToolOutcome(payload["call_id"], payload["name"], payload["content"], payload["is_error"])
    return ModelAnswer(
        payload["text"],
        tuple(
            ToolRequest(request["call_id"], request["name"], request["arguments"])
            for request in payload["tool_requests"]
        ),
        Usage(*payload["usage"]),
        payload["model"],
    )


def _forget_result(work: "asyncio.Task[_Outcome]") -> None:
    if not work.cancelled():
        work.exception()


def _add(one: Usage, other: Usage) -> Usage:
    return Usage(one.input_tokens + other.input_tokens, one.output_tokens + other.output_tokens)
