"""Whole sets: what appears, when, and what reads it back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bon.durable import PARQUET_OPTIONS
from bon.errors import OutputError, SettingsError
from bon.exports.card import CardFacts
from bon.exports.folder import MARKER
from bon.exports.formats import Kind, choose_format
from bon.exports.writer import DatasetWriter

FACTS = CardFacts(name="Demo", command="bon", version="0", source="x.jsonl", input_rows=3)


def write(
    output: Path | str, table: pa.Table, form: str = "bon", kind: Kind = "pairs", **settings: object
) -> DatasetWriter:
    with DatasetWriter(
        output, schema=table.schema, kind=kind, format=choose_format(form, kind), **settings
    ) as writer:
        writer.write(table)
    return writer


def names(folder: Path) -> list[str]:
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if name != MARKER)


def test_one_file(tmp_path: Path, pairs: pa.Table) -> None:
    writer = write(tmp_path / "deep" / "x.parquet", pairs)
    assert writer.files == [tmp_path / "deep" / "x.parquet"]
    assert writer.rows == {"train": 3}
    assert pq.read_table(writer.files[0]).to_pylist() == pairs.to_pylist()
    assert names(tmp_path) == ["deep/x.parquet"]


def test_two_splits_in_two_files(tmp_path: Path, pairs: pa.Table) -> None:
    form = choose_format("trl-kto", "pairs")
    with DatasetWriter(
        tmp_path / "x.jsonl",
        schema=pairs.schema,
        kind="pairs",
        format=form,
        splits=("train", "test"),
    ) as writer:
        writer.write(pairs.slice(0, 1))
        writer.write(pairs.slice(1, 1), "test")
        writer.write(pairs.slice(2))
        assert writer.files == []
    assert writer.rows == {"train": 4, "test": 2}
    assert names(tmp_path) == ["x.jsonl", "x.test.jsonl"]
    rows = (tmp_path / "x.test.jsonl").read_text().splitlines()
    assert [json.loads(row)["candidate"] for row in rows] == [0, 2]


def test_folder_as_the_hub_wants_it(tmp_path: Path, pairs: pa.Table) -> None:
    from datasets import load_dataset

    form = choose_format("trl-dpo", "pairs")
    with DatasetWriter(
        f"{tmp_path}/out/",
        schema=pairs.schema,
        kind="pairs",
        format=form,
        splits=("train", "test"),
        shard_bytes=2000,
    ) as writer:
        for _ in range(20):
            writer.write(pairs)
        writer.write(pairs, "test")
        writer.describe(FACTS)
    folder = tmp_path / "out"
    shards = [name for name in names(folder) if name.startswith("data/train")]
    assert shards == [
        f"data/train-{i:05d}-of-{len(shards):05d}.parquet" for i in range(len(shards))
    ]
    assert len(shards) > 3
    assert "README.md" in names(folder)
    assert sorted(map(str, writer.files)) == [str(folder / name) for name in names(folder)]

    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == writer.rows
    assert writer.rows == {"train": 60, "test": 3}
    assert loaded["train"].to_list() == pairs.to_pylist() * 20


def test_rows_of_one_prompt_become_one_across_batches(tmp_path: Path, pairs: pa.Table) -> None:
    form = choose_format("verl", "pairs")
    with DatasetWriter(
        tmp_path / "math.jsonl", schema=pairs.schema, kind="pairs", format=form
    ) as writer:
        for row in range(3):
            writer.write(pairs.slice(row, 1))
            assert writer.rows["train"] == (1, 1, 2)[row]
            assert writer.merged["train"] == (0, 1, 1)[row]
    rows = [json.loads(line) for line in (tmp_path / "math.jsonl").read_text().splitlines()]
    assert [(r["extra_info"]["index"], r["extra_info"]["prompt_id"]) for r in rows] == [
        (0, "p1"),
        (1, "p2"),
    ]
    assert {row["data_source"] for row in rows} == {"math"}

    chosen = write(tmp_path / "sft.parquet", pairs, "trl-sft")
    assert (chosen.rows, chosen.merged) == ({"train": 2}, {"train": 1})
    assert write(tmp_path / "all.parquet", pairs).merged == {"train": 0}


@pytest.mark.parametrize("output", ["x.parquet", "out"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_an_error_leaves_what_was_there(
    tmp_path: Path, pairs: pa.Table, output: str, error: BaseException
) -> None:
    for there in (False, True):
        if there:
            write(tmp_path / output, pairs)
        before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
        assert bool(before) == there
        with (
            pytest.raises(type(error)),
            DatasetWriter(
                tmp_path / output,
                schema=pairs.schema,
                kind="pairs",
                format=choose_format("bon", "pairs"),
            ) as writer,
        ):
            writer.write(pairs.slice(1))
            assert writer.rows == {"train": 2}
            raise error
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
        assert (tmp_path / output).exists() == there


def test_a_shorter_export_leaves_no_old_shards(tmp_path: Path, pairs: pa.Table) -> None:
    folder = tmp_path / "out"
    write(folder, pa.concat_tables([pairs] * 20), shard_bytes=2000)
    assert len(names(folder)) > 3
    write(folder, pairs)
    assert names(folder) == ["data/train-00000-of-00001.parquet"]
    write(folder, pairs, "llama-factory")
    assert names(folder) == ["dataset_info.json", "train/train-00000-of-00001.parquet"]


def test_nothing_to_write_is_a_file_with_the_schema(tmp_path: Path, pairs: pa.Table) -> None:
    none = pairs.slice(0, 0)
    writer = write(tmp_path / "x.parquet", none, "trl-reward")
    assert pq.read_schema(writer.files[0]).equals(writer.schema)
    assert write(tmp_path / "out", none).files == [
        tmp_path / "out" / "data" / "train-00000-of-00001.parquet"
    ]
    assert writer.rows == {"train": 0}


def test_llama_factory_index(tmp_path: Path, pairs: pa.Table) -> None:
    (tmp_path / "dataset_info.json").write_text('{"other": {"file_name": "o.json"}}')
    writer = write(tmp_path / "x.jsonl", pairs, "llama-factory")
    assert writer.files == [tmp_path / "x.jsonl", tmp_path / "dataset_info.json"]
    index = json.loads((tmp_path / "dataset_info.json").read_text())
    assert index["x"]["file_name"] == "x.jsonl"
    assert index["x"]["ranking"] is True
    assert index["other"] == {"file_name": "o.json"}

    folder = tmp_path / "set"
    write(folder, pairs, "llama-factory", splits=("train", "test"))
    index = json.loads((folder / "dataset_info.json").read_text())
    assert {name: entry["file_name"] for name, entry in index.items()} == {
        "set": "train",
        "set_test": "test",
    }
    for entry in index.values():  # it reads every file of the folder, and takes no other kind
        assert [p.suffix for p in (folder / entry["file_name"]).iterdir()] == [".parquet"]


def test_row_groups_hold_a_size_not_a_number_of_rows(tmp_path: Path) -> None:
    schema = pa.schema([("prompt_id", pa.string()), ("text", pa.string())])
    rows = [{"prompt_id": str(i), "text": "x" * (1 << 16)} for i in range(1200)]
    table = pa.Table.from_pylist(rows, schema)
    with DatasetWriter(
        tmp_path / "x.parquet",
        schema=schema,
        kind="prompts",
        format=choose_format("bon", "prompts"),
    ) as writer:
        for start in range(0, 1200, 7):
            writer.write(table.slice(start, 7))
        writer.write(table)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sum(groups) == 2400
    assert max(groups) * (1 << 16) <= 32 << 20
    assert len(groups) <= 8


def test_other_columns_are_refused(tmp_path: Path, pairs: pa.Table) -> None:
    with (
        pytest.raises(ValueError, match="columns are"),
        DatasetWriter(
            tmp_path / "x.parquet",
            schema=pairs.schema,
            kind="pairs",
            format=choose_format("bon", "pairs"),
        ) as writer,
    ):
        writer.write(pairs.drop_columns(["topic"]))
    assert names(tmp_path) == []


def test_refused_before_any_work(tmp_path: Path, pairs: pa.Table) -> None:
    with pytest.raises(SettingsError, match="does not read"):
        write(tmp_path / "x.parquet", pairs, "nemo-rl")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other things"):
        write(tmp_path, pairs)


@pytest.mark.parametrize("form", ["trl-dpo", "trl-reward", "trl-kto", "openrlhf", "axolotl"])
def test_datasets_reads_every_type_as_it_was_written(
    tmp_path: Path, pairs: pa.Table, form: str
) -> None:
    from datasets import Features, load_dataset

    writer = write(tmp_path / "x.parquet", pairs, form)
    loaded = load_dataset(
        "parquet", data_files=str(writer.files[0]), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert loaded.features == Features.from_arrow_schema(writer.schema)
    expected = choose_format(form, "pairs").convert(pairs, "pairs")
    assert loaded.to_list() == expected.to_pylist()


def test_costs_hardly_more_than_the_bare_parquet_writer(tmp_path: Path, pairs: pa.Table) -> None:
    table = pa.concat_tables([pairs] * 20_000).combine_chunks()

    def bare() -> None:
        with pq.ParquetWriter(tmp_path / "bare", table.schema, **PARQUET_OPTIONS) as writer:
            writer.write_table(table)

    def ours() -> None:
        write(tmp_path / "x.parquet", table)

    def quickest(work: object) -> float:
        seconds = []
        for _ in range(3):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        return min(seconds)

    assert quickest(ours) < 1.5 * quickest(bare) + 0.1
