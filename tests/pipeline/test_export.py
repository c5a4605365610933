"""A set on its way to disk: what is written, split and counted, and when nothing appears."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.native_rows import EXTRA, ONE, TWO, pair, response

from bon.config import ExportSettings
from bon.errors import AccountingError, OutputError
from bon.exports.card import CardFacts
from bon.exports.formats import Kind, choose_format
from bon.pipeline.accounting import Accounting
from bon.pipeline.export import NativeSet, Written, write_set
from bon.pipeline.splits import in_test
from bon.records import MESSAGES_TYPE, PAIR_FIELDS, RESPONSE_FIELDS

SCHEMA = pa.schema([*EXTRA, *PAIR_FIELDS])
RESPONSES = pa.schema([*EXTRA, *RESPONSE_FIELDS])
CARD = CardFacts(name="pairs", command="bon build-dpo x", version="1", source="x", input_rows=2)
SEED = next(
    seed for seed in range(99)
    if in_test(pa.array([ONE, TWO], MESSAGES_TYPE), 0.5, seed).tolist() == [False, True]
)  # fmt: skip
"""Puts `ONE` into train and `TWO` into test."""


def tables(num_copies: int = 1) -> Iterator[pa.Table]:
    """One pair of each prompt a table, then an empty table."""
    for _ in range(num_copies):
        yield pa.Table.from_pylist([pair("p1", ONE, (0, 1), 0.5)], SCHEMA)
        yield pa.Table.from_pylist([pair("p2", TWO, (3, 2), 0.25)], SCHEMA)
    yield SCHEMA.empty_table()


def write(
    output: Path,
    rows: Iterator[pa.Table],
    *,
    schema: pa.Schema = SCHEMA,
    kind: Kind = "pairs",
    books: Accounting | None = None,
    **settings: Any,
) -> Written:
    export = ExportSettings(**settings)
    native = NativeSet(rows, schema, kind, books or Accounting(0), card=lambda: CARD)
    return write_set(native, output, choose_format(export.format, kind), export, seed=SEED)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_holds_the_rows_in_their_order(tmp_path: Path) -> None:
    written = write(tmp_path / "x.parquet", tables())
    assert (written.files, written.rows) == ([tmp_path / "x.parquet"], {"train": 2})
    table = pq.read_table(tmp_path / "x.parquet", page_checksum_verification=True)
    assert table.schema.remove_metadata() == SCHEMA
    assert table["prompt_id"].to_pylist() == ["p1", "p2"]
    assert names(tmp_path) == ["x.parquet"]


def test_a_split_is_a_second_file(tmp_path: Path) -> None:
    written = write(tmp_path / "x.jsonl", tables(3), train_test_split=0.5)
    assert written.files == [tmp_path / "x.jsonl", tmp_path / "x.test.jsonl"]
    assert written.rows == {"train": 3, "test": 3}
    assert '"p2"' not in (tmp_path / "x.jsonl").read_text()
    assert '"p1"' not in (tmp_path / "x.test.jsonl").read_text()


def test_responses_are_split_by_their_prompt(tmp_path: Path) -> None:
    rows = [response("p1", ONE, 0), response("p1", ONE, 2), response("p2", TWO, 1)]
    table = pa.Table.from_pylist(rows, RESPONSES)
    written = write(
        tmp_path / "x.parquet", iter([table]), schema=RESPONSES, kind="responses",
        train_test_split=0.5,
    )  # fmt: skip
    assert written.rows == {"train": 2, "test": 1}
    assert pq.read_table(tmp_path / "x.test.parquet")["prompt_id"].to_pylist() == ["p2"]


def test_a_split_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    written = write(tmp_path / "x.parquet", iter([]), train_test_split=0.5)
    assert written.rows == {"train": 0, "test": 0}
    assert pq.read_schema(tmp_path / "x.test.parquet").remove_metadata() == SCHEMA


def test_a_folder_has_shards_and_a_card(tmp_path: Path) -> None:
    written = write(tmp_path / "set", tables(), train_test_split=0.5)
    shards = ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    assert names(tmp_path / "set") == [".bon-export.json", "README.md", *shards]
    assert written.files == [tmp_path / "set" / name for name in ("README.md", *shards)]
    assert "bon build-dpo x" in (tmp_path / "set" / "README.md").read_text()


def test_shards_have_about_the_size_that_was_asked_for(tmp_path: Path) -> None:
    import random

    noise = random.Random(0)
    rows = pa.Table.from_pylist(
        [
            pair("p1", ONE, (0, 1), 0.5) | {"topic": noise.randbytes(500_000).hex()}
            for _ in range(6)
        ],
        SCHEMA,
    )
    written = write(tmp_path / "set", iter([rows]), shard_mb=1)
    shards = [path for path in written.files if path.suffix == ".parquet"]
    assert len(shards) > 2
    assert max(path.stat().st_size for path in shards) < 2_000_000
    assert sum(pq.read_metadata(path).num_rows for path in shards) == 6


def test_rows_are_counted_as_the_trainer_counts_them(tmp_path: Path) -> None:
    assert write(tmp_path / "k.parquet", tables(), format="trl-kto").rows == {"train": 4}
    assert write(tmp_path / "g.parquet", tables(2), format="trl-grpo").rows == {"train": 4}
    once = iter([pa.concat_tables(list(tables())[:1] * 3)])
    written = write(tmp_path / "h.parquet", once, format="trl-grpo", train_test_split=0.5)
    assert written.rows == {"train": 1, "test": 0}
    assert written.merged == {"train": 2, "test": 0}


@pytest.mark.parametrize("name", ["x.parquet", "set"])
def test_books_that_do_not_close_give_no_result(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, tables())
    before = {one: (tmp_path / one).read_bytes() for one in names(tmp_path)}
    with pytest.raises(AccountingError, match="3 input rows, but 0 kept and 0 dropped"):
        write(tmp_path / name, tables(2), books=Accounting(3))
    assert {one: (tmp_path / one).read_bytes() for one in names(tmp_path)} == before


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl.zst", "set"])
@pytest.mark.parametrize("split", [None, 0.5])
def test_an_error_in_the_middle_leaves_nothing(
    tmp_path: Path, name: str, split: float | None
) -> None:
    def broken() -> Iterator[pa.Table]:
        yield from tables()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, broken(), train_test_split=split)
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.jsonl.gz", "set"):
        write(tmp_path / name, tables(3), train_test_split=0.5)
        before = {one: (tmp_path / one).read_bytes() for one in names(tmp_path)}
        write(tmp_path / name, tables(3), train_test_split=0.5)
        assert {one: (tmp_path / one).read_bytes() for one in names(tmp_path)} == before


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        write(tmp_path / "file" / "x.parquet", tables())
