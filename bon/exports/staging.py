"""Staging folders that their run holds by a lock: one whose lock is free was left by a dead run."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bon.durable import is_of_the_dead, process_tag

__all__ = ["hold", "new_staging", "staging_folders"]

_SUFFIX = ".staging"
_LOCK = "lock"
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def staging_folders(folder: Path, prefix: str) -> list[Path]:
    """Return the staging folders in a folder, of runs that live and of dead ones."""
    return sorted(folder.glob(f"{prefix}.*{_SUFFIX}"))


@contextmanager
def new_staging(folder: Path, prefix: str) -> Iterator[Path]:
    """Make a staging folder in `folder` and hold it while the block runs; the block removes it."""
    while True:
        staging = folder / f"{prefix}.{secrets.token_hex(4)}.{process_tag()}{_SUFFIX}"
        staging.mkdir(parents=True)
        with hold(staging) as is_held:
            if is_held:  # else another run found it in the moment before the lock was taken
                yield staging
                return


@contextmanager
def hold(staging: Path) -> Iterator[bool]:
    """Hold a staging folder while the block runs, and say whether that is so.

    It is not where its run lives, or the folder is gone. The kernel frees the lock of a run that
    died, on whichever machine. Where the file system has no locks, a run of this machine is known
    by its process, and nobody takes what is another machine's.
    """
    try:
        descriptor = os.open(staging / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileNotFoundError, PermissionError):  # gone meanwhile, or another person's
        yield False
        return
    try:
        yield _is_free(staging, descriptor) and _is_at(staging / _LOCK, descriptor)
    finally:
        os.close(descriptor)


def _is_free(staging: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        tag = staging.name.split(".")[-2]
        return tag == process_tag() or is_of_the_dead(tag)
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Tell whether the lock is still the one that others find: its run may have just ended."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
