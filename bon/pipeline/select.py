"""Best of N: a ranked pool in, one row for each chosen candidate out, as Arrow tables."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from bon.answers import compile_answer_pattern, extract_answer, is_correct, reference_answer
from bon.config import SelectSettings
from bon.errors import SettingsError
from bon.pipeline.accounting import Accounting
from bon.pipeline.columns import ExtraColumns
from bon.pipeline.ranked import RankedPrompt, open_books, ranked_prompts
from bon.pipeline.rewards import Ranking
from bon.pool.pool import Pool
from bon.records import RESPONSE_FIELDS, Drop
from bon.selection import Choice, choose

__all__ = ["SelectReport", "Selector", "check_selection"]

_BATCH_ROWS = 256
_VOTING = frozenset({"majority", "weighted-majority"})


@dataclass
class _Mean:
    """A running mean of what is there and finite; none of nothing."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None and math.isfinite(value):
            self.total += value
            self.count += 1

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
    """Chooses among the candidates of a pool, part by part.

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
    ) -> None:
        self._pool, self._settings, self._seed, self._limit = pool, settings, seed, limit
        self._pattern, self._ranking = check_selection(settings), ranking
        books = open_books(pool, ranking.reads, limit)
        self.report = SelectReport(books, settings.strategy, ranking.name)
        self._columns = _extra_columns(pool, limit)

    @property
    def schema(self) -> pa.Schema:
        """Our columns, then the input's own."""
        return pa.schema([*RESPONSE_FIELDS, *self._columns.fields])

    def tables(self) -> Iterator[pa.Table]:
        """Yield the chosen candidates in input order, some hundred rows a table; keep the books."""
        ours = pa.schema(RESPONSE_FIELDS)
        rows = self._rows()
        while batch := list(islice(rows, _BATCH_ROWS)):
            table = pa.Table.from_pylist([row for _, row in batch], ours)
            extras = self._columns.arrays([extra for extra, _ in batch])
            yield pa.Table.from_arrays([*table.columns, *extras], schema=self.schema)

    def _rows(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield (the input's columns, our columns) for each chosen candidate."""
        settings, report = self._settings, self.report
        books = report.accounting
        for ranked in ranked_prompts(self._pool, self._ranking, self._limit):
            report.num_candidates += len(ranked.candidates)
            choice = self._choose(ranked)
            report.num_ties += choice.num_tied > 1
            if choice.reason is not None:
                where, prompt_id = ranked.prompt.where, ranked.prompt.prompt_id
                books.add(Drop(choice.reason, choice.detail, where, prompt_id))
                continue
            books.kept_rows += 1
            books.output_rows += len(choice.candidates)
            _measure(report, ranked, choice.candidates, settings.answer_column, self._pattern)
            for index in choice.candidates:
                yield ranked.prompt.extra, _row(ranked, index)

    def _choose(self, ranked: RankedPrompt) -> Choice:
        settings = self._settings
        answers = (
            [
                extract_answer(c.response, self._pattern) if passes else None
                for c, passes in zip(ranked.candidates, ranked.passes, strict=True)
            ]
            if settings.strategy in _VOTING
            else None
        )
        return choose(
            ranked.rewards,
            strategy=settings.strategy,
            k=settings.k,
            threshold=settings.threshold or 0.0,
            soft_lambda=settings.soft_lambda,
            answers_N=answers,
            seed=_draw_seed(self._seed, ranked.prompt.prompt_id),
        )


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


def _extra_columns(pool: Pool, limit: int | None) -> ExtraColumns:
    columns = ExtraColumns(taken=[item.name for item in RESPONSE_FIELDS])
    for part in pool.parts(limit):
        columns.learn([prompt.extra for prompt in pool.prompts(part, limit)])
    return columns


def _draw_seed(seed: int, prompt_id: str) -> int:
    """Return the seed of soft's draw: its own stream, apart from the sampling seeds."""
    digest = hashlib.sha256(f"select\0{seed}\0{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _mean_of(rewards: Sequence[float | None]) -> float | None:
    known = [reward for reward in rewards if reward is not None]
    return sum(known) / len(known) if known else None


def _measure(
    report: SelectReport,
    ranked: RankedPrompt,
    chosen: tuple[int, ...],
    answer_column: str,
    pattern: re.Pattern[str] | None,
) -> None:
    report.reward_all.add(_mean_of(ranked.rewards))
    report.reward_chosen.add(_mean_of([ranked.rewards[index] for index in chosen]))
    reference = reference_answer(ranked.prompt.extra.get(answer_column), pattern)
    if reference is None:
        return
    right = [is_correct(c.response, reference, pattern) for c in ranked.candidates]
    report.accuracy_random.add(sum(right) / len(right))
    report.accuracy_chosen.add(sum(right[index] for index in chosen) / len(chosen))


def _row(ranked: RankedPrompt, index: int) -> dict[str, Any]:
    candidate = ranked.candidates[index]
    messages = list(ranked.prompt.messages)
    last_user = [message["content"] for message in messages if message["role"] == "user"][-1]
    return {
        "prompt_id": ranked.prompt.prompt_id,
        "prompt": last_user,
        "response": candidate.response,
        "messages": [*messages, {"role": "assistant", "content": candidate.response}],
        "reward": ranked.rewards[index],
        "candidate": candidate.candidate,
        "num_candidates": len(ranked.candidates),
        "rewards": list(ranked.rewards),
        "finish_reason": candidate.finish_reason,
        "num_tokens": candidate.num_tokens,
    }
