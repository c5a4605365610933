"""Responses that an input already has, into a pool: prompts, candidates, scores and verdicts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bon.errors import SettingsMismatchError
from bon.pipeline.given_parts import (
    GIVEN_SCORER,
    LABEL_SCORER,
    GivenPart,
    given_parts,
    score_table,
)
from bon.pipeline.run import refuse_foreign
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest, read_manifest, refuse_differences
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import (
    CANDIDATES_SCHEMA,
    Drop,
    GivenResponses,
)

__all__ = ["GIVEN_SCORER", "LABEL_SCORER", "GivenPlan", "import_responses"]

DEFAULT_PART_SIZE = 8192
_ENGINE = "given"
_SCORERS = (GIVEN_SCORER, LABEL_SCORER)
_KEYS = ["prompt_id", "candidate"]
_SAME = ["prompt_id", "prompt", "extra", "row"]
"""Columns of a prompt that do not change when its file is renamed."""


class GivenSource(Protocol):
    """What the pipeline needs of a reader of responses."""

    def __iter__(self) -> Iterator[GivenResponses | Drop]:
        """Start again from the first row."""
        ...

    @property
    def kind(self) -> str | None:
        """What a row is, responses or pairs, once a good one has been read."""
        ...

    def describe(self) -> str:
        """Say how the rows are read, once they have been."""
        ...


@dataclass(frozen=True, slots=True)
class GivenPlan:
    """An input with responses, and how it becomes a pool."""

    name: str
    rows: GivenSource
    fingerprint: dict[str, Any]
    """What decides how rows are read; grouping belongs to it."""
    digest: str | None
    """Hash of the input's bytes, none where it has no files."""
    limit: int | None
    part_size: int | None


def import_responses(root: Path, plan: GivenPlan) -> Pool:
    """Write the pool of an input with responses, or find it complete; the caller holds its lock.

    Scores become those of the scorer `given`, verdicts those of `label`; each is there only if any
    row has one. An import that was interrupted starts again. Where a reward model has scored the
    pool since, its prompts and candidates stay, and the input may only have grown at its end.

    Raises:
        SettingsMismatchError: the pool's candidates were sampled, or it was scored and has other
            settings or other rows.
        PoolError: the folder holds something else.
    """
    pool = _existing(root, plan)
    if pool is not None and _is_complete(pool, plan):
        return pool
    if pool is None or not _paid_scorers(pool):
        pool = _start(root, plan)
    num_rows = 0
    for part in given_parts(plan.rows, pool.manifest.part_size):
        num_rows += part.num_rows
        _write(pool, part, stopped=plan.limit is not None and num_rows >= plan.limit)
    whole = plan.limit is None or num_rows < plan.limit
    known_rows = pool.manifest.input.get("rows", 0)
    if num_rows < known_rows:
        if whole:
            raise _changed(pool, f"the input ends after {num_rows} rows; the pool has {known_rows}")
        return pool  # a smaller limit: the pool's own rows stay
    new = {
        "settings": plan.fingerprint,
        "source": plan.name,
        "description": plan.rows.describe(),
        "kind": plan.rows.kind,
        "digest": plan.digest,
        "rows": num_rows,
        "whole": whole,
    }
    given = {name: {"spec": _ENGINE} for name in _SCORERS if _has_scores(pool, name)}
    update = {"input": new, "scorers": {**pool.manifest.scorers, **given}}
    return pool.save(pool.manifest.model_copy(update=update))


def _existing(root: Path, plan: GivenPlan) -> Pool | None:
    """Open the pool that is there, if this input may be its own."""
    layout = PoolLayout(root)
    if not layout.manifest.exists():
        return None
    pool = Pool(layout, read_manifest(layout.manifest))
    old = pool.manifest.generation or {}
    if layout.numbers(CANDIDATES) and old.get("engine") != _ENGINE:
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


def _start(root: Path, plan: GivenPlan) -> Pool:
    layout = PoolLayout(root)
    refuse_foreign(root)
    for name in (PROMPTS, CANDIDATES, "drops", "scores"):
        shutil.rmtree(root / name, ignore_errors=True)
    new = Manifest(
        part_size=plan.part_size or DEFAULT_PART_SIZE,
        input={"settings": plan.fingerprint},
        generation=_generation(plan),
    )
    return Pool(layout, new).save(new)


def _generation(plan: GivenPlan) -> dict[str, Any]:
    return {"engine": _ENGINE, **plan.fingerprint}


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
    known = pool.manifest.input
    rows = known.get("rows")
    if rows is None or plan.digest is None or known.get("digest") != plan.digest:
        return False
    if known["settings"] != plan.fingerprint:
        return False
    if plan.part_size not in (None, pool.manifest.part_size):
        return False
    enough = known["whole"] or (plan.limit is not None and plan.limit <= rows)
    parts = list(range(-(-rows // pool.manifest.part_size)))
    given = [name for name in _SCORERS if name in pool.manifest.scorers]
    kinds = [PROMPTS, CANDIDATES, *map(scores_kind, given)]
    return bool(enough and all(pool.layout.numbers(kind) == parts for kind in kinds))


def _write(pool: Pool, part: GivenPart, *, stopped: bool) -> None:
    """Commit a part, unless it is there; `stopped` says that a limit may have cut it off."""
    number, prompts = part.number, part.tables[PROMPTS]
    if number in pool.layout.numbers(PROMPTS) and not _grew(pool, part, stopped):
        return
    pool.commit(PROMPTS, number, prompts, part.drops[PROMPTS], covers=part.num_rows)
    candidates, drops = part.tables[CANDIDATES], part.drops[CANDIDATES]
    pool.commit(CANDIDATES, number, candidates, drops, covers=prompts.num_rows)
    for name in _SCORERS:
        kind = scores_kind(name)
        if kind in part.tables:
            for earlier in sorted(set(range(number)) - set(pool.layout.numbers(kind))):
                _commit_unknown(pool, kind, earlier)
            pool.commit(kind, number, part.tables[kind], [], covers=prompts.num_rows)
        elif _has_scores(pool, name):
            _commit_unknown(pool, kind, number)


def _commit_unknown(pool: Pool, kind: str, number: int) -> None:
    """Write a part without a single score, as all parts have the file if one has it."""
    candidates = pool.read(CANDIDATES, number, _KEYS)
    table = score_table(candidates, [None] * candidates.num_rows)
    pool.commit(kind, number, table, [], covers=pool.num_prompts(number))


def _grew(pool: Pool, part: GivenPart, stopped: bool) -> bool:
    """Tell whether new rows follow a part's old ones; refuse if the old ones changed."""
    is_longer = part.num_rows > pool.covers(PROMPTS, part.number)
    for kind, columns in ((PROMPTS, _SAME), (CANDIDATES, CANDIDATES_SCHEMA.names)):
        old = pool.read(kind, part.number, columns)
        new = part.tables[kind].select(columns)
        num_rows = min(old.num_rows, new.num_rows)
        if not old.slice(0, num_rows).equals(new.slice(0, num_rows)):
            raise _changed(pool, f"{kind} of part {part.number} differ")
        if new.num_rows < old.num_rows and not stopped:
            raise _changed(pool, f"{kind} of part {part.number} end early")
    for kind in map(scores_kind, _SCORERS):
        if not _are_same_scores(pool, part, kind):
            raise _changed(pool, f"{kind} of part {part.number} differ")
    return is_longer


def _are_same_scores(pool: Pool, part: GivenPart, kind: str) -> bool:
    """Compare the scores of candidates that are in the pool and in the part."""
    tables = [part.tables.get(kind)]
    is_there = part.number in pool.layout.numbers(kind)
    tables.append(pool.read(kind, part.number) if is_there else None)
    num_rows = pool.num_rows(CANDIDATES, part.number)
    num_rows = min(num_rows, part.tables[CANDIDATES].num_rows)
    old, new = (
        [None] * num_rows if table is None else table.column("score").slice(0, num_rows).to_pylist()
        for table in tables
    )
    return bool(old == new)


def _changed(pool: Pool, why: str) -> SettingsMismatchError:
    return SettingsMismatchError(
        "the input is not the one that this pool was made and scored from",
        where=str(pool.layout.root),
        why=why,
        next_step="restore the input, add new rows only at its end, or give another --pool to "
        "start afresh",
    )
