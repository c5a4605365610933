"""One split on its way to disk: rows gathered into row groups, converted, cut into shards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pyarrow as pa

from bon.exports.files import RowFile
from bon.exports.formats import Format, Kind
from bon.exports.once import Once
from bon.exports.sizes import row_bytes

__all__ = ["ROW_GROUP_BYTES", "SplitStream"]

ROW_GROUP_BYTES = 32 << 20
"""Of native rows; a form that says the prompt twice stays below the Hub's 100 MB."""


class SplitStream:
    """Takes native rows of any number at a time; holds at most one row group of them."""

    def __init__(
        self,
        format: Format,
        kind: Kind,
        name: str,
        open_shard: Callable[[int], RowFile],
        shard_bytes: float,
    ) -> None:
        self._format, self._kind, self._name = format, kind, name
        self._open_shard, self._shard_bytes = open_shard, shard_bytes
        self._group_bytes = int(min(ROW_GROUP_BYTES, shard_bytes))
        once = format.once.get(kind)
        self._once = Once(kind, once) if once else None
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._file: RowFile | None = None
        self.num_rows = 0
        """Rows written so far."""
        self.num_shards = 0

    @property
    def num_merged(self) -> int:
        """Native rows so far that became part of another, where the form wants one of a kind."""
        return 0 if self._once is None else self._once.num_merged

    def write(self, table: pa.Table) -> None:
        """Append native rows; a row group takes as many as fit, however they come."""
        end_R = np.cumsum(row_bytes(table))
        start, before = 0, 0
        while start < table.num_rows:
            room = before + self._group_bytes - self._waiting_bytes
            stop = int(np.searchsorted(end_R, room, side="right"))
            if stop == start and not self._waiting:
                stop = start + 1  # a row as large as a group
            if stop > start:
                self._waiting.append(table.slice(start, stop - start))
                self._waiting_bytes += int(end_R[stop - 1]) - before
                start, before = stop, int(end_R[stop - 1])
            if start < table.num_rows:
                self.flush()

    def finish(self, native: pa.Schema) -> None:
        """Write what waits and close the last shard; a split without rows has one empty shard."""
        self.flush()
        if self._file is None:
            self._append(self._converted(native.empty_table()))
        self.close()

    def close(self) -> None:
        """Close the open shard."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def abandon(self) -> None:
        """Close the open shard of a run that has failed; what went wrong is known already."""
        with suppress(Exception):
            self.close()

    def flush(self) -> None:
        """Write what waits as a row group."""
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._waiting_bytes = [], 0
        if self._once is not None:
            table = self._once.filter(table)
        if table.num_rows:
            self._append(self._converted(table))

    def _converted(self, table: pa.Table) -> pa.Table:
        return self._format.convert(table, self._kind, name=self._name, start=self.num_rows)

    def _append(self, rows: pa.Table) -> None:
        file = self._file
        if file is None or file.num_bytes + int(row_bytes(rows).sum()) > self._shard_bytes:
            self.close()
            file = self._file = self._open_shard(self.num_shards)
            self.num_shards += 1
        file.write(rows)
        self.num_rows += rows.num_rows
