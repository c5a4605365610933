"""What ranks the candidates of a pool, and the books that a command opens with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bon.config import RankingSettings
from bon.errors import PoolIncompleteError
from bon.pipeline.accounting import Accounting
from bon.pipeline.frames import frames
from bon.pipeline.given import LABEL_SCORER
from bon.pipeline.recipes import Recipe, plan_recipe
from bon.pipeline.run import refuse_incomplete
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = [
    "ScorersThere",
    "count_sampled",
    "is_verdict",
    "open_books",
    "pool_recipe",
    "scorer_names",
]


@dataclass(frozen=True, slots=True)
class ScorersThere:
    """The scorers that a pool has, in the order in which they first scored."""

    names: tuple[str, ...] = ()
    verdicts: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()
    """Those that give log-probabilities, which are no rewards."""

    @classmethod
    def of(cls, pool: Pool) -> ScorersThere:
        """Read them off a pool."""
        names = scorer_names(pool)
        said = pool.manifest.scorers
        return cls(
            tuple(names),
            frozenset(name for name in names if is_verdict(pool, name)),
            frozenset(name for name in names if said.get(name, {}).get("kind") == "logprob"),
        )


def pool_recipe(
    pool: Pool,
    settings: RankingSettings,
    *,
    first: str | None = None,
    coming: Sequence[str] = (),
) -> Recipe:
    """Decide what ranks a pool's candidates: what is named, the only scorer, or the only reward.

    Verdicts (those of a rule, or the input's own) rank only where they are named, nothing else is
    there, or several scorers are put together; log-probabilities under a reference model only
    where they are named. `first` ranks where nothing was said; `coming` are verdicts that will be
    there.

    Raises:
        PoolIncompleteError: there are no scores at all.
        SettingsError: as `plan_recipe`.
    """
    there = ScorersThere.of(pool)
    names = [*there.names, *(name for name in coming if name not in there.names)]
    where = str(pool.layout.root)
    if not names:
        raise PoolIncompleteError(
            "this pool has no scores",
            where=where,
            next_step=f"score it with `bon score {where} -r REWARD_MODEL`",
        )
    if first is not None and settings.is_plain and settings.rank_by is None:
        settings = settings.model_copy(update={"rank_by": first})
    return plan_recipe(
        settings,
        [name for name in names if name not in there.references],
        known=names,
        verdicts={*there.verdicts, *coming},
        references=there.references,
        where=where,
    )


def scorer_names(pool: Pool) -> list[str]:
    """List the scorers that have scored the pool, in the order in which they first did."""
    known = list(pool.manifest.scorers)
    if not pool.layout.numbers(PROMPTS):  # no rows, so no scorer has a part
        return known
    there = pool.layout.scorer_names()
    return [name for name in known if name in there] + [n for n in there if n not in known]


def is_verdict(pool: Pool, name: str) -> bool:
    """Tell whether a scorer says right (1) or wrong (0), as some rules and given labels do."""
    said = pool.manifest.scorers.get(name, {})
    return name == LABEL_SCORER or bool(said.get("is_verdict", "rule_version" in said))


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
        complete = _count_rows(pool, kinds)
        step += f"; or use those that are complete with --limit {complete}" if complete else ""
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


def _count_rows(pool: Pool, kinds: Sequence[str] = ()) -> int:
    """Count the input rows that are there without a gap, in parts of which all kinds are made."""
    to_do = {part for kind in kinds for part in pool.pending(kind)}
    rows = 0
    for number, part in enumerate(pool.parts()):
        if number != part or part in to_do:
            break
        rows += pool.covers(PROMPTS, part)
    return rows


def count_sampled(pool: Pool, limit: int | None) -> int:
    """Count the prompts that have candidates, from the candidates themselves."""
    return sum(len(frame.start_P) for frame in frames(pool, limit=limit))
