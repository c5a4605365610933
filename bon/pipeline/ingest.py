"""Prompts into the pool: cut into parts by input row, compared with what is there already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from bon.pipeline.input_changes import cut_off_by_limit, input_changed
from bon.pool.notes import content_digest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.records import PROMPTS_SCHEMA, Drop, Prompt

__all__ = ["ingest"]


def ingest(
    pool: Pool, rows: Iterable[Prompt | Drop], limit: int | None, *, writes: bool = True
) -> int:
    """Write the parts that are missing and return the number of input rows read.

    Without `writes`, rows are only compared with those that are there.

    An input that grew at its end extends the last part; any other change is refused, row by row,
    because candidates that were paid for belong to the old rows.

    Raises:
        SettingsMismatchError: a row differs from the pool's, or rows are gone.
    """
    size = pool.manifest.part_size
    source = iter(rows)
    num_rows = 0
    existing = set(pool.layout.numbers(PROMPTS))
    for part in range(1 << 62):
        chunk = list(islice(source, size))
        if not chunk:
            break
        num_rows += len(chunk)
        stopped = limit is not None and num_rows >= limit
        is_new = part not in existing or _grew(pool, part, chunk, stopped)
        if is_new and writes:
            _commit(pool, part, chunk, stopped)
        existing.discard(part)
    gone = {part for part in existing if limit is None or part * size < limit}
    if gone:
        raise input_changed(pool, f"the input ends after {num_rows} rows; the pool has more")
    return num_rows


def _grew(pool: Pool, part: int, chunk: list[Prompt | Drop], stopped: bool) -> bool:
    """Tell whether new rows follow the part's old ones; refuse if the old ones changed."""
    old = list(_signatures(pool, part))
    new = [_signature(row) for row in chunk]
    for index, (before, after) in enumerate(zip(old, new, strict=False)):
        if before != after:
            raise input_changed(pool, f"{chunk[index].where} differs: {_compare(before, after)}")
    if len(new) < len(old) and not stopped:
        raise input_changed(pool, f"the input ends after {chunk[-1].where}; the pool has more rows")
    return len(new) > len(old)


def _signature(row: Prompt | Drop) -> dict[str, Any]:
    if isinstance(row, Drop):
        return {"row": row.row, "id": row.id, "dropped": row.reason}
    extra = json.dumps(row.extra, ensure_ascii=False)
    return {"row": row.row, "id": row.prompt_id, "prompt": list(row.messages), "other": extra}


def _signatures(pool: Pool, part: int) -> Iterator[dict[str, Any]]:
    rows = [_signature(prompt) for prompt in pool.prompts(part)]
    rows += [_signature(drop) for drop in pool.drops(PROMPTS, part)]
    return iter(sorted(rows, key=lambda row: row["row"]))


def _compare(before: dict[str, Any], after: dict[str, Any]) -> str:
    keys = [
        key for key in ("id", "dropped", "prompt", "other") if before.get(key) != after.get(key)
    ]
    key = keys[0]
    return f"its {key} was {_short(before.get(key))}, now {_short(after.get(key))}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _commit(pool: Pool, part: int, chunk: list[Prompt | Drop], stopped: bool) -> None:
    prompts = [row for row in chunk if isinstance(row, Prompt)]
    table = pa.Table.from_pylist(
        [
            {
                "prompt_id": prompt.prompt_id,
                "prompt": list(prompt.messages),
                "extra": json.dumps(prompt.extra, ensure_ascii=False),
                "row": prompt.row,
                "where": prompt.where,
            }
            for prompt in prompts
        ],
        PROMPTS_SCHEMA,
    )
    drops = [row for row in chunk if isinstance(row, Drop)]
    _refuse_other(pool, part, table, stopped)
    pool.commit(PROMPTS, part, table, drops, covers=len(chunk))


def _refuse_other(pool: Pool, part: int, table: pa.Table, stopped: bool) -> None:
    """Refuse rows for a part whose prompts were lost, where candidates were made of others."""
    if not pool.layout.part(CANDIDATES, part).exists():
        return
    note, covered = pool.note(CANDIDATES, part), pool.covers(CANDIDATES, part)
    if stopped and table.num_rows < covered:
        raise cut_off_by_limit(pool, part)
    if note and note.made_of not in (None, content_digest(PROMPTS, table.slice(0, covered))):
        path = pool.layout.part(CANDIDATES, part)
        raise input_changed(
            pool, f"part {part} of candidates ({path}) was sampled for other prompts"
        )
