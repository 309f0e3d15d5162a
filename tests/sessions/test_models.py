"""Ids: ULIDs that everybody else can read, in order and never twice."""

import time
from concurrent.futures import ThreadPoolExecutor

from ulid import ULID

from sessions.models import new_id


def test_an_id_is_a_ulid_of_the_present_time():
    """Another implementation reads the same value and the time it was made in."""
    before = time.time_ns() // 1_000_000
    made = new_id()
    after = time.time_ns() // 1_000_000
    read = ULID.from_str(made)
    assert str(read) == made
    assert before <= read.milliseconds <= after


def test_ids_of_a_process_are_in_order_and_never_the_same():
    """Many in one millisecond still sort as they were made, whichever threads make them beside each other."""
    ids = [new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(lambda _: [new_id() for _ in range(500)], range(16)))
    assert all(batch == sorted(batch) for batch in batches)
    assert len({one for batch in batches for one in batch}) == 8000
