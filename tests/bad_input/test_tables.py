"""Parquet of unusual types, tables of unusual shape, columns that are named like the output's."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import bon, bon_json
from support.datasets import read_lines, write_lines

from bon.config import InputSettings, ResponseSettings
from bon.errors import InputError, UnknownLayoutError
from bon.records import Drop, GivenResponses, Prompt
from bon.sources.prompts import PromptReader
from bon.sources.responses import ResponseReader

NOON = datetime.datetime(2024, 7, 1, 12, 0, 0, 250)
STRUCT = pa.struct([("k", pa.list_(pa.struct([("deep", pa.int8())])))])
TYPES: dict[str, tuple[pa.Array, Any]] = {
    # what is stored, and the JSON value that the row's column becomes
    "decimal": (pa.array([decimal.Decimal("12345678901234567890.12")], pa.decimal128(30, 2)),
                "12345678901234567890.12"),
    "decimal256": (pa.array([decimal.Decimal("1.5")], pa.decimal256(60, 1)), "1.5"),
    "map": (pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
            [["a", 1], ["a", 2]]),
    "binary": (pa.array([b"\x00\xff"]), "AP8="),
    "fixed_binary": (pa.array([b"ab"], pa.binary(2)), "YWI="),
    "large_binary": (pa.array([b"ab"], pa.large_binary()), "YWI="),
    "dictionary": (pa.array(["x"]).dictionary_encode(), "x"),
    "large_string": (pa.array(["x"], pa.large_string()), "x"),
    "string_view": (pa.array(["x"], pa.string_view()), "x"),
    "list_of_large": (pa.array([["x", None]], pa.large_list(pa.large_string())), ["x", None]),
    "fixed_list": (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), [1, 2]),
    "zone": (pa.array([NOON], pa.timestamp("us", "Europe/Paris")),
             "2024-07-01T14:00:00.000250+02:00"),
    "offset": (pa.array([NOON], pa.timestamp("us", "+05:30")),
               "2024-07-01T17:30:00.000250+05:30"),
    "day": (pa.array([NOON.date()]), "2024-07-01"),
    "time": (pa.array([NOON.time()]), "12:00:00.000250"),
    "struct": (pa.array([{"k": [{"deep": 1}, None]}], STRUCT), {"k": [{"deep": 1}, None]}),
    "half": (pa.array([1.5], pa.float16()), 1.5),
    "nan": (pa.array([float("nan")]), None),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    "null": (pa.nulls(1), None),
    "uuid": (pa.array([bytes(range(16))], pa.uuid()), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
}  # fmt: skip


def read(path: Path) -> list[Prompt | Drop]:
    return list(PromptReader(str(path), InputSettings()))


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_kept_as_json(tmp_path: Path, name: str) -> None:
    stored, expected = TYPES[name]
    both = pa.chunked_array([stored, pa.nulls(1, stored.type)])
    pq.write_table(pa.table({"prompt": ["P", "Q"], "column": both}), tmp_path / "a.parquet")
    first, second = read(tmp_path / "a.parquet")
    assert isinstance(first, Prompt)
    assert isinstance(second, Prompt)
    assert first.extra == {"column": expected}
    assert second.extra == {"column": None}
    json.dumps(first.extra, allow_nan=False)


PROMPT_TYPES = {
    "large_string": (pa.large_string(), "Q", None),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), "Q", None),
    "binary": (pa.binary(), b"Q", "wrong_type"),
    "number": (pa.int64(), 1, "wrong_type"),
    "null": (pa.null(), None, "missing_prompt"),
    "messages": (pa.large_list(pa.struct([("role", pa.large_string()), ("content", pa.string())])),
                 [{"role": "user", "content": "Q"}], None),
    "binary_messages": (pa.list_(pa.struct([("role", pa.string()), ("content", pa.binary())])),
                        [{"role": "user", "content": b"Q"}], "wrong_type"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROMPT_TYPES)
def test_a_prompt_of_any_type_is_text_or_a_drop(tmp_path: Path, name: str) -> None:
    kind, value, reason = PROMPT_TYPES[name]
    columns = {"id": ["a"], "prompt": pa.array([value], kind), "response": ["R"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    given = ResponseReader(
        str(tmp_path / "a.parquet"), InputSettings(), ResponseSettings(), group=True
    )
    for item in (*read(tmp_path / "a.parquet"), *given):
        if reason is None:
            prompt = item.prompt if isinstance(item, GivenResponses) else item
            assert isinstance(prompt, Prompt)
            assert prompt.messages == ({"role": "user", "content": "Q"},)
        else:
            assert isinstance(item, Drop)
            assert (item.reason, item.where, item.id) == (reason, "a.parquet:row 1", "a")
            assert "binary" not in name or "holds bytes, not text" in item.detail


def test_bytes_are_no_response(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["Q"], "response": [b"R"]}), tmp_path / "a.parquet")
    (drop,) = ResponseReader(
        str(tmp_path / "a.parquet"), InputSettings(), ResponseSettings(), group=True
    )
    assert isinstance(drop, Drop)
    assert (drop.reason, drop.detail) == (
        "wrong_type",
        "'response' holds bytes, not text: make it a string column",
    )


IDS: dict[str, list[Any]] = {
    "all_null": [None, None, None],
    "some_null": ["u1", None, "u3"],
    "first_null": [None, "u2", "u3"],
    "floats_of_pandas": [1.0, None, 3.0],
    "some_blank": ["u1", " ", ""],
}


@pytest.mark.parametrize("name", IDS)
def test_rows_without_an_id_are_kept_unless_the_column_was_named(tmp_path: Path, name: str) -> None:
    values = IDS[name]
    pq.write_table(pa.table({"uuid": values, "prompt": ["A", "B", "C"]}), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet")
    assert all(isinstance(item, Prompt) for item in items)
    if isinstance(values[0], str):
        assert items[0].prompt_id == "u1"  # type: ignore[union-attr]
    named = list(PromptReader(str(tmp_path / "a.parquet"), InputSettings(id_column="uuid")))
    reasons = [getattr(item, "reason", None) for item in named]
    is_float = [isinstance(value, float) for value in values]
    has_id = [isinstance(value, str) and bool(value.strip()) for value in values]
    assert reasons == [
        "wrong_type" if odd else None if good else "missing_id"
        for odd, good in zip(is_float, has_id, strict=True)
    ]


def test_nesting_deeper_than_parquet_allows_is_an_error(tmp_path: Path) -> None:
    kind, value = pa.int8(), 1
    for _ in range(120):
        kind, value = pa.list_(kind), [value]  # type: ignore[assignment]
    pq.write_table(
        pa.table({"prompt": ["Q"], "x": pa.array([value], kind)}), tmp_path / "a.parquet"
    )
    with pytest.raises(InputError, match="too deeply nested"):
        read(tmp_path / "a.parquet")


CSV_FAULTS = {
    "too_few_fields": (b"a\n", "wrong_field_count"),
    "too_many_fields": (b"a,1,2\n", "wrong_field_count"),
    "text_behind_a_quote": (b'"a"b,1\n', "malformed_csv"),
    "invalid_utf8": (b"\xff,1\n", "invalid_utf8"),
    "raw_surrogate": (b"\xed\xa0\x80,1\n", "invalid_utf8"),
    "nul": (b"a\0b,1\n", "nul_character"),
    "empty_cell": (b",1\n", "empty_prompt"),
    "blank_cell": (b'" ",1\n', "empty_prompt"),
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("fault", CSV_FAULTS)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_bad_record_is_a_drop(tmp_path: Path, name: str, fault: str, end: bytes) -> None:
    bad, reason = CSV_FAULTS[fault]
    data = b"prompt,n\nfirst,1\n" + bad + b"last,2\n"
    data = data.replace(b"\n", end)
    (tmp_path / name).write_bytes(data if name == "a.csv" else data.replace(b",", b"\t"))
    first, drop, last = read(tmp_path / name)
    assert isinstance(first, Prompt)
    assert isinstance(last, Prompt)
    assert isinstance(drop, Drop)
    assert (drop.reason, drop.where, drop.row) == (reason, f"{name}:3", 1)


def test_a_line_of_text_with_a_nul_or_without_utf8_is_a_drop(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"first line of text\na\0b\n\xff\n\nlast line of text\n")
    items = read(tmp_path / "a.txt")
    reasons = [getattr(item, "reason", None) for item in items]
    assert reasons == [None, "nul_character", "invalid_utf8", "empty_prompt", None]
    assert [item.where for item in items] == [f"a.txt:{number}" for number in range(1, 6)]


@pytest.mark.faults
def test_a_million_columns_are_read_and_not_all_told(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(1_000_000)]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + "1," * 999_999 + "1\n")
    with pytest.raises(UnknownLayoutError) as caught:
        read(tmp_path / "a.csv")
    assert "and 999,950 more" in caught.value.what
    assert len(str(caught.value)) < 2000
    source = PromptReader(str(tmp_path / "a.csv"), InputSettings(prompt_column="c7"))
    (prompt,) = source
    assert isinstance(prompt, Prompt)
    assert len(prompt.extra) == 999_999
    assert len(source.describe()) < 1000
    with pytest.raises(LookupError, match="no column 'nowhere'") as wrong:
        list(PromptReader(str(tmp_path / "a.csv"), InputSettings(prompt_column="nowhere")))
    assert len(str(wrong.value)) < 8000


OURS = {
    "prompt_id": "p", "response": "R", "messages": "m", "input_messages": "im", "candidate": 7,
    "num_candidates": "x", "rewards": [1], "finish_reason": 3, "num_tokens": -1, "chosen_": 1,
    "margin": "wide", "__prompt_id__": "own", "": "no name", "a.b": 2, "input_reward": 9,
}  # fmt: skip


def test_columns_named_like_the_outputs_are_all_kept(tmp_path: Path) -> None:
    row = {"prompt": "Q", "reward": 0.5, **OURS}
    write_lines(tmp_path / "a.jsonl", [row])
    for kind in ("responses", "prompts"):
        bon_json("convert", "a.jsonl", "-o", "out.jsonl", "--source-kind", kind, cwd=tmp_path)
        (written,) = read_lines(tmp_path / "out.jsonl")
        assert written.pop("prompt_id") == "p"
        left = {str(value) for value in written.values()}
        for name, value in row.items():
            if name in ("prompt", "prompt_id"):
                continue
            assert str(value) in left, name


@pytest.mark.faults
def test_ids_and_types_through_the_commands(tmp_path: Path) -> None:
    columns = {
        "uuid": ["u1", None, "u1", ""],
        "prompt": ["A", "B", "C", None],
        "response": ["R"] * 4,
    }
    columns["wide"] = [{"n": decimal.Decimal("1.5")}] * 4  # type: ignore[list-item]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    done = bon("score", "a.parquet", "-r", "rule:length?max=9", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["input_rows"], result["kept_rows"]) == (4, 2)
    assert sum(result["drops"].values()) == 2
    for drop in result["drop_examples"]:
        assert drop["where"].startswith("a.parquet:row ")
    three = bon("score", "a.parquet", "-r", "rule:length?max=9", "--max-drops", "1", cwd=tmp_path)
    assert three.returncode == 3
