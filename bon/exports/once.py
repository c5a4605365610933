"""One row for each prompt, or each of its responses, however rows are cut into batches."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.exports.batches import Batch, Kind, conversation_keys, prompt_messages

__all__ = ["Once"]


class Once:
    """Keeps the first of the rows that agree in the prompt's messages and in `column`.

    Ids and numbers of candidates come from the input and may repeat; what was said does not lie.
    Only rows of one prompt that follow each other are compared, so what is remembered stays
    small. A null in the column is unlike any other: such rows are all kept.
    """

    def __init__(self, kind: Kind, column: str) -> None:
        self._kind, self._column = kind, column
        self._prompt: bytes | None = None
        self._seen: set[bytes] = set()
        self.num_merged = 0
        """Rows left out so far."""

    def filter(self, table: pa.Table) -> pa.Table:
        """Return the rows that are the first of their kind, in order."""
        if not table.num_rows:
            return table
        prompt = conversation_keys(prompt_messages(Batch(table, self._kind)))
        value = table.column(self._column).combine_chunks()
        if pa.types.is_list(value.type):
            value = conversation_keys(value)
        run_N = np.zeros(len(prompt), np.int64)
        changed = pc.not_equal(prompt[1:], prompt[:-1])
        run_N[1:] = np.cumsum(changed.to_numpy(zero_copy_only=False))
        code_N = value.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
        key_N = run_N * (len(prompt) + 1) + code_N
        first_N = np.zeros(len(prompt), bool)
        first_N[np.unique(key_N, return_index=True)[1]] = True
        first_N |= code_N == -1
        self._carry(prompt, run_N, value, first_N)
        self.num_merged += int((~first_N).sum())
        return table if first_N.all() else table.filter(pa.array(first_N))

    def _carry(
        self,
        prompt: pa.StringArray,
        run_N: NDArray[np.int64],
        value: pa.StringArray,
        first_N: NDArray[np.bool_],
    ) -> None:
        """Drop what the batch before had already; remember this batch's last prompt."""
        head, last = int(np.searchsorted(run_N, 1)), int(np.searchsorted(run_N, run_N[-1]))
        goes_on = _digest(prompt[0].as_py()) == self._prompt
        if goes_on:
            for row, one in enumerate(value[:head].to_pylist()):
                first_N[row] &= one is None or _digest(one) not in self._seen
        if last > 0 or not goes_on:
            self._seen = set()
        self._prompt = _digest(prompt[-1].as_py())
        self._seen |= {_digest(one) for one in value[last:].to_pylist() if one is not None}


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
