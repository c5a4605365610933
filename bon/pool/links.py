"""Symbolic links in a pool: through one, a run would write or delete outside of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bon.errors import OutputError

__all__ = ["refuse_links"]

_TOP = ("pool.json", "prompts", "candidates", "scores", "drops", ".bon")
_WITH_PARTS_BELOW = ("scores", "drops", ".bon", "drops/scores")


def refuse_links(root: Path) -> None:
    """Refuse a pool with a link where runs write; the pool itself may be one.

    Files of parts may be links too: they are read, or replaced as a whole.

    Raises:
        OutputError: with the first of them.
    """
    for path in _written(root):
        if path.is_symlink():
            raise OutputError(
                "the pool has a symbolic link where a run would write",
                where=str(path),
                why=f"it leads to {path.readlink()}, and what is there would be changed or deleted",
                next_step="put the folder or file itself in its place, or link the whole pool",
            )


def _written(root: Path) -> Iterator[Path]:
    yield from (root / name for name in _TOP)
    for name in _WITH_PARTS_BELOW:
        folder = root / name
        if folder.is_dir() and not folder.is_symlink():
            yield from sorted(folder.iterdir())
