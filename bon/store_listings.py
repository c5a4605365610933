"""What this process has seen of objects: their states for a while, and their names in order."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

__all__ = ["Listings"]

_LASTS_S = 30.0
"""How long what was seen of an object is taken for its state, unless this process changes it."""


class _Named(Protocol):
    def __hash__(self) -> int: ...

    def __lt__(self, other: Any, /) -> bool: ...


_Path = TypeVar("_Path", bound=_Named)


class Listings(Generic[_Path]):
    """States and names of objects, as requests told them."""

    def __init__(self) -> None:
        self._states: dict[_Path, tuple[FileInfo, float]] = {}
        self._in_order: dict[_Path, list[_Path]] = {}
        self._num_puts: dict[_Path, int] = {}

    def __contains__(self, path: _Path) -> bool:
        return path in self._states

    def note(self, path: _Path, info: FileInfo) -> None:
        """Take down an object's state, unless a state of it is still known."""
        if self.state(path) is None:
            self._states[path] = info, time.monotonic()

    def note_all(self, infos: Iterable[tuple[_Path, FileInfo]]) -> list[_Path]:
        """Take down what a listing says, which is newer than all before; return the paths."""
        now_s, found = time.monotonic(), []
        for path, info in infos:
            self._states.pop(path, None)
            if info.type.name == "File":
                self._states[path] = info, now_s
            found.append(path)
        return found

    def set_names(self, folder: _Path, names: Iterable[_Path]) -> None:
        """Take down the objects that lie in a place, in order."""
        self._in_order[folder] = sorted(path for path in names if path in self)

    def following(self, folder: _Path, path: _Path, count: int) -> list[_Path]:
        """Return the objects that follow one in what it lies in, as its last listing named them."""
        names = self._in_order.get(folder, [])
        start = bisect_right(names, path)
        return names[start : start + count]

    def state(self, path: _Path) -> FileInfo | None:
        """Return what was seen of an object not long ago."""
        info, seen_s = self._states.get(path, (None, 0.0))
        if info is not None and time.monotonic() - seen_s > _LASTS_S:
            self._states.pop(path, None)
            return None
        return info

    def num_puts(self, path: _Path) -> int:
        """Return how often this process has changed an object."""
        return self._num_puts.get(path, 0)

    def forget(self, path: _Path) -> None:
        """Forget a state that this process has changed."""
        self._states.pop(path, None)
        self._num_puts[path] = self._num_puts.get(path, 0) + 1

    def paths(self) -> list[_Path]:
        """List all objects whose state is known."""
        return list(self._states)
