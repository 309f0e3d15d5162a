"""This process among those that share a database: which of the things that only one may do at a time it does just now.

Owns claiming, renewing and giving back leases, and a duty's beginning and end with its lease. What a duty is (hearing an account,
sending for it, cleaning up) is given by `bot/app.py`; the rows are `sessions/leases.py`.

A node acts on a lease only while its own clock says that it has not ended. It counts from before it asked the database, so its time
ends first. When the database does not answer, the duties end in time and begin again by themselves; a duty that was cut off in the
middle of a send is fenced by the lease's epoch, and whoever comes next finds in the rows what was under way.

A node that reaches the database but not the platform keeps renewing a lease that is of no use to anybody. So it passes it on to the
others after a while. If they fare no better, the platform itself is away: each next time it is passed on after twice as long.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from sessions import leases
from sessions.database.base import Database, Transaction
from sessions.errors import StoreError
from sessions.leases import Lease, LeaseName

log = structlog.get_logger()

Duty = Callable[[Lease | None], Awaitable[None]]
"""What is done while a lease is held: cancelled when it ends, and begun anew with the next one. None: nobody else is there."""

_LONGEST_LOOK_S: Final = 1.0
_END_TIMEOUT_S: Final = 6.0
_RESTART_S: Final = 5.0
_MOST_DOUBLINGS: Final = 5


def boot_clock() -> float:
    """Seconds that go on while the machine sleeps, where there is such a clock: a lease ends then, too."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def name_of(configured: str | None) -> str:
    """A node's name, unlike that of any other process, also of its own last start."""
    return f"{configured or socket.gethostname()}.{secrets.token_hex(3)}"


class Hints(Protocol):
    """Words to other nodes that may be lost."""

    def hint(self, topic: str) -> None: ...

    async def next(self) -> str: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Use:
    """Whether a held duty is done in vain, since when that is so, and how often in succession it was passed on for it."""

    is_in_vain: bool
    since: float
    passed_on: int = 0


class Node:
    """One process. Without a database for leases it is alone, and has all its duties at once."""

    def __init__(
        self,
        database: Database | None,
        name: str,
        *,
        lease_s: float = 10.0,
        pass_on_after_s: float = 30.0,
        hints: Hints | None = None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        """With `hints`, what is given back or queued for another is heard of at once; without, at the next look.

        `pass_on_after_s`: how long a duty that is done in vain is kept, while another node is there.
        """
        self.name = name
        self._hints = hints
        self._listeners: dict[str, Callable[[str], Awaitable[None]]] = {"leases": self._wake}
        self._hearing: asyncio.Task[None] | None = None
        self._database = database
        self._lease_s = lease_s
        self._margin_s = min(1.0, lease_s / 10)
        self._clock = clock
        self._duties: dict[LeaseName, Duty] = {}
        self._held: dict[LeaseName, tuple[Lease | None, float]] = {}
        """Leases and until when they may be acted on."""
        self._tasks: dict[LeaseName, list[asyncio.Task[None]]] = {}
        """What runs for a duty: the last of them, and those before it that have not come to their end yet."""
        self._pass_on_after_s = pass_on_after_s
        self._is_in_vain: Mapping[LeaseName, Callable[[], bool]] = {}
        self._uses: dict[LeaseName, _Use] = {}
        self._left_until: dict[LeaseName, float] = {}
        """What was passed on, and until when it is left to the others."""
        self._passing: set[asyncio.Task[None]] = set()
        self._strays: list[Lease] = []
        """Leases that came or were renewed when their duty was over already."""
        self._renewed_at = float("-inf")
        self._expiry: asyncio.TimerHandle | None = None
        self._woken = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self.holders: Mapping[LeaseName, str] = {}
        """Who holds what, as it was when the database was last asked."""
        self.trouble: str | None = None
        """Why leases could not be looked after the last time, if so: a store that can be read may still take nothing."""

    @property
    def is_alone(self) -> bool:
        return self._database is None

    def holds(self, name: LeaseName) -> bool:
        """Whether this node may act on it at this very moment."""
        held = self._held.get(name)
        return held is not None and self._clock() < held[1]

    def lease(self, name: LeaseName) -> Lease | None:
        """The lease to fence with; None for a node that is alone, or does not hold it."""
        held = self._held.get(name)
        return None if held is None else held[0]

    async def start(
        self,
        duties: Mapping[LeaseName, Duty],
        *,
        in_vain: Mapping[LeaseName, Callable[[], bool]] | None = None,
    ) -> None:
        """Take up what is free, and go on looking for the rest. `in_vain` tells of a duty whether it is of no use just now."""
        self._duties = dict(duties)
        self._is_in_vain = in_vain or {}
        if self._database is None:
            for name in duties:
                self._gain(name, None, float("inf"))
            return
        await self._look(self._database)
        if self._hints is not None:
            self._hearing = asyncio.create_task(self._hear(self._hints), name="hints-heard")
        self._running = asyncio.create_task(self._run(self._database), name="leases")

    def hint(self, word: str, detail: str = "") -> None:
        """Tell the other nodes to look; what for is the word's affair."""
        if self._hints is not None:
            self._hints.hint(f"{word}:{detail}")

    def on_hint(self, word: str, look: Callable[[str], Awaitable[None]]) -> None:
        """Whom to call, with the detail, when another node hints so."""
        self._listeners[word] = look

    async def _wake(self, _detail: str) -> None:
        self._woken.set()

    async def _hear(self, hints: Hints) -> None:
        while True:
            word, _, detail = (await hints.next()).partition(":")
            if (look := self._listeners.get(word)) is None:
                continue  # a newer node's word
            try:
                await look(detail)
            except StoreError as error:
                log.warning("node.hint_failed", node=self.name, word=word, reason=error.reason)
            except Exception:  # the next look by itself may do better
                log.exception("node.hint_failed", node=self.name, word=word)

    async def give_back(self, names: Iterable[LeaseName]) -> None:
        """End these duties for good and let the next node begin with them."""
        chosen = [name for name in names if self._duties.pop(name, None) is not None]
        held = [lease for name in chosen if (lease := self.lease(name)) is not None]
        for name in chosen:
            self._drop(name)
        await self._release(held, chosen)

    async def close(self) -> None:
        """End all duties; their leases are given back."""
        await self.give_back(list(self._duties))
        if self._passing:
            await asyncio.wait(self._passing)
        for task in (self._running, self._hearing):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._hints is not None:
            await self._hints.close()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._database is not None:
            await self._database.close()

    async def _run(self, database: Database) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LONGEST_LOOK_S, self._lease_s / 3)):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._look(database)
            except StoreError as error:
                self.trouble = error.reason
                log.warning("node.leases_failed", node=self.name, reason=error.reason, hint=error.hint)
            except Exception as error:  # without leases this node does nothing; the next look may do better
                self.trouble = f"{type(error).__name__}: {error}"
                log.exception("node.leases_failed", node=self.name)
            else:
                self.trouble = None
                self._pass_on_what_is_in_vain()

    async def _look(self, database: Database) -> None:
        """Renew what is held, if it is time, and take up what is free. Raises: StoreError."""
        asked_at = self._clock()
        held = [lease for lease, _ in self._held.values() if lease is not None]
        must_renew = bool(held) and asked_at - self._renewed_at >= self._lease_s / 3
        wanted = [
            name
            for name in self._duties
            if name not in self._held and self._left_until.get(name, asked_at) <= asked_at
        ]
        lease_ms = round(self._lease_s * 1000)

        def work(tx: Transaction) -> tuple[list[Lease], list[Lease]]:
            self._release_strays(tx)
            renewed = leases.renew(tx, held, lease_ms) if must_renew else held
            taken = [leases.claim(tx, name, self.name, lease_ms) for name in wanted]
            return renewed, [lease for lease in taken if lease is not None]

        self.holders = await database.read(leases.holders)
        free = [name for name in wanted if name not in self.holders]
        if not (must_renew or free or self._strays):
            return
        strays = list(self._strays)
        renewed, gained = await database.write(work)
        self._strays = [lease for lease in self._strays if lease not in strays]
        until = asked_at + self._lease_s - self._margin_s
        for lease in held:
            if self.lease(lease.name) != lease:
                self._strays += [lease] * (lease in renewed)  # its time was over before the answer came
            elif lease not in renewed:
                log.warning("node.lease_lost", node=self.name, lease=str(lease.name), reason="taken over")
                self._drop(lease.name)
            elif must_renew:
                self._held[lease.name] = (lease, until)
        if must_renew or not held:
            self._renewed_at = asked_at
        for lease in gained:
            if lease.name not in self._duties or self._clock() >= until:
                self._strays.append(lease)
                continue
            log.info("node.lease_gained", node=self.name, lease=str(lease.name), epoch=lease.epoch)
            self._gain(lease.name, lease, until)
        self.holders = {**self.holders, **{lease.name: self.name for lease in gained}}
        self._set_expiry()

    def _pass_on_what_is_in_vain(self) -> None:
        """Leave to the others what this node cannot do: from where they are it may be possible."""
        now = self._clock()
        others = any(name.kind == "live" and node != self.name for name, node in self.holders.items())
        for name, is_in_vain in self._is_in_vain.items():
            use = self._uses.setdefault(name, _Use(is_in_vain=False, since=now))
            is_now = name in self._held and is_in_vain()
            if name not in self._held or is_now != use.is_in_vain:
                use.is_in_vain, use.since = is_now, now
            lasted_s = now - use.since
            if not is_now:
                if lasted_s >= self._pass_on_after_s:
                    use.passed_on = 0
            elif others and lasted_s >= self._pass_on_after_s * 2**use.passed_on:
                use.passed_on = min(_MOST_DOUBLINGS, use.passed_on + 1)
                self._pass_on(name, lasted_s)

    def _pass_on(self, name: LeaseName, after_s: float) -> None:
        lease = self.lease(name)
        if lease is None:
            return
        log.warning("node.lease_passed_on", node=self.name, lease=str(name), after_s=round(after_s))
        self._left_until[name] = self._clock() + self._lease_s
        self._drop(name)
        task = asyncio.create_task(self._release([lease], [name]), name=f"pass-on-{name}")
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _release(self, held: Sequence[Lease], names: Sequence[LeaseName]) -> None:
        """Once these duties have come to their end, let go of their leases."""
        ending = [task for name in names for task in self._tasks.get(name, ())]
        if ending:
            await asyncio.wait(ending, timeout=_END_TIMEOUT_S)
        if held and self._database is not None:
            self._strays += held
            with contextlib.suppress(StoreError, TimeoutError):  # it ends by itself then
                async with asyncio.timeout(self._lease_s):
                    await self._database.write(self._release_strays)
                    self._strays = [lease for lease in self._strays if lease not in held]
                    self.hint("leases")
                    for lease in held:
                        log.info("node.lease_released", node=self.name, lease=str(lease.name))

    def _release_strays(self, tx: Transaction) -> None:
        for lease in self._strays:
            leases.release(tx, lease)

    def _set_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._held:
            left = min(until for _, until in self._held.values()) - self._clock()
            self._expiry = asyncio.get_running_loop().call_later(max(0.0, left), self._expire)

    def _expire(self) -> None:
        """What could not be renewed in time is not this node's any more, whatever the database will say."""
        now = self._clock()
        for name in [name for name, (_, until) in self._held.items() if until <= now]:
            log.warning("node.lease_lost", node=self.name, lease=str(name), reason="could not be renewed")
            self._drop(name)
        self._set_expiry()

    def _gain(self, name: LeaseName, lease: Lease | None, until: float) -> None:
        self._held[name] = (lease, until)
        former = [task for task in self._tasks.get(name, ()) if not task.done()]
        task = asyncio.create_task(self._do(name, lease, self._duties[name], former), name=f"duty-{name}")
        self._tasks[name] = [*former, task]

    def _drop(self, name: LeaseName) -> None:
        self._held.pop(name, None)
        for task in self._tasks.get(name, ()):
            task.cancel()

    async def _do(
        self, name: LeaseName, lease: Lease | None, duty: Duty, former: Sequence[asyncio.Task[None]]
    ) -> None:
        if former:
            await asyncio.wait(former)
        while True:
            try:
                await duty(lease)
            except Exception:
                log.exception("node.duty_failed", node=self.name, lease=str(name), restarts_in_s=_RESTART_S)
                await asyncio.sleep(_RESTART_S)
            else:
                return
