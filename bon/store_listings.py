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
_LISTED_AT_ONCE = 1000
"""Names that one request lists."""
_FEW_LOOKS = 16


class _Named(Protocol):
    def __hash__(self) -> int: ...

    def __lt__(self, other: Any, /) -> bool: ...


_Path = TypeVar("_Path", bound=_Named)


class Listings(Generic[_Path]):
    """States and names of objects, as requests told them."""

    def __init__(self) -> None:
        self._states: dict[_Path, tuple[FileInfo, float]] = {}
        self._in_order: dict[_Path, list[_Path]] = {}
        self._changes: dict[_Path, tuple[int, float]] = {}
        """How often this process has changed an object, and when last."""
        self._num_looks: dict[_Path, int] = {}
        """In a place, since it was listed, at objects one by one."""

    def note(self, path: _Path, info: FileInfo) -> None:
        """Take down an object's state, unless a state of it is still known."""
        if self.state(path) is None:
            self._states[path] = info, time.monotonic()

    def note_all(self, infos: Iterable[tuple[_Path, FileInfo]], since_s: float) -> None:
        """Take down what a listing says of objects that was asked for then, newer than all before.

        What this process has changed meanwhile may be in it or not, so that is not taken down.
        """
        for path, info in infos:
            self._states.pop(path, None)
            if self._changes.get(path, (0, -1.0))[1] < since_s:
                self._states[path] = info, since_s

    def set_names(self, folder: _Path, names: Iterable[_Path]) -> None:
        """Take down the objects that lie in a place, in order."""
        self._in_order[folder] = sorted(names)
        self._num_looks[folder] = 0

    def is_list_due(self, folder: _Path) -> bool:
        """Count a look at a single object in a place; tell whether to list them all again instead.

        That is so once the looks since the last listing were as many requests as another one is.
        """
        names = self._in_order.get(folder)
        if names is None:
            return False
        self._num_looks[folder] += 1
        return self._num_looks[folder] > max(_FEW_LOOKS, len(names) // _LISTED_AT_ONCE)

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
        return self._changes.get(path, (0, 0.0))[0]

    def forget(self, path: _Path) -> None:
        """Forget a state that this process has changed."""
        self._states.pop(path, None)
        self._changes[path] = self.num_puts(path) + 1, time.monotonic()

    def paths(self) -> list[_Path]:
        """List all objects whose state is known."""
        return list(self._states)
