"""Which rows of a pool are of one prompt: those with one id, as the input had it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.pipeline.passthrough import given_ids, has_given_ids
from bon.pool.pool import PROMPTS, Pool

__all__ = ["PromptNumbers"]


class PromptNumbers:
    """Numbers of a pool's prompts; rows that were imported one by one share a number by id.

    The ids are read when a number is first asked for, and only numbers are kept: 4 bytes for each
    input row.
    """

    def __init__(self, pool: Pool, limit: int | None) -> None:
        self._pool, self._limit = pool, limit

    def of(self, row_U: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the number of the prompt of each input row, shape (U,)."""
        number_R = self._number_R
        return row_U.astype(np.int32) if number_R is None else number_R[row_U]

    @cached_property
    def _number_R(self) -> NDArray[np.int32] | None:
        """By input row; none where each row is a prompt of its own."""
        parts = self._pool.parts(self._limit)
        read = (self._pool.read(PROMPTS, part, ["extra"]) for part in parts)
        if not any(map(has_given_ids, read)):
            return None
        rows: list[NDArray[np.int64]] = []
        ids: list[pa.Array] = []
        for part in parts:
            prompts = self._pool.read(PROMPTS, part, ["prompt_id", "row", "extra"])
            rows.append(prompts["row"].to_numpy())
            given = given_ids(prompts)
            ids += given.chunks if isinstance(given, pa.ChunkedArray) else [given]
        row_P = np.concatenate(rows)
        encoded = pa.chunked_array(ids, pa.string()).dictionary_encode()
        number_R = np.zeros(int(row_P.max(initial=-1)) + 1, np.int32)
        number_R[row_P] = np.concatenate([one.indices.to_numpy() for one in encoded.chunks])
        return number_R
