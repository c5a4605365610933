"""Blocks, the unit in which Ray hands work out: parts on their way through the stages.

Each block costs the driver some kilobytes, so of many parts not every one is a block.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence

import pyarrow as pa

from bon.errors import BonError
from bon.protocols import PartDone

__all__ = ["ROWS", "error_row", "ever_smaller", "read_rows", "small"]

_PART = pa.struct([("stage", pa.int32()), ("part", pa.int64()), ("drops", pa.string())])
ROWS = pa.schema([("parts", pa.list_(_PART)), ("error", pa.binary())])
"""A block is one such row, so that a batch of one row is a block: with GPUs Ray Data wants the size
of a batch to be said. Its parts, each that a stage has to do, with `drops` null, and once it is
done, what was dropped; or the error that ends all."""
_SHARE_OF_WORK = 4
"""A block is at most this fraction of an even share of what is left."""
_LARGEST_BLOCK = 4
"""Parts: a worker that is lost, or slow, keeps its blocks from all others."""
_MANY_BLOCKS = 4_000
"""Where the parts would make more blocks than that, blocks are larger."""


def ever_smaller(parts: Sequence[int], num_workers: int) -> list[pa.Table]:
    """Return the parts of a stage that runs alone, in blocks of a few.

    The last ones are single parts, so that no worker waits long for the others.
    """
    largest = max(_LARGEST_BLOCK, -(-len(parts) // _MANY_BLOCKS))
    blocks, start = [], 0
    while start < len(parts):
        share = (len(parts) - start) // (_SHARE_OF_WORK * num_workers)
        size = max(1, min(largest, share))
        blocks.append(_to_do([parts[start : start + size]]))
        start += size
    return blocks


def small(parts: Sequence[Sequence[int]]) -> list[pa.Table]:
    """Return what several stages have to do, in blocks of a part each, or of the same few.

    A block goes on to the next stage as a whole.
    """
    has = [frozenset(one) for one in parts]
    all_parts = sorted(frozenset[int]().union(*has))
    size = -(-len(all_parts) // _MANY_BLOCKS) or 1
    some = (all_parts[start : start + size] for start in range(0, len(all_parts), size))
    return [_to_do([[part for part in few if part in one] for one in has]) for few in some]


def read_rows(rows: pa.Table) -> Iterator[tuple[int, PartDone]]:
    """Yield what a block's rows say once all stages have seen it, each with its stage.

    Raises:
        BonError: the error of the worker.
    """
    for row in rows.to_pylist():
        if row["error"] is not None:
            error: BonError = pickle.loads(row["error"])
            raise error
        for one in row["parts"]:
            yield one["stage"], PartDone(one["part"], json.loads(one["drops"]))


def error_row(error: BonError) -> pa.Table:
    """Return an error as a row: raised, Ray would wrap it, and print it more than once."""
    return pa.Table.from_pylist([{"error": pickle.dumps(error)}], ROWS)


def _to_do(parts: Sequence[Sequence[int]]) -> pa.Table:
    """Return a block of the parts that each of several stages has to do."""
    rows = [{"stage": stage, "part": part} for stage, some in enumerate(parts) for part in some]
    return pa.Table.from_pylist([{"parts": rows}], ROWS)
