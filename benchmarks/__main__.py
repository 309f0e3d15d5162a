"""Runs the benchmarks one after the other and closes with a table of every figure: `python -m benchmarks [SCRIPT …]`.

Owns the order, the time limit of each script, and the file of the latest figures (`benchmarks/results/latest.json`), which
`python -m benchmarks.figures` brings into the README. Exit code 1 if a goal was missed or a script failed.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import LATEST, SCRIPTS
from benchmarks.measuring import RECORD, table

LIMIT_S = 420
"""For one script; by itself none takes more than three minutes."""


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def run(script: str, arguments: list[str]) -> dict[str, Any]:
    """Run one script, showing what it prints; gives its figures."""
    with tempfile.NamedTemporaryFile("r", prefix="palaver-figures-") as record:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{script}", *arguments],
            env={**os.environ, RECORD: record.name},
            start_new_session=True,  # so that what it started ends with it
        )
        try:
            code: int | str = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = f"took longer than {LIMIT_S} s"
        finally:
            end(process)
        figures = [json.loads(line) for line in record]
    return {
        "ended": code,
        "seconds": round(time.monotonic() - began),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "figures": figures,
    }


def end(process: "subprocess.Popen[bytes]") -> None:
    """Whatever it is doing: asked like by Ctrl-C, so that it tidies up, and then made to."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def keep(script: str, result: dict[str, Any]) -> None:
    """Into the file of the latest figures, at once: an interrupted run has not been for nothing."""
    LATEST.parent.mkdir(exist_ok=True)
    latest = json.loads(LATEST.read_text()) if LATEST.exists() else {}
    latest[script] = result
    half = LATEST.with_suffix(".part")
    half.write_text(json.dumps(latest, indent=1, ensure_ascii=False) + "\n")
    half.replace(LATEST)


def closing(results: dict[str, dict[str, Any]]) -> tuple[str, bool]:
    """The table at the end, and whether all is well."""
    rows, is_well = [], True
    for script, result in results.items():
        verdicts = {True: "met", False: "MISSED", None: "left"}
        for figure in result["figures"]:
            measured = figure["measured"] or figure["note"]
            rows.append([verdicts[figure["is_met"]], script, figure["what"], figure["goal"], measured])
            is_well = is_well and figure["is_met"] is not False
        if result["ended"] not in (0, 1) or not result["figures"]:
            rows.append(["FAILED", script, f"ended with {result['ended']}", "", ""])
            is_well = False
    return table(["", "script", "figure", "goal", "measured"], rows), is_well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"Scripts: {', '.join(SCRIPTS)}")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="only these; default: all")
    parser.add_argument("--without", action="append", default=[], metavar="SCRIPT", help="all but this one")
    chosen, arguments = parser.parse_known_args()
    if unknown := [name for name in [*chosen.scripts, *chosen.without] if name not in SCRIPTS]:
        parser.error(f"no such script: {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    names = [name for name in chosen.scripts or SCRIPTS if name not in chosen.without]
    results = {}
    began = time.monotonic()
    for number, script in enumerate(names, 1):
        print(f"\n== {script} ({number} of {len(names)}) ==\n", flush=True)
        results[script] = run(script, arguments)
        keep(script, results[script])
    text, is_well = closing(results)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n== all figures, {minutes:.1f} min, load {os.getloadavg()[0]:.1f} at the end ==\n\n{text}\n",
        flush=True,
    )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
