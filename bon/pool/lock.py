"""One writer at a time: an advisory lock whose file names its holder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from pathlib import Path

from bon.errors import OutputError, PoolLockedError

__all__ = ["PoolLock", "refuse_held"]


class PoolLock:
    """Hold a pool for writing while the block runs.

    The kernel frees the lock when its holder dies, however it dies, so a dead holder's lock is
    taken over at once. A holder on another machine is believed until its file is removed, since
    not every shared file system carries locks across machines.

    Raises:
        PoolLockedError: another run holds it; the message names process, machine and command.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> PoolLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._take(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        except PoolLockedError:
            raise
        except OSError as error:
            raise _no_access(self.path, error) from error
        self._descriptor = descriptor
        return self

    def _take(self, descriptor: int) -> None:
        holder = _read_holder(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._locked(holder) from None
        if holder.get("host", socket.gethostname()) != socket.gethostname():
            raise self._locked(holder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_myself()).encode(), 0)

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _locked(self, holder: dict[str, str]) -> PoolLockedError:
        name = "process {pid} on {host}: {command}".format_map(
            {"pid": "?", "host": "?", "command": "?", **holder}
        )
        return PoolLockedError(
            "another run is writing to this pool",
            where=str(self.path.parent.parent),
            why=f"held by {name}",
            next_step=f"wait for it, or stop it; if that machine is gone, delete {self.path}",
        )


def refuse_held(path: Path) -> None:
    """Look whether another run holds a lock; it is not taken.

    Raises:
        PoolLockedError: as `PoolLock`.
        OutputError: the lock cannot be read.
    """
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
        if holder.get("host", socket.gethostname()) != socket.gethostname():
            raise PoolLock(path)._locked(holder)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a dead holder has let go of it
    except BlockingIOError as error:
        if isinstance(error, PoolLockedError):
            raise
        raise PoolLock(path)._locked(holder) from None
    finally:
        os.close(descriptor)


def _no_access(path: Path, error: OSError) -> OutputError:
    return OutputError(
        "cannot write to the pool",
        where=str(path),
        why=error.strerror or str(error),
        next_step="make its folder writable, or copy the pool to a place that is",
    )


def _myself() -> dict[str, str]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"pid": str(os.getpid()), "host": socket.gethostname(), "command": command[:500]}


def _read_holder(descriptor: int) -> dict[str, str]:
    try:
        value = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
