"""From filters to passes over a pool, and to the decision which rows stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bon.config.filters import FilterSettings
from bon.pipeline.filtering.passes import run_passes
from bon.pipeline.filtering.prompt_numbers import PromptNumbers
from bon.pipeline.filtering.report import (
    FilterCount,
    FilterReport,
    label_filters,
    reasons_of_prompts,
)
from bon.pipeline.filtering.steps import Compiled, check_filters, compile_filter
from bon.pipeline.filtering.units import Kind, Units, union
from bon.pipeline.passthrough import given_ids
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.protocols import Mapper
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
    mapper: Mapper | None = None,
) -> Decision:
    """Apply filters in their order and return what stays; reads only, writes nothing.

    `ranking` gives the rewards that the output shows, none where the pool has no scores. `seed` is
    that of the MinHash permutations. Each filter sees what those before it left. `mapper` has
    other processes read and judge; none: this one does. Texts are never held: per unit some 20
    bytes are, 16 more while `exact_dedup` runs, 4 × `num_perm` more while `near_dedup` or
    `diversity` does.

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
    read = list(used) if ranking is None else ranking.scorers_of([ranking.name, *used])
    books = open_books(pool, read, limit, with_unscored=False)
    capacity = sum(pool.num_rows(CANDIDATES, part) for part in pool.parts(limit))
    units = Units.room_for(kind, PromptNumbers(pool, limit), capacity)
    flipped = run_passes(pool, ranking, compiled, units, limit, mapper)
    labels = label_filters([one.name for one in filters])
    report = FilterReport(books, kind, scorer, len(units.alive_U))
    decision = Decision(kind, ranking, limit, labels, units, report, compiled)
    _count(decision, flipped)
    _book(pool, decision)
    return decision


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
