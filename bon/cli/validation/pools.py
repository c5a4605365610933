"""Pools: the one that is the source, or the one that the run would go on with."""

from __future__ import annotations

from collections.abc import Iterator

from bon.cli.validation.plan import Note, PlannedRun, ok, warning
from bon.config import InputSettings, RunSettings
from bon.errors import BonError, PoolCorruptError
from bon.pipeline.given import existing_pool
from bon.pipeline.ranked import count_sampled, open_books
from bon.pipeline.repair import set_damaged_aside
from bon.pipeline.run import begun_pool, check_scorer, refuse_foreign
from bon.pool.files import REDO
from bon.pool.pool import CANDIDATES, Pool, scores_kind

__all__ = ["check_pool"]


def check_pool(run: PlannedRun) -> Iterator[Note | BonError]:
    """Read every committed file, and ask whether the run could go on with them."""
    pool = run.pool = _open(run)
    if pool is None:
        if run.root is not None:
            yield ok(f"{run.root} would be made")
        return
    damaged = list(_damaged(pool))
    if run.call.settings(RunSettings).repair:
        yield from (
            warning(f"{error.where} is damaged ({error.why}): --repair has it made again")
            for error in damaged
        )
    else:
        yield from damaged
    if damaged:
        return
    yield ok(f"every committed file of {pool.layout.root} can be read, its checksums fit")
    yield from _parts(pool, is_source=run.kind == "pool")
    for scoring in run.scorings:
        try:
            check_scorer(pool, scoring)
        except BonError as error:
            yield error
    if run.kind == "pool":
        yield from _books(run, pool)


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


def _damaged(pool: Pool) -> Iterator[PoolCorruptError]:
    """Yield what is wrong with each committed file that cannot be used; nothing is moved."""
    for damage in set_damaged_aside(pool, (), None, lambda num_parts, part: None):
        path = pool.layout.root / damage.file
        yield PoolCorruptError(
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
