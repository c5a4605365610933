"""A pool read back as prompts with their candidates and rewards, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from bon.errors import PoolCorruptError, PoolIncompleteError, SettingsError, did_you_mean
from bon.pipeline.accounting import Accounting
from bon.pipeline.given import LABEL_SCORER
from bon.pipeline.run import refuse_incomplete
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import Candidate, Prompt

__all__ = [
    "RankedPrompt",
    "count_sampled",
    "is_verdict",
    "open_books",
    "ranked_prompts",
    "ranking_scorer",
    "scorer_names",
]


@dataclass(frozen=True, slots=True)
class RankedPrompt:
    """One prompt with its N candidates and their rewards (none where scoring failed)."""

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    rewards: tuple[float | None, ...]


def ranking_scorer(pool: Pool, rank_by: str | None) -> str:
    """Return the scorer whose scores rank: the one named, the only one, or the only reward.

    Verdicts (those of a rule, or the input's own) rank only where they are named or nothing else
    is there.

    Raises:
        PoolIncompleteError: there are no scores at all.
        SettingsError: several scorers and none named, or the named one is not there.
    """
    names = scorer_names(pool)
    where = str(pool.layout.root)
    if not names:
        raise PoolIncompleteError(
            "this pool has no scores",
            where=where,
            next_step=f"score it with `bon score {where} -r REWARD_MODEL`",
        )
    if rank_by is not None and rank_by not in names:
        raise SettingsError(
            f"this pool has no scorer {rank_by!r}",
            where=where,
            next_step=did_you_mean(rank_by, names),
        )
    rewards = [name for name in names if not is_verdict(pool, name)] or names
    if rank_by is None and len(rewards) > 1:
        raise SettingsError(
            "this pool has several scorers",
            where=where,
            why=", ".join(names),
            next_step="name the one that ranks with --rank-by",
        )
    return rank_by or rewards[0]


def scorer_names(pool: Pool) -> list[str]:
    """List the scorers that have scored the pool."""
    if not pool.layout.numbers(PROMPTS):  # no rows, so no scorer has a part
        return sorted(pool.manifest.scorers)
    return pool.layout.scorer_names()


def is_verdict(pool: Pool, name: str) -> bool:
    """Tell whether a scorer says right (1) or wrong (0), as rules and given labels do."""
    return name == LABEL_SCORER or "rule_version" in pool.manifest.scorers.get(name, {})


def open_books(
    pool: Pool, scorers: Sequence[str], limit: int | None, *, with_unscored: bool = True
) -> Accounting:
    """Start a command's accounting: input rows, and the drops that making the pool counted.

    `with_unscored` counts candidates that a scorer could not score; a command for which these are
    candidates like any other leaves them out.

    Raises:
        PoolIncompleteError: parts are missing, or the reading of the input was interrupted.
    """
    kinds = [CANDIDATES, *(scores_kind(name) for name in scorers)]
    _refuse_interrupted(pool, kinds, limit)
    for kind in kinds:
        refuse_incomplete(pool, kind, limit)
    rows = sum(pool.covers(PROMPTS, part) for part in pool.parts(limit))
    books = Accounting(rows if limit is None else min(rows, limit))
    for kind in (PROMPTS, *(kinds if with_unscored else (CANDIDATES,))):
        for drop in pool.read_drops(kind):
            # A run that was killed may leave drops of rows that the pool does not have.
            if drop.row < books.input_rows:
                books.add(drop)
    return books


def _refuse_interrupted(pool: Pool, kinds: Sequence[str], limit: int | None) -> None:
    """Stop where rows that the limit wants were being read when a run was killed.

    The manifest's number of rows is written once all are there, and a part's prompts once its
    given candidates are. Where a smaller limit wants only rows that are there, they may be used.
    """
    said, there = pool.manifest.input.get("rows"), _count_rows(pool)
    step = "run the command that made the pool again: it goes on where it stopped"
    longer = _longer_than_prompts(pool, kinds, limit)
    if longer:
        why = f"{longer[0]} has rows of prompts that are not there yet"
    elif said is None:
        why = f"{there} rows are there, and nobody knows whether these are all"
    elif there != said and (limit is None or limit > there):
        why = f"{there} rows are there; the last complete reading had {said}"
        step += f"; or use those that are there with --limit {there}"
    else:
        return
    raise PoolIncompleteError(
        "the reading of this pool's input was interrupted",
        where=str(pool.layout.root),
        why=why,
        next_step=step,
    )


def _longer_than_prompts(pool: Pool, kinds: Sequence[str], limit: int | None) -> list[str]:
    parts = set(pool.parts(limit))
    return [
        f"part {part} of {kind}"
        for kind in kinds
        for part in pool.layout.numbers(kind)
        if part in parts and pool.covers(kind, part) > pool.num_prompts(part)
    ]


def _count_rows(pool: Pool) -> int:
    """Count the input rows that are there without a gap."""
    rows = 0
    for number, part in enumerate(pool.parts()):
        if number != part:
            break
        rows += pool.covers(PROMPTS, part)
    return rows


def count_sampled(pool: Pool, limit: int | None) -> int:
    """Count the prompts that have candidates, from the candidates themselves."""
    count = 0
    for part in pool.parts(limit):
        sampled = set(pool.read(CANDIDATES, part, ["prompt_id"])["prompt_id"].to_pylist())
        count += sum(prompt.prompt_id in sampled for prompt in pool.prompts(part, limit))
    return count


def ranked_prompts(pool: Pool, scorer: str, limit: int | None) -> Iterator[RankedPrompt]:
    """Yield every prompt that has candidates, in input order; holds one part at a time."""
    for part in pool.parts(limit):
        for ranked in _ranked_part(pool, scorer, part):
            if limit is None or ranked.prompt.row < limit:
                yield ranked


def _ranked_part(pool: Pool, scorer: str, part: int) -> Iterator[RankedPrompt]:
    prompts = {prompt.prompt_id: prompt for prompt in pool.prompts(part)}
    candidates = pool.read(CANDIDATES, part)
    kind = scores_kind(scorer)
    scores = pool.read(kind, part, ["prompt_id", "candidate", "score"])
    keys = ["prompt_id", "candidate"]
    if not candidates.select(keys).equals(scores.select(keys)):
        raise PoolCorruptError(
            f"part {part} of {kind} belongs to other candidates",
            where=str(pool.layout.part(kind, part)),
            next_step="delete this file and run the same command again: only this part is redone",
        )
    if not prompts.keys() >= set(candidates.column("prompt_id").to_pylist()):
        raise PoolCorruptError(
            f"part {part} of {CANDIDATES} belongs to other prompts",
            where=str(pool.layout.part(CANDIDATES, part)),
            next_step="delete this file and run the same command again: only this part is redone",
        )
    rows = zip(candidates.to_pylist(), scores.column("score").to_pylist(), strict=True)
    for prompt_id, group in groupby(rows, key=lambda pair: pair[0]["prompt_id"]):
        pairs = list(group)
        yield RankedPrompt(
            prompts[prompt_id],
            tuple(
                Candidate(**{key: value for key, value in row.items() if key != "prompt_id"})
                for row, _ in pairs
            ),
            tuple(score for _, score in pairs),
        )
