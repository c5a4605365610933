"""Best of N: a ranked pool in, one row for each chosen candidate out, as Arrow tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.answers import compile_answer_pattern
from bon.config import SelectSettings
from bon.errors import SettingsError
from bon.pipeline.accounting import Accounting
from bon.pipeline.choosing import Choosing, Chosen
from bon.pipeline.mapping import map_frames
from bon.pipeline.passthrough import PassThrough
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking, ranked_reading
from bon.pool.pool import Pool
from bon.protocols import Mapper
from bon.records import RESPONSE_FIELDS

__all__ = ["SelectReport", "Selector", "check_selection"]


@dataclass
class _Mean:
    """A running mean of what is there and finite; none of nothing."""

    total: float = 0.0
    count: int = 0

    def add(self, values: NDArray[np.float64]) -> None:
        finite = values[np.isfinite(values)]
        # One after the other, so that it is no matter how many come at a time.
        self.total = float(np.cumsum(np.r_[self.total, finite])[-1])
        self.count += len(finite)

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class SelectReport:
    """What selecting did; means and accuracies are over the prompts that were kept, each counting
    once, however many of its candidates have a reward."""

    accounting: Accounting
    strategy: str
    scorer: str
    num_candidates: int = 0
    num_ties: int = 0
    """Prompts whose last kept place was tied."""
    reward_all: _Mean = field(default_factory=_Mean)
    reward_chosen: _Mean = field(default_factory=_Mean)
    accuracy_random: _Mean = field(default_factory=_Mean)
    """Share of right candidates: what one random candidate would reach."""
    accuracy_chosen: _Mean = field(default_factory=_Mean)

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`; lift is in reward, the gain in accuracy in points."""
        means = {
            "mean_reward_all": self.reward_all.value,
            "mean_reward_chosen": self.reward_chosen.value,
            "accuracy_random": self.accuracy_random.value,
            "accuracy_chosen": self.accuracy_chosen.value,
        }
        low, high = self.reward_all.value, self.reward_chosen.value
        lift = high - low if low is not None and high is not None else None
        return {
            **self.accounting.as_json(),
            "strategy": self.strategy,
            "scorer": self.scorer,
            "candidates": self.num_candidates,
            "ties": self.num_ties,
            **means,
            "lift": lift,
        }


class Selector:
    """Chooses among the candidates of a pool, some parts at a time.

    `mapper` has other processes choose; none: this one does.

    Raises:
        PoolIncompleteError: parts are missing.
        SettingsError: as `check_selection`.
    """

    def __init__(
        self,
        pool: Pool,
        settings: SelectSettings,
        *,
        ranking: Ranking,
        seed: int,
        limit: int | None,
        mapper: Mapper | None = None,
    ) -> None:
        self._mapper = mapper
        pattern = check_selection(settings)
        books = open_books(pool, ranking.reads, limit)
        self.report = SelectReport(books, settings.strategy, ranking.name)
        others = PassThrough(pool, limit, [item.name for item in RESPONSE_FIELDS], mapper)
        self._choosing = Choosing(settings, pattern, ranking, seed, others)
        self._reading = ranked_reading(
            pool,
            ranking,
            limit=limit,
            prompt_columns=["prompt", "extra", "where"],
            candidate_columns=["response", "finish_reason", "num_tokens"],
        )

    @property
    def schema(self) -> pa.Schema:
        """Our columns, then the input's own."""
        return self._choosing.schema

    def tables(self) -> Iterator[pa.Table]:
        """Yield the chosen candidates in input order, a table a frame, and keep the books."""
        for chosen in map_frames(self._mapper, self._reading, self._choosing):
            self._book(chosen)
            yield chosen.table

    def _book(self, chosen: Chosen) -> None:
        report, books = self.report, self.report.accounting
        report.num_candidates += chosen.num_candidates
        report.num_ties += chosen.num_ties
        books.kept_rows += chosen.num_kept
        books.output_rows += chosen.table.num_rows
        for drop in chosen.drops:
            books.add(drop)
        report.reward_all.add(chosen.means.reward_all)
        report.reward_chosen.add(chosen.means.reward_chosen)
        report.accuracy_random.add(chosen.means.accuracy_random)
        report.accuracy_chosen.add(chosen.means.accuracy_chosen)


def check_selection(settings: SelectSettings) -> re.Pattern[str] | None:
    """Find before any engine work what would stop the selection; return the answer pattern.

    Raises:
        SettingsError: a bad pattern, or a threshold that is missing.
    """
    if settings.strategy == "threshold" and settings.threshold is None:
        raise SettingsError(
            "--strategy threshold needs --threshold",
            next_step="give the lowest reward to accept; `bon inspect POOL` shows the quantiles",
        )
    return compile_answer_pattern(settings.answer_pattern)
