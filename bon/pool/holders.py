"""Who holds a pool for writing: how a holder is named, and the refusal that names it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

from bon.errors import PoolLockedError
from bon.object_store import Place
from bon.redaction import redacted_command

__all__ = ["is_of_here", "locked", "myself"]

_COMMAND_CHARACTERS = 500


def myself() -> dict[str, str]:
    """Name this process, its machine and its command, without secrets."""
    command = redacted_command(["bon", *sys.argv[1:]])[:_COMMAND_CHARACTERS]
    return {"pid": str(os.getpid()), "host": socket.gethostname(), "command": command}


def is_of_here(holder: Mapping[str, str]) -> bool:
    """Tell whether a holder is of this machine."""
    return holder.get("host", socket.gethostname()) == socket.gethostname()


def locked(
    path: Place, holder: Mapping[str, str], to_delete: Place | None = None
) -> PoolLockedError:
    """Return the refusal of a pool whose lock at `path` another process holds.

    `to_delete` is what keeps it held if that process's machine is gone, by default the lock.
    """
    said = {"pid": "?", "host": "?", "command": "?", **holder}
    gone = f"; if that machine is gone, delete {to_delete or path}"
    return PoolLockedError(
        "another run is writing to this pool",
        where=str(path.parent.parent),
        why="held by process {pid} on {host}: {command}".format_map(said),
        next_step="wait for it, or stop it" + ("" if is_of_here(holder) else gone),
    )
