"""A pool read back as prompts with their candidates and rewards, an object each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from bon.pipeline.rewards import Ranking, ranked_reading
from bon.pool.pool import Pool, as_prompts
from bon.records import PROMPTS_SCHEMA, Candidate, Prompt

_CANDIDATE_FIELDS = [item.name for item in fields(Candidate) if item.name != "token_ids"]


@dataclass(frozen=True, slots=True)
class RankedPrompt:
    """One prompt with its N candidates and their rewards (none where scoring failed)."""

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    rewards: tuple[float | None, ...]


def ranked_prompts(pool: Pool, ranking: Ranking, limit: int | None) -> Iterator[RankedPrompt]:
    """Every prompt that has candidates, in input order."""
    for frame in ranked_reading(
        pool,
        ranking,
        limit=limit,
        prompt_columns=PROMPTS_SCHEMA.names,
        candidate_columns=_CANDIDATE_FIELDS,
    ).frames():
        rewards = [None if math.isnan(one) else one for one in frame.scores[ranking.name].tolist()]
        rows = frame.candidates.select(_CANDIDATE_FIELDS).to_pylist()
        candidates = [Candidate(**row) for row in rows]
        bounds = zip(frame.start_P.tolist(), frame.count_P.tolist(), strict=True)
        for prompt, (start, count) in zip(as_prompts(frame.prompts), bounds, strict=True):
            place = slice(start, start + count)
            yield RankedPrompt(prompt, tuple(candidates[place]), tuple(rewards[place]))
