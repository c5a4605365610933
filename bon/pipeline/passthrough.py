"""The input's other columns on their way from a pool to an output, typed over all rows."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from bon.pipeline.columns import ExtraColumns
from bon.pool.pool import PROMPTS, Pool
from bon.records import GIVEN_ID

__all__ = ["PassThrough", "given_ids"]


class PassThrough:
    """Reads the column `extra` of all prompts once to fix one type per column."""

    def __init__(self, pool: Pool, limit: int | None, taken: Collection[str]) -> None:
        self._columns = ExtraColumns(taken)
        for part in pool.parts(limit):
            table = pool.read(PROMPTS, part, ["row", "extra"])
            rows = zip(table["row"].to_pylist(), table["extra"].to_pylist(), strict=True)
            self._columns.learn(
                [_parse(text) for row, text in rows if limit is None or row < limit]
            )

    @property
    def fields(self) -> list[pa.Field]:
        """The output's fields for these columns, in the input's order."""
        return self._columns.fields

    def arrays(self, prompts: pa.Table) -> list[pa.Array]:
        """Return one array per field, one value a prompt; `prompts` needs its column `extra`."""
        return self._columns.arrays([_parse(text) for text in prompts["extra"].to_pylist()])


def given_ids(prompts: pa.Table) -> pa.Array | pa.ChunkedArray:
    """Return the prompts' ids as the input had them; `prompts` needs its column `extra`."""
    ids = prompts["prompt_id"]
    texts = prompts["extra"].to_pylist()
    if not any(GIVEN_ID in text for text in texts):
        return ids
    given = [json.loads(text).get(GIVEN_ID) for text in texts]
    return pa.array(
        [own if said is None else said for own, said in zip(ids.to_pylist(), given, strict=True)],
        pa.string(),
    )


def _parse(text: str) -> dict[str, Any]:
    if text == "{}":
        return {}
    extra: dict[str, Any] = json.loads(text)
    extra.pop(GIVEN_ID, None)
    return extra
