"""One split: row groups, shards, and the end of a run that failed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bon.exports.files import RowFile, open_rows
from bon.exports.formats import choose_format
from bon.exports.streams import SplitStream


class Shards:
    """Opens shards in a folder."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self.paths: list[Path] = []

    def __call__(self, number: int) -> RowFile:
        self.paths.append(self._folder / f"{number}.parquet")
        return open_rows(self.paths[-1], ".parquet", self._schema)


@pytest.fixture
def shards(tmp_path: Path, pairs: pa.Table) -> Shards:
    return Shards(tmp_path, pairs.schema)


def test_shards_stay_below_their_size(shards: Shards, pairs: pa.Table) -> None:
    table = pa.concat_tables([pairs] * 400)
    stream = SplitStream(choose_format("bon", "pairs"), "pairs", "x", shards, 30_000)
    stream.write(table)
    stream.finish(pairs.schema)
    assert stream.num_shards == len(shards.paths) > 1
    assert all(path.stat().st_size <= 30_000 + 16_000 for path in shards.paths)  # and a footer
    read = pa.concat_tables(pq.read_table(path) for path in shards.paths)
    assert read.to_pylist() == table.to_pylist()


def test_one_row_larger_than_a_shard_is_written(shards: Shards, pairs: pa.Table) -> None:
    stream = SplitStream(choose_format("bon", "pairs"), "pairs", "x", shards, 10)
    stream.write(pairs)
    stream.finish(pairs.schema)
    assert stream.num_shards == stream.num_rows == 3


def test_an_abandoned_shard_may_fail_to_close(pairs: pa.Table) -> None:
    class Full(RowFile):
        def __init__(self) -> None: ...

        @property
        def num_bytes(self) -> int:
            return 0

        def write(self, table: pa.Table) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    stream = SplitStream(choose_format("bon", "pairs"), "pairs", "x", lambda _: Full(), 1e9)
    stream.write(pairs)
    with pytest.raises(OSError, match="No space"):
        stream.finish(pairs.schema)
    stream.abandon()
    stream.close()  # it is gone
