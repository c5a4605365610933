"""What the footers of a pool's files say, each read once as long as its file stays the same."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from bon.errors import PoolCorruptError
from bon.object_store import ObjectPath
from bon.places import Place
from bon.pool.files import read_footer
from bon.pool.notes import PartNote

__all__ = ["COVERS", "Footer", "Footers"]

COVERS = b"bon.covers"


class Footer(NamedTuple):
    """One file's footer, in short."""

    num_rows: int
    num_bytes: int
    """Of all columns, once they are read."""
    covers: bytes
    """Rows or prompts that the file accounts for, as digits; empty where it does not say."""
    note: PartNote | None
    """None: an older version wrote it, or there is a fault."""
    fault: str | None = None
    """Why nobody can read its note."""


_Known: TypeAlias = dict[str, tuple[bytes, Footer]]
_of_stores: _Known = {}
"""A process opens a pool several times, and on a store each footer costs two requests."""
_NUM_AHEAD = 64
_NUM_THREADS = 16


@dataclass(slots=True)
class Footers:
    """Reads footers; a pool of sixteen million candidates has 24,000 of them.

    On an object store, where each takes as long as many would together, those that follow are read
    with it, once two neighbours have been asked for.
    """

    _known: _Known = field(default_factory=dict)
    _last: Place | None = None

    def __reduce__(self) -> tuple[type[Footers], tuple[()]]:
        """Send none to another process: it reads those of the files that it reads."""
        return Footers, ()

    def known(self, name: str) -> Footer | None:
        """Return the footer of a file on this machine as long as it is the one that was read."""
        known = self._known.get(name)
        return known[1] if known is not None and known[0] == _stamp(name) else None

    def read(self, path: Place) -> Footer:
        """Return a file's footer.

        Raises:
            PoolCorruptError: it cannot be read.
        """
        if not isinstance(path, ObjectPath):
            return _read_once(path, self._known)
        is_new = str(path) not in _of_stores
        if is_new and self._last is not None and self._last.parent == path.parent:
            with ThreadPoolExecutor(_NUM_THREADS) as threads:
                list(threads.map(_try_to_read, [path, *path.next_seen(_NUM_AHEAD)]))
        self._last = path if is_new else self._last
        return _read_once(path, _of_stores)


def _read_once(path: Place, every: _Known) -> Footer:
    name, stamp = str(path), _stamp(path)
    known = every.get(name)
    if known is None or stamp is None or known[0] != stamp:
        known = stamp or b"", _read(path)
        every[name] = known
    return known[1]


def _try_to_read(path: Place) -> None:
    with suppress(PoolCorruptError):  # it is said to whoever asks for it
        _read_once(path, _of_stores)


def _stamp(path: Place | str) -> bytes | None:
    """Tell one state of a file from another; none where there is no such file."""
    try:
        # a path of its own for each look would take longer than the look
        found = path.stat() if isinstance(path, ObjectPath) else os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    said = found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
    return b"%x %x %x %x" % said  # a third of the memory of the four


def _read(path: Place) -> Footer:
    footer = read_footer(path)
    num_bytes = sum(footer.row_group(n).total_byte_size for n in range(footer.num_row_groups))
    said = footer.metadata or {}
    note = fault = None
    try:
        note = PartNote.of(said)
    except ValueError as error:
        fault = str(error)
    return Footer(int(footer.num_rows), int(num_bytes), said.get(COVERS, b""), note, fault)
