"""One writer at a time on an object store, which has neither locks nor conditional puts.

Each run puts an object of its own into the folder of the lock, and holds the pool only if a listing
after that shows no other. Of two runs that begin together, the one that lists last sees the other:
that never both hold it rests on listings that show what was put before, as stores promise.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from bon.durable import has_ended
from bon.errors import OutputError, SystemFaultError
from bon.holders import locked, myself, parsed_holder
from bon.object_store import ObjectPath

__all__ = ["Holder", "ObjectLock", "holder_of"]

_NUM_TRIES = 4
_LONGEST_PAUSE_S = 2.0
_UNKNOWN = "?"


class Holder(NamedTuple):
    """A run that holds a lock, and the object that says so."""

    path: ObjectPath
    said: dict[str, str]


class ObjectLock:
    """Hold a pool or a folder on an object store for writing while the block runs.

    What a dead process of this machine left is removed; the word of another machine, and of this
    one before it was started again, is believed until its object is deleted.

    Raises:
        PoolLockedError: another run holds it; the message names process, machine and command.
        OutputError: nothing can be written there.
    """

    def __init__(self, path: ObjectPath) -> None:
        self.path = path
        self._ours = path / f"{secrets.token_hex(8)}.json"

    def __enter__(self) -> ObjectLock:
        for left in reversed(range(_NUM_TRIES)):
            other = holder_of(self.path)
            if other is not None:
                break
            try:
                self._put()
                other = self._other()
            except BaseException:
                self._ours.unlink(missing_ok=True)
                raise
            if other is None:
                return self
            self._ours.unlink(missing_ok=True)  # both began at once; one of them may go on
            if left:
                time.sleep(random.uniform(0.1, _LONGEST_PAUSE_S))
        assert other is not None
        raise locked(self.path, other.said, other.path)

    def __exit__(self, *_: object) -> None:
        self._ours.unlink(missing_ok=True)

    def _put(self) -> None:
        try:
            self._ours.write_text(json.dumps({**myself(), **_life()}))
        except SystemFaultError as error:
            raise OutputError(
                "cannot write to this place",
                where=error.where,
                why=error.why,
                next_step=error.next_step,
            ) from error

    def _other(self) -> Holder | None:
        return holder_of(self.path, besides=self._ours)


def holder_of(path: ObjectPath, besides: ObjectPath | None = None) -> Holder | None:
    """Return a run that holds a lock, if any; what dead processes left is removed."""
    try:
        found = sorted(one for one in path.iterdir() if one.suffix == ".json" and one != besides)
    except FileNotFoundError:
        return None
    for one in found:
        try:
            said = parsed_holder(one.read_bytes())
        except FileNotFoundError:
            continue  # given back meanwhile
        if not _is_dead(said):
            return Holder(one, said)
        one.unlink(missing_ok=True)
    return None


def _is_dead(said: dict[str, str]) -> bool:
    """Tell whether a holder's process has surely ended: another machine's pids say nothing."""
    here, pid = _life(), said.get("pid", "")
    if not here or said.get("machine") != here["machine"] or not pid.isdigit():
        return False
    if has_ended(int(pid)):
        return True
    # A machine may hide other people's processes; then only the kernel's word counts.
    known = {_started(int(pid)), said.get("started")} - {None, _UNKNOWN}
    return len(known) == 2


def _life() -> dict[str, str]:
    """Name this start of this machine (its container), and when this process began."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return {}
    pid = int(myself()["pid"])
    return {"machine": f"{boot} {space}", "started": _started(pid) or _UNKNOWN}


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since the machine did; none where there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return line.rpartition(")")[2].split()[19]
