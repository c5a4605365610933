"""Passes over a pool: rows are judged frame by frame, anywhere; what they say is put together here.

Several filters share a pass; each pass ends with a filter that must see every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bon.pipeline.filtering.steps import LAST_STEP, Compiled
from bon.pipeline.filtering.units import (
    GlobalStep,
    Kind,
    RowStep,
    TakesNotes,
    Units,
    Verdict,
    living,
    union,
    units_in,
)
from bon.pipeline.frames import Frame, Reading, frame_groups
from bon.pipeline.mapping import map_groups
from bon.pipeline.rewards import Ranking, ranked_reading
from bon.pool.pool import Pool
from bon.protocols import Mapper

__all__ = ["run_passes"]

_Group: TypeAlias = tuple[int, ...]
_Living: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.bool_]] | None
"""Which units of a group are alive and which are flipped; none: all are as they were."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What one filter says of some units, by their places in the frame."""

    unit_U: NDArray[np.int64]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Judged:
    """What comes of one frame."""

    parts: _Group
    count_P: NDArray[np.int64]
    """Units of each prompt."""
    row_P: NDArray[np.int64]
    said: tuple[_Said, ...]
    """By the filters in their order; of those that no unit reached, nothing."""
    seen: Any
    """What the last filter needs to know; none where no unit reached it."""


@dataclass(frozen=True, slots=True)
class _Judging:
    """One pass over one group of parts; can be pickled, and changes nothing."""

    kind: Kind
    steps: tuple[RowStep, ...]
    look: Callable[..., Any] | None
    """Of the filter that must see every row, where one ends the pass."""

    def __call__(self, frames: Iterator[Frame], given: _Living) -> Iterator[_Judged]:
        start = 0
        for frame in frames:
            num = units_in(frame, self.kind)
            now: _Living = None
            if given is not None:
                now = given[0][start : start + num], given[1][start : start + num]
            yield self._judge(frame, num, now)
            start += num

    def _judge(self, frame: Frame, num_units: int, given: _Living) -> _Judged:
        alive_U, flip_U = given or (np.ones(num_units, bool), np.zeros(num_units, bool))
        view = living(frame, self.kind, alive_U, flip_U)
        said = []
        for step in self.steps:
            if not len(view):
                break
            verdict = step.judge(view)
            said.append(_Said(view.unit_U, verdict))
            view = view.narrowed(verdict)
        seen = self.look(view) if self.look is not None and len(view) else None
        count_P = np.ones_like(frame.count_P) if self.kind == "pairs" else frame.count_P
        row_P = frame.prompts.column("row").to_numpy()
        return _Judged(frame.parts, count_P, row_P, tuple(said), seen)


@dataclass(frozen=True, slots=True)
class _Counted:
    """What there is, known after the first pass."""

    count_P: NDArray[np.int64]
    row_P: NDArray[np.int64]
    end_G: NDArray[np.int64]


def run_passes(
    pool: Pool,
    ranking: Ranking | None,
    compiled: Sequence[Compiled],
    units: Units,
    limit: int | None,
    mapper: Mapper | None,
) -> NDArray[np.int64]:
    """Let filters judge all units; return how many pairs each has flipped."""
    flipped = np.zeros(len(compiled), np.int64)
    groups = frame_groups(pool, limit)
    for position, run in enumerate(_passes(compiled)):
        last = run[-1][1].last if run else None
        if last is not None:
            last.begin(int(units.alive_U.sum()))
        reading = _reading(pool, ranking, run, limit)
        given: Iterator[_Living] = (
            (units.alive_U[place], units.flip_U[place]) for place in units.of_groups
        )
        if position == 0:
            given = iter([None] * len(groups))
        counted = _run_pass(mapper, reading, groups, run, units, flipped, given)
        if position == 0:
            units.settle(counted.count_P, counted.row_P, counted.end_G)
        if last is not None:
            _decide(run[-1][0], last, units)
    return flipped


def _passes(compiled: Sequence[Compiled]) -> Iterator[list[tuple[int, Compiled]]]:
    """Cut into runs of filters that share a pass: each ends with one that must see every row."""
    run: list[tuple[int, Compiled]] = []
    for number, one in enumerate(compiled, start=1):
        run.append((number, one))
        if one.last is not None:
            yield run
            run = []
    if run or not compiled:  # without any filter, a pass still counts what there is
        yield run


def _reading(
    pool: Pool, ranking: Ranking | None, run: list[tuple[int, Compiled]], limit: int | None
) -> Reading:
    needs = union([step.needs for _, one in run for step in one.steps])
    is_read = ranking is not None and ranking.name in needs.scorers
    return ranked_reading(
        pool,
        ranking if is_read else None,
        scorers=needs.scorers,
        limit=limit,
        prompt_columns=needs.prompt_columns,
        candidate_columns=needs.candidate_columns,
    )


def _run_pass(
    mapper: Mapper | None,
    reading: Reading,
    groups: list[_Group],
    run: list[tuple[int, Compiled]],
    units: Units,
    flipped: NDArray[np.int64],
    given: Iterator[_Living],
) -> _Counted:
    """Have the pool read once, and take in what the filters say."""
    steps = [(number, step) for number, one in run for step in one.rows]
    last = run[-1][1].last if run else None
    look = None if last is None else last.look
    judging = _Judging(units.kind, tuple(step for _, step in steps), look)
    counts, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    num_of = dict.fromkeys(groups, 0)
    first_unit = 0
    for judged in map_groups(mapper, reading, groups, judging, given):
        for (number, step), said in zip(steps, judged.said, strict=False):
            verdict = said.verdict
            if isinstance(step, TakesNotes):
                verdict = step.noted(verdict)
            units.apply(number, first_unit + said.unit_U, verdict)
            if verdict.flips_U is not None:
                flipped[number - 1] += int(verdict.flips_U.sum())
        if last is not None and judged.seen is not None:
            last.take(judged.seen, units.numbers)
        counts.append(judged.count_P)
        rows.append(judged.row_P)
        num = int(judged.count_P.sum())
        num_of[judged.parts] += num
        first_unit += num
    end_G = np.cumsum(np.array(list(num_of.values()), np.int64))
    return _Counted(np.concatenate(counts), np.concatenate(rows), end_G)


def _decide(number: int, last: GlobalStep, units: Units) -> None:
    alive = np.flatnonzero(units.alive_U)
    verdict = last.decide(alive)
    code_U = np.full(len(alive), LAST_STEP, np.uint8)
    if verdict.code_U is not None:
        code_U += verdict.code_U
    units.apply(number, alive, verdict._replace(code_U=code_U))
