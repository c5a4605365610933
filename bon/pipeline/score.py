"""The work of scoring: a part's candidates, grouped by prompt, through one scorer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa

from bon.pipeline.accounting import count_reasons
from bon.pipeline.groups import candidate_groups, group_columns, score_within
from bon.pipeline.pool_work import opened, part_done, prompts_elsewhere, refuse_other_settings
from bon.places import Place
from bon.pool.pool import CANDIDATES, Pool, scores_kind
from bon.protocols import Event, PartDone, Parts, Progress, Ready, Scope, Scorer, retries_of
from bon.records import SCORES_SCHEMA, CandidateGroup, Drop, Prompt, Scores

__all__ = ["ScoreParts"]


@dataclass(frozen=True, slots=True)
class _ReadPart:
    """A part that is being scored."""

    number: int
    made_of: str | None
    """Digest of its candidates, as they were read."""
    prompts: list[Prompt]
    groups: list[CandidateGroup]


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """`PartWork` that scores.

    A part is handed to the scorer whole and alone, so how it is batched depends on nothing else
    and a redone part has the same bits.
    """

    pool_root: Place
    scorer: Scorer
    name: str
    reads_candidates: bool = False
    """The scorer asks for all that the pool knows of its candidates."""
    scope: Scope = field(default_factory=Scope)

    def within(self, scope: Scope) -> ScoreParts:
        """Return the same work for other prompts."""
        return replace(self, scope=scope)

    def prompt_ids(self, part: int) -> list[str]:
        """List the prompts of a part that have candidates to score."""
        groups = self._read(opened(self.pool_root), part).groups
        return [one.prompt_id for one in groups if one.prompt_id not in self.scope.dropped]

    def others(self, part: int) -> Iterator[tuple[int, str]]:
        """Yield prompts of other parts, those first that were scored before."""
        kinds = scores_kind(self.name), CANDIDATES
        return prompts_elsewhere(opened(self.pool_root), part, kinds)

    def done(self, part: int) -> PartDone | None:
        """Return how a part was scored, by whomever; none where it still has to be."""
        return part_done(opened(self.pool_root), scores_kind(self.name), part)

    def run(self, parts: Parts) -> Iterator[Event]:
        """Score and commit the parts."""
        started_s = time.monotonic()
        pool = opened(self.pool_root)
        with self.scorer as scorer:
            yield Ready(time.monotonic() - started_s)
            retries = Counter[str]()
            for number in parts:
                if number is None:
                    continue
                done = None
                while done is None:
                    part = self._read(pool, number)
                    computed_before = scorer.num_tokens_computed
                    results = score_within(scorer, part.groups, self.scope)
                    done = self._committed(pool, part, results)
                before, retries = retries, Counter(retries_of(scorer))
                # only now: a part that dies before is done again, and would count twice
                yield Progress(
                    len(part.groups),
                    sum(len(group.responses) for group in part.groups),
                    sum(sum(result.num_tokens) for result in results),
                    scorer.num_tokens_computed - computed_before,
                    scorer.halved_batch_tokens,
                    dict(retries - before),
                )
                yield done

    def _committed(self, pool: Pool, part: _ReadPart, results: list[Scores]) -> PartDone | None:
        """Commit a part; none where its candidates are others by now, so it is to be done again."""
        prompts = {prompt.prompt_id: prompt for prompt in part.prompts}
        drops, kind = _drops(results, prompts), scores_kind(self.name)
        if self.scope.only is None:
            # whoever is taken for dead may live on and commit too: what is there stays as it is
            before = part_done(pool, kind, part.number)
            if before is not None:
                return before
            refuse_other_settings(pool, kind)
            if pool.content(CANDIDATES, part.number) != part.made_of:
                return None
            table, covers = _table(results), len(part.prompts)
            pool.commit(kind, part.number, table, drops, covers, part.made_of)
        return PartDone(part.number, count_reasons(drops))

    def _read(self, pool: Pool, number: int) -> _ReadPart:
        made_of = pool.content(
            CANDIDATES, number
        )  # before they are read: they may change meanwhile
        prompts = pool.prompts(number)
        columns = group_columns(with_candidates=self.reads_candidates)
        rows = pool.read(CANDIDATES, number, columns)
        groups = candidate_groups(prompts, rows, pool.manifest.generation)
        taken = [one for one in groups if self.scope.takes(one.prompt_id)]
        return _ReadPart(number, made_of, prompts, taken)


def _table(results: list[Scores]) -> pa.Table:
    rows = [
        {
            "prompt_id": result.prompt_id,
            "candidate": number,
            "score": score,
            "num_tokens": num_tokens,
            "truncated": truncated,
        }
        for result in results
        for number, (score, num_tokens, truncated) in enumerate(
            zip(result.scores, result.num_tokens, result.truncated, strict=True)
        )
    ]
    return pa.Table.from_pylist(rows, SCORES_SCHEMA)


def _drops(results: list[Scores], prompts: Mapping[str, Prompt]) -> list[Drop]:
    return [
        replace(
            drop,
            where=prompts[result.prompt_id].where,
            id=result.prompt_id,
            row=prompts[result.prompt_id].row,
            candidate=number,
        )
        for result in results
        for number, drop in sorted(result.reasons.items())
    ]
