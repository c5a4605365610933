"""Files that exist only when they are complete: staged, fsynced, then renamed into place."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path

from bon.errors import BonError, OutputError, SystemFaultError
from bon.object_store import ObjectPath
from bon.places import Place
from bon.system_faults import advice, reason

__all__ = [
    "PARQUET_OPTIONS",
    "has_ended",
    "is_of_the_dead",
    "local_stand_in",
    "process_tag",
    "remove_tree",
    "replace_file",
    "scratch_folder",
    "sync",
]

PARQUET_OPTIONS = {"compression": "zstd", "write_page_checksum": True}
"""How every Parquet file of `bon` is written."""
_ANYWHERE = "make room or choose another place"
_IDS = "/proc/self/ns/pid"
_HOST_CHARACTERS = 8
_LONG_NAME_BYTES = 160
"""Names of more bytes are cut for staging: with what is added they would be too long."""


def process_tag(pid: int | None = None) -> str:
    """Return what names a process, by default this one, in names of files.

    Containers may have the name of their machine or of each other, and the same process ids: so it
    names the host, then the one place where process ids mean these processes.
    """
    names = socket.gethostname(), _place_of_ids()
    host, here = (hashlib.sha256(name.encode()).hexdigest() for name in names)
    return f"{host[:_HOST_CHARACTERS]}{here[:4]}-{os.getpid() if pid is None else pid}"


@cache
def _place_of_ids() -> str:
    """Name this start of the machine, and the container in which process ids are known."""
    place = ""
    with suppress(OSError):  # another system than Linux
        place = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path(_IDS).readlink())
    return place


def is_of_the_dead(tag: str) -> bool:
    """Tell whether a tag's process has surely ended: of one that is not here nobody knows."""
    pid = tag.rpartition("-")[2]
    if not pid.isdigit() or tag != process_tag(int(pid)):
        return False
    return has_ended(int(pid))


def has_ended(pid: int) -> bool:
    """Tell whether there is no such process; `/proc` may hide those of other people."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # another person's
    return False


def local_stand_in(where: Place) -> Path:
    """Return a place, or for one on an object store the path that stands for it on this machine.

    It is among this user's temporary files, and the same one every time.
    """
    if not isinstance(where, ObjectPath):
        return where
    digest = hashlib.sha256(str(where).encode()).hexdigest()[:12]
    return _temporary_folder() / f"{digest}-{where.name}"


def _temporary_folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"bon-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # somebody's trap
        return Path(tempfile.mkdtemp(prefix="bon-"))
    return folder


def remove_tree(folder: Place) -> None:
    """Remove a folder with all that is in it, where it is there."""
    if isinstance(folder, ObjectPath):
        folder.remove_tree()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def replace_file(final: Place, staging: Place) -> AbstractContextManager[Path]:
    """Give a path to write to; when the block ends well, it becomes `final` at once and for good.

    `staging` is a folder on the same file system. The name in it holds machine and process, so two
    processes that redo the same part never write to the same file; what a dead process of this
    machine left behind is removed. What is for an object store is written on this machine and then
    put as a whole.

    Raises:
        OutputError: the disk is full, the folder read-only, `final` is a folder, …
    """
    if isinstance(final, ObjectPath):
        return _put_file(final)
    assert isinstance(staging, Path)
    return _renamed_file(final, staging)


@contextmanager
def _put_file(final: ObjectPath) -> Iterator[Path]:
    local = local_stand_in(final)
    with _renamed_file(local, local.parent, is_kept=False) as temporary:
        yield temporary
        try:
            final.write_file(temporary)
        except SystemFaultError as error:
            raise OutputError(
                f"cannot write {final.name}",
                where=str(final),
                why=error.why,
                next_step=error.next_step,
            ) from error


@contextmanager
def _renamed_file(final: Path, staging: Path, *, is_kept: bool = True) -> Iterator[Path]:
    name = _staged_name(final.name)
    temporary = staging / f".{name}.{process_tag()}.tmp"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        _remove_stale(name, staging)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _held(temporary):
                yield temporary
                if is_kept:
                    sync(temporary)
                    temporary.replace(final)
                    sync(final.parent)
                else:
                    temporary.unlink()
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except BonError:
        raise  # several of them are OSErrors too, and none of those is about this file
    except OSError as error:
        raise OutputError(
            f"cannot write {final.name}",
            where=str(final),
            why=reason(error),
            next_step=f"{advice(error, _ANYWHERE)}; what is committed stays, and the same command "
            "goes on from there",
        ) from error


@contextmanager
def scratch_folder(beside: Place) -> Iterator[Path]:
    """Give a folder on the file system of `beside` that is gone when the block ends.

    Where nothing may be written beside it (a mounted folder, an object store), it is among the
    temporary files.
    What a dead process left behind is removed.

    Raises:
        OutputError: there is no place for it.
    """
    final = local_stand_in(beside).absolute()
    folder = _writable(final.parent)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    name = f"{_staged_name(final.name)}.scratch"
    scratch = folder / f".{name}.{process_tag()}.tmp"
    try:
        try:
            _remove_stale(name, folder)
            shutil.rmtree(scratch, ignore_errors=True)  # of a dead one with this process's id
            scratch.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"cannot write beside {final.name}",
                where=str(folder),
                why=reason(error),
                next_step=f"{advice(error, _ANYWHERE)}, and run the same command again",
            ) from error
        with _held(scratch):
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


def _staged_name(name: str) -> str:
    """Return a name short enough to be added to, another one for every other name."""
    content = os.fsencode(name)
    if len(content) <= _LONG_NAME_BYTES:
        return name
    start = content[:_LONG_NAME_BYTES].decode("utf-8", "ignore")
    return f"{start}-{hashlib.sha256(content).hexdigest()[:16]}"


def _remove_stale(name: str, staging: Path) -> None:
    for path in staging.glob(f".{glob.escape(name)}.*.tmp"):
        if _is_left(path, path.name.split(".")[-2]):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_left(path: Path, tag: str) -> bool:
    """Tell whether whoever wrote something has surely ended.

    A process id says so only where it was given. Of another container of this host's name, or of
    the time before the machine was started again, the lock tells, where there are locks.
    """
    mine = process_tag()
    if tag.rpartition("-")[0] == mine.rpartition("-")[0]:
        return is_of_the_dead(tag)
    # of older versions' tags, which are shorter, nothing is locked
    is_of_host = tag[:_HOST_CHARACTERS] == mine[:_HOST_CHARACTERS]
    return is_of_host and len(tag.rpartition("-")[0]) > _HOST_CHARACTERS and _is_free(path)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock, which ends with this process, on a file or folder that is being written."""
    how = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, how, 0o666)
    try:
        with suppress(OSError):  # there are no locks, or none of folders: nobody takes it for free
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def sync(path: Path) -> None:
    """Have a file or folder written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
