"""Responses that an input already has, into a pool: prompts, candidates, scores and verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bon.durable import local_stand_in, remove_tree
from bon.errors import SettingsMismatchError
from bon.pipeline.given_changes import grew, refuse_other
from bon.pipeline.given_parts import (
    GIVEN_SCORER,
    LABEL_SCORER,
    GivenPart,
    given_parts,
    of_prompts,
    score_table,
)
from bon.pipeline.input_changes import input_changed
from bon.pipeline.plans import GivenPlan
from bon.pipeline.run import refuse_foreign
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.pool.manifest import GIVEN_ENGINE, Manifest, read_manifest, refuse_differences
from bon.pool.notes import content_digest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = [
    "GIVEN_SCORER",
    "LABEL_SCORER",
    "existing_pool",
    "has_paid_scores",
    "import_responses",
    "refuse_other_responses",
]

DEFAULT_PART_SIZE = 8192
_SCORERS = (GIVEN_SCORER, LABEL_SCORER)
_SCORE_KINDS = tuple(map(scores_kind, _SCORERS))
_KEYS = ["prompt_id", "candidate"]
_GATHERED = "gathered"
"""Key in `pool.json`'s input of pools whose prompts' rows stood apart."""


def import_responses(root: Place, plan: GivenPlan) -> Pool:
    """Write the pool of an input with responses, or find it complete; the caller holds its lock.

    Where the responses to a prompt turn out to stand apart, the import begins again and gathers
    them. A pool that was paid for stays as it was begun.

    Scores become those of the scorer `given`, verdicts those of `label`; each is there only if any
    row has one. An import that was interrupted starts again. Where a reward model has scored the
    pool since, its prompts and candidates stay, and the input may only have grown at its end; what
    an interrupted import of such growth left unfinished is undone first.

    Raises:
        SettingsMismatchError: the pool's candidates were sampled, or it was scored and has other
            settings or other rows.
        PoolError: the folder holds something else.
    """
    pool = existing_pool(root, plan)
    if pool is not None and _is_complete(pool, plan):
        return pool
    stays = pool is not None and (_paid_scorers(pool) or _has_lost_parts(pool, plan))
    if pool is None or not stays:
        pool = _start(root, plan)
    _gather_as_before(pool, plan)
    _undo_unfinished_growth(pool)
    num_rows = _write_parts(pool, plan, may_gather=not stays)
    is_gathered = _is_gathered(pool)
    if plan.rows.is_scattered and not stays:
        is_gathered = True
        pool = _start(root, plan)
        plan.rows.gather(_beside(pool))
        num_rows = _write_parts(pool, plan)
    whole = plan.limit is None or num_rows < plan.limit
    _undo_unfinished_parts(pool, whole)
    _fill_unknown(pool, num_rows)
    if num_rows < _num_rows(pool):
        if whole:
            why = f"the input ends after {num_rows} rows; the pool has {_num_rows(pool)}"
            raise input_changed(pool, why)
        return pool  # a smaller limit: the pool's own rows stay
    new = {
        "settings": plan.fingerprint,
        "source": plan.name,
        "description": plan.rows.describe(),
        "kind": plan.rows.kind,
        "digest": plan.digest,
        "rows": num_rows,
        "whole": whole,
        "content": pool.prompts_digest(),
        **({_GATHERED: True} if is_gathered else {}),
    }
    given = {name: {"spec": GIVEN_ENGINE} for name in _SCORERS if _has_scores(pool, name)}
    update = {"input": new, "scorers": {**pool.manifest.scorers, **given}}
    return pool.save(pool.manifest.model_copy(update=update))


def _write_parts(pool: Pool, plan: GivenPlan, *, may_gather: bool = False) -> int:
    """Write what is missing; with `may_gather`, stop where rows turn out to be scattered."""
    num_rows = 0
    for part in given_parts(plan.rows, pool.manifest.part_size):
        if plan.rows.is_scattered and may_gather:
            break
        num_rows += part.num_rows
        _write(pool, part, stopped=plan.limit is not None and num_rows >= plan.limit)
    return num_rows


def _is_gathered(pool: Pool) -> bool:
    return bool(pool.manifest.input.get(_GATHERED))


def _gather_as_before(pool: Pool, plan: GivenPlan) -> None:
    """Read the input as the pool was made of it: a prompt's rows together, or as they stand."""
    if _is_gathered(pool):
        plan.rows.gather(_beside(pool))


def _beside(pool: Pool) -> Path:
    return local_stand_in(pool.layout.staging.parent / "gathered")


def refuse_other_responses(pool: Pool, plan: GivenPlan) -> None:
    """Compare an input, row by row, with the pool that was made and scored from it.

    Nothing is written; an interrupted import of what grew is not undone, but passed over.

    Raises:
        SettingsMismatchError: a row differs.
    """
    _gather_as_before(pool, plan)
    finished, num_rows = set(pool.layout.numbers(PROMPTS)), 0
    for part in given_parts(plan.rows, pool.manifest.part_size):
        num_rows += part.num_rows
        if part.number in finished:
            grew(pool, part, plan.limit is not None and num_rows >= plan.limit)
    whole = plan.limit is None or num_rows < plan.limit
    if whole and num_rows < _num_rows(pool):
        raise input_changed(
            pool, f"the input ends after {num_rows} rows; the pool has {_num_rows(pool)}"
        )


def has_paid_scores(pool: Pool) -> bool:
    """Tell whether a scorer that costs something has scored: its rows may not change any more."""
    return bool(_paid_scorers(pool))


def existing_pool(root: Place, plan: GivenPlan) -> Pool | None:
    """Open the pool that is there, if this input may be its own.

    Raises:
        SettingsMismatchError: its candidates were sampled, or paid for with other settings.
    """
    layout = PoolLayout(root)
    if not layout.manifest.exists():
        return None
    pool = Pool(layout, read_manifest(layout.manifest))
    old = pool.manifest.generation or {}
    if layout.numbers(CANDIDATES) and not pool.manifest.is_given:
        raise SettingsMismatchError(
            "this pool's candidates were sampled, not given",
            where=str(root),
            why="what a model generated would be lost",
            next_step="give --pool another folder",
        )
    if _paid_scorers(pool):
        size = pool.manifest.part_size
        wanted = {**_generation(plan), "part_size": plan.part_size or size}
        refuse_differences("settings", root, {**old, "part_size": size}, wanted)
    return pool


def _start(root: Place, plan: GivenPlan) -> Pool:
    layout = PoolLayout(root)
    refuse_foreign(root)
    new = Manifest(
        part_size=plan.part_size or DEFAULT_PART_SIZE,
        input={"settings": plan.fingerprint},
        generation=_generation(plan),
    )
    # Scores go while the manifest still tells a rule's from paid ones, the rest once it no longer
    # says how many rows are there.
    remove_tree(root / "scores")
    pool = Pool(layout, new).save(new)
    for name in (PROMPTS, CANDIDATES, "drops"):
        remove_tree(root / name)
    return pool


def _generation(plan: GivenPlan) -> dict[str, Any]:
    return {"engine": GIVEN_ENGINE, **plan.fingerprint}


def _paid_scorers(pool: Pool) -> list[str]:
    """Name the scorers that cost something: neither the input's own scores nor rules."""
    made = pool.manifest.scorers
    return [
        name
        for name in pool.layout.scorer_names()
        if name not in _SCORERS and "rule_version" not in made.get(name, {})
    ]


def _has_scores(pool: Pool, name: str) -> bool:
    return bool(pool.layout.numbers(scores_kind(name)))


def _is_complete(pool: Pool, plan: GivenPlan) -> bool:
    """Tell whether the pool was made from the same bytes with the same settings, to the end."""
    return (
        _is_same_input(pool, plan)
        and pool.layout.numbers(PROMPTS) == _all_parts(pool)
        and _num_rows(pool) == pool.manifest.input["rows"]
        and pool.manifest.input.get("content") in (None, pool.prompts_digest())
        and all(_fits_prompts(pool, kind) for kind in _given_kinds(pool))
    )


def _has_lost_parts(pool: Pool, plan: GivenPlan) -> bool:
    """Tell whether all that is there is of this input, and files of it are gone since."""
    parts = set(_all_parts(pool)) if _is_same_input(pool, plan) else set()
    return (
        all(set(pool.layout.numbers(kind)) <= parts for kind in (PROMPTS, *_given_kinds(pool)))
        and _num_rows(pool) <= pool.manifest.input.get("rows", -1)
        and bool(parts)
    )


def _is_same_input(pool: Pool, plan: GivenPlan) -> bool:
    known = pool.manifest.input
    rows = known.get("rows")
    if rows is None or plan.digest is None or known.get("digest") != plan.digest:
        return False
    if known["settings"] != plan.fingerprint:
        return False
    if plan.part_size not in (None, pool.manifest.part_size):
        return False
    return bool(known["whole"] or (plan.limit is not None and plan.limit <= rows))


def _all_parts(pool: Pool) -> list[int]:
    return list(range(-(-pool.manifest.input["rows"] // pool.manifest.part_size)))


def _num_rows(pool: Pool) -> int:
    # Counted, not looked up: an interrupted import has not written down what it committed.
    return sum(pool.covers(PROMPTS, part) for part in pool.parts())


def _given_kinds(pool: Pool) -> list[str]:
    """List what the input gives besides prompts: candidates, and scores that any part has."""
    made = pool.manifest.scorers
    given = [name for name in _SCORERS if name in made or _has_scores(pool, name)]
    return [CANDIDATES, *map(scores_kind, given)]


def _fits_prompts(pool: Pool, kind: str) -> bool:
    """Tell whether a kind has exactly the parts of the prompts, each as long as theirs."""
    parts = pool.parts()
    return pool.layout.numbers(kind) == parts and all(
        pool.covers(kind, part) == pool.num_prompts(part) for part in parts
    )


def _undo_unfinished_growth(pool: Pool) -> None:
    """Take back rows of parts whose prompts were never committed."""
    for kind in _given_kinds(pool):
        for number in set(pool.layout.numbers(kind)) & set(pool.layout.numbers(PROMPTS)):
            end = number * pool.manifest.part_size + pool.covers(PROMPTS, number)
            drops = pool.stored_drops(kind, number)
            old_drops = [drop for drop in drops if drop.row < end]
            if pool.covers(kind, number) > pool.num_prompts(number) or old_drops != drops:
                ids = pool.read(PROMPTS, number, ["prompt_id"])["prompt_id"]
                table = of_prompts(pool.read(kind, number), ids)
                pool.commit(kind, number, table, old_drops, covers=len(ids))


def _undo_unfinished_parts(pool: Pool, whole: bool) -> None:
    """Take back parts whose prompts were never committed; where they were paid for, they were."""
    finished = set(pool.layout.numbers(PROMPTS))
    paid = {n for name in _paid_scorers(pool) for n in pool.layout.numbers(scores_kind(name))}
    if whole and not paid <= finished:
        raise input_changed(pool, f"it ends before part {min(paid - finished)}, which was scored")
    for kind in _given_kinds(pool):
        for number in set(pool.layout.numbers(kind)) - finished - paid:
            _remove(pool, kind, number)


def _remove(pool: Pool, kind: str, number: int) -> None:
    pool.layout.part(kind, number).unlink(missing_ok=True)
    pool.layout.drops(kind, number).unlink(missing_ok=True)


def _write(pool: Pool, part: GivenPart, *, stopped: bool) -> None:
    """Commit a part, unless it is there; `stopped` says that a limit may have cut it off."""
    number, prompts = part.number, part.tables[PROMPTS]
    is_there = pool.layout.has_part(PROMPTS, number)
    if is_there and not grew(pool, part, stopped):
        if part.num_rows == pool.covers(PROMPTS, number):
            _refuse_other(pool, part, stopped)
            lost = [k for k in (*_SCORE_KINDS, CANDIDATES) if not pool.layout.has_part(k, number)]
            _commit(pool, part, lost)
        return
    _refuse_other(pool, part, stopped)
    if not is_there:
        for kind in _SCORE_KINDS:
            if kind not in part.tables:  # of rows that were read before, and never committed
                _remove(pool, kind, number)
    # The prompts come last: where they are, the rest of the part is there too.
    _commit(pool, part, (*_SCORE_KINDS, CANDIDATES))
    pool.commit(PROMPTS, number, prompts, part.drops[PROMPTS], covers=part.num_rows)


def _refuse_other(pool: Pool, part: GivenPart, stopped: bool) -> None:
    """Refuse other rows than those that were scored, where prompts or candidates were lost."""
    if not all(pool.layout.has_part(kind, part.number) for kind in (PROMPTS, CANDIDATES)):
        refuse_other(pool, part, map(scores_kind, _paid_scorers(pool)), stopped)


def _commit(pool: Pool, part: GivenPart, kinds: Iterable[str]) -> None:
    """Commit what a part has of these kinds, before the rows that they are made of are there."""
    made_of = {kind: content_digest(CANDIDATES, part.tables[CANDIDATES]) for kind in _SCORE_KINDS}
    made_of[CANDIDATES] = content_digest(PROMPTS, part.tables[PROMPTS])
    for kind in kinds:
        if kind in part.tables:
            pool.commit(
                kind,
                part.number,
                part.tables[kind],
                part.drops.get(kind, []),
                covers=part.tables[PROMPTS].num_rows,
                made_of=made_of[kind],
            )


def _fill_unknown(pool: Pool, num_rows: int) -> None:
    """Write parts without a single score where other parts have some: all have the file then.

    Only of the first `num_rows` input rows is it known that they have none.
    """
    for kind in _given_kinds(pool)[1:]:
        for number in pool.pending(kind):
            if number * pool.manifest.part_size + pool.covers(PROMPTS, number) <= num_rows:
                candidates = pool.read(CANDIDATES, number, _KEYS)
                table = score_table(candidates, [None] * candidates.num_rows)
                pool.commit(kind, number, table, [], covers=pool.num_prompts(number))
