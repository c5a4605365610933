"""DPO pairs: a ranked pool in, chosen and rejected responses out, as Arrow tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from bon.config import PairSettings
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.guards import (
    check_guards,
    margin_threshold,
)
from bon.pipeline.accounting import Accounting
from bon.pipeline.frames import Reading
from bon.pipeline.mapping import map_frames
from bon.pipeline.pairing import FormedPairs, Pairing, Tokenize
from bon.pipeline.passthrough import PassThrough
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking, ranked_reading
from bon.pool.pool import Pool
from bon.protocols import Mapper
from bon.records import PAIR_FIELDS

__all__ = ["PairBuilder", "PairReport", "check_pairs"]

RULE_NAMES = ("math", "exact", "label")
"""What `--rule` takes: two rules, and the input's own verdicts."""


@dataclass
class PairReport:
    """What pairing did; means are over the pairs that were written."""

    accounting: Accounting
    strategy: str
    scorer: str | None
    rule: str | None
    num_candidates: int = 0
    num_pairs: int = 0
    """Pairs formed, before the guards."""
    pair_drops: Counter[str] = field(default_factory=Counter)
    """Formed pairs that a guard dropped, by reason."""
    _totals: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, sums: Mapping[str, tuple[float, int]]) -> None:
        """Take a frame's sums, and of how many, into the means of their names."""
        for name, (more, num) in sums.items():
            total, count = self._totals.get(name, (0.0, 0))
            self._totals[name] = total + more, count + num

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        # The difference of two large float32 may be infinite, which JSON cannot say.
        means = {
            name: total / num if math.isfinite(total) else None
            for name, (total, num) in self._totals.items()
            if num
        }
        return {
            **self.accounting.as_json(),
            "strategy": self.strategy,
            "scorer": self.scorer,
            "rule": self.rule,
            "candidates": self.num_candidates,
            "pairs": self.num_pairs,
            "pair_drops": dict(sorted(self.pair_drops.items())),
            **means,
        }


def check_pairs(settings: PairSettings) -> None:
    """Find before any engine work what would stop the pairing.

    Raises:
        SettingsError: options that contradict each other, or a guard or rule that does not exist.
    """
    check_guards(settings.allow)
    if settings.rule not in (None, *RULE_NAMES):
        raise UnknownChoiceError(
            f"bad value for --rule: {settings.rule!r}",
            next_step=did_you_mean(str(settings.rule), RULE_NAMES),
        )
    if (settings.max_length is None) != (settings.tokenizer is None):
        raise SettingsError(
            "--max-length and --tokenizer go together",
            why="pairs are compared as the trained model's tokens",
            next_step="give both: the limit of the training, and the model that will be trained",
        )
    if settings.min_margin.endswith("%") and float(settings.min_margin[:-1]) > 100:
        raise SettingsError(
            f"bad value for --min-margin: {settings.min_margin!r}",
            why="no more than all pairs can be dropped",
            next_step="give a share up to `100%`, or a reward difference such as `0.5`",
        )
    if settings.strategy == "quantile" and settings.chosen_quantile <= settings.rejected_quantile:
        raise SettingsError(
            "--chosen-quantile must be above --rejected-quantile",
            why=f"they are {settings.chosen_quantile:g} and {settings.rejected_quantile:g}",
        )


class PairBuilder:
    """Forms and guards the pairs of a pool, some parts at a time.

    `ranking` gives the rewards, `rule` names the scores that say right (1) or wrong (0); either
    may be none. `tokenize` is needed where `settings.max_length` is. `mapper` has other processes
    do it; none: this one does.

    Raises:
        PoolIncompleteError: parts are missing.
    """

    def __init__(
        self,
        pool: Pool,
        settings: PairSettings,
        *,
        ranking: Ranking | None,
        rule: str | None,
        seed: int,
        limit: int | None,
        tokenize: Tokenize | None = None,
        mapper: Mapper | None = None,
    ) -> None:
        self._pool, self._limit, self._mapper = pool, limit, mapper
        self._verdicts = [] if rule is None else [rule]
        read = [*(() if ranking is None else ranking.reads), *self._verdicts]
        books = open_books(pool, list(dict.fromkeys(read)), limit)
        self.report = PairReport(books, settings.strategy, ranking.name if ranking else None, rule)
        others = PassThrough(pool, limit, [item.name for item in PAIR_FIELDS], mapper)
        self._pairing = Pairing(settings, ranking, rule, seed, tokenize, others)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the pairs, then the input's own."""
        return self._pairing.schema

    def tables(self) -> Iterator[pa.Table]:
        """Yield the pairs in input order, a table for each frame, and keep the books."""
        pairing = replace(self._pairing, lowest=self._lowest_margin())
        columns = ["response", "finish_reason", "num_tokens"]
        reading = self._reading(["prompt", "extra", "where"], columns)
        for formed in map_frames(self._mapper, reading, pairing):
            self._book(formed)
            yield formed.table

    def _reading(self, prompts: Sequence[str], candidates: Sequence[str]) -> Reading:
        return ranked_reading(
            self._pool,
            self._pairing.ranking,
            scorers=self._verdicts,
            limit=self._limit,
            prompt_columns=prompts,
            candidate_columns=candidates,
        )

    def _lowest_margin(self) -> float:
        """Return the margin that pairs must be above; a share of all margins takes a first pass."""
        said = self._pairing.settings.min_margin
        if not said.endswith("%"):
            return margin_threshold(said, np.empty(0))
        needs = ["response", "num_tokens"] if self._pairing.needs_lengths else []
        margins = map_frames(self._mapper, self._reading([], needs), self._pairing.margins)
        return margin_threshold(said, np.concatenate([np.empty(0), *margins]))

    def _book(self, formed: FormedPairs) -> None:
        report, books = self.report, self.report.accounting
        report.num_candidates += formed.num_candidates
        report.num_pairs += formed.num_pairs
        report.pair_drops.update(formed.pair_drops)
        for drop in formed.drops:
            books.add(drop)
        books.kept_rows += formed.num_kept
        books.output_rows += formed.table.num_rows
        report.add(formed.sums)
