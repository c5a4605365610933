"""Looks whether parts that workers have committed are there for the process that started them.

A node of a cluster may have a folder of the same path on a disk of its own. Its workers find a pool
there, write to it, and tell that all is done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bon.errors import PoolIncompleteError
from bon.places import is_local
from bon.pool.layout import PoolLayout
from bon.protocols import Event, PartDone

__all__ = ["Lookout"]

_PATIENCE_S = 90.0
"""Network file systems may show another machine's new file after a minute only."""
_LOOK_S = 0.5


@dataclass
class Lookout:
    """Looks out for the parts of one kind."""

    layout: PoolLayout
    kind: str
    _unseen: dict[int, float] = field(default_factory=dict)
    """Parts that were told to be done and are not there, and when they were told."""
    _num_told: int = 0

    def hear(self, event: Event) -> None:
        """Look for a part that an event tells of, and after a while for those that were not there.

        Of an object store, which has one content for all, only the first part is looked for: each
        look is a request.

        Raises:
            PoolIncompleteError: one is still not there.
        """
        if isinstance(event, PartDone):
            self._num_told += 1
            is_cheap = is_local(self.layout.root) or self._num_told == 1
            if is_cheap and not self._is_there(event.part):
                self._unseen[event.part] = time.monotonic()
        self._look()

    def end(self) -> None:
        """Wait for those that are not there yet.

        Raises:
            PoolIncompleteError: one is still not there.
        """
        while self._unseen:
            self._unseen = {
                part: since_s for part, since_s in self._unseen.items() if not self._is_there(part)
            }
            self._look()
            time.sleep(_LOOK_S if self._unseen else 0.0)

    def _look(self) -> None:
        while self._unseen:
            part, since_s = next(iter(self._unseen.items()))
            if time.monotonic() - since_s < _PATIENCE_S:
                return
            if not self._is_there(part):
                raise self._not_there(part)
            del self._unseen[part]

    def _is_there(self, part: int) -> bool:
        return self.layout.part(self.kind, part).is_file()

    def _not_there(self, part: int) -> PoolIncompleteError:
        return PoolIncompleteError(
            f"part {part} of {self.kind} is not there, though its worker has committed it",
            where=str(self.layout.part(self.kind, part)),
            why="this folder is another one where the worker ran: a node has its own of that name",
            next_step="put the pool where every node sees it under one name, a shared folder or an "
            "object store; what is here stays, and the same command goes on from it",
        )
