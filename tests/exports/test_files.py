"""Files of rows read back."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bon.exports.files import SUFFIXES, open_rows, suffix_of


def written(path: Path, *tables: pa.Table) -> Path:
    suffix = suffix_of(path)
    assert suffix is not None
    file = open_rows(path, suffix, tables[0].schema)
    for table in tables:
        file.write(table)
    file.close()
    return path


def lines(path: Path) -> list[dict]:
    with pa.input_stream(str(path), compression="detect") as stream:
        return [json.loads(line) for line in stream.read().decode().splitlines()]


def test_suffixes() -> None:
    assert [suffix_of(Path(f"a.b{s}")) for s in SUFFIXES] == list(SUFFIXES)
    assert [suffix_of(Path(n)) for n in ("x.json", "x.gz", "x", "jsonl")] == [None] * 4


def test_parquet_is_one_row_group_a_table(tmp_path: Path, pairs: pa.Table) -> None:
    path = written(tmp_path / "x.parquet", pairs, pairs.slice(1))
    file = pq.ParquetFile(path, page_checksum_verification=True)
    assert file.num_row_groups == 2
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.read().to_pylist() == pairs.to_pylist() + pairs.to_pylist()[1:]
    assert b"huggingface" in file.schema_arrow.metadata


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines(tmp_path: Path, responses: pa.Table, suffix: str) -> None:
    path = written(tmp_path / f"x{suffix}", responses, responses.slice(2))
    found = lines(path)
    assert len(found) == 4
    # the shortest numbers that float32 reads back, not 0.10000000149011612
    assert (found[0]["reward"], found[0]["rewards"]) == (0.1, [0.1, None])
    assert found[3]["messages"] == responses["messages"][2].as_py()
    assert "🙂" in found[3]["prompt"]
    if suffix == ".jsonl.gz":
        assert gzip.decompress(path.read_bytes()).count(b"\n") == 4


def test_json_has_no_nan_and_takes_any_type(tmp_path: Path) -> None:
    day = datetime.date(2024, 2, 29)
    table = pa.table(
        {
            "score": pa.array([float("nan"), float("-inf")], pa.float64()),
            "deep": [{"x": [float("inf"), 1.5]}, None],
            "day": pa.array([day, None]),
            "raw": pa.array([b"\x00\xff", None]),
            "half": pa.array([[0.1, None], None], pa.list_(pa.float32())),
        }
    )
    assert lines(written(tmp_path / "x.jsonl", table)) == [
        {
            "score": None,
            "deep": {"x": [None, 1.5]},
            "day": "2024-02-29",
            "raw": "AP8=",
            "half": [0.1, None],
        },
        {"score": None, "deep": None, "day": None, "raw": None, "half": None},
    ]


def test_json_lists_of_a_slice(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32())
    table = pa.table({"r": pa.array([[1.0], [0.1, 2.0], None, [], [0.3]], kind)}).slice(1, 3)
    found = lines(written(tmp_path / "x.jsonl", table))
    assert found == [{"r": [0.1, 2.0]}, {"r": None}, {"r": []}]


def test_csv_has_nested_values_as_json(tmp_path: Path, pairs: pa.Table) -> None:
    texts = pa.array(['a "quoted"\nline, and more', None, ""])
    path = written(tmp_path / "x.csv", pairs.append_column("text", texts))
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert json.loads(found[2]["prompt"]) == pairs["prompt"][2].as_py()
    assert (found[2]["margin"], found[2]["candidate_chosen"]) == ("0.1", "3")
    assert found[0]["text"] == 'a "quoted"\nline, and more'


FORMULAS = (
    *("=1+1", '=HYPERLINK("http://x")', "+1+1", "-1+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\tx"),
    *("\rx", "  =1", "\n=1", "\u00a0=1", "\uff1d1", "- a list", "-", "+", "-5%", "-1e", "+1.2.3"),
)
NO_FORMULAS = (
    *("", "a=1", "'=1", '"=1"', "-5", "+3.2e1", "-.5", " -5 ", "-5.", "1", "a\n=1", "(=1)"),
    *("\nfirst line", "\n\n"),
)


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_csv_has_no_text_that_a_spreadsheet_would_run(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array([*FORMULAS, *NO_FORMULAS, None], pa.string()).cast(kind)
    table = pa.table({"text": pa.chunked_array([texts]), "=name": [-1.5] * len(texts)})
    path = written(tmp_path / "x.csv", table, table.slice(3))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["text", "'=name"]
    want = [*(f"'{one}" for one in FORMULAS), *NO_FORMULAS, ""]
    assert [row[0] for row in rows[1:]] == want + want[3:]
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_other_files_keep_such_texts_as_they_are(tmp_path: Path) -> None:
    table = pa.table({"=name": list(FORMULAS)})
    assert pq.read_table(written(tmp_path / "x.parquet", table)).to_pylist() == table.to_pylist()
    assert lines(written(tmp_path / "x.jsonl", table)) == table.to_pylist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_rows_is_a_file(tmp_path: Path, pairs: pa.Table, suffix: str) -> None:
    path = written(tmp_path / f"x{suffix}", pairs.slice(0, 0))
    if suffix == ".parquet":
        assert pq.read_schema(path).names == pairs.column_names
    elif suffix == ".csv":
        assert path.read_text().count("\n") == 1
    else:
        assert lines(path) == []


def test_bytes_are_counted(tmp_path: Path, pairs: pa.Table) -> None:
    file = open_rows(tmp_path / "x.jsonl", ".jsonl", pairs.schema)
    assert file.num_bytes == 0
    file.write(pairs)
    assert file.num_bytes > 100
    file.close()
