"""A part's candidates as groups, which is how scorers take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bon.protocols import Scope, Scorer
from bon.records import CANDIDATES_SCHEMA, Candidate, CandidateGroup, Drop, Prompt, Scores

__all__ = ["candidate_groups", "group_columns", "score_within", "token_ids"]

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


def score_within(scorer: Scorer, groups: Sequence[CandidateGroup], scope: Scope) -> list[Scores]:
    """Score all groups but those that end a worker, which get none and the reason."""
    given = iter(scorer.score(taken) if (taken := _taken(groups, scope)) else [])
    return [
        _no_scores(group, scope.dropped[group.prompt_id])
        if group.prompt_id in scope.dropped
        else next(given)
        for group in groups
    ]


def _taken(groups: Sequence[CandidateGroup], scope: Scope) -> list[CandidateGroup]:
    return [group for group in groups if group.prompt_id not in scope.dropped]


def _no_scores(group: CandidateGroup, drop: Drop) -> Scores:
    num = len(group.responses)
    reasons = dict.fromkeys(range(num), drop)
    return Scores(group.prompt_id, (None,) * num, (0,) * num, (False,) * num, reasons)


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
