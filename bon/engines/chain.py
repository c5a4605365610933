"""Which parts each of several stages may do: those that the stages before have done."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

__all__ = ["Chain", "workers_of"]

_SAMPLERS_PER_SCORER = 8
"""To sample takes a model many times as long as to score."""


def workers_of(has_model: Sequence[bool], num_workers: int) -> list[int]:
    """Return how many workers with a share of their own each of several stages has side by side.

    The first stage with a model has all that were asked for, each other one for eight of them, and
    a stage without a model none.
    """
    first = list(has_model).index(True) if any(has_model) else -1
    later = max(1, num_workers // _SAMPLERS_PER_SCORER)
    return [
        0 if not one else num_workers if number == first else later
        for number, one in enumerate(has_model)
    ]


class Chain:
    """Parts on their way through stages; each goes only where it has to be done."""

    def __init__(self, stages: Sequence[Iterable[int]]) -> None:
        self._parts = [frozenset(parts) for parts in stages]
        self._num_to_come = [len(parts) for parts in self._parts]
        self._here = [deque[int]() for _ in self._parts]
        for part in dict.fromkeys(chain.from_iterable(stages)):
            self._send(part, 0)

    def source(self, stage: int) -> Iterator[int | None]:
        """Yield a stage's parts as they come, and none while there is nothing for now."""
        here = self._here[stage]
        while self._num_to_come[stage]:
            if here:
                self._num_to_come[stage] -= 1
            yield here.popleft() if here else None

    def done(self, stage: int, part: int) -> None:
        """Send a part on that a stage has done."""
        self._send(part, stage + 1)

    def _send(self, part: int, first: int) -> None:
        """Give a part to the first stage, from one on, that has it to do."""
        for stage in range(first, len(self._parts)):
            if part in self._parts[stage]:
                self._here[stage].append(part)
                return
