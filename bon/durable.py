"""Files that exist only when they are complete: staged, fsynced, then renamed into place."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bon.errors import BonError, OutputError

__all__ = [
    "PARQUET_OPTIONS",
    "is_of_the_dead",
    "process_tag",
    "replace_file",
    "scratch_folder",
]

PARQUET_OPTIONS = {"compression": "zstd", "write_page_checksum": True}
"""How every Parquet file of `bon` is written."""


def process_tag(pid: int | None = None) -> str:
    """Return what names a process of this machine, by default this one, in names of files."""
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    return f"{host}-{os.getpid() if pid is None else pid}"


def is_of_the_dead(tag: str) -> bool:
    """Tell whether a tag's process has surely ended: of another machine's nobody knows."""
    pid = tag.rpartition("-")[2]
    if not pid.isdigit() or tag != process_tag(int(pid)):
        return False
    return not Path("/proc", pid).exists() and Path("/proc/self").exists()


@contextmanager
def replace_file(final: Path, staging: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, it becomes `final` at once and for good.

    `staging` is a folder on the same file system. The name in it holds machine and process, so two
    processes that redo the same part never write to the same file; what a dead process of this
    machine left behind is removed.

    Raises:
        OutputError: the disk is full, the folder read-only, `final` is a folder, …
    """
    temporary = staging / f".{final.name}.{process_tag()}.tmp"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        _remove_stale(final, staging)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(final)
            _sync(final.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except BonError:
        raise  # several of them are OSErrors too, and none of those is about this file
    except OSError as error:
        raise OutputError(
            f"cannot write {final.name}",
            where=str(final),
            why=error.strerror or str(error),
            next_step="make room or choose another place; what is committed stays, and the same "
            "command goes on from there",
        ) from error


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Give a folder on the file system of `beside` that is gone when the block ends.

    Where nothing may be written beside it (a mounted folder), it is among the temporary files.
    What a dead process left behind is removed.

    Raises:
        OutputError: there is no place for it.
    """
    final = beside.absolute()
    folder = _writable(final.parent)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    scratch = folder / f".{final.name}.scratch.{process_tag()}.tmp"
    try:
        try:
            _remove_stale(folder / f"{final.name}.scratch", folder)
            shutil.rmtree(scratch, ignore_errors=True)  # of a dead one with this process's id
            scratch.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"cannot write beside {final.name}",
                where=str(folder),
                why=error.strerror or str(error),
                next_step="make room or choose another place for -o",
            ) from error
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for path in created:
            with suppress(OSError):  # not empty: the result is in it
                path.rmdir()


def _writable(folder: Path) -> Path:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    is_locked = there.is_dir() and not os.access(there, os.W_OK | os.X_OK)
    return Path(tempfile.gettempdir()) if is_locked else folder


def _remove_stale(final: Path, staging: Path) -> None:
    for path in staging.glob(f".{glob.escape(final.name)}.*.tmp"):
        if is_of_the_dead(path.name.split(".")[-2]):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
