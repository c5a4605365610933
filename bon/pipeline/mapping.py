"""A pool's frames computed in this process, or, group by group, wherever a mapper has them done.

Both ways see the same frames in the same order, so what comes out is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from bon.pipeline.frames import Frame, Reading, frame_groups
from bon.pool.pool import Pool
from bon.protocols import Mapper

__all__ = ["GroupWork", "map_frames", "map_groups", "map_parts"]

Given_contra = TypeVar("Given_contra", contravariant=True)
Found_co = TypeVar("Found_co", covariant=True)
Given = TypeVar("Given")
_RUN_PARTS = 32
"""Parts that a process is given at once, of which little comes back."""
Found = TypeVar("Found")


class GroupWork(Protocol[Given_contra, Found_co]):
    """What is computed of one group of parts; can be pickled, and changes nothing."""

    def __call__(self, frames: Iterator[Frame], given: Given_contra) -> Iterator[Found_co]:
        """Yield what comes of the group's frames; `given` is what it needs to know of them."""
        ...


@dataclass(frozen=True, slots=True)
class _Elsewhere(Generic[Given, Found]):
    """One group's work, with its reading."""

    reading: Reading
    work: GroupWork[Given, Found]

    def __call__(self, item: tuple[tuple[int, ...], Given]) -> list[Found]:
        parts, given = item
        return list(self.work(self.reading.pieces(self.reading.read(parts)), given))


@dataclass(frozen=True, slots=True)
class _EachFrame(Generic[Found]):
    """The work of a function that sees one frame at a time."""

    function: Callable[[Frame], Found]

    def __call__(self, frames: Iterator[Frame], given: None) -> Iterator[Found]:
        return map(self.function, frames)


def map_groups(
    mapper: Mapper | None,
    reading: Reading,
    groups: Sequence[tuple[int, ...]],
    work: GroupWork[Given, Found],
    given: Iterable[Given],
) -> Iterator[Found]:
    """Yield what comes of each group, in the pool's order; without a mapper it is computed here.

    `given` has a value for each group, asked for shortly before the group's turn.

    Raises:
        PoolCorruptError: a file cannot be read back, or files of one part do not belong together.
    """
    if mapper is None:
        for frames, one in zip(reading.ahead(groups), given, strict=True):
            yield from work(frames, one)
    else:
        for found in mapper.map(_Elsewhere(reading, work), zip(groups, given, strict=True)):
            yield from found


def map_frames(
    mapper: Mapper | None, reading: Reading, function: Callable[[Frame], Found]
) -> Iterator[Found]:
    """Yield what a function makes of each frame of a pool, as `map_groups`."""
    groups = frame_groups(reading.pool, reading.limit)
    return map_groups(mapper, reading, groups, _EachFrame(function), [None] * len(groups))


def map_parts(
    mapper: Mapper | None, pool: Pool, limit: int | None, function: Callable[[list[int]], Found]
) -> Iterator[Found]:
    """Yield what a function makes of each run of a pool's parts, in their order."""
    parts = pool.parts(limit)
    runs = [parts[start : start + _RUN_PARTS] for start in range(0, len(parts), _RUN_PARTS)]
    return map(function, runs) if mapper is None else mapper.map(function, runs)
