"""From filters to passes over a pool, and to the decision which rows stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bon.config.filters import FilterSettings
from bon.pipeline.filtering.prompt_numbers import PromptNumbers
from bon.pipeline.filtering.report import (
    FilterCount,
    FilterReport,
    label_filters,
    reasons_of_prompts,
)
from bon.pipeline.filtering.steps import LAST_STEP, Compiled, check_filters, compile_filter
from bon.pipeline.filtering.units import Kind, Needs, RowStep, Units, View, union, units_in
from bon.pipeline.frames import Frame
from bon.pipeline.passthrough import given_ids
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking, ranked_reading
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.records import Drop

__all__ = ["Decision", "run_filters"]

_MAX_EXAMPLES = 5


@dataclass
class Decision:
    """Which units of a pool stay, and why the others do not."""

    kind: Kind
    ranking: Ranking | None
    limit: int | None
    labels: list[str]
    """The filters' names, each once."""
    units: Units
    report: FilterReport
    compiled: list[Compiled] = field(default_factory=list)

    def detail(self, unit: int) -> str:
        """Say in one sentence why a dropped unit was dropped."""
        one = self.compiled[int(self.units.reason_U[unit]) - 1]
        return one.detail(int(self.units.code_U[unit]), float(self.units.value_U[unit]), self.units)


def run_filters(
    pool: Pool,
    filters: Sequence[FilterSettings],
    *,
    kind: Kind,
    ranking: Ranking | None,
    limit: int | None,
    seed: int,
) -> Decision:
    """Apply filters in their order and return what stays; reads only, writes nothing.

    `ranking` gives the rewards that the output shows, none where the pool has no scores. `seed` is
    that of the MinHash permutations. Each filter sees what those before it left. Texts are never
    held: per unit some 20 bytes are, 16 more while `exact_dedup` runs, 4 × `num_perm` more while
    `near_dedup` or `diversity` does.

    Raises:
        SettingsError: a filter cannot be used here.
        PoolIncompleteError: parts are missing.
        InputError: pairs without two responses, or lengths in tokens that nobody counted.
    """
    scorer = None if ranking is None else ranking.name
    known = sorted({*pool.layout.scorer_names(), *pool.manifest.scorers})
    check_filters(filters, kind=kind, scorer=scorer, scorers=known)
    compiled = [compile_filter(one, scorer, seed) for one in filters]
    used = union([step.needs for one in compiled for step in one.steps]).scorers
    books = open_books(pool, _scorers_read(ranking, used), limit, with_unscored=False)
    capacity = sum(pool.num_rows(CANDIDATES, part) for part in pool.parts(limit))
    units = Units.room_for(kind, PromptNumbers(pool, limit), capacity)
    flipped = np.zeros(len(compiled), np.int64)
    _run_passes(pool, ranking, compiled, units, flipped, limit)
    labels = label_filters([one.name for one in filters])
    report = FilterReport(books, kind, scorer, len(units.alive_U))
    decision = Decision(kind, ranking, limit, labels, units, report, compiled)
    _count(decision, flipped)
    _book(pool, decision)
    return decision


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


def _scorers_read(ranking: Ranking | None, names: Sequence[str]) -> list[str]:
    """Name the scorers whose scores are read, those that the ranking puts together among them."""
    return list(names) if ranking is None else ranking.scorers_of([ranking.name, *names])


def _run_passes(
    pool: Pool,
    ranking: Ranking | None,
    compiled: Sequence[Compiled],
    units: Units,
    flipped: NDArray[np.int64],
    limit: int | None,
) -> None:
    for position, run in enumerate(_passes(compiled)):
        last = run[-1][1].last if run else None
        if last is not None:
            last.begin(int(units.alive_U.sum()))
        counts, rows = _run_pass(pool, ranking, run, units, flipped, limit)
        if position == 0:
            units.settle(counts, rows)
        if last is not None:
            alive = np.flatnonzero(units.alive_U)
            verdict = last.decide(alive)
            code_U = np.full(len(alive), LAST_STEP, np.uint8)
            if verdict.code_U is not None:
                code_U += verdict.code_U
            units.apply(run[-1][0], alive, verdict._replace(code_U=code_U))


def _run_pass(
    pool: Pool,
    ranking: Ranking | None,
    run: list[tuple[int, Compiled]],
    units: Units,
    flipped: NDArray[np.int64],
    limit: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read the pool once; return the units and the input row of each prompt."""
    needs = union([step.needs for _, one in run for step in one.steps])
    counts, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    first_unit = 0
    for frame in _frames(pool, ranking, needs, limit):
        view = units.view(frame, first_unit)
        for number, one in run:
            for step in one.rows:
                view = _judge(view, number, step, units, flipped)
            if one.last is not None and len(view):
                one.last.observe(view)
        ones = np.ones_like(frame.count_P)
        counts.append(ones if units.kind == "pairs" else frame.count_P)
        rows.append(frame.prompts.column("row").to_numpy())
        first_unit += units_in(frame, units.kind)
    return np.concatenate(counts), np.concatenate(rows)


def _frames(
    pool: Pool, ranking: Ranking | None, needs: Needs, limit: int | None
) -> Iterator[Frame]:
    is_read = ranking is not None and ranking.name in needs.scorers
    return ranked_reading(
        pool,
        ranking if is_read else None,
        scorers=needs.scorers,
        limit=limit,
        prompt_columns=needs.prompt_columns,
        candidate_columns=needs.candidate_columns,
    ).frames()


def _judge(
    view: View, number: int, step: RowStep, units: Units, flipped: NDArray[np.int64]
) -> View:
    if not len(view):
        return view
    verdict = step.judge(view)
    units.apply(number, view.first_unit + view.unit_U, verdict)
    if verdict.flips_U is not None:
        flipped[number - 1] += int(verdict.flips_U.sum())
    return view.narrowed(verdict)


def _count(decision: Decision, flipped: NDArray[np.int64]) -> None:
    """Fill in the counts of each filter."""
    dropped = np.bincount(decision.units.reason_U, minlength=len(decision.compiled) + 1)
    num_in = len(decision.units.alive_U)
    for number, one in enumerate(decision.compiled):
        count = FilterCount(
            decision.labels[number],
            one.settings.as_json(),
            num_in,
            int(dropped[number + 1]),
            int(flipped[number]),
            one.extra(),
        )
        decision.report.filters.append(count)
        num_in = count.num_kept


def _book(pool: Pool, decision: Decision) -> None:
    """Close the books: an input row is kept where a unit of its prompt lives."""
    units, books = decision.units, decision.report.accounting
    reasons = reasons_of_prompts(units, decision.labels)
    gone = np.array([reason is not None for reason in reasons], bool)
    for prompt, drop in _examples(pool, decision, np.flatnonzero(gone)[:_MAX_EXAMPLES]):
        books.add(drop)
        reasons[prompt] = None  # counted with its example
    books.drops.update(reason for reason in reasons if reason is not None)
    books.kept_rows += int((~gone).sum())
    books.output_rows += int(units.alive_U.sum())
    single = units.reason_U[~np.repeat(gone, units.count_P)]
    for number, count in enumerate(np.bincount(single).tolist()):
        if number and count:
            books.candidate_drops[decision.labels[number - 1]] += count
    books.close()


def _examples(
    pool: Pool, decision: Decision, prompts: NDArray[np.int64]
) -> Iterator[tuple[int, Drop]]:
    """Look up where the first dropped rows are, for the report."""
    units = decision.units
    reasons = reasons_of_prompts(units, decision.labels)
    size = pool.manifest.part_size
    for prompt in prompts.tolist():
        row = int(units.row_P[prompt])
        table = pool.read(PROMPTS, row // size, ["prompt_id", "row", "where", "extra"])
        at = table.column("row").to_pylist().index(row)
        yield (
            prompt,
            Drop(
                str(reasons[prompt]),
                decision.detail(int(units.start_P[prompt])),
                table.column("where")[at].as_py(),
                given_ids(table.slice(at, 1))[0].as_py(),
                row,
            ),
        )
