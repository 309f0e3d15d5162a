"""What the benchmarks share: claims and their verdicts, percentiles, tables, alternating rounds, and a disk with a fixed price.

Owns no figure. A disk of a shared machine stalls and changes its speed within minutes, so designs are compared on memory with
a fixed price per fsync, in rounds that take turns; only ratios of the same run are worth quoting.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config import logging as logs
from config.settings import LogSettings

RECORD = "PALAVER_BENCH_RECORD"
"""Names the file that a script adds its figures to, a line of JSON each."""

_SHIM_MARK = "PALAVER_TEST_SHIM"
SHIM = """
#define _GNU_SOURCE
#include <time.h>
#include <dlfcn.h>
#include <stdatomic.h>
static _Atomic long count;
static void nap(void) { struct timespec t = {0, 1000000}; nanosleep(&t, 0); atomic_fetch_add(&count, 1); }
int fsync(int fd) { (void)fd; nap(); return 0; }
int fdatasync(int fd) { (void)fd; nap(); return 0; }
long fsync_count(void) { return atomic_load(&count); }
"""


@dataclass(frozen=True)
class Claim:
    """Something that a script measures, and the goal it is held against."""

    what: str
    bound: Literal["at least", "at most", "below", "exactly"]
    goal: float
    unit: str = ""
    digits: int = 1

    @property
    def goal_text(self) -> str:
        sign = {"at least": "≥", "at most": "≤", "below": "<", "exactly": "="}[self.bound]
        return f"{sign} {self.goal:,.15g}{self.unit}"

    def value_text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}{self.unit}"

    def is_met_by(self, value: float) -> bool:
        match self.bound:
            case "at least":
                return value >= self.goal
            case "at most":
                return value <= self.goal
            case "below":
                return value < self.goal
            case "exactly":
                return value == self.goal

    def judge(self, value: float, note: str = "") -> bool:
        """Print the figure beside its goal, and keep it where the runner asked for it."""
        is_met = self.is_met_by(value)
        measured = self.value_text(value)
        print(
            f"{'met    ' if is_met else 'NOT MET'}  {self.what}: {measured} ({self.goal_text})"
            + (f"; {note}" if note else "")
        )
        self._keep(measured=measured, is_met=is_met, note=note)
        return is_met

    def leave(self, reason: str) -> bool:
        """Say that it was not measured, and why. That is no failure."""
        print(f"left     {self.what}: not measured, {reason}")
        self._keep(measured=None, is_met=None, note=reason)
        return True

    def _keep(self, *, measured: str | None, is_met: bool | None, note: str) -> None:
        if (file := os.environ.get(RECORD)) is not None:
            figure = {
                "what": self.what,
                "goal": self.goal_text,
                "measured": measured,
                "is_met": is_met,
                "note": note,
            }
            with Path(file).open("a") as record:
                record.write(json.dumps(figure, ensure_ascii=False) + "\n")


def options(text: str | None, **numbers: float) -> argparse.Namespace:
    """The command line of a script: a flag for each of its sizes, `--sessions 1000`."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in numbers.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default {default}"
        )
    return parser.parse_args()


def quiet() -> None:
    """Only errors are logged: a table is what the reader came for."""
    logs.configure(LogSettings(level="error"))


@contextmanager
def working_folder(*, in_memory: bool = False) -> Iterator[Path]:
    """A folder for a script's files, removed at the end; in memory where there is such a place."""
    memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="palaver-bench-", dir=memory if in_memory and memory.is_dir() else None)
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_model_disk() -> bool:
    """Whether this process's fsyncs take one millisecond each."""
    return _SHIM_MARK in os.environ


def on_model_disk(module: str) -> Path:
    """Run the calling module again with every fsync taking 1 ms, its files on memory; gives the folder for them.

    Where no C compiler is at hand the real disk is used, and the table says so.
    """
    if has_model_disk():
        return Path(tempfile.mkdtemp(prefix="palaver-bench-", dir="/dev/shm"))
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/dev/shm").is_dir():
        print("(no C compiler or no memory disk: measured on the real disk)")
        return Path(tempfile.mkdtemp(prefix="palaver-bench-"))
    folder = Path(tempfile.mkdtemp(prefix="palaver-shim-"))
    try:
        source, library = folder / "shim.c", folder / "shim.so"
        source.write_text(SHIM)
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(library), _SHIM_MARK: str(library)}
        sys.stdout.flush()
        finished = subprocess.run([sys.executable, "-m", module, *sys.argv[1:]], env=environment, check=False)
    finally:
        shutil.rmtree(folder)
    raise SystemExit(finished.returncode)


def fsyncs() -> int:
    """How many fsyncs this process has asked the model disk for; 0 without one."""
    import ctypes

    library = os.environ.get(_SHIM_MARK)
    if library is None:
        return 0
    counter = ctypes.CDLL(library).fsync_count
    counter.restype = ctypes.c_long
    return int(counter())


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


async def alternate(
    rounds: int, contenders: Mapping[str, Callable[[], Awaitable[Mapping[str, float]]]]
) -> dict[str, list[Mapping[str, float]]]:
    """Run each contender once per round, in turn."""
    results: dict[str, list[Mapping[str, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            results[name].append(await contender())
    return results


def median(results: Sequence[Mapping[str, float]], column: str) -> float:
    return statistics.median(result[column] for result in results)


def ratios(
    results: Mapping[str, Sequence[Mapping[str, float]]], column: str, base: str
) -> dict[str, tuple[float, float, float]]:
    """For each contender: median, lowest and highest of its value over the base's of the same round."""
    found = {}
    for name, rounds in results.items():
        quotients = [mine[column] / its[column] for mine, its in zip(rounds, results[base], strict=True)]
        found[name] = (statistics.median(quotients), min(quotients), max(quotients))
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def resident_mb() -> float:
    """This process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
