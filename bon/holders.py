"""Who holds a pool or a set for writing: how a holder is named, and the refusal that names it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping

from bon.errors import PoolLockedError
from bon.object_store import ObjectPath
from bon.places import Place
from bon.redaction import redacted_command

__all__ = ["is_of_here", "locked", "myself", "parsed_holder"]

_COMMAND_CHARACTERS = 500


def myself() -> dict[str, str]:
    """Name this process, its machine and its command, without secrets."""
    command = redacted_command(["bon", *sys.argv[1:]])[:_COMMAND_CHARACTERS]
    return {"pid": str(os.getpid()), "host": socket.gethostname(), "command": command}


def parsed_holder(content: bytes) -> dict[str, str]:
    """Return the name in a lock; what is no name is as good as none."""
    try:
        said = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    is_name = isinstance(said, dict) and all(isinstance(one, str) for one in said.values())
    return said if is_name else {}


def is_of_here(holder: Mapping[str, str]) -> bool:
    """Tell whether a holder is of this machine."""
    return holder.get("host", socket.gethostname()) == socket.gethostname()


def locked(
    path: Place, holder: Mapping[str, str], word: ObjectPath | None = None
) -> PoolLockedError:
    """Return the refusal of a pool whose lock at `path` another process holds.

    `word` is the object that keeps it held on a store, where no kernel takes a dead one's lock
    back: this machine's own may be of the time before it was started again.
    """
    said = {"pid": "?", "host": "?", "command": "?", **holder}
    is_here = is_of_here(holder)
    gone = f"; if that {'process' if is_here else 'machine'} is gone, delete {word or path}"
    return PoolLockedError(
        "another run is writing to this pool",
        where=str(path.parent.parent),
        why="held by process {pid} on {host}: {command}".format_map(said),
        next_step="wait for it, or stop it" + ("" if is_here and word is None else gone),
    )
