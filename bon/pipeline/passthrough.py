"""The input's other columns on their way from a pool to an output, typed over all rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bon.pipeline.columns import ExtraColumns
from bon.pipeline.mapping import map_parts
from bon.pool.pool import PROMPTS, Pool
from bon.protocols import Mapper
from bon.records import GIVEN_ID

__all__ = [
    "PassThrough",
    "extras_of_parts",
    "given_ids",
    "has_given_ids",
    "read_extras",
]


class PassThrough:
    """Reads the column `extra` of all prompts once to fix one type per column."""

    def __init__(
        self,
        pool: Pool,
        limit: int | None,
        taken: Collection[str],
        mapper: Mapper | None = None,
    ) -> None:
        self._columns = ExtraColumns(taken)
        for found in map_parts(mapper, pool, limit, _Learner(pool, limit)):
            self._columns.merge(found)

    @property
    def fields(self) -> list[pa.Field]:
        """The output's fields for these columns, in the input's order."""
        return self._columns.fields

    @property
    def names(self) -> list[str]:
        """The columns' names in the input."""
        return self._columns.names

    def read(self, prompts: pa.Table) -> list[dict[str, Any]]:
        """Return each prompt's columns; `prompts` needs its column `extra`."""
        return read_extras(prompts) if self.names else [{}] * prompts.num_rows

    def arrays(self, extras: Sequence[dict[str, Any]]) -> list[pa.Array]:
        """Return one array per field, one value a prompt, of what `read` returned."""
        return self._columns.arrays(extras)


@dataclass(frozen=True, slots=True)
class _Learner:
    """Learns the types of the input's other columns in some parts."""

    pool: Pool
    limit: int | None

    def __call__(self, parts: Sequence[int]) -> ExtraColumns:
        columns = ExtraColumns([])
        for extras in extras_of_parts(self.pool, parts, self.limit):
            columns.learn(extras)
        return columns


def extras_of_parts(
    pool: Pool, parts: Sequence[int], limit: int | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the input's other columns of a part's prompts; holds one part at a time."""
    for part in parts:
        table = pool.read(PROMPTS, part, ["row", "extra"])
        if limit is not None:
            table = table.filter(pc.less(table["row"], limit))
        yield read_extras(table)


def has_given_ids(prompts: pa.Table) -> bool:
    """Tell whether any prompt may have another id than the pool's; needs the column `extra`."""
    return bool(pc.any(pc.match_substring(prompts["extra"], GIVEN_ID)).as_py())


def given_ids(prompts: pa.Table) -> pa.Array | pa.ChunkedArray:
    """Return the prompts' ids as the input had them; `prompts` needs its column `extra`.

    An id is a text: whatever else has that key is a column of the input that happens to.
    """
    if not has_given_ids(prompts):
        return prompts["prompt_id"]
    given = [extra.get(GIVEN_ID) for extra in _load(prompts)]
    own = prompts["prompt_id"].to_pylist()
    return pa.array(
        [g if isinstance(g, str) else o for o, g in zip(own, given, strict=True)], pa.string()
    )


def read_extras(prompts: pa.Table) -> list[dict[str, Any]]:
    """Return the input's other columns of each prompt; `prompts` needs its column `extra`."""
    extras = _load(prompts)
    for extra in extras if has_given_ids(prompts) else ():
        if isinstance(extra.get(GIVEN_ID), str):
            del extra[GIVEN_ID]
    return extras


def _load(prompts: pa.Table) -> list[dict[str, Any]]:
    # One call for all: half the time of one call a row.
    extras: list[dict[str, Any]] = json.loads(f"[{','.join(prompts['extra'].to_pylist())}]")
    return extras
