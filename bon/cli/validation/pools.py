"""Pools: the one that is the source, or the one that the run would go on with."""

from __future__ import annotations

from collections.abc import Iterator

from bon.cli.repairing import MADE_FROM_INPUT
from bon.cli.validation.plan import Note, PlannedRun, ok, skipped, warning
from bon.config import InputSettings, RunSettings
from bon.errors import BonError, PoolCorruptError
from bon.pipeline.given import existing_pool
from bon.pipeline.ranked import count_sampled, open_books
from bon.pipeline.repair import Damage, lost_manifest, set_damaged_aside
from bon.pipeline.run import begun_pool, check_scorer, refuse_foreign
from bon.pool.files import REDO
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import CANDIDATES, Pool, scores_kind

__all__ = ["check_pool", "manifest_to_restore"]


def check_pool(run: PlannedRun) -> Iterator[Note | BonError]:
    """Read every committed file, and ask whether the run could go on with them."""
    lost = manifest_to_restore(run)
    if lost is not None and run.root is not None:
        yield warning(f"{lost[0]}: --repair puts its copy back")
        if run.kind != "pool":
            yield skipped("whether it was made with these settings is compared when it is back")
        pool: Pool | None = Pool(PoolLayout(run.root), lost[1])
    else:
        pool = _open(run)
    if pool is None:
        if run.root is not None:
            yield ok(f"{run.root} would be made")
        return
    # all of it is read again: there is nothing to compare where parts are missing
    damaged = set_damaged_aside(pool, (), None, lambda num_parts, part: None)
    if damaged:
        yield from (_told(run, pool, damage) for damage in damaged)
        yield skipped("input and settings are not compared with a pool that has damaged parts")
        return
    yield ok(f"every committed file of {pool.layout.root} can be read, its checksums fit")
    run.pool = pool if lost is None else None
    yield from _parts(pool, is_source=run.kind == "pool")
    for scoring in run.scorings:
        try:
            check_scorer(pool, scoring)
        except BonError as error:
            yield error
    if run.kind == "pool":
        yield from _books(run, pool)


def manifest_to_restore(run: PlannedRun) -> tuple[str, Manifest] | None:
    """Return what is wrong with `pool.json` and what its copy says, where --repair puts it back.

    Raises:
        PoolCorruptError: its copy is gone or damaged too.
    """
    if run.root is None or not run.call.settings(RunSettings).repair:
        return None
    layout = PoolLayout(run.root)
    return lost_manifest(layout) if layout.is_pool else None


def _open(run: PlannedRun) -> Pool | None:
    """Open the pool, as the run would find it; a run that would start afresh has none.

    Raises:
        SettingsMismatchError: it was made with other settings.
        PoolError: the folder holds something else.
    """
    if run.root is None:
        return None
    if run.kind == "pool":
        return Pool.open(run.root)
    refuse_foreign(run.root)
    if run.prompts is not None:
        return begun_pool(run.root, run.prompts, run.generation)
    return existing_pool(run.root, run.given) if run.given is not None else None


def _told(run: PlannedRun, pool: Pool, damage: Damage) -> Note | PoolCorruptError:
    """Say what is wrong with a committed file; an error, unless the run makes it again."""
    path = pool.layout.root / damage.file
    is_made = run.kind != "pool" or damage.kind in {scores_kind(one.name) for one in run.scorings}
    is_read = damage.kind in MADE_FROM_INPUT or run.output is not None
    if run.call.settings(RunSettings).repair and (is_made or not is_read):
        again = "--repair has it made again" if is_made else "this run does not read it"
        return warning(f"{path} is damaged ({damage.why}): {again}")
    return PoolCorruptError(
        f"cannot read {path.name} back", where=str(path), why=damage.why, next_step=REDO
    )


def _parts(pool: Pool, *, is_source: bool) -> Iterator[Note]:
    """Say of each kind how many parts are there, and how many are still to be made."""
    kinds = (CANDIDATES, *map(scores_kind, pool.layout.scorer_names()))
    num_parts = len(pool.parts())
    for kind in kinds:
        to_do = len(pool.pending(kind))
        text = f"{kind}: {num_parts - to_do:,} of {num_parts:,} parts are there"
        yield warning(text) if to_do and is_source else ok(text)


def _books(run: PlannedRun, pool: Pool) -> Iterator[Note]:
    """Open the books as a command would that reads the pool; what is to be scored may be missing.

    Raises:
        PoolIncompleteError: parts are missing, or the reading of the input was interrupted.
    """
    limit = run.call.settings(InputSettings).limit
    coming = {plan.name for plan in run.scorings}
    reads = [name for name in (run.recipe.reads if run.recipe else ()) if name not in coming]
    books = run.books = open_books(pool, reads, limit)
    books.kept_rows = books.output_rows = count_sampled(pool, limit)
    text = f"{books.input_rows:,} rows, {books.kept_rows:,} prompts with candidates"
    yield ok(f"{text}, {books.num_drops:,} dropped")
