"""The errors of an input that is not the one a pool was made from."""

from __future__ import annotations

from bon.errors import SettingsMismatchError
from bon.pool.pool import PROMPTS, Pool

__all__ = ["cut_off_by_limit", "input_changed"]


def input_changed(pool: Pool, why: str) -> SettingsMismatchError:
    """Return the error of an input whose rows are others; what was paid for belongs to the old."""
    return SettingsMismatchError(
        "the input is not the one that this pool was made from",
        where=str(pool.layout.root),
        why=why,
        next_step="restore the input, add new rows only at its end, or give another --pool to "
        "start afresh",
    )


def cut_off_by_limit(pool: Pool, part: int) -> SettingsMismatchError:
    """Return the error of a part that was lost and cannot come back as long as a limit is."""
    return SettingsMismatchError(
        f"the prompts of part {part} are lost, and --limit ends within this part",
        where=str(pool.layout.part(PROMPTS, part)),
        why="it can only be read again whole: candidates of all its rows are there",
        next_step="run this command once without --limit, or with --limit "
        f"{(part + 1) * pool.manifest.part_size}",
    )
