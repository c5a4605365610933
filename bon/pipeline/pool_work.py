"""What sampling and scoring have in common as works on a pool.

A worker may be taken for dead and live on: its process was stopped, or its machine cut off, and it
wakes up when others have done its parts, or have begun the pool afresh with other prompts or
settings. So it looks before it commits.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

from bon.errors import PoolCorruptError, PoolLockedError, PoolNotFoundError
from bon.pipeline.accounting import count_reasons
from bon.places import Place
from bon.pool.pool import Pool
from bon.protocols import PartDone

__all__ = ["began_afresh", "opened", "part_done", "prompts_elsewhere", "refuse_other_settings"]


def opened(root: Place) -> Pool:
    """Open the pool in a worker, on whichever machine.

    Raises:
        PoolNotFoundError: this machine does not see it.
        PoolCorruptError: its `pool.json` cannot be read.
    """
    try:
        return Pool.open(root)
    except PoolNotFoundError as error:
        raise PoolNotFoundError(
            "a worker does not see the pool",
            where=str(root),
            why=f"there is no pool.json on machine {socket.gethostname()}",
            next_step="put the pool where every node sees it under one name: a shared folder, or "
            "an object store",
        ) from error


def part_done(pool: Pool, kind: str, part: int) -> PartDone | None:
    """Return how a part was made, by whomever; none where it still has to be."""
    if pool.is_done(kind, part):
        # two that committed it at once may leave one's part with the other's list of drops
        with suppress(PoolCorruptError):
            return PartDone(part, count_reasons(pool.drops(kind, part)))
    return None


def prompts_elsewhere(pool: Pool, part: int, kinds: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield the first prompt of every other part of these kinds, each with its part."""
    seen = {part}
    for kind in kinds:
        for number in pool.layout.numbers(kind):
            if number not in seen:
                ids = pool.read(kind, number, ["prompt_id"])["prompt_id"]
                seen.update([number] * bool(ids))
                yield from ((number, one) for one in ids[:1].to_pylist())


def refuse_other_settings(pool: Pool, kind: str) -> None:
    """Make sure that `pool.json` still says what it said when this worker opened it.

    Raises:
        PoolLockedError: another run has begun the pool afresh.
        PoolNotFoundError: it is gone.
    """
    if not opened(pool.layout.root).allows(kind, pool.settings(kind)):
        raise began_afresh(pool)


def began_afresh(pool: Pool) -> PoolLockedError:
    """Return what ends a worker that computes for a pool which is no longer there."""
    return PoolLockedError(
        "the pool was begun afresh while a worker computed for it",
        where=str(pool.layout.root),
        why="its prompts or settings are others now; what this worker made is not written",
        next_step="let the run go on that began it afresh, or repeat the command that you mean",
    )
