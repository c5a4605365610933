"""Which processes there are, as Linux tells."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def children(pid: int) -> set[int]:
    """The processes that one has started and that have not ended."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(parent) == pid and state != "Z":
            found.add(int(stat.parent.name))
    return found


def are_gone(pids: Iterable[int], within_s: float = 15.0) -> bool:
    """Wait until processes have ended."""
    end_s = time.monotonic() + within_s
    left = set(pids)
    while left and time.monotonic() < end_s:
        left = {pid for pid in left if _lives(pid)}
        time.sleep(0.05)
    return not left


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
