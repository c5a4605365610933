"""A folder on an object store that an export replaces: written on this machine, then put."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bon.durable import scratch_folder
from bon.errors import OutputError, PoolLockedError, SystemFaultError
from bon.exports.folder import MARKER, read_marker, staged_folder
from bon.object_lock import ObjectLock
from bon.object_store import ObjectPath
from bon.places import Place

__all__ = ["replaced_folder"]

_CARD = "README.md"
_LOCK = f"{MARKER}.lock"
"""Folder of the word of whoever puts files; two at once would delete each other's."""


def replaced_folder(folder: Place) -> AbstractContextManager[Path]:
    """Give an empty folder to write to; when the block ends well, all in it becomes `folder`'s.

    What an earlier export made there is taken away, what people added stays, and a name that people
    took is left to them. On a disk all that happens at once. An object store has no such thing:
    there, the dataset card is taken away first and comes last but one; the last is the marker,
    which says until then that the folder is not complete.

    Raises:
        OutputError: the disk is full, the store refuses, another run is writing there, …
    """
    return _put_folder(folder) if isinstance(folder, ObjectPath) else staged_folder(folder)


@contextmanager
def _put_folder(remote: ObjectPath) -> Iterator[Path]:
    with scratch_folder(remote) as scratch:
        yield scratch
        files = sorted(path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file())
        try:
            with ObjectLock(remote / _LOCK):
                _replace(remote, scratch, files)
        except PoolLockedError as error:
            raise OutputError(
                f"another run is writing into {remote.name}",
                where=str(remote),
                why=error.why,
                next_step=f"{error.next_step}; then run the same command again",
            ) from error
        except SystemFaultError as error:
            raise OutputError(
                f"cannot write to {remote.name}",
                where=error.where,
                why=error.why,
                next_step=error.next_step,
            ) from error


def _replace(remote: ObjectPath, scratch: Path, files: list[Path]) -> None:
    before = read_marker(remote) or []
    tops = {path.parts[0] for path in files}
    ours = {top for top in tops if top in before or not (remote / top).holds_files()}
    _mark(remote, ours.union(before), is_complete=False)
    if _CARD in before:
        (remote / _CARD).unlink(missing_ok=True)
    new = [path for path in files if path.parts[0] in ours]
    for path in sorted(new, key=lambda path: path.name == _CARD):
        (remote / path).write_file(scratch / path)
    stay = {remote / path for path in new}
    for top in before:
        for there in set((remote / top).walk()) - stay:
            there.unlink(missing_ok=True)
    _mark(remote, ours, is_complete=True)


def _mark(folder: ObjectPath, made: Iterable[str], *, is_complete: bool) -> None:
    said = {"made": sorted(made), **({} if is_complete else {"is_complete": False})}
    (folder / MARKER).write_text(json.dumps(said) + "\n")
