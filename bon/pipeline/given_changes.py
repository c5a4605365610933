"""An input compared with the pool that was made from it, whose scores were paid for."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from bon.pipeline.given_parts import (
    GIVEN_SCORER,
    LABEL_SCORER,
    GivenPart,
    first_difference,
    of_prompts,
)
from bon.pipeline.input_changes import cut_off_by_limit, input_changed
from bon.pool.notes import content_digest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = ["grew", "refuse_other"]

_GIVEN_KINDS = (CANDIDATES, *map(scores_kind, (GIVEN_SCORER, LABEL_SCORER)))
_SAME = ["prompt_id", "prompt", "extra", "row"]
"""Columns of a prompt that do not change when its file is renamed."""


def refuse_other(pool: Pool, part: GivenPart, paid: Iterable[str], stopped: bool) -> None:
    """Refuse rows for a part whose prompts were lost, where others were paid for.

    Raises:
        SettingsMismatchError: scores of these kinds were made of other rows.
    """
    prompts, candidates = part.tables[PROMPTS], part.tables[CANDIDATES]
    there = [kind for kind in paid if pool.layout.has_part(kind, part.number)]
    if not there:
        return
    covered = pool.covers(there[0], part.number)
    if stopped and prompts.num_rows < covered:
        raise cut_off_by_limit(pool, part.number)
    _refuse_other_rows(pool, part, prompts.slice(0, covered))
    if pool.layout.has_part(CANDIDATES, part.number):
        there.insert(0, CANDIDATES)
    for kind in there:
        note, covered = pool.note(kind, part.number), pool.covers(kind, part.number)
        source, rows = PROMPTS, prompts.slice(0, covered)
        if kind != CANDIDATES:
            source, rows = CANDIDATES, of_prompts(candidates, rows["prompt_id"])
        if note and note.made_of not in (None, content_digest(source, rows)):
            raise input_changed(pool, f"{kind} of part {part.number} were made of other {source}")


def grew(pool: Pool, part: GivenPart, stopped: bool) -> bool:
    """Tell whether new rows follow a part's old ones; refuse if the old ones changed.

    Raises:
        SettingsMismatchError: a row differs, or is gone.
    """
    covered = pool.covers(PROMPTS, part.number)
    end = part.number * pool.manifest.part_size + min(covered, part.num_rows)
    old, new = (
        table.filter(pc.less(table["row"], end))
        for table in (pool.read(PROMPTS, part.number), part.tables[PROMPTS])
    )
    index = first_difference(old.select(_SAME), new.select(_SAME))
    if index is not None:
        where = [*new["where"].to_pylist()[index:], *old["where"].to_pylist()[index:]][0]
        raise input_changed(pool, f"{where} is another row now, or was none that could be read")
    if part.num_rows < covered and not stopped:
        raise input_changed(pool, f"the input ends after {end} rows; the pool has more")
    _refuse_other_rows(pool, part, new)
    return part.num_rows > covered


def _refuse_other_rows(pool: Pool, part: GivenPart, prompts: pa.Table) -> None:
    for kind in _GIVEN_KINDS:
        index = _difference(pool, part, kind, prompts["prompt_id"])
        if index is not None:
            where = prompts["where"][index].as_py()
            raise input_changed(
                pool, f"{where} has other {kind.replace('scores/', 'scores: ')} now"
            )


def _difference(pool: Pool, part: GivenPart, kind: str, ids: pa.ChunkedArray) -> int | None:
    """Return the first prompt of which the pool and the part have not the same.

    Where there are no scores, they are unknown ones.
    """
    is_there = pool.layout.part(kind, part.number).exists()
    complete = [CANDIDATES, *map(scores_kind, pool.manifest.scorers)]
    if not is_there and kind in complete:
        return None  # it was lost, and nothing is left to compare
    old = pool.read(kind, part.number) if is_there else None
    both = (old, part.tables.get(kind))
    tables = [of_prompts(table, ids) for table in both if table is not None]
    if len(tables) == 1:
        known = tables[0].filter(pc.is_valid(tables[0]["score"]))
        tables = [known, known.slice(0, 0)]
    index = first_difference(*tables) if tables else None
    if index is None:
        return None
    longer = max(tables, key=len)
    return int(pc.index(ids, longer["prompt_id"][index]).as_py())
