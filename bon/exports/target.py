"""Where a set is written to: one file (a second one for a second split), or a Hub folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bon.errors import OutputError, SettingsError
from bon.exports.dataset_info import read_dataset_info
from bon.exports.files import SUFFIXES, suffix_of
from bon.exports.folder import MARKER, read_marker
from bon.exports.formats import Format
from bon.object_store import ObjectPath
from bon.places import Place, place

__all__ = ["Target", "check_output", "real_file", "target_of"]

_SHARD = re.compile(r".+-\d{5}-of-\d{5}\..+")
_HARMLESS = frozenset({".git", ".gitattributes", ".huggingface", ".cache"})
"""What a fresh clone of an empty Hub repository holds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows of each split go."""

    path: Place
    is_folder: bool
    suffix: str
    has_split_folders: bool
    """LLaMA-Factory reads every file of a folder, so a split must have one of its own."""

    @property
    def name(self) -> str:
        """Name of the set."""
        name = self.path.absolute().name
        return name if self.is_folder else name.removesuffix(self.suffix)

    def file(self, split: str, splits: Sequence[str]) -> Place:
        """Return the single file of a split: the first has the name that was asked for."""
        if split == splits[0]:
            return self.path
        return self.path.with_name(f"{self.name}.{split}{self.suffix}")

    def places(self, splits: Sequence[str]) -> list[Place]:
        """Return every place that a set takes: its folder, or a file for each split."""
        return [self.path] if self.is_folder else [self.file(split, splits) for split in splits]

    def subfolder(self, split: str) -> str:
        """Return the name of the folder that holds the split's shards."""
        return split if self.has_split_folders else "data"

    def entry_name(self, split: str, splits: Sequence[str]) -> str:
        """Return the name of a split in `dataset_info.json`."""
        return self.name if split == splits[0] else f"{self.name}_{split}"


def target_of(output: Place | str, format: Format) -> Target:
    """Return what the output is: an existing folder, a trailing slash and no suffix mean a folder.

    Raises:
        SettingsError: a file type that is unknown, or that the trainer does not read.
    """
    path = place(output)
    is_folder = path.is_dir() or str(output).endswith("/") or not path.suffix
    if is_folder:
        return Target(path, True, format.suffixes[0], format.entry is not None)
    suffix = suffix_of(path)
    allowed = ", ".join(format.suffixes)
    if suffix is None:
        raise SettingsError(
            f"cannot tell the file type of {path.name!r}",
            why="it ends in none of " + ", ".join(SUFFIXES),
            next_step=f"give -o a name in one of {allowed}, or a folder: a name without a dot, or "
            "one that is there",
        )
    if suffix not in format.suffixes:
        raise SettingsError(
            f"{format.trainer} does not read {suffix}",
            where=str(path),
            next_step=f"give -o a name in one of {allowed}, or a folder",
        )
    return Target(path, False, suffix, False)


def check_output(output: Place | str, format: Format, splits: Sequence[str] = ("train",)) -> None:
    """Find before any engine work what would stop the writing.

    Raises:
        SettingsError: a file type that is unknown, or that the trainer does not read.
        OutputError: the place is taken by other things, or nothing can be written there.
    """
    target = target_of(output, format)
    for path in target.places(splits):
        _check_kind(path, target)
        parent = path if target.is_folder else real_file(path).absolute().parent
        _check_parent(parent, path, format)
    if target.is_folder and target.path.is_dir():
        _check_folder(target.path, {target.subfolder(split) for split in splits})
    elif not target.is_folder and format.entry is not None:
        read_dataset_info(target.path.absolute().parent)


def real_file(path: Place) -> Place:
    """Return a path, or the file that it leads to as a symbolic link, which need not be there.

    Raises:
        OutputError: the link leads to itself.
    """
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop
        raise OutputError(
            f"{path.name} cannot be written to",
            where=str(path),
            why="a symbolic link that leads to itself",
            next_step="mend or remove the link, or give -o another place",
        ) from error


def _check_kind(path: Place, target: Target) -> None:
    if path.is_dir() and not target.is_folder:
        raise OutputError(
            f"{path.name} is a folder, not a file",
            where=str(path),
            next_step="give -o another name: the second split's file is named after it",
        )
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OutputError(
            f"{path.name} is no regular file",
            where=str(path),
            why="a device or a pipe cannot be replaced at once by a complete file",
            next_step="give -o the name of a file or folder",
        )


def _check_parent(parent: Place, path: Place, format: Format) -> None:
    if not isinstance(parent, Path):
        _check_bucket(parent)
        return
    while not parent.exists():
        parent = parent.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            f"{parent.name} is a file, not a folder",
            where=str(path),
            next_step="give -o another place, or a file name with one of the suffixes "
            + ", ".join(format.suffixes),
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            "cannot write into this folder",
            where=str(parent),
            why="no permission",
            next_step="give -o another place, or make the folder writable",
        )


def _check_bucket(folder: ObjectPath) -> None:
    with suppress(FileNotFoundError):
        next(iter(folder.iterdir()), None)  # whether the store lets it be listed


def _is_there(path: Place) -> bool:
    return path.holds_files() if isinstance(path, ObjectPath) else True


def _check_folder(folder: Place, wanted: set[str]) -> None:
    made = read_marker(folder)
    names = {path.name for path in folder.iterdir()}
    if made is None:
        # What a killed first export left behind is no one's work.
        foreign = {name for name in names - _HARMLESS if not name.startswith(MARKER)}
    else:
        foreign = (names & wanted) - set(made)
        for name in made:
            inside = (folder / name).iterdir() if (folder / name).is_dir() else ()
            foreign |= {f"{name}/{path.name}" for path in inside if not _SHARD.fullmatch(path.name)}
    found = sorted(name for name in foreign if _is_there(folder / name))
    if found:
        raise OutputError(
            "the output folder holds other things",
            where=str(folder),
            why="found " + ", ".join(found[:3]) + (" …" if len(found) > 3 else ""),
            next_step="give -o a new folder, an empty one, or one that an earlier export made",
        )
