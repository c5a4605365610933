"""Features against those that `datasets` makes, and what it reads back."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bon.exports.features import features, type_name, with_features
from bon.records import MESSAGES_TYPE, PAIR_FIELDS, RESPONSE_FIELDS

TYPES = [
    pa.bool_(), pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.float16(), pa.float32(),
    pa.float64(), pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.null(),
    pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.duration("ms"),
    pa.timestamp("us"), pa.timestamp("ns", tz="UTC"), pa.decimal128(9, 2), MESSAGES_TYPE,
    pa.list_(pa.float32()), pa.large_list(pa.string()), pa.list_(pa.int8(), 3),
    pa.struct([("a", pa.list_(pa.list_(pa.string()))), ("b", pa.struct([("c", pa.int64())]))]),
]  # fmt: skip


def test_features_are_those_of_datasets() -> None:
    from datasets import Features

    fields = [pa.field(f"c{n}", kind) for n, kind in enumerate(TYPES)]
    schema = pa.schema([*fields, *PAIR_FIELDS])
    theirs = Features.from_arrow_schema(schema)
    assert features(schema) == theirs.to_dict()
    info = json.loads(with_features(schema).metadata[b"huggingface"])
    assert Features.from_dict(info["info"]["features"]) == theirs


@pytest.mark.parametrize(
    "kind",
    [
        pa.map_(pa.string(), pa.int32()),
        pa.list_view(pa.int8()),
        pa.struct([("x", pa.map_(pa.string(), pa.int32()))]),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_no_features_where_datasets_has_no_word(kind: pa.DataType) -> None:
    schema = pa.schema([("x", kind), ("y", pa.string())])
    assert features(schema) is None
    assert with_features(schema) == schema


def test_load_dataset_reads_the_types_back(tmp_path: Path, responses: pa.Table) -> None:
    from datasets import Features, load_dataset

    path = tmp_path / "x.parquet"
    pq.write_table(responses.cast(with_features(responses.schema)), path)
    loaded = load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "c"))["train"]
    assert loaded.features == Features.from_arrow_schema(responses.schema)
    assert loaded.to_list() == responses.to_pylist()


def test_types_in_words() -> None:
    schema = pa.schema(RESPONSE_FIELDS)
    assert type_name(schema.field("messages").type) == "list of {role: string, content: string}"
    assert type_name(schema.field("rewards").type) == "list of float32"
    assert type_name(pa.float64()) == "float64"
