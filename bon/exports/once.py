"""One row for each prompt, or each of its candidates, however rows are cut into batches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["Once"]


class Once:
    """Keeps the first of the rows that agree in `prompt_id` and in `column`.

    Rows of one prompt follow each other, so only the last prompt's values are remembered. A null
    in the column is unlike any other: such rows are all kept.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._prompt: str | None = None
        self._seen: set[object] = set()

    def filter(self, table: pa.Table) -> pa.Table:
        """Return the rows that are the first of their kind, in order."""
        if not table.num_rows:
            return table
        prompt = table.column("prompt_id").combine_chunks()
        run_N = np.zeros(len(prompt), np.int64)
        changed = pc.not_equal(prompt[1:], prompt[:-1])
        run_N[1:] = np.cumsum(pc.fill_null(changed, True).to_numpy(zero_copy_only=False))
        value = table.column(self._column).combine_chunks()
        code_N = value.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
        key_N = run_N * (len(prompt) + 1) + code_N
        first_N = np.zeros(len(prompt), bool)
        first_N[np.unique(key_N, return_index=True)[1]] = True
        first_N |= code_N == -1
        self._carry(prompt, run_N, value, first_N)
        return table if first_N.all() else table.filter(pa.array(first_N))

    def _carry(
        self,
        prompt: pa.Array,
        run_N: NDArray[np.int64],
        value: pa.Array,
        first_N: NDArray[np.bool_],
    ) -> None:
        """Drop what the batch before had already; remember this batch's last prompt."""
        head = int(np.searchsorted(run_N, 1))
        if self._prompt is not None and prompt[0].as_py() == self._prompt:
            for row, one in enumerate(value[:head].to_pylist()):
                first_N[row] &= one is None or one not in self._seen
        last = int(np.searchsorted(run_N, run_N[-1]))
        if last > 0 or prompt[0].as_py() != self._prompt:
            self._seen = set()
        self._prompt = prompt[-1].as_py()
        self._seen |= set(value[last:].to_pylist())
