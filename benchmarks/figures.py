"""The figures in the README: a block between two marks that is made of a file of results, never written by hand.

    python -m benchmarks.figures --write README.md      after `make bench`: take over the latest figures and fill the block

Owns the list of scripts, the committed results (`benchmarks/figures.json`) and the block. A test compares all three.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LATEST = FOLDER / "results" / "latest.json"
COMMITTED = FOLDER / "figures.json"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"

SCRIPTS = {
    "store_turns": "Storing a turn, on SQLite, where an fsync takes 1 ms",
    "single_operations": "Single operations, where an fsync takes 1 ms",
    "daemon_turns": "The whole daemon, with an agent that answers at once",
    "many_sessions": "1,000 people at once, turns of two seconds",
    "start_with_history": "Start, with a million stored messages",
    "context": "What the model sees",
    "summarising": "Summaries, without a model",
    "search": "Search in a million messages",
    "statistics": "Statistics over five million messages",
    "cleanup_beside_chat": "Clean-up of 100,000 sessions beside chat",
    "transfer": "Export and import",
    "postgres_turns": "PostgreSQL, two nodes on this machine",
}
"""Every script in the order in which they run, and what its figures are about."""


def render(results: Mapping[str, Any]) -> str:
    """The block's text."""
    lines = []
    for script, about in SCRIPTS.items():
        figures = [figure for figure in results.get(script, {}).get("figures", ()) if figure["measured"]]
        if not figures:
            continue
        lines += [f"**{about}** (`benchmarks/{script}.py`)", "", "| | goal | measured |", "|---|---|---|"]
        for figure in figures:
            missed = "" if figure["is_met"] else " (missed)"
            lines.append(f"| {figure['what']} | {figure['goal']} | {figure['measured']}{missed} |")
        lines.append("")
    machines = {
        "{cpu}, {cores} cores, {system}, Python {python}, SQLite {sqlite}".format(**result["machine"])
        for result in results.values()
    }
    dates = sorted({result["date"] for result in results.values()})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else ""
    lines.append(f"Measured {when} on: {'; '.join(sorted(machines))}.")
    return "\n".join(lines)


def filled(document: str, results: Mapping[str, Any]) -> str:
    """The document with the block made anew. Raises: ValueError if its marks are not there, once each and in order."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest:
        raise ValueError(f"the document has no block from {BEGIN} to {END}")
    return f"{head}{BEGIN}\n{render(results)}\n{END}{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", type=Path, metavar="DOCUMENT", help="take over the latest figures, fill the block"
    )
    chosen = parser.parse_args()
    if chosen.write is None:
        print(render(json.loads(COMMITTED.read_text())))
        return 0
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    latest = json.loads(LATEST.read_text()) if LATEST.exists() else {}
    results = {script: (committed | latest)[script] for script in SCRIPTS if script in committed | latest}
    document = filled(chosen.write.read_text(), results)
    COMMITTED.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    chosen.write.write_text(document)
    print(f"{chosen.write}: {sum(len(result['figures']) for result in results.values())} figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
