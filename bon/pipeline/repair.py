"""Damaged files of a pool: found by reading each one whole, and moved out of the way.

A part that is not there is made by the stages that follow; this only decides which ones are no
longer there. Nothing is deleted: what is damaged lies in `.bon/damaged` afterwards.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bon.durable import replace_file
from bon.errors import (
    BonError,
    OutputError,
    PoolCorruptError,
    PoolNotFoundError,
    SystemFaultError,
)
from bon.places import Place, inside
from bon.pool.files import check_whole
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest, read_manifest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, made_of_other, misplaced, scores_kind

__all__ = ["Damage", "lost_manifest", "restore_manifest", "set_damaged_aside"]

_KEYS = ["prompt_id", "candidate"]
Examined = Callable[[int, int], None]
"""Called with the number of parts in all, and with that of the part that was just read."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One part that cannot be used as it is."""

    kind: str
    part: int
    file: str
    """Path in the pool of the file that is damaged: the part's own, or what was dropped."""
    why: str
    moved_to: str | None = None
    """Path in the pool; none where the part was left in its place."""

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return asdict(self)


def set_damaged_aside(
    pool: Pool, redone: Collection[str], limit: int | None, examined: Examined
) -> list[Damage]:
    """Read every part whole and move those that are damaged; the caller holds the pool's lock.

    Only parts of the kinds in `redone`, which the run will make again, are moved; others are left
    and listed. With `limit` only parts that the first input rows lie in are read.

    Raises:
        OutputError: a file cannot be moved.
        SystemFaultError: the system does not let files be read; of a single one that the disk has
            lost, that is its damage.
    """
    layout, size = pool.layout, pool.manifest.part_size
    kinds = [PROMPTS, CANDIDATES, *(scores_kind(name) for name in layout.scorer_names())]
    parts = [
        (kind, part)
        for kind in kinds
        for part in layout.numbers(kind)
        if limit is None or part * size < limit
    ]
    found = []
    is_as_read = _is_as_read(pool)
    for number, (kind, part) in enumerate(parts):
        damage = _examine(pool, kind, part)
        if kind == PROMPTS and damage is None and not is_as_read:
            damage = _compare_with_candidates(pool, part)
        if damage is not None:
            found.append(_move(layout, damage) if kind in redone else damage)
        examined(len(parts), number)
    return found


def restore_manifest(layout: PoolLayout) -> str | None:
    """Put the copy of a damaged `pool.json` back; return what was wrong, none if nothing was.

    The caller holds the pool's lock.

    Raises:
        PoolCorruptError: the copy is gone or damaged too.
    """
    lost = lost_manifest(layout)
    if lost is None:
        return None
    content = layout.manifest_copy.read_bytes()
    if layout.manifest.exists():
        _set_aside(layout, layout.manifest)
    with replace_file(layout.manifest, layout.staging) as temporary:
        temporary.write_bytes(content)
    return lost[0]


def lost_manifest(layout: PoolLayout) -> tuple[str, Manifest] | None:
    """Return what is wrong with `pool.json`, and what its copy says; none if nothing is.

    Raises:
        PoolCorruptError: the copy is gone or damaged too.
    """
    try:
        read_manifest(layout.manifest)
    except PoolNotFoundError:
        return None
    except PoolCorruptError as error:
        try:
            return f"{error.what}: {error.why}", read_manifest(layout.manifest_copy)
        except BonError:
            error.next_step = "restore it, or make the pool again in another folder"
            raise error from None
    return None


def _is_as_read(pool: Pool) -> bool:
    """Tell whether the prompts that are there are, all of them, those that were read."""
    try:
        return pool.manifest.input.get("content") in (None, pool.prompts_digest())
    except (PoolCorruptError, SystemFaultError):
        return False


def _compare_with_candidates(pool: Pool, part: int) -> Damage | None:
    """Find prompts of another pool: where some are not as they were read, candidates tell which."""
    path = pool.layout.part(PROMPTS, part)
    try:
        pool.check_place(CANDIDATES, part)
    except PoolCorruptError as error:
        if error.why == made_of_other(PROMPTS):
            why = "they are others than those that were read"
            return Damage(PROMPTS, part, str(inside(path, pool.layout.root)), why)
    except SystemFaultError:
        return None  # it is told of the candidates themselves
    return None


def _examine(pool: Pool, kind: str, part: int) -> Damage | None:
    path, dropped = pool.layout.part(kind, part), pool.layout.drops(kind, part)
    places = {str(one): one for one in (path, dropped)}
    try:
        check_whole(path)
        if dropped.is_file():
            check_whole(dropped)
        pool.drops(kind, part)
        _check_keys(pool, kind, part, pool.read(kind, part))
    except PoolCorruptError as error:
        file = places.get(error.where)
        if file is not None:
            return Damage(kind, part, str(inside(file, pool.layout.root)), error.why)
        # what it was made of is damaged, and listed already
    except SystemFaultError as error:
        file = places.get(error.where)
        if not _is_bad_sector(pool.layout, error) or file is None:
            raise
        return Damage(kind, part, str(inside(file, pool.layout.root)), error.why)
    return None


def _is_bad_sector(layout: PoolLayout, error: SystemFaultError) -> bool:
    """Tell whether the disk cannot read a file, though it reads others."""
    if getattr(error.__cause__, "errno", None) != errno.EIO:
        return False
    try:
        read_manifest(layout.manifest)
    except SystemFaultError:
        return False
    return True


def _check_keys(pool: Pool, kind: str, part: int, table: pa.Table) -> None:
    """Compare the rows with those that they belong to; older versions wrote no note of that."""
    path, source = pool.layout.part(kind, part), PROMPTS if kind == CANDIDATES else CANDIDATES
    if kind == PROMPTS or not pool.layout.part(source, part).is_file():
        return
    if kind == CANDIDATES:
        ids = pool.read(PROMPTS, part, ["prompt_id"])["prompt_id"]
        place = pc.index_in(table["prompt_id"], ids)
        steps = np.diff(place.fill_null(-1).to_numpy(), prepend=-1)
        number = table["candidate"].to_numpy()
        # a prompt's candidates are numbered from 0, and prompts come in their order
        fits = np.where(steps == 0, np.diff(number, prepend=-1) == 1, (steps > 0) & (number == 0))
        is_good = place.null_count == 0 and bool(fits.all())
    else:
        keys = pool.read(CANDIDATES, part, _KEYS)
        covered = pool.covers(kind, part) == pool.covers(CANDIDATES, part)
        is_good = not covered or table.select(_KEYS).equals(keys)
    if not is_good:
        raise misplaced(path, made_of_other(source))


def _move(layout: PoolLayout, damage: Damage) -> Damage:
    """Move a part with its dropped rows: they are made together."""
    moved = {
        path: _set_aside(layout, path)
        for path in (
            layout.drops(damage.kind, damage.part),
            layout.part(damage.kind, damage.part),
        )
        if path.is_file()
    }
    # where the dropped rows are gone, it is the part that was moved
    first = moved.get(layout.root / damage.file) or moved[layout.part(damage.kind, damage.part)]
    moved_to = str(inside(first, layout.root))
    return Damage(damage.kind, damage.part, damage.file, damage.why, moved_to)


def _set_aside(layout: PoolLayout, path: Place) -> Place:
    """Move a file into `.bon/damaged`, beside those of earlier repairs."""
    target = layout.damaged / inside(path, layout.root)
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{path.name}.{number}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)  # type: ignore[arg-type]  # both lie in the same pool
        return target
    except OSError as error:
        raise OutputError(
            "a damaged file cannot be moved",
            where=str(path),
            why=error.strerror or str(error),
            next_step="make the pool's folder writable",
        ) from error
