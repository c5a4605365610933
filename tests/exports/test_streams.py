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


def test_where_rows_are_cut_does_not_depend_on_how_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bon.exports.streams.ROW_GROUP_BYTES", 1000)
    rows = [
        {"text": None if n % 5 == 1 else "x" * (n * 37 % 150), "ids": [1.0] * (n % 7) or None,
         "deep": [{"a": "y" * (n % 11), "b": n % 3 == 0 or None}], "flag": True}
        for n in range(300)
    ]  # fmt: skip
    rows[150]["text"] = "x" * 5000  # larger than a group
    table = pa.Table.from_pylist(rows)
    files = set()
    for number, size in enumerate((1, 7, 100, 300)):
        (tmp_path / str(number)).mkdir()
        shards = Shards(tmp_path / str(number), table.schema)
        stream = SplitStream(choose_format("bon", "pairs"), "pairs", "x", shards, 10_000)
        for start in range(0, 300, size):
            stream.write(table.slice(start, size))
        stream.finish(table.schema)
        files.add(tuple(path.read_bytes() for path in shards.paths))
    (shards_of_all,) = files
    assert len(shards_of_all) > 2
    groups = [pq.ParquetFile(path) for path in shards.paths]
    assert sum(one.num_row_groups for one in groups) > 10
    assert pa.concat_tables(one.read() for one in groups).equals(table)
