"""A pool that is read holds still, or the reading ends: another run may write to it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from bon.errors import BonError, OutputError, PoolIncompleteError, PoolLockedError
from bon.object_store import ObjectPath
from bon.pool.layout import PoolLayout
from bon.pool.lock import refuse_held
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = ["Snapshot", "unchanged"]

_Table = TypeVar("_Table")
_Stamp = tuple[int, int, int]
"""Inode, size and time of change (ns): a part that is made again is another file."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a pool's files were when a command began to read them.

    Only what is complete counts: a scorer that is at work adds files that nobody reads yet, so one
    may select by the first scorer while a second one scores.
    """

    layout: PoolLayout
    kinds: tuple[str, ...]
    stamps: dict[str, _Stamp]

    @classmethod
    def of(cls, pool: Pool) -> Snapshot:
        """Take it now."""
        parts = pool.layout.numbers(PROMPTS)
        scores = [scores_kind(name) for name in pool.layout.scorer_names()]
        complete = [kind for kind in scores if pool.layout.numbers(kind) == parts]
        kinds = (PROMPTS, CANDIDATES, *complete)
        return cls(pool.layout, kinds, _stamps(pool.layout, kinds))

    def has_changed(self) -> bool:
        """Tell whether anything that was complete is another file now, or gone, or more."""
        return _stamps(self.layout, self.kinds) != self.stamps

    def check(self) -> None:
        """Make sure that all that was read since was one state of the pool.

        Raises:
            PoolLockedError: another run has written to it, which is named where it still does.
        """
        if self.has_changed():
            raise PoolLockedError(
                "the pool was written to while it was read",
                where=str(self.layout.root),
                why=_writer(self.layout) or "the run that did so has ended",
                next_step="run the same command again once no run writes to the pool",
            )

    def through(self, tables: Iterable[_Table]) -> Iterator[_Table]:
        """Yield tables that are made of the pool, and check once all are there.

        Raises:
            PoolLockedError: as `check`.
        """
        yield from tables
        self.check()


@contextmanager
def unchanged(pool: Pool) -> Iterator[Snapshot]:
    """Read a pool in the block; what goes wrong because another run writes to it is said so.

    Raises:
        PoolLockedError: an error came of files that another run has changed.
    """
    snapshot = Snapshot.of(pool)
    try:
        yield snapshot
    except OutputError:
        raise
    except Exception as error:
        try:
            snapshot.check()
        except PoolLockedError as changed:
            raise changed from error
        writer = _writer(pool.layout)
        if isinstance(error, PoolIncompleteError) and writer is not None:
            error.why = f"{error.why}; it is being written, {writer}"
            error.next_step = "wait until that run has ended"
        raise


def _writer(layout: PoolLayout) -> str | None:
    """Name the run that writes to a pool, if any."""
    try:
        refuse_held(layout.lock)
    except PoolLockedError as error:
        return error.why
    except BonError:
        return None  # a lock that nobody may read
    return None


def _stamps(layout: PoolLayout, kinds: Iterable[str]) -> dict[str, _Stamp]:
    stamps: dict[str, _Stamp] = {}
    for folder in [layout.root / f"{top}{kind}" for kind in kinds for top in ("", "drops/")]:
        if isinstance(folder, ObjectPath):
            found_there = folder.file_stats().items()
            stamps |= {
                name: (one.st_ino, one.st_size, one.st_mtime_ns) for name, one in found_there
            }
            continue
        if not folder.is_dir():
            continue
        with os.scandir(folder) as files:
            for file in files:
                try:
                    found = file.stat()
                except FileNotFoundError:
                    continue
                stamps[file.path] = (found.st_ino, found.st_size, found.st_mtime_ns)
    return stamps
