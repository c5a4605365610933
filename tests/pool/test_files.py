"""Parquet files written and read back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bon.errors import PoolCorruptError
from bon.pool.files import read_table, write_table

SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float32())])
TABLE = pa.table({"id": [f"p{n}" for n in range(200)], "score": [0.5] * 200}, SCHEMA)


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def part(tmp_path: Path, staging: Path) -> Path:
    """A committed file."""
    path = tmp_path / "out" / "part.parquet"
    write_table(TABLE, path, staging, {"note": "x"})
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_written_table_is_read_back_with_zstd_and_page_checksums(part: Path) -> None:
    assert read_table(part, SCHEMA).equals(TABLE)
    assert read_table(part, SCHEMA, ["score"]).equals(TABLE.select(["score"]))
    footer = pq.read_metadata(part)
    assert footer.row_group(0).column(0).compression == "ZSTD"
    assert footer.metadata[b"note"] == b"x"


def test_flipped_bit_anywhere_is_noticed_or_harmless(part: Path) -> None:
    good = part.read_bytes()
    num_noticed = 0
    for index in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[index] ^= 1 << index % 8
        part.write_bytes(damaged)
        try:
            assert read_table(part, SCHEMA).equals(TABLE)
        except PoolCorruptError:
            num_noticed += 1

    assert num_noticed > len(good) / 3 / 2


def test_flipped_bit_in_a_columns_name_is_corrupt(part: Path) -> None:
    content = part.read_bytes()
    part.write_bytes(content[:8] + content[8:].replace(b"score", b"\xf3core"))
    with pytest.raises(PoolCorruptError):
        read_table(part, SCHEMA)


def test_flipped_bit_in_a_page_is_caught_by_its_checksum(part: Path) -> None:
    column = pq.read_metadata(part).row_group(0).column(0)
    good = part.read_bytes()
    end = column.data_page_offset + column.total_compressed_size - (
        column.data_page_offset - column.dictionary_page_offset
    )  # fmt: skip
    damaged = bytearray(good)
    damaged[end - 2] ^= 1
    part.write_bytes(damaged)

    with pytest.raises(PoolCorruptError) as caught:
        read_table(part, SCHEMA)

    assert "CRC" in caught.value.why
    assert caught.value.where == str(part)
    assert "--repair: only this part is redone" in caught.value.next_step


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_file_is_corrupt(part: Path, share: float) -> None:
    os.truncate(part, int(part.stat().st_size * share))
    with pytest.raises(PoolCorruptError, match=r"cannot read part\.parquet back"):
        read_table(part, SCHEMA)


def test_missing_file_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(PoolCorruptError, match="back"):
        read_table(tmp_path / "none.parquet", SCHEMA)


@pytest.mark.parametrize(
    "other",
    [
        pa.schema([("id", pa.string()), ("score", pa.float64())]),
        pa.schema([("id", pa.string())]),
        pa.schema([("score", pa.float32()), ("id", pa.string())]),
    ],
)
def test_other_columns_are_corrupt(part: Path, other: pa.Schema) -> None:
    with pytest.raises(PoolCorruptError) as caught:
        read_table(part, other)
    assert "columns are ['id', 'score']" in caught.value.why


def test_columns_that_are_younger_than_a_file_are_null(tmp_path: Path, staging: Path) -> None:
    schema = pa.schema([*SCHEMA, ("token_ids", pa.list_(pa.int32()))])
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    write_table(TABLE, old, staging)
    ids = pa.array([[1, 2]] * 200, schema.field("token_ids").type)
    write_table(TABLE.append_column(schema.field("token_ids"), ids), new, staging)
    for path, wanted in ((old, None), (new, [1, 2])):
        assert read_table(path, schema).schema == schema
        for columns in (["token_ids"], ["token_ids", "id"], schema.names):
            table = read_table(path, schema, columns)
            assert table.column_names == columns
            assert table["token_ids"].to_pylist() == [wanted] * 200
        assert read_table(path, schema, ["id"]).equals(TABLE.select(["id"]))


def test_a_damaged_name_is_no_younger_column(tmp_path: Path, staging: Path) -> None:
    schema = pa.schema([("id", pa.string()), ("token_ids", pa.list_(pa.int32()))])
    for names in (["id", "tokem_ids"], ["ie"], ["ie", "token_ids"]):
        table = pa.table([pa.array(["a"])] * len(names), names)
        path = tmp_path / f"{names[-1]}.parquet"
        write_table(table, path, staging)
        for columns in (None, schema.names, ["id"], ["token_ids"]):
            if columns is None or not set(columns) <= set(names):
                with pytest.raises(PoolCorruptError):
                    read_table(path, schema, columns)
