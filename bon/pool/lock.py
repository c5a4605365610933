"""One writer at a time: an advisory lock whose file names its holder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from bon.errors import OutputError, PoolLockedError
from bon.holders import is_of_here, locked, myself, parsed_holder
from bon.object_lock import ObjectLock, holder_of
from bon.object_store import ObjectPath
from bon.places import Place
from bon.pool.links import refuse_links
from bon.system_faults import advice, reason

__all__ = ["PoolLock", "pool_lock", "refuse_held", "refuse_unwritable"]

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_NUM_TRIES, _RETRY_S = 3, 0.03


def pool_lock(path: Place) -> AbstractContextManager[object]:
    """Return what holds a pool for writing, on a disk or on an object store.

    Raises:
        PoolLockedError: another run holds it; the message names process, machine and command.
    """
    return ObjectLock(path) if isinstance(path, ObjectPath) else PoolLock(path)


class PoolLock:
    """Hold a pool for writing while the block runs.

    The kernel frees the lock when its holder dies, however it dies, so a dead holder's lock is
    taken over at once, and what it left half-written is removed. A holder on another machine is
    believed until its file is removed, since not every shared file system carries locks across
    machines. The file names process, machine and command, its secrets taken out.

    Raises:
        PoolLockedError: another run holds it; the message names process, machine and command.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> PoolLock:
        refuse_links(self.path.parent.parent)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while self._descriptor is None:
                self._descriptor = self._opened()
        except PoolLockedError:
            raise
        except OSError as error:
            raise _no_access(self.path, error) from error
        _remove_content(self.path.with_name("staging"))
        return self

    def _opened(self) -> int | None:
        """Return a descriptor that holds the lock; none where its file went away meanwhile."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take(descriptor)
            if _is_at(self.path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _take(self, descriptor: int) -> None:
        holder = _read_holder(descriptor)
        try:
            _lock(descriptor)
        except BlockingIOError:
            raise locked(self.path, holder) from None
        if not is_of_here(holder):
            raise locked(self.path, holder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(myself()).encode(), 0)

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def refuse_held(path: Place) -> None:
    """Look whether another run holds a lock; it is not taken.

    Raises:
        PoolLockedError: as `PoolLock`.
        OutputError: the lock cannot be read.
    """
    if isinstance(path, ObjectPath):
        found = holder_of(path)
        if found is not None:
            raise locked(path, found.said, found.path)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _no_access(path, error) from error
    try:
        holder = _read_holder(descriptor)
        if not holder:
            return  # given back in order
        if not is_of_here(holder):
            raise locked(path, holder)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a dead holder has let go of it
    except PoolLockedError:
        raise
    except BlockingIOError:
        raise locked(path, holder) from None
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the kernel's lock; who only looks at it has it for a moment, so once is not enough."""
    for left in reversed(range(_NUM_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_RETRY_S)


def _is_at(path: Path, descriptor: int) -> bool:
    """Tell whether a file is still the one that others find: people are told to delete it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def refuse_unwritable(path: Place) -> None:
    """Look whether a lock could be taken, as far as permissions tell; nothing is written.

    Raises:
        OutputError: as `PoolLock`.
    """
    if isinstance(path, ObjectPath):
        return  # nothing tells but writing
    found = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not os.access(found, os.W_OK):
        is_fixed = os.statvfs(found).f_flag & os.ST_RDONLY
        code = errno.EROFS if is_fixed else errno.EACCES
        raise _no_access(path, OSError(code, os.strerror(code)))


def _no_access(path: Path, error: OSError) -> OutputError:
    step = "make its folder writable, or copy the pool to a place that is"
    if error.errno in _NO_LOCKS:
        step = "put the pool on a file system that has locks"
    return OutputError(
        "cannot write to the pool",
        where=str(path),
        why=reason(error),
        next_step=advice(error, step),
    )


def _read_holder(descriptor: int) -> dict[str, str]:
    return parsed_holder(os.pread(descriptor, 4096, 0))


def _remove_content(folder: Path) -> None:
    """Remove what dead runs left; nobody else writes there while the lock is held."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
