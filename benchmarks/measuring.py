"""What the benchmarks share: percentiles, tables, alternating rounds, and a disk whose fsync takes one millisecond.

Owns no figure. A disk of a shared machine stalls and changes its speed within minutes, so designs are compared on memory with
a fixed price per fsync, in rounds that take turns; only ratios of the same run are worth quoting.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

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


def on_model_disk(module: str) -> Path:
    """Run the calling module again with every fsync taking 1 ms, its files on memory; gives the folder for them.

    Where no C compiler is at hand the real disk is used, and the table says so.
    """
    if "PALAVER_TEST_SHIM" in os.environ:
        return Path(tempfile.mkdtemp(prefix="palaver-bench-", dir="/dev/shm"))
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/dev/shm").is_dir():
        print("(no C compiler or no memory disk: measured on the real disk)")
        return Path(tempfile.mkdtemp(prefix="palaver-bench-"))
    folder = Path(tempfile.mkdtemp(prefix="palaver-shim-"))
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "PALAVER_TEST_SHIM": str(library)}
    finished = subprocess.run([sys.executable, "-m", module, *sys.argv[1:]], env=environment, check=False)
    shutil.rmtree(folder)
    raise SystemExit(finished.returncode)


def fsyncs() -> int:
    """How many fsyncs this process has asked the model disk for; 0 without one."""
    import ctypes

    library = os.environ.get("PALAVER_TEST_SHIM")
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


def verdict(claim: str, *, is_met: bool, measured: str) -> bool:
    """Print one claim and whether this run bears it out."""
    print(f"{'met    ' if is_met else 'NOT MET'}  {claim}: {measured}")
    return is_met


def resident_mb() -> float:
    """This process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
