"""Reading an export into a database: whole sessions or nothing of them, and a second time changes nothing.

Owns the file's frame and the order of work: the next batch is read while one is written. A session that is in the database is left
as it is. A small session comes in one transaction; a large one stays hidden until its last row is in, and is taken up again where it
was cut off.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import orjson

from sessions.database.base import Database
from sessions.errors import TransferError
from sessions.transfer.intake import Intake, Progress, Typed
from sessions.transfer.records import FORMAT, VERSION, contents
from sessions.transfer.storing import Imported

_SWITCH_S: Final = 0.0005


async def load(
    database: Database,
    lines: Iterable[bytes],
    now: Callable[[], int],
    *,
    progress: Progress = lambda count: None,
) -> Imported:
    """Import a file of our own format. Raises: TransferError with the line; sessions before it are in."""
    return await store(database, parsed(lines), now, progress=progress)


def parsed(lines: Iterable[bytes]) -> Iterable[Typed]:
    """The records of a file. Raises: TransferError, also when its end is missing."""
    kind = ""
    for number, line in enumerate(lines, start=1):
        if kind == "end":
            raise TransferError(f"line {number}: there is more after the end")
        try:
            record = orjson.loads(line)
        except ValueError as error:
            raise TransferError(
                f"line {number}: is not JSON ({error}); the file may have been cut off"
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get("type"), str):
            raise TransferError(f"line {number}: is no record")
        kind = record.pop("type")
        if number == 1:
            if kind != "header" or record.get("format") != FORMAT:
                raise TransferError("line 1: this is no export of Palaver's")
            if record.get("version") != VERSION:
                raise TransferError(
                    f"line 1: the format has version {record.get('version')!r}; this Palaver reads {VERSION}"
                )
        elif kind == "header":
            raise TransferError(f"line {number}: a second header")
        else:
            yield number, kind, record
    if kind != "end":
        raise TransferError("the file has no end: it was cut off while it was written or copied")


async def store(
    database: Database,
    records: Iterable[Typed],
    now: Callable[[], int],
    *,
    progress: Progress = lambda count: None,
) -> Imported:
    """Put records into a database, in batches; the next one is read while one is written. Raises: TransferError.

    Records are taken, and progress is told, in another thread.
    """
    done = Imported()
    intake = Intake(database, await database.read(contents), done, now)
    source = iter(records)
    with _taking_turns_often():
        try:
            while await asyncio.to_thread(intake.fill, source, progress):
                await intake.flush()
            await intake.flush()
        finally:
            await intake.settle()  # what was complete before a fault is in
    progress(intake.seen)
    return done


@contextlib.contextmanager
def _taking_turns_often() -> Iterator[None]:
    """Let threads have the interpreter by turns of half a millisecond, not five.

    Whoever stores gives it away for some tenths of a millisecond with each statement; waiting five to have it back, while the
    next batch is read, made the two take nearly as long as one after the other.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
