"""A folder that an export replaces as a whole: staged inside it, then moved into place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from bon.durable import replace_file, sync
from bon.errors import BonError, OutputError
from bon.exports.staging import hold, new_staging, staging_folders
from bon.places import Place
from bon.system_faults import advice, reason

__all__ = ["MARKER", "read_marker", "staged_folder"]

MARKER = ".bon-export.json"
"""File that says which names in a folder an export made, and so may replace.

While names are moved, it also says by which staging folder and from what to what: with that,
whoever comes next undoes what a killed run did by half. Replacing it makes the new export valid.
"""
_NEW = "new"
"""Folder in the staging folder for what is written."""
_OLD = "old"
"""Folder in the staging folder for what is replaced, until the new export is valid."""


class _Move(NamedTuple):
    """A replacement that is not complete."""

    staging: str
    before: list[str] | None
    """Names that the earlier export made, none where there was none."""
    new: list[str]


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to; when the block ends well, all in it moves into `folder`.

    What an earlier export made there is taken away, what people added stays, and a name that
    people took is left to them. When the block or a move fails, nothing has changed; a run that
    is killed between two moves is undone by the next, on whichever machine.

    Raises:
        OutputError: the disk is full, the folder read-only, …
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for stale in staging_folders(folder, MARKER):
            with hold(stale) as is_abandoned:
                if is_abandoned:
                    _undo(folder, stale)
                    _remove(folder, stale)
        with new_staging(folder, MARKER) as staging:
            try:
                (staging / _NEW).mkdir()
                yield staging / _NEW
                try:
                    _move_in(folder, staging)
                except BaseException:
                    _undo(folder, staging)
                    raise
            finally:
                _remove(folder, staging)
    except BonError:
        raise  # several of them are OSErrors too, and none of those is about this folder
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder.name}",
            where=str(folder),
            why=reason(error),
            next_step=f"{advice(error, 'make room or choose another place')}, and run the same "
            "command again",
        ) from error
    finally:
        for path in created:
            with suppress(OSError):  # not empty: the export is in it
                path.rmdir()


def read_marker(folder: Place) -> list[str] | None:
    """Return the names that an earlier export made in a folder, none where there was no export."""
    said = _marker(folder)
    return _names(said["made"]) if "made" in said else None


def _move_in(folder: Path, staging: Path) -> None:
    move = _move_of(folder)
    if move is not None and (folder / move.staging).exists():
        raise OutputError(
            f"another run is writing into {folder.name}",
            where=str(folder / move.staging),
            next_step="run the same command again when it has ended",
        )
    before = read_marker(folder)
    ours = before or []
    staged = staging / _NEW
    new = [p.name for p in staged.iterdir() if p.name in ours or not (folder / p.name).exists()]
    for path in [*staged.rglob("*"), staged, staging]:
        sync(path)
    (staging / _OLD).mkdir()
    _mark(folder, [*ours, *new], staging, _Move(staging.name, before, new))
    for name in sorted({*ours, *new}):
        if (folder / name).exists():
            (folder / name).replace(staging / _OLD / name)
        if name in new:
            (staged / name).replace(folder / name)
    sync(folder)
    _mark(folder, new, staging)


def _undo(folder: Path, staging: Path) -> None:
    """Put back what there was, where this staging folder's moves came to no end."""
    move = _move_of(folder)
    if move is None or move.staging != staging.name:
        return
    staged = staging / _NEW
    for name in {*(move.before or []), *move.new}:
        # In this order it can itself be killed and done again: what is staged still, or again, was
        # not moved in.
        if name in move.new and not (staged / name).exists() and (folder / name).exists():
            (folder / name).replace(staged / name)
        if (staging / _OLD / name).exists():
            (staging / _OLD / name).replace(folder / name)
    sync(folder)
    if move.before is None:
        (folder / MARKER).unlink()
    else:
        _mark(folder, move.before, staging)


def _remove(folder: Path, staging: Path) -> None:
    """Remove a staging folder, unless it holds what could not be undone."""
    move = _move_of(folder)
    if move is None or move.staging != staging.name:
        shutil.rmtree(staging, ignore_errors=True)


def _move_of(folder: Path) -> _Move | None:
    match _marker(folder).get("move"):
        case {"staging": str(staging), "before": before, "new": list(new)}:
            return _Move(staging, None if before is None else _names(before), _names(new))
    return None


def _names(said: Any) -> list[str]:
    """Return the names among what a marker says; a path could lead out of the folder."""
    names = said if isinstance(said, list) else []
    return [n for n in names if isinstance(n, str) and n == Path(n).name and n not in ("", "..")]


def _marker(folder: Place) -> dict[str, Any]:
    try:
        said = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return {}  # where the system or the store refuses, nobody knows what was made there
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _mark(folder: Path, made: Sequence[str], staging: Path, move: _Move | None = None) -> None:
    said: dict[str, Any] = {"made": sorted(set(made))}
    if move is not None:
        said["move"] = move._asdict()
    with replace_file(folder / MARKER, staging) as path:
        path.write_text(json.dumps(said) + "\n", encoding="utf-8")
