"""A folder that an export replaces as a whole: staged inside it, then moved into place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bon.durable import replace_file
from bon.errors import BonError, OutputError

__all__ = ["MARKER", "read_marker", "staged_folder"]

MARKER = ".bon-export.json"
"""File that says which names in a folder an export made, and so may replace."""


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to; when the block ends well, all in it moves into `folder`.

    What an earlier export made there is taken away, what people added stays, and a name that
    people took is left to them. When the block fails, nothing has changed.

    Raises:
        OutputError: the disk is full, the folder read-only, …
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    staging = folder / f"{MARKER}.{os.getpid()}.staging"
    try:
        for stale in folder.glob(f"{MARKER}.*.staging"):
            process = Path("/proc", stale.name.split(".")[-2])
            if not process.exists() and Path("/proc/self").exists():
                shutil.rmtree(stale, ignore_errors=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        _move_in(folder, staging)
    except BonError:
        raise  # several of them are OSErrors too, and none of those is about this folder
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder.name}",
            where=str(folder),
            why=error.strerror or str(error),
            next_step="make room or choose another place, and run the same command again",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for path in created:
            with suppress(OSError):  # not empty: the export is in it
                path.rmdir()


def read_marker(folder: Path) -> list[str] | None:
    """Return the names that an earlier export made in a folder, none where there was no export."""
    try:
        made = json.loads((folder / MARKER).read_text(encoding="utf-8"))["made"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    names = made if isinstance(made, list) else []
    return [name for name in names if isinstance(name, str) and name == Path(name).name]


def _move_in(folder: Path, staging: Path) -> None:
    before = read_marker(folder) or []
    new = [p.name for p in staging.iterdir() if p.name in before or not (folder / p.name).exists()]
    for path in [*staging.rglob("*"), staging]:
        _sync(path)
    old = staging / "old"
    old.mkdir()
    # Whoever is killed between these lines leaves a folder that is still known as an export's.
    _mark(folder, [*before, *new], old)
    for name in {*before, *new}:
        if (folder / name).exists():
            (folder / name).replace(old / name)
        if name in new:
            (staging / name).replace(folder / name)
    _mark(folder, new, old)
    _sync(folder)


def _mark(folder: Path, made: Sequence[str], staging: Path) -> None:
    with replace_file(folder / MARKER, staging) as path:
        path.write_text(json.dumps({"made": sorted(set(made))}) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
