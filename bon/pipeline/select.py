"""Best of N: a ranked pool in, one row for each chosen candidate out, as Parquet."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bon.answers import compile_answer_pattern, extract_answer, is_correct, reference_answer
from bon.config import SelectSettings
from bon.durable import PARQUET_OPTIONS, replace_file
from bon.errors import OutputError, SettingsError
from bon.pipeline.accounting import Accounting
from bon.pipeline.columns import ExtraColumns
from bon.pipeline.ranked import RankedPrompt, open_books, ranked_prompts
from bon.pool.pool import Pool
from bon.records import RESPONSE_FIELDS, Drop
from bon.selection import choose

__all__ = ["SelectReport", "check_selection", "select"]

_ROW_GROUP_BYTES = 32 << 20
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
    """What selecting did; means and accuracies are over the prompts that were kept."""

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


def select(
    pool: Pool,
    settings: SelectSettings,
    *,
    scorer: str,
    seed: int,
    limit: int | None,
    output: Path,
) -> SelectReport:
    """Write the chosen candidates to one Parquet file, in input order, and return the books.

    Raises:
        PoolIncompleteError: parts are missing.
        OutputError: the file cannot be written.
    """
    pattern = check_selection(settings, output)
    report = SelectReport(open_books(pool, [scorer], limit), settings.strategy, scorer)
    columns = _extra_columns(pool, limit)
    schema = pa.schema([*columns.fields, *RESPONSE_FIELDS])
    rows = _chosen_rows(pool, settings, pattern, seed, limit, report)
    with (
        replace_file(output, output.parent) as path,
        pq.ParquetWriter(path, schema, **PARQUET_OPTIONS) as writer,
    ):
        for table in _row_groups(rows, columns, schema):
            writer.write_table(table)
        report.accounting.close()  # before the file appears: wrong books, no result
    return report


def check_selection(settings: SelectSettings, output: Path) -> re.Pattern[str] | None:
    """Find before any engine work what would stop the selection; return the answer pattern.

    Raises:
        SettingsError: a bad pattern, or an output of unknown format.
        OutputError: the output is a folder.
    """
    if output.is_dir():
        raise OutputError(
            "the output is a folder",
            where=str(output),
            next_step="give -o the name of a .parquet file",
        )
    if output.suffix != ".parquet":
        raise SettingsError(
            f"cannot tell the format of {output.name!r}", next_step="give -o a name in .parquet"
        )
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


def _chosen_rows(
    pool: Pool,
    settings: SelectSettings,
    pattern: re.Pattern[str] | None,
    seed: int,
    limit: int | None,
    report: SelectReport,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (the input's columns, our columns) for each chosen candidate."""
    books = report.accounting
    for ranked in ranked_prompts(pool, report.scorer, limit):
        report.num_candidates += len(ranked.candidates)
        answers = (
            [extract_answer(c.response, pattern) for c in ranked.candidates]
            if settings.strategy in _VOTING
            else None
        )
        choice = choose(
            ranked.rewards,
            strategy=settings.strategy,
            k=settings.k,
            threshold=float(np.float32(settings.threshold or 0.0)),  # as rewards are stored
            soft_lambda=settings.soft_lambda,
            answers_N=answers,
            seed=_draw_seed(seed, ranked.prompt.prompt_id),
        )
        report.num_ties += choice.num_tied > 1
        if choice.reason is not None:
            books.add(
                Drop(choice.reason, choice.detail, ranked.prompt.where, ranked.prompt.prompt_id)
            )
            continue
        books.kept_rows += 1
        books.output_rows += len(choice.candidates)
        _measure(report, ranked, choice.candidates, settings.answer_column, pattern)
        for index in choice.candidates:
            yield ranked.prompt.extra, _row(ranked, index)


def _draw_seed(seed: int, prompt_id: str) -> int:
    """Return the seed of soft's draw: its own stream, apart from the sampling seeds."""
    digest = hashlib.sha256(f"select\0{seed}\0{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _measure(
    report: SelectReport,
    ranked: RankedPrompt,
    chosen: tuple[int, ...],
    answer_column: str,
    pattern: re.Pattern[str] | None,
) -> None:
    for reward in ranked.rewards:
        report.reward_all.add(reward)
    for index in chosen:
        report.reward_chosen.add(ranked.rewards[index])
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


def _row_groups(
    rows: Iterator[tuple[dict[str, Any], dict[str, Any]]],
    columns: ExtraColumns,
    schema: pa.Schema,
    batch_rows: int = 256,
) -> Iterator[pa.Table]:
    """Gather rows into row groups of about `_ROW_GROUP_BYTES`."""
    ours = pa.schema(RESPONSE_FIELDS)
    tables: list[pa.Table] = []
    batch: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def flush() -> None:
        if batch:
            table = pa.Table.from_pylist([row for _, row in batch], ours)
            extras = columns.arrays([extra for extra, _ in batch])
            tables.append(pa.Table.from_arrays([*extras, *table.columns], schema=schema))
            batch.clear()

    for row in rows:
        batch.append(row)
        if len(batch) == batch_rows:
            flush()
            if sum(table.nbytes for table in tables) >= _ROW_GROUP_BYTES:
                yield pa.concat_tables(tables).combine_chunks()
                tables.clear()
    flush()
    if tables:
        yield pa.concat_tables(tables).combine_chunks()
