"""The input's other columns: whatever they are called and hold, they reach the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.fakes import Run, bad_row, prompt

from bon.pipeline.frames import frames
from bon.pipeline.passthrough import PassThrough, given_ids
from bon.pool.pool import Pool
from bon.records import GIVEN_ID, Drop, Prompt

TAKEN = ("prompt", "margin")


def pool_of(root: Path, *extras: dict[str, Any], part_size: int = 2) -> Pool:
    """A pool with a prompt for each of these `extra`s."""
    rows: list[Prompt | Drop] = [prompt(n, **extra) for n, extra in enumerate(extras)]
    return Run(rows, part_size=part_size, num_candidates=1).candidates(root)


def read(pool: Pool, limit: int | None = None) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """All rows of the other columns."""
    others = PassThrough(pool, limit, TAKEN)
    schema = pa.schema(others.fields)
    rows: list[dict[str, Any]] = []
    for frame in frames(pool, limit=limit, prompt_columns=["extra"]):
        arrays = others.arrays(others.read(frame.prompts))
        rows += pa.Table.from_arrays(arrays, schema=schema).to_pylist()
    return schema, rows


def test_types_are_fixed_over_all_parts(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "p", {"n": 1}, {}, {"n": 0.5}, {"late": ["a"]}, {"late": None})
    schema, rows = read(pool)
    assert schema == pa.schema([("n", pa.float64()), ("late", pa.list_(pa.string()))])
    assert rows == [
        {"n": 1.0, "late": None},
        {"n": None, "late": None},
        {"n": 0.5, "late": None},
        {"n": None, "late": ["a"]},
        {"n": None, "late": None},
    ]


@pytest.mark.parametrize("limit", range(6))
def test_a_limit_learns_only_of_its_rows(tmp_path: Path, limit: int) -> None:
    extras: list[dict[str, Any]] = [{"n": n} for n in range(4)]
    pool = pool_of(tmp_path / "p", *extras, {"n": "text", "late": 1})
    schema, rows = read(pool, limit)
    assert [row["n"] for row in rows] == (
        list(range(limit)) if limit < 5 else ["0", "1", "2", "3", "text"]
    )
    assert ("late" in schema.names) == (limit == 5)


def test_no_columns_at_all(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "p", {}, {}, {})
    assert PassThrough(pool, None, TAKEN).fields == []
    empty = Run([bad_row(0)]).candidates(tmp_path / "empty")
    assert PassThrough(empty, None, TAKEN).fields == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, pa.bool_()),
        (2**62, pa.int64()),
        (0.1, pa.float64()),
        ("ä\u2028\x00 ' \" \\ ]", pa.string()),
        ([1, None], pa.list_(pa.int64())),
        ({"a": [{"b": "x"}]}, pa.struct([("a", pa.list_(pa.struct([("b", pa.string())])))])),
    ],
)
def test_a_value_comes_back_as_it_was(tmp_path: Path, value: Any, kind: pa.DataType) -> None:
    schema, rows = read(pool_of(tmp_path / "p", {"it": value}, {"it": None}))
    assert schema.field("it").type == kind
    assert rows == [{"it": value}, {"it": None}]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2**64 - 1, "18446744073709551615"), ({}, "{}"), (["ü", 1], '["ü", 1]'), (None, None)],
)
def test_what_has_no_column_type_is_json_text(tmp_path: Path, value: Any, text: str | None) -> None:
    schema, rows = read(pool_of(tmp_path / "p", {"it": value}))
    assert schema.field("it").type == pa.string()
    assert rows == [{"it": text}]


def test_a_taken_name_is_kept_under_another(tmp_path: Path) -> None:
    extra = {"margin": "mine", "input_margin": "his", "": "nameless", "Margin": 1}
    schema, rows = read(pool_of(tmp_path / "p", extra))
    assert schema.names == ["input_input_margin", "input_margin", "", "Margin"]
    assert rows == [
        {"input_input_margin": "mine", "input_margin": "his", "": "nameless", "Margin": 1}
    ]


def ids(pool: Pool) -> list[str]:
    (frame,) = frames(pool, prompt_columns=["extra"])
    return list(given_ids(frame.prompts).to_pylist())


def test_an_id_that_the_input_had_is_given_back(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "p", {GIVEN_ID: "a", "n": 1}, {GIVEN_ID: "a"})
    assert ids(pool) == ["a", "a"]
    assert read(pool)[1] == [{"n": 1}, {"n": None}], "and is no column"


def test_without_one_the_pools_own_ids_stand(tmp_path: Path) -> None:
    assert ids(pool_of(tmp_path / "p", {"n": 1}, {})) == ["p0", "p1"]
    said_in_a_text = pool_of(tmp_path / "q", {"n": f"see {GIVEN_ID}"}, {GIVEN_ID: "b"})
    assert ids(said_in_a_text) == ["p0", "b"]


@pytest.mark.parametrize("value", [5, ["x"], {"a": 1}, True])
def test_a_column_that_happens_to_have_that_name_is_a_column(tmp_path: Path, value: Any) -> None:
    pool = pool_of(tmp_path / "p", {GIVEN_ID: value}, {GIVEN_ID: None})
    assert ids(pool) == ["p0", "p1"]
    assert [row[GIVEN_ID] for row in read(pool)[1]] == [value, None]
