"""The work of verifying: random candidates scored again by a reference, and what that shows."""

from __future__ import annotations

import math
import random
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bon.pipeline.groups import candidate_groups, group_columns, score_within
from bon.pipeline.jobs import Observer
from bon.places import Place
from bon.pool.pool import CANDIDATES, Pool, scores_kind
from bon.protocols import Engine, Event, PartDone, Parts, Progress, Ready, Scope, Scorer, Verified
from bon.records import CandidateGroup, Drop, Rescored, Scores
from bon.verification import compare

__all__ = ["VerifyPlan", "VerifyReport", "VerifyScores", "verify"]

_NUM_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """One check of a scorer's stored scores."""

    name: str
    """The scorer's."""
    reference: Scorer
    num_candidates: int
    seed: int
    reads_candidates: bool = False
    """As of the scorer's plan."""


@dataclass
class VerifyReport:
    """How far stored scores are from the reference's."""

    seed: int
    num_candidates: int = 0
    """Candidates that the reference was given."""
    num_failed: int = 0
    """Of these, the ones that it could not score."""
    num_prompts: int = 0
    """Prompts that these candidates answer."""
    largest_difference: float | None = None
    """None where nothing was compared."""
    largest_at: dict[str, Any] | None = None
    """Where: prompt_id, candidate, its stored score and the reference's."""
    num_rankings_changed: int = 0
    """Prompts whose candidates have another order with the reference's scores in it."""
    rankings_changed: list[str] = field(default_factory=list)
    """The first of these prompts."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """The first that failed: prompt_id, candidate, reason, detail."""

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class VerifyScores:
    """`PartWork` that scores candidates again; it writes nothing."""

    pool_root: Place
    reference: Scorer
    name: str
    chosen: Mapping[int, tuple[int, ...]]
    """Rows of each part, ascending."""
    reads_candidates: bool = False
    """The reference asks for all that the pool knows of its candidates."""
    scope: Scope = field(default_factory=Scope)

    def within(self, scope: Scope) -> VerifyScores:
        """Return the same work for other prompts."""
        return replace(self, scope=scope)

    def prompt_ids(self, part: int) -> list[str]:
        """List the prompts of a part whose candidates are scored again."""
        groups = self._read(Pool.open(self.pool_root), part)[1]
        return [one.prompt_id for one in groups if one.prompt_id not in self.scope.dropped]

    def run(self, parts: Parts) -> Iterator[Event]:
        """Score the chosen rows of the parts again."""
        started_s = time.monotonic()
        pool = Pool.open(self.pool_root)
        with self.reference as reference:
            yield Ready(time.monotonic() - started_s)
            for part in parts:
                if part is None:
                    continue
                stored, groups, numbers = self._read(pool, part)
                computed_before = reference.num_tokens_computed
                results = score_within(reference, groups, self.scope)
                yield Progress(
                    len(groups),
                    sum(map(len, numbers)),
                    sum(sum(result.num_tokens) for result in results),
                    reference.num_tokens_computed - computed_before,
                )
                yield Verified(
                    part,
                    tuple(
                        Rescored(one.prompt_id, stored[one.prompt_id], _by_number(one, chosen))
                        for one, chosen in zip(results, numbers, strict=True)
                    ),
                )
                yield PartDone(part)

    def _read(
        self, pool: Pool, part: int
    ) -> tuple[dict[str, tuple[float | None, ...]], list[CandidateGroup], list[list[int]]]:
        """Return all scores by prompt, the groups of what is chosen, and its candidate numbers."""
        scores = pool.read(scores_kind(self.name), part, ["prompt_id", "score"])
        stored: dict[str, list[float | None]] = {}
        for row in scores.to_pylist():
            stored.setdefault(row["prompt_id"], []).append(row["score"])
        columns = group_columns(with_candidates=self.reads_candidates)
        rows = pool.read(CANDIDATES, part, columns).take(list(self.chosen[part]))
        prompts = [one for one in pool.prompts(part) if self.scope.takes(one.prompt_id)]
        groups = candidate_groups(prompts, rows, pool.manifest.generation)
        chosen: dict[str, list[int]] = {}
        for prompt_id, number in zip(
            rows.column("prompt_id").to_pylist(), rows.column("candidate").to_pylist(), strict=True
        ):
            chosen.setdefault(prompt_id, []).append(number)
        numbers = [chosen[group.prompt_id] for group in groups]
        return {name: tuple(values) for name, values in stored.items()}, groups, numbers


def verify(
    pool: Pool, plan: VerifyPlan, engine: Engine, limit: int | None, observe: Observer
) -> VerifyReport:
    """Score random candidates again by the reference and compare; the pool stays as it is."""
    chosen = _draw(pool, plan, limit)
    work = VerifyScores(pool.layout.root, plan.reference, plan.name, chosen, plan.reads_candidates)
    found: dict[int, Verified] = {}
    for event in engine.run(work, list(chosen)) if chosen else ():
        observe(f"verify {plan.name}", len(chosen), event)
        if isinstance(event, Verified):
            found[event.part] = event  # a part that was redone counts once
    report = VerifyReport(plan.seed)
    for part in sorted(found):
        for prompt in found[part].prompts:
            _add(report, prompt)
    return report


def _draw(pool: Pool, plan: VerifyPlan, limit: int | None) -> dict[int, tuple[int, ...]]:
    """Draw rows among those with a score, by part; of the other columns nothing is read."""
    parts = pool.parts(limit)
    ends = list(accumulate(len(_scored_rows(pool, plan.name, part)) for part in parts))
    total = ends[-1] if ends else 0
    draws = random.Random(plan.seed).sample(range(total), min(plan.num_candidates, total))
    ranks: dict[int, list[int]] = {}
    for draw in sorted(draws):
        index = bisect_right(ends, draw)
        ranks.setdefault(index, []).append(draw - (ends[index - 1] if index else 0))
    return {
        parts[index]: tuple(_scored_rows(pool, plan.name, parts[index])[wanted].tolist())
        for index, wanted in ranks.items()
    }


def _scored_rows(pool: Pool, name: str, part: int) -> NDArray[np.int64]:
    scores = pool.read(scores_kind(name), part, ["score"])["score"]
    return np.flatnonzero(np.isfinite(scores.to_numpy()))


def _by_number(scores: Scores, numbers: list[int]) -> dict[int, float | Drop]:
    return {
        number: scores.reasons[position] if score is None else score
        for position, (number, score) in enumerate(zip(numbers, scores.scores, strict=True))
    }


def _add(report: VerifyReport, prompt: Rescored) -> None:
    report.num_prompts += 1
    report.num_candidates += len(prompt.references)
    for number, value in prompt.references.items():
        if isinstance(value, Drop):
            report.num_failed += 1
            place = {"prompt_id": prompt.prompt_id, "candidate": number}
            report.failures.append({**place, "reason": value.reason, "detail": value.detail})
    del report.failures[_NUM_EXAMPLES:]
    references = [prompt.references.get(number) for number in range(len(prompt.scores))]
    numbers = [math.nan if isinstance(one, Drop) else one for one in references]
    found = compare(prompt.scores, numbers)
    if found.candidate is not None and found.difference > _above(report.largest_difference):
        report.largest_difference = found.difference
        report.largest_at = {
            "prompt_id": prompt.prompt_id,
            "candidate": found.candidate,
            "score": prompt.scores[found.candidate],
            "reference": numbers[found.candidate],
        }
    if found.changes_ranking:
        report.num_rankings_changed += 1
        report.rankings_changed = [*report.rankings_changed, prompt.prompt_id][:_NUM_EXAMPLES]


def _above(largest: float | None) -> float:
    return -1.0 if largest is None else largest
