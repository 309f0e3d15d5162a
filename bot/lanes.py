"""Claims and runs turns: one per session at a time, in order of acceptance, bounded and fair across sessions.

Owns which session runs next. A session that has had its turn goes to the end of the line when others wait. What a turn does is
`bot/turns.py`; the truth about what waits is in the store, this only remembers whom to ask next.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from config.names import SessionId, TurnId
from sessions import inbox, lane, queue
from sessions.database.base import Database, Transaction
from sessions.errors import StoreError
from sessions.hot import HotSessions
from sessions.models import Claim

log = structlog.get_logger()

_STORE_RETRY_S = 1.0
_LOOK_S = 1.0
"""How often one looks for what other nodes took in; a hint comes sooner, but may be lost."""
_MOST_AT_ONCE = 200
"""Turns taken at one look. A look at the whole queue costs the same for one as for many; loading them takes its time."""
_AFTER_END_S = 0.02
"""A turn whose lease ends sooner than the next look is looked for then; so much later, for the clocks of two processes."""


class TurnRunner(Protocol):
    async def run(self, claim: Claim, *, may_continue: Callable[[], bool]) -> tuple[Claim | None, bool]:
        """Run a turn to its end. Gives the session's next claim (taken with the result, if `may_continue()` then) and whether
        the session may have more turns waiting.
        """

    def stop(self, turn_id: TurnId) -> None:
        """End a turn that is running, at once; its person asked for it."""

    async def tell_wait(self, turn_id: TurnId, language: str | None) -> None:
        """If the turn still waits, tell its person how many are ahead."""


class Lanes:
    def __init__(
        self,
        database: Database,
        runner: TurnRunner,
        *,
        max_running: int,
        context_messages: int,
        notice_after_s: float,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
        hot: HotSessions | None = None,
        node: str | None = None,
        may_run: Callable[[], bool] = lambda: True,
        hint: Callable[[str, str], None] = lambda _word, _detail: None,
        lease_s: float = 10.0,
        lease_database: Database | None = None,
    ) -> None:
        """With a `node` there are others on the same database; `may_run` then says whether turns are this one's affair just now,
        and `hint` tells the others: `turns` of a session wait, or (`stop`) somebody wants one to stop. What is run is held for
        `lease_s` and renewed over `lease_database`, so that no other work keeps that waiting.
        """
        self._node = node
        self._lease_s = lease_s
        self._lease_database = lease_database or database
        self._hint = hint
        self._may_run = may_run
        self._database = database
        self._hot = HotSessions(0) if hot is None else hot
        self._runner = runner
        self._max_running = max_running
        self._context_messages = context_messages
        self._notice_after_s = notice_after_s
        self._now = now
        self._ready: deque[SessionId] = deque()
        self._is_ready: set[SessionId] = set()
        self._running: dict[SessionId, asyncio.Task[None]] = {}
        self._again: set[SessionId] = set()
        """Sessions that were notified while they ran: they are looked at once more."""
        self._handed: dict[SessionId, Claim] = {}
        """Claims made with an acceptance, until the session's task takes them up."""
        self._current: dict[SessionId, Claim] = {}
        """What is being run."""
        self._unbegun: list[Claim] = []
        """Claims that came when nothing more was to begin."""
        self._hungry = asyncio.Event()
        """More waits than was taken at the last look, and there is room for it again."""
        self._waits_elsewhere = False
        self._taking = asyncio.Lock()
        """Held while claims are on their way here, so that a drain does not end before they can be given back."""
        self._reserved = 0
        self._is_draining = False
        self._notices: set[asyncio.TimerHandle] = set()
        self._background: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def ready(self) -> int:
        """Sessions waiting for a free place."""
        return len(self._ready)

    async def recover(self) -> int:
        """Take up what the last process left. Gives the number of sessions with work."""
        await self._database.write(self._recover_rows)
        sessions = await self._database.read(lane.sessions_with_work)
        for session_id in sessions:
            self.notify(session_id)
        return len(sessions)

    async def prepare(self) -> None:
        """What comes before a node takes anything in, whether or not it runs turns. Raises: StoreError."""
        await self._database.write(lambda tx: inbox.advance_ids(tx, self._now()))

    async def share(self) -> None:
        """Run what waits, whichever node took it in, and what nodes that are gone had begun: until cancelled.

        Between nodes the queue is all there is. A session is asked for when it waits; whoever comes second finds it taken.
        """
        await self._database.write(queue.refill)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(), name="turns-renewed")
            while True:
                pause_s = _LOOK_S
                try:
                    pause_s = await self.look()
                except StoreError as error:
                    log.error("lanes.look_failed", reason=error.reason)
                except Exception:  # a fault of the look must not end the renewals beside it
                    log.exception("lanes.look_failed")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._hungry.wait()

    async def _renew(self) -> None:
        """Hold what runs here for as long as it runs. What could not be renewed in time may be another node's: the fence says so."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self.renew()
            except StoreError as error:
                log.warning("lanes.renewal_failed", reason=error.reason)

    async def renew(self) -> None:
        """Hold all that runs here for the full lease again. Raises: StoreError."""
        held = [
            queue.Held(claim.msg_id, claim.epoch)
            for claim in [*self._current.values(), *self._handed.values()]
            if claim.msg_id is not None
        ]
        if held:
            await self._lease_database.write(lambda tx: queue.renew(tx, held, self._lease_ms))

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

    async def look(self) -> float:
        """One look at what waits, at what was abandoned, and at what is to stop. Gives when to look again. Raises: StoreError."""
        node = self._node
        self._hungry.clear()
        if node is None or self._is_draining:
            return _LOOK_S
        # With a free place the queue gives the heads itself, all of which it looks through.
        limit = 0 if self._is_free() else 2 * self._max_running
        waits, heads, stopped, end_ms = await self._database.read(
            lambda tx: (
                queue.is_waiting(tx),
                queue.heads(tx, limit) if limit else [],
                lane.cancelled_elsewhere(tx, node),
                queue.next_end_ms(tx),
            )
        )
        self._stop_here(stopped)
        async with self._taking:
            free = self._hold_places() if waits else 0
            if free:
                await self._take_waiting(free)
        if not free and self._may_run() and not self._is_draining:
            for session_id in heads:  # nothing is free: they stand in line with what this node took in
                if session_id not in self._running:
                    self.notify(session_id)
        return _LOOK_S if end_ms is None else min(_LOOK_S, max(0, end_ms) / 1000 + _AFTER_END_S)

    async def hear_stop(self, _detail: str) -> None:
        """Somebody wants a turn to stop that may run here. Raises: StoreError."""
        await self.look()

    def _is_free(self) -> bool:
        return not self._ready and len(self._running) + self._reserved < self._max_running

    def _hold_places(self) -> int:
        """Reserve every free place, if nobody here waits for one."""
        if not self._is_free() or self._is_draining or not self._may_run():
            return 0
        free = self._max_running - len(self._running) - self._reserved
        self._reserved += free
        return free

    async def _take_waiting(self, places: int) -> None:
        """Take the lanes that wait longest for as many places as were reserved. Raises: StoreError."""
        claims: list[Claim] = []
        try:
            claims = await self._database.write(
                lambda tx: lane.claim_heads(
                    tx,
                    min(places, _MOST_AT_ONCE),
                    self._now(),
                    context_messages=self._context_messages,
                    recent=self._hot.tail,
                    node=self._node,
                    lease_ms=self._lease_ms,
                )
            )
        finally:
            self._waits_elsewhere = len(claims) == min(places, _MOST_AT_ONCE)
            self._reserved -= places - len(claims)
            if len(claims) < places:
                self._fill()
        for claim in claims:
            if claim.attempts > 1:
                log.warning("lanes.turn_taken_back", session_id=claim.session_id, turn_id=claim.turn_id)
            self.start(claim)

    async def hear(self, session_id: str) -> None:
        """Another node has taken something in that it does not run itself, or not soon."""
        if self._is_free() and self._may_run() and not self._is_draining and session_id not in self._running:
            self.notify(SessionId(session_id))

    def _recover_rows(self, tx: Transaction) -> None:
        inbox.advance_ids(tx, self._now())
        lane.recover(tx)

    def notify(self, session_id: SessionId) -> None:
        """This session may have a turn to run."""
        if not self._may_run():
            self._hint("turns", session_id)
            return
        if session_id in self._running:
            self._again.add(session_id)
        elif session_id not in self._is_ready:
            self._ready.append(session_id)
            self._is_ready.add(session_id)
            self._fill()
            if session_id in self._is_ready and not self._is_draining:
                self._hint("turns", session_id)  # no room here: somebody else may have some

    def reserve(self) -> bool:
        """Hold a place for a message about to be accepted, so that its turn can be claimed in the same commit.

        Only if nobody waits: a newcomer must not overtake.
        """
        if (
            self._is_draining
            or self._ready
            or not self._may_run()
            or len(self._running) + self._reserved >= self._max_running
        ):
            return False
        self._reserved += 1
        return True

    def release(self) -> None:
        """Give a reserved place back."""
        self._reserved -= 1
        self._fill()

    def start(self, claim: Claim) -> None:
        """Run a turn that was claimed with its acceptance, in the place reserved for it."""
        self._reserved -= 1
        if self._is_draining:
            self._unbegun.append(claim)
            return  # it stays as a row for the next start
        self._handed[claim.session_id] = claim
        if claim.session_id in self._running:
            self._fill()  # its task is at its very end and takes the claim up after it; the reserved place is free
        else:
            self._spawn(claim.session_id)

    def stop(self, turn_ids: Sequence[TurnId]) -> None:
        """End turns that are running, or about to."""
        self._hint("stop", "")
        self._stop_here(turn_ids)

    def _stop_here(self, turn_ids: Sequence[TurnId]) -> None:
        for session_id, claim in self._handed.items():
            if claim.turn_id in turn_ids:
                self._handed[session_id] = replace(claim, is_cancelled=True)
        for turn_id in turn_ids:
            self._runner.stop(turn_id)

    def wait_notice(self, turn_id: TurnId, language: str | None) -> None:
        """Tell the person about the wait, should it last."""
        if self._notice_after_s <= 0 or self._is_draining:
            return
        loop = asyncio.get_running_loop()
        handle: asyncio.TimerHandle

        def due() -> None:
            self._notices.discard(handle)
            self._spawn_background(self._runner.tell_wait(turn_id, language))

        handle = loop.call_later(self._notice_after_s, due)
        self._notices.add(handle)

    async def drain(self, timeout_s: float) -> int:
        """Start nothing new and let what runs finish; what does not in time is cut off and stays as a row.

        Gives how many turns were cut off.
        """
        self._is_draining = True
        for handle in self._notices:
            handle.cancel()
        async with self._taking:
            pass
        tasks = [*self._running.values(), *self._background]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        cut_off = [task for task in [*self._running.values(), *self._background] if not task.done()]
        for task in cut_off:
            task.cancel()
        if cut_off:
            await asyncio.wait(cut_off, timeout=5)
        await self._give_back()
        return len(cut_off)

    async def _give_back(self) -> None:
        """Let the other nodes have at once what was not finished here."""
        left = [
            claim
            for claim in [*self._unbegun, *self._handed.values(), *self._current.values()]
            if claim.msg_id is not None
        ]
        if not left:
            return

        def work(tx: Transaction) -> None:
            for claim in left:
                if claim.msg_id is not None:
                    queue.give_back(tx, claim.turn_id, queue.Held(claim.msg_id, claim.epoch))

        with contextlib.suppress(StoreError, TimeoutError):  # their leases end by themselves
            async with asyncio.timeout(self._lease_s):
                await self._lease_database.write(work)
                for claim in left:
                    self._hint("turns", claim.session_id)

    def _fill(self) -> None:
        while (
            self._ready and not self._is_draining and len(self._running) + self._reserved < self._max_running
        ):
            session_id = self._ready.popleft()
            self._is_ready.discard(session_id)
            if session_id not in self._running:
                self._spawn(session_id)

    def _spawn(self, session_id: SessionId) -> None:
        task = asyncio.create_task(self._run_session(session_id), name=f"lane-{session_id}")
        self._running[session_id] = task
        task.add_done_callback(lambda task: self._ended(session_id, task))

    def _ended(self, session_id: SessionId, task: asyncio.Task[None]) -> None:
        del self._running[session_id]
        if not task.cancelled():
            self._current.pop(session_id, None)  # what was cut off stays, to be given back
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("lanes.lane_failed", session_id=session_id, exc_info=error)
            self._again.add(session_id)  # nobody was told what waits behind
        if self._waits_elsewhere and self._has_room_again():
            self._hungry.set()
        if session_id in self._handed and not self._is_draining:
            self._spawn(session_id)
        elif session_id in self._again:
            self._again.discard(session_id)
            self.notify(session_id)
        self._fill()

    def _has_room_again(self) -> bool:
        """Whether a look is worth it: it costs the same for many turns as for one."""
        running = len(self._running) + self._reserved + len(self._ready)
        return self._max_running - running >= max(1, min(_MOST_AT_ONCE, self._max_running) // 2)

    async def _run_session(self, session_id: SessionId) -> None:
        """Run the session's turns until there is none, or until others wait for the place."""
        self._again.discard(session_id)
        claim = self._handed.pop(session_id, None) or await self._claim(session_id)
        has_more = False
        while claim is not None:
            self._current[session_id] = claim
            claim, has_more = await self._runner.run(
                claim,
                may_continue=lambda: not self._ready and not self._is_draining and self._may_run(),
            )
        if has_more:
            self._again.add(session_id)  # to the end of the line

    async def _claim(self, session_id: SessionId) -> Claim | None:
        while True:
            try:
                return await self._database.write(
                    lambda tx: lane.claim(
                        tx,
                        session_id,
                        self._now(),
                        context_messages=self._context_messages,
                        recent=self._hot.tail(session_id),
                        node=self._node,
                        lease_ms=self._lease_ms,
                    )
                )
            except StoreError as error:
                log.error("lanes.claim_failed", session_id=session_id, reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)

    def _spawn_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
