"""The daemon with a wall clock that can be moved: `python -m tests.process.moved_clock run …`.

SIGUSR1 puts it an hour ahead of what it was, SIGUSR2 an hour back, as an administrator or a virtual machine does to a node's
clock. Time that only goes on (monotonic, since boot) and the database's clock stay as they are.
"""

import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Final

HOUR_S: Final = 3600
COMMAND: Final[Sequence[str]] = (sys.executable, "-m", "tests.process.moved_clock")


def main() -> None:
    true_time, moved_s = time.time, 0

    def move(number: int, _: FrameType | None) -> None:
        nonlocal moved_s
        moved_s += HOUR_S if number == signal.SIGUSR1 else -HOUR_S

    time.time = lambda: true_time() + moved_s
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, move)

    from bot import cli  # after the clock was changed: defaults take it as it is when they are imported

    cli.main()


if __name__ == "__main__":
    main()
