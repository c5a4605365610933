"""A part's candidates as groups, which is how scorers take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bon.records import CANDIDATES_SCHEMA, Candidate, CandidateGroup, Prompt

__all__ = ["candidate_groups", "group_columns", "token_ids"]

_KEYS = ["prompt_id", "candidate"]


def group_columns(*, with_candidates: bool) -> list[str]:
    """Name the columns of candidates that groups are made of."""
    return CANDIDATES_SCHEMA.names if with_candidates else [*_KEYS, "response"]


def candidate_groups(
    prompts: Sequence[Prompt], rows: pa.Table, generation: Mapping[str, Any] | None = None
) -> list[CandidateGroup]:
    """Return a group for each prompt that has rows, in the prompts' order.

    `rows` has `group_columns`. `generation`, the settings that the pool's candidates were sampled
    with, goes into groups that have candidates.
    """
    with_candidates = "token_ids" in rows.column_names
    columns = {name: rows.column(name).to_pylist() for name in group_columns(with_candidates=False)}
    if with_candidates:
        rest = [name for name in CANDIDATES_SCHEMA.names if name not in (*columns, "token_ids")]
        columns |= {name: rows.column(name).to_pylist() for name in rest}
        columns["token_ids"] = token_ids(rows)
    places: dict[str, list[int]] = {}
    for place, prompt_id in enumerate(columns.pop("prompt_id")):
        places.setdefault(prompt_id, []).append(place)

    def candidate(place: int) -> Candidate:
        return Candidate(**{name: values[place] for name, values in columns.items()})

    return [
        CandidateGroup(
            prompt.prompt_id,
            prompt.messages,
            tuple(columns["response"][place] for place in places[prompt.prompt_id]),
            prompt.extra,
            tuple(map(candidate, places[prompt.prompt_id])) if with_candidates else (),
            (generation or {}) if with_candidates else {},
        )
        for prompt in prompts
        if prompt.prompt_id in places
    ]


def token_ids(rows: pa.Table) -> list[tuple[int, ...] | None]:
    """Return the token ids of rows of candidates; Arrow's own way takes several times as long."""
    column = rows.column("token_ids").combine_chunks()
    bounds = column.offsets.to_pylist()
    values = column.values.to_numpy().tolist()
    return [
        tuple(values[start:end]) if is_known else None
        for start, end, is_known in zip(
            bounds, bounds[1:], column.is_valid().to_pylist(), strict=False
        )
    ]
