"""The order in which writes to PostgreSQL are done: one line, and aside of it what waits for rows that somebody else keeps locked.

Owns operations, whose turn it is, and the threads they are done in. How a batch is stored, and when an operation is stuck, is
`postgres.py`.

What queued up while the last batch was stored is the next one. Those of a key keep the order of the calls, those that mix come before
the others of their batch. An operation that turned out to be stuck leaves the line with all of its key behind it, and with one that
has no key nothing leaves. It is done on a thread of its own; once it got through, the rest of its key stands at the line's front.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sessions.database.base import Transaction
from sessions.database.postgres_errors import presentable

T = TypeVar("T")

LARGEST_BATCH: Final = 100


class Operation:
    """A queued write and the future of its caller."""

    __slots__ = ("error", "future", "is_stuck", "key", "may_mix", "result", "work")

    def __init__(
        self, work: Callable[[Transaction], Any], future: asyncio.Future[Any], key: str, *, may_mix: bool
    ) -> None:
        self.work = work
        self.future = future
        self.key = key
        self.may_mix = may_mix
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_stuck = False
        """It would have to wait for rows that somebody else has locked."""

    @property
    def place(self) -> object:
        """What it shares with those that must not overtake it."""
        return self.key or self

    def run(self, tx: Transaction) -> None:
        self.result = self.work(tx)

    def tell(self) -> None:
        """Let the caller know what came of it; one that was cancelled does not hear it, and the effect stands all the same."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(presentable(self.error))


class Line:
    """Writes in their order. `store` makes a batch durable or says of each operation what came of it; so does `store_alone` of
    one, with all patience. Both run in threads and end in time.
    """

    def __init__(
        self,
        store: Callable[[list[Operation]], None],
        store_alone: Callable[[Operation], None],
        *,
        waiters: int,
    ) -> None:
        self._store = store
        self._store_alone = store_alone
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="postgres-writer")
        self._waiters = ThreadPoolExecutor(waiters, thread_name_prefix="postgres-waiter")
        self._line: deque[Operation] = deque()
        self._aside: dict[object, deque[Operation]] = {}
        """What has left the line, by place, with whatever came after it."""
        self._is_flushing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_empty(self) -> bool:
        return not (self._line or self._aside or self._is_flushing)

    def put(self, work: Callable[[Transaction], Any], *, key: str, may_mix: bool) -> asyncio.Future[Any]:
        """Queue a write. The future ends once it is durable, or with its error."""
        operation = Operation(work, asyncio.get_running_loop().create_future(), key, may_mix=may_mix)
        self._aside.get(operation.place, self._line).append(operation)
        self._go_on()
        return operation.future

    async def close(self) -> None:
        """Do what is queued, then let go of the threads."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._waiters.shutdown)

    def _go_on(self) -> None:
        if self._line and not self._is_flushing:
            self._is_flushing = True
            self._begin(self._flush())

    def _begin(self, flushing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(flushing, name="postgres-flusher")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush(self) -> None:
        """Store the line's operations until none is left."""
        try:
            while self._line:
                batch = self._next_batch()
                await _in_thread(self._writer, batch, self._store, batch)
                for operation in batch:
                    if not operation.is_stuck:
                        operation.tell()
                    elif operation.place in self._aside:
                        self._aside[operation.place].append(operation)
                    else:
                        self._aside[operation.place] = deque([operation])
                        self._begin(self._flush_aside(operation.place))
                if self._aside:
                    self._follow()
        finally:
            self._is_flushing = False

    def _next_batch(self) -> list[Operation]:
        """In the order in which they will take effect."""
        batch = [self._line.popleft() for _ in range(min(LARGEST_BATCH, len(self._line)))]
        alone = {operation.key for operation in batch if not operation.may_mix}
        for operation in batch:
            operation.may_mix = operation.key not in alone
        return sorted(batch, key=lambda operation: not operation.may_mix)

    def _follow(self) -> None:
        """Whatever comes after an operation that has left the line leaves it, too."""
        staying = deque[Operation]()
        for operation in self._line:
            self._aside.get(operation.place, staying).append(operation)
        self._line = staying

    async def _flush_aside(self, place: object) -> None:
        """Wait with an operation until it got through or has failed, and with the next only if it has failed."""
        waiting = self._aside[place]
        try:
            while waiting:
                operation = waiting.popleft()
                operation.is_stuck = False
                await _in_thread(self._waiters, [operation], self._store_alone, operation)
                operation.tell()
                if operation.error is None:
                    break
        finally:
            del self._aside[place]
            self._line.extendleft(reversed(waiting))
            self._go_on()


async def _in_thread(
    executor: ThreadPoolExecutor, operations: list[Operation], store: Callable[[T], None], what: T
) -> None:
    """Store in a thread. If even that fails, for want of a thread or of memory, each of the operations hears that."""
    try:
        await asyncio.get_running_loop().run_in_executor(executor, store, what)
    except BaseException as error:
        for operation in operations:
            operation.is_stuck, operation.error = False, error
            if not isinstance(error, Exception):
                operation.tell()
        if not isinstance(error, Exception):
            raise
