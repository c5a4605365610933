"""Prompts that came with their responses, as the tables of a pool's parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bon.pool.pool import CANDIDATES, PROMPTS, scores_kind
from bon.records import (
    CANDIDATES_SCHEMA,
    PROMPTS_SCHEMA,
    SCORES_SCHEMA,
    Drop,
    GivenResponses,
)

__all__ = [
    "GIVEN_SCORER",
    "LABEL_SCORER",
    "GivenPart",
    "first_difference",
    "given_parts",
    "of_prompts",
    "score_table",
]

GIVEN_SCORER = "given"
"""Name of the scorer that stands for the input's own scores."""
LABEL_SCORER = "label"
"""Name of the scorer that stands for the input's own verdicts: 1 right, 0 wrong."""


@dataclass(frozen=True, slots=True)
class GivenPart:
    """One part, not yet on disk."""

    number: int
    tables: dict[str, pa.Table]
    """By kind; scores and verdicts only where there are any."""
    drops: dict[str, list[Drop]]
    num_rows: int


def given_parts(rows: Iterable[GivenResponses | Drop], size: int) -> Iterator[GivenPart]:
    """Cut rows into parts by their number; holds one part at a time."""

    def number_of(item: GivenResponses | Drop) -> int:
        return (item.row if isinstance(item, Drop) else item.prompt.row) // size

    for number, items in groupby(rows, key=number_of):
        yield _build(number, list(items), size)


def first_difference(old: pa.Table, new: pa.Table) -> int | None:
    """Return the first row in which two tables of the same columns differ; none where none does."""
    if old.equals(new):
        return None
    rows = zip_longest(old.to_pylist(), new.to_pylist())
    return next((index for index, (one, other) in enumerate(rows) if one != other), None)


def of_prompts(table: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """Return the rows that belong to these prompts."""
    return table.filter(pc.is_in(table["prompt_id"], value_set=ids))


def _build(number: int, items: Sequence[GivenResponses | Drop], size: int) -> GivenPart:
    given = [item for item in items if isinstance(item, GivenResponses)]
    dropped = [item for item in items if isinstance(item, Drop)]
    last = items[-1]
    last_row = last.row if isinstance(last, Drop) else last.prompt.row
    candidates = _candidates(given)
    responses = [response for item in given for response in item.responses]
    verdicts = [None if r.is_correct is None else float(r.is_correct) for r in responses]
    tables = {PROMPTS: _prompts(given), CANDIDATES: candidates}
    for name, scores in ((GIVEN_SCORER, [r.score for r in responses]), (LABEL_SCORER, verdicts)):
        if any(score is not None for score in scores):
            tables[scores_kind(name)] = score_table(candidates, scores)
    drops = {
        PROMPTS: [drop for drop in dropped if drop.candidate is None],
        CANDIDATES: [drop for drop in dropped if drop.candidate is not None],
    }
    return GivenPart(number, tables, drops, last_row + 1 - number * size)


def _prompts(given: Sequence[GivenResponses]) -> pa.Table:
    prompts = [item.prompt for item in given]
    columns = [
        [prompt.prompt_id for prompt in prompts],
        [list(prompt.messages) for prompt in prompts],
        [json.dumps(prompt.extra, ensure_ascii=False) for prompt in prompts],
        [prompt.row for prompt in prompts],
        [prompt.where for prompt in prompts],
    ]
    return _table(columns, PROMPTS_SCHEMA)


def _candidates(given: Sequence[GivenResponses]) -> pa.Table:
    responses = [response for item in given for response in item.responses]
    unknown = [None] * len(responses)
    columns = [
        [item.prompt.prompt_id for item in given for _ in item.responses],
        [number for item in given for number in range(len(item.responses))],
        [response.response for response in responses],
        [response.finish_reason for response in responses],
        [response.num_tokens for response in responses],
        unknown,
        unknown,
        unknown,
    ]
    return _table(columns, CANDIDATES_SCHEMA)


def score_table(candidates: pa.Table, scores: Sequence[float | None]) -> pa.Table:
    """Return scores of these candidates; how long they were when scored, nobody knows."""
    unknown = [None] * candidates.num_rows
    keys = [candidates.column(name) for name in ("prompt_id", "candidate")]
    return _table([*keys, scores, unknown, unknown], SCORES_SCHEMA)


def _table(columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.ChunkedArray) else pa.array(column, item.type)
        for column, item in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
