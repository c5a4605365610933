"""How large rows are, by what they hold alone: not by how a table happens to lie in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["row_bytes"]

_OFFSET_BYTES = 4
_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)


def row_bytes(table: pa.Table) -> NDArray[np.int64]:
    """Return the bytes of each row's values, shape (rows,).

    `Table.nbytes` counts validity bits that are there or not, whole bytes of them, and a slice's
    share of either, so where a set is cut would follow how its rows arrived.
    """
    sizes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        sizes += np.concatenate([np.zeros(0, np.int64), *map(_sizes, column.chunks)])
    return sizes


def _sizes(array: pa.Array) -> NDArray[np.int64]:
    kind = array.type
    if pa.types.is_struct(kind):
        return sum((_sizes(one) for one in array.flatten()), np.zeros(len(array), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        length = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        inside = np.r_[0, np.cumsum(_sizes(array.flatten()))]
        ends = np.cumsum(length, dtype=np.int64)
        lists: NDArray[np.int64] = inside[ends] - inside[ends - length] + _OFFSET_BYTES
        return lists
    if pa.types.is_primitive(kind):
        return np.full(len(array), -(-kind.bit_width // 8), np.int64)
    if any(is_kind(kind) for is_kind in _TEXTS):
        lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
        texts: NDArray[np.int64] = lengths.astype(np.int64) + _OFFSET_BYTES
        return texts
    # Types that no set of bon's has; what lies in memory is near enough.
    return np.full(len(array), array.nbytes // max(len(array), 1), np.int64)
