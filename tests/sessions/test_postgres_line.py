"""The order of writes to PostgreSQL by itself: stores that say what becomes of an operation stand for the server."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.database.postgres_line import LARGEST_BATCH, Line, Operation

pytestmark = pytest.mark.timeout(60)


class Store:
    """Keeps the effects in their order. `is_stuck` says of an operation's name whether a row of its is locked."""

    def __init__(self, is_stuck: Callable[[str], bool] = lambda _name: False) -> None:
        self.is_stuck = is_stuck
        self.effects: list[str] = []
        self.batches: list[list[str]] = []
        self.alone: list[str] = []
        self.lock = threading.Lock()

    def store(self, batch: list[Operation]) -> None:
        self.batches.append([operation.work(None) for operation in batch])
        places: set[object] = set()
        for operation in batch:
            name = operation.work(None)
            operation.is_stuck = operation.place in places or self.is_stuck(name)
            if operation.is_stuck:
                places.add(operation.place)
            else:
                self._do(operation)

    def store_alone(self, operation: Operation) -> None:
        self.alone.append(operation.work(None))
        self._do(operation)

    def _do(self, operation: Operation) -> None:
        with self.lock:
            operation.run(None)
            self.effects.append(operation.result)


def line_of(store: Store, **how: int) -> Line:
    return Line(store.store, store.store_alone, waiters=how.get("waiters", 2))


def put(line: Line, name: str, key: str = "", *, may_mix: bool = False) -> "asyncio.Future[str]":
    return line.put(lambda _tx: name, key=key, may_mix=may_mix)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.booleans()), max_size=60),
    st.sets(st.integers(0, 59)),
    st.integers(1, 3),
    st.lists(st.integers(0, 2), max_size=60),
)
def test_a_key_keeps_its_order_whatever_is_stuck(operations, stuck, waiters, pauses):
    """Every caller hears of its own; what has a key is done in the order of the calls; nothing is left, nothing done twice."""
    names = [f"{key}{number}" for number, (key, _) in enumerate(operations)]
    blocked = {names[number] for number in stuck if number < len(names)}
    store = Store(blocked.__contains__)

    async def run() -> list[str]:
        line = line_of(store, waiters=waiters)
        futures = []
        for number, (name, (key, may_mix)) in enumerate(zip(names, operations, strict=True)):
            futures.append(put(line, name, key, may_mix=may_mix))
            for _ in range(pauses[number] if number < len(pauses) else 0):
                await asyncio.sleep(0)
        found = await asyncio.gather(*futures)
        await line.close()
        assert line.is_empty
        return found

    assert asyncio.run(run()) == names
    assert sorted(store.effects) == sorted(names)
    for key in "abc":
        assert [name for name in store.effects if name[0] == key] == [
            name for name in names if name[0] == key
        ]


async def test_a_key_is_in_the_line_again_once_it_got_through():
    """What came meanwhile is not done one by one for ever after a moment's lock, however busy the key is."""
    locked = {"a0"}
    store = Store(locked.__contains__)
    line = line_of(store)
    first = put(line, "a0", "a")
    await asyncio.sleep(0)
    rest = [put(line, f"a{number}", "a") for number in range(1, 40)]
    assert await asyncio.gather(first, *rest) == [f"a{number}" for number in range(40)]
    assert store.alone == ["a0"]
    assert max(map(len, store.batches)) > 10
    await line.close()


async def test_what_has_no_key_waits_for_nothing_but_itself():
    """A write without a key that is stuck holds up no other of them."""
    may_go = threading.Event()
    store = Store("x".__eq__)
    store.store_alone = lambda operation: (may_go.wait(20), operation.run(None))
    line = line_of(store)
    stuck = put(line, "x")
    assert await asyncio.wait_for(put(line, "y"), 10) == "y"
    assert await asyncio.wait_for(put(line, "z"), 10) == "z"
    assert not stuck.done()
    may_go.set()
    assert await stuck == "x"
    await line.close()


async def test_who_mixes_comes_first_and_hears_it_first():
    """Callers are told in the order in which the effects are there."""
    store = Store()
    line = line_of(store)
    heard: list[str] = []
    futures = [
        put(line, "warm"),
        put(line, "command", "a"),
        put(line, "question", "b", may_mix=True),
        put(line, "after it", "a", may_mix=True),
        put(line, "another", "c", may_mix=True),
    ]
    for future in futures:
        future.add_done_callback(lambda done: heard.append(done.result()))
    await asyncio.gather(*futures)
    await line.close()
    assert heard == store.effects == ["question", "another", "warm", "command", "after it"]


async def test_an_error_of_the_thread_itself_reaches_who_waits():
    """No memory, no thread: those of that batch hear it, and the line goes on."""
    store = Store()
    line = line_of(store)
    store_well, tries = line._store, []

    def fails_once(batch: list[Operation]) -> None:
        tries.append(len(batch))
        if len(tries) == 1:
            raise MemoryError
        store_well(batch)

    line._store = fails_once
    first = put(line, "x", "a")
    with pytest.raises(MemoryError):
        await first
    assert await put(line, "y", "a") == "y"
    await line.close()
    assert line.is_empty


async def test_a_batch_has_an_end():
    """However much waits, a batch takes no more than it may."""
    store = Store()
    line = line_of(store)
    await asyncio.gather(*(put(line, str(number), str(number)) for number in range(LARGEST_BATCH * 2 + 5)))
    await line.close()
    assert [len(batch) for batch in store.batches] == [LARGEST_BATCH, LARGEST_BATCH, 5]


async def test_closing_waits_for_what_stands_aside():
    """What was called before the end is done before it."""
    store = Store("a".__eq__)
    line = line_of(store)
    futures = [put(line, "a", "a"), put(line, "b", "a")]
    await line.close()
    assert [future.result() for future in futures] == ["a", "b"]
