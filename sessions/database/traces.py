"""Whether something is still anywhere in the files of a SQLite database: in it, in its log, in copies that lie beside it.

Owns the search through bytes, however the file is laid out. What is searched for, `erasure.samples` says.
"""

import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def files(path: Path) -> list[Path]:
    """The database first, then what has its name with something after it: log, snapshots, what a restore replaced."""
    beside = (
        file for file in path.parent.glob("*") if file.name.startswith(f"{path.name}") and file.is_file()
    )
    return sorted(beside, key=lambda file: (file != path, file.name))


def find(
    path: Path, pieces: Sequence[str], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Mapping[Path, Sequence[str]]:
    """Which of the pieces are in which of the files; files that have none are in it, too."""
    there = files(path)
    found: dict[Path, Sequence[str]] = {}
    for number, file in enumerate(there):
        progress(number, len(there))
        found[file] = []
        if file.stat().st_size:
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as raw:
                found[file] = [piece for piece in pieces if raw.find(piece.encode("utf-8", "replace")) >= 0]
    return found
