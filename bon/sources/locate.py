"""From what a person typed to the files it means, in reading order."""

from __future__ import annotations

import difflib
import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bon.errors import InputError, InputNotFoundError

__all__ = ["COMPRESSIONS", "FORMATS", "InputFile", "find_files", "refuse_undecodable"]

FORMATS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_KNOWN = f"{', '.join(FORMATS)}; all but .parquet may end in {' or '.join(COMPRESSIONS)} too"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:.+)?")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, what it holds and how it is packed."""

    path: Path
    format: str
    """One of `FORMATS`."""
    compression: str | None
    """`gzip`, `zstd` or none."""


def find_files(source: str) -> list[InputFile] | None:
    """Return the files that `source` names, or none where it is the name of a Hub dataset.

    A file is itself; a folder is all `*.parquet` in and below it, hidden ones and pools left out;
    a pattern with `*`, `?` or `[` is the files that match it. Folders and patterns are sorted by
    path. What is not on disk and looks like `org/name` or `org/name:config` is a Hub dataset,
    unless it ends like an input file or `org` is a folder here.

    Raises:
        InputNotFoundError: there is no such file, folder or match.
        InputError: a file's format is not known by its name, a folder has nothing to read, or is
            closed to you, or a link among the files leads nowhere: rows would be missing.
    """
    path = Path(source)
    if source.strip() and _exists(path):
        return _files_in(path) if path.is_dir() else [_known_file(path)]
    if any(character in source for character in "*?["):
        return _files_matching(source)
    if _HUB_NAME.fullmatch(source) and _format_of(path) is None and not _exists(path.parent):
        return None
    raise _not_found(source, path)


def refuse_undecodable(name: str) -> None:
    """Refuse a name of a file or folder that is not UTF-8: Arrow cannot open such a file.

    Raises:
        InputError: with the name, its foreign bytes spelled out.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            "a name that is not UTF-8 cannot be used",
            where=os.fsencode(name).decode("utf-8", "backslashreplace"),
            why="pools, dataset cards and Arrow know only names in UTF-8",
            next_step="rename it, or lead to it with a symbolic link that has another name",
        ) from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long or has a NUL in it
        return False


def _files_in(folder: Path) -> list[InputFile]:
    found: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=_refuse_closed):
        folders[:] = [] if "pool.json" in names else [one for one in folders if one[0] != "."]
        if "pool.json" not in names:
            paths = (Path(root, name) for name in names if name[0] != ".")
            found += [path for path in paths if path.suffix == ".parquet" and _is_readable(path)]
    visible = sorted(found)
    if not visible:
        raise InputError(
            f"no .parquet files in the folder {folder}",
            where=str(folder.resolve()),
            why="a folder is read as the Parquet files in and below it",
            next_step=f"for other formats give a quoted pattern, such as '{folder}/*.jsonl'",
        )
    return [_known_file(path) for path in visible]


def _refuse_closed(error: OSError) -> None:
    raise InputError(
        f"cannot look into the folder {error.filename}",
        where=str(error.filename),
        why=error.strerror or str(error),
        next_step="open it to you, or name the files that you want",
    ) from None


def _is_readable(path: Path) -> bool:
    """Tell files from folders, pipes and the like; a link to nothing is an error."""
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path.name} is a link to nothing",
            where=str(path),
            why=f"it leads to {path.readlink()}, which is not there: its rows would be missing",
            next_step="fetch the file again, or remove the link",
        )
    return path.is_file()


def _files_matching(pattern: str) -> list[InputFile]:
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute one)
    paths = sorted(path for path in map(Path, matches) if _is_readable(path))
    if not paths:
        raise InputNotFoundError(
            f"no file matches {pattern}",
            where=str(Path.cwd()),
            why="the pattern matches nothing, or only folders",
            next_step="try it with ls, and keep it in quotes",
        )
    return [_known_file(path) for path in paths]


def _format_of(path: Path) -> tuple[str, str | None] | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    inner = suffixes[:-1] if compression else suffixes
    if not inner or inner[-1] not in FORMATS or (compression and inner[-1] == ".parquet"):
        return None
    return inner[-1], compression


def _known_file(path: Path) -> InputFile:
    refuse_undecodable(str(path))
    found = _format_of(path)
    if found is None:
        raise InputError(
            f"cannot tell the format of {path.name}",
            where=str(path),
            why=f"known endings: {_KNOWN}",
            next_step="rename the file to end in what it holds",
        )
    return InputFile(path, *found)


def _not_found(source: str, path: Path) -> InputNotFoundError:
    folder = path.parent
    is_folder = _exists(folder) and folder.is_dir()
    names = [entry.name for entry in folder.iterdir()] if is_folder else []
    near = difflib.get_close_matches(path.name, names, n=3)
    hint = f"did you mean {' or '.join(str(folder / name) for name in near)}?" if near else ""
    shown = source if len(source) <= 200 else source[:200] + "…"
    if "://" in source:
        return InputNotFoundError(
            f"no such input: {shown}",
            why="an address may name a pool, which is not there; files are read from a disk",
            next_step="copy the file to this machine, or look at the spelling of the pool's name",
        )
    return InputNotFoundError(
        f"no such input: {shown}",
        where=str(folder.resolve()) if is_folder else str(Path.cwd()),
        why="the folder has no such file" if is_folder else f"there is no folder {str(folder)!r}",
        next_step=hint or "give a file, a folder, a quoted pattern or a Hub dataset as org/name",
    )
