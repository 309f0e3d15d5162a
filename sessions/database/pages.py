"""Rows straight from the pages of a SQLite file, for when its own list of tables, or a page that leads to others, is damaged.

Owns reading the format: pages of the file and of its log, leaves of tables, records, values that overflow. Which table a leaf
belongs to is not written on it; `salvage.py` judges that by the rows. Source: https://www.sqlite.org/fileformat2.html
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Value = int | float | str | bytes | None

_HEADER: Final = b"SQLite format 3\0"
_TABLE_LEAF: Final = 0x0D
_LARGEST_PAYLOAD: Final = 256 * 1024 * 1024


class Malformed(Exception):
    """The bytes are not what the format says."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page that holds rows: (row number, values)."""

    number: int
    rows: list[tuple[int, list[Value]]]
    broken: int
    """Cells that could not be read."""


class Pages:
    """The pages of a file as they are with its log, read only."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        header = self._file.read(100)
        size = (
            struct.unpack(">H", header[16:18])[0] if len(header) == 100 and header[:16] == _HEADER else 4096
        )
        self.size: int = 65536 if size == 1 else size
        if self.size < 512 or self.size & (self.size - 1):
            self.size = 4096
        self.count = -(-path.stat().st_size // self.size)
        self._newer = _log(path.with_name(path.name + "-wal"), self.size)
        self.count = max([self.count, *self._newer])
        self._free = self._free_pages()

    def close(self) -> None:
        self._file.close()

    def leaves(self) -> Iterator[Leaf]:
        """Every leaf of a table that is in use."""
        for number in range(1, self.count + 1):
            if number in self._free:
                continue
            page = self.page(number)
            start = 100 if number == 1 else 0
            if len(page) < self.size or page[start] != _TABLE_LEAF:
                continue
            leaf = self._leaf(number, page, start)
            if leaf.rows or leaf.broken:
                yield leaf

    def page(self, number: int) -> bytes:
        newer = self._newer.get(number)
        if newer is not None:
            return newer
        self._file.seek((number - 1) * self.size)
        return self._file.read(self.size)

    def _leaf(self, number: int, page: bytes, start: int) -> Leaf:
        cells = struct.unpack(">H", page[start + 3 : start + 5])[0]
        rows: list[tuple[int, list[Value]]] = []
        broken = 0
        if start + 8 + 2 * cells > self.size:
            return Leaf(number, [], 0)
        for cell in range(cells):
            at = struct.unpack(">H", page[start + 8 + 2 * cell : start + 10 + 2 * cell])[0]
            try:
                rows.append(self._cell(page, at))
            except (Malformed, IndexError, struct.error, UnicodeDecodeError):
                broken += 1
        return Leaf(number, rows, broken)

    def _cell(self, page: bytes, at: int) -> tuple[int, list[Value]]:
        length, at = _varint(page, at)
        row, at = _varint(page, at)
        if length > _LARGEST_PAYLOAD:
            raise Malformed
        most = self.size - 35
        local = length
        if length > most:
            least = (self.size - 12) * 32 // 255 - 23
            local = least + (length - least) % (self.size - 4)
            local = local if local <= most else least
        payload = page[at : at + local]
        if len(payload) < local:
            raise Malformed
        if local < length:
            payload += self._overflow(
                struct.unpack(">I", page[at + local : at + local + 4])[0], length - local
            )
        return row if row < 2**63 else row - 2**64, _record(payload)

    def _overflow(self, number: int, missing: int) -> bytes:
        pieces: list[bytes] = []
        seen: set[int] = set()
        while missing > 0:
            if number in seen or not 0 < number <= self.count:
                raise Malformed
            seen.add(number)
            page = self.page(number)
            if len(page) < self.size:
                raise Malformed
            pieces.append(page[4 : 4 + missing])
            missing -= len(pieces[-1])
            number = struct.unpack(">I", page[:4])[0]
        return b"".join(pieces)

    def _free_pages(self) -> set[int]:
        """Pages that hold nothing any more; what was removed must not come back."""
        free: set[int] = set()
        first = self.page(1)
        if first[:16] != _HEADER:
            return free
        trunk = struct.unpack(">I", first[32:36])[0]
        while 0 < trunk <= self.count and trunk not in free:
            free.add(trunk)
            page = self.page(trunk)
            if len(page) < self.size:
                break
            trunk, count = struct.unpack(">II", page[:8])
            if count > self.size // 4 - 2:
                break
            free.update(struct.unpack(f">{count}I", page[8 : 8 + 4 * count]))
        return free


def _log(path: Path, size: int) -> dict[int, bytes]:
    """The newest committed version of each page in a write-ahead log."""
    if not path.exists():
        return {}
    raw = path.read_bytes()
    if len(raw) < 32 or struct.unpack(">I", raw[8:12])[0] not in (size, 1 if size == 65536 else size):
        return {}
    salts = raw[16:24]
    committed: dict[int, bytes] = {}
    waiting: dict[int, bytes] = {}
    for at in range(32, len(raw) - size - 23, size + 24):
        number, after = struct.unpack(">II", raw[at : at + 8])
        if raw[at + 8 : at + 16] != salts:
            break
        waiting[number] = raw[at + 24 : at + 24 + size]
        if after:
            committed |= waiting
            waiting = {}
    return committed


def _record(payload: bytes) -> list[Value]:
    header, at = _varint(payload, 0)
    if header > len(payload):
        raise Malformed
    kinds: list[int] = []
    while at < header:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    at = header
    values: list[Value] = []
    for kind in kinds:
        match kind:
            case 0:
                values.append(None)
            case 1 | 2 | 3 | 4 | 5 | 6:
                width = (1, 2, 3, 4, 6, 8)[kind - 1]
                values.append(int.from_bytes(_take(payload, at, width), signed=True))
                at += width
            case 7:
                values.append(struct.unpack(">d", _take(payload, at, 8))[0])
                at += 8
            case 8 | 9:
                values.append(kind - 8)
            case 10 | 11:
                raise Malformed
            case _:
                width = (kind - 12) // 2
                piece = _take(payload, at, width)
                values.append(piece.decode("utf-8") if kind % 2 else piece)
                at += width
    if at != len(payload):
        raise Malformed
    return values


def _take(payload: bytes, at: int, width: int) -> bytes:
    piece = payload[at : at + width]
    if len(piece) < width:
        raise Malformed
    return piece


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = raw[at + count]
        if count == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + count + 1
    raise Malformed


def unused(page: bytes, *, is_first: bool) -> tuple[int, int]:
    """Where the bytes of a page lie that nothing refers to, from and to; the same twice if there are none or it is no tree.

    Rows that were moved to another page when this one was split leave copies there, which SQLite does not overwrite even with
    secure_delete. They lie between the list of cells and the cells.
    """
    start = 100 if is_first else 0
    kind = page[start]
    if kind not in (0x02, 0x05, 0x0A, _TABLE_LEAF):
        return 0, 0
    cells, first = struct.unpack(">HH", page[start + 3 : start + 7])
    begin = start + (8 if kind in (0x0A, _TABLE_LEAF) else 12) + 2 * cells
    end = first or 65536
    if not begin < end <= len(page):
        return 0, 0
    return begin, end


def wipe_unused(path: Path, size: int, first: int, count: int) -> int:
    """Overwrite the unused bytes of `count` pages from `first` on, in the file itself; gives how many pages come after them.

    Only for whoever owns the file, with an empty log and no page in memory: what nothing refers to may be changed under a reader.
    """
    with path.open("r+b", buffering=0) as file:
        pages = os.fstat(file.fileno()).st_size // size
        if pages >= 2**24:  # from there on an overflow page may look like a tree's
            return 0
        raw = os.pread(file.fileno(), count * size, (first - 1) * size)
        for at in range(0, len(raw) - size + 1, size):
            number = first + at // size
            begin, end = unused(raw[at : at + size], is_first=number == 1)
            if raw.count(0, at + begin, at + end) < end - begin:
                os.pwrite(file.fileno(), bytes(end - begin), (number - 1) * size + begin)
    return max(0, pages - (first + count - 1))
