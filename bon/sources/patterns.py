"""Whether a pattern for input files would match a file that is yet to be written."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["is_pattern", "would_match"]


def is_pattern(source: str) -> bool:
    """Tell whether a source names files by a pattern: it has `*`, `?` or `[`, and is no file."""
    return _has_wildcard(source) and not Path(source).exists()


def would_match(pattern: str, written: Path) -> bool:
    """Tell whether `find_files(pattern)` would find `written` (resolved) once it is there."""
    return any(
        _match(written.relative_to(folder).parts, rest)
        for folder, rest in _openings(Path(pattern).parts)
        if written.is_relative_to(folder)
    )


def _openings(parts: Sequence[str]) -> Iterator[tuple[Path, Sequence[str]]]:
    """Yield each folder, resolved, that a beginning of the pattern names, and the pattern's rest.

    Folders in the middle of a pattern may be links too, so each level has openings of its own.
    """
    first = next(i for i, part in enumerate(parts) if _has_wildcard(part))
    for cut in range(first, len(parts)):
        # Path.glob takes no absolute pattern.
        opening = str(Path(*parts[:cut]))
        folders = glob.glob(opening, recursive=True) if cut > first else [opening]  # noqa: PTH207
        for folder in {Path(one).resolve() for one in folders if Path(one).is_dir()}:
            yield folder, parts[cut:]
            if parts[cut - 1 : cut] == ("**",):  # it goes on below, where nothing is as yet
                yield folder, parts[cut - 1 :]


def _has_wildcard(text: str) -> bool:
    return any(character in text for character in "*?[")


def _match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if _match(parts, pattern[1:]):
            return True
        return bool(parts) and not parts[0].startswith(".") and _match(parts[1:], pattern)
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])
