"""The input's own columns: one type each, whatever the rows hold."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.pipeline.columns import ExtraColumns

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**53, 2**53 + 1, 2**63, -(2**63)])
    | st.floats(allow_nan=False) | st.text(max_size=3)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=6,
)
EXTRAS = st.dictionaries(st.sampled_from(["a", "b", "reward", "input_reward"]), VALUES)


def table(rows: list[dict[str, Any]], taken: tuple[str, ...] = ()) -> pa.Table:
    columns = ExtraColumns(taken)
    columns.learn(rows)
    return pa.Table.from_arrays(columns.arrays(rows), schema=pa.schema(columns.fields))


def one(values: list[Any]) -> tuple[pa.DataType, list[Any]]:
    result = table([{"a": value} for value in values])
    return result.schema.field("a").type, result["a"].to_pylist()


def holds(stored: Any, value: Any) -> bool:
    """Whether a stored value is the JSON value, structs filled up with nulls."""
    if isinstance(value, dict) and isinstance(stored, dict):
        return all(holds(stored[k], value.get(k)) for k in stored) and value.keys() <= stored.keys()
    if isinstance(value, list) and isinstance(stored, list):
        return len(value) == len(stored) and all(map(holds, stored, value))
    return bool(stored == value)


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([1, None, 3], pa.int64(), [1, None, 3]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, None], pa.bool_(), [True, None]),
        ([None, None], pa.string(), [None, None]),
        ([1, "one"], pa.string(), ["1", "one"]),
        ([True, 1], pa.string(), ["true", "1"]),
        ([2**63 - 1], pa.int64(), [2**63 - 1]),
        ([2**63, 1], pa.string(), [str(2**63), "1"]),
        ([10**400], pa.string(), [str(10**400)]),
        ([2**53 + 1, 0.5], pa.string(), [str(2**53 + 1), "0.5"]),
        ([2**53, 0.5], pa.float64(), [2.0**53, 0.5]),
        ([[], [1]], pa.list_(pa.int64()), [[], [1]]),
        ([[], []], pa.string(), ["[]", "[]"]),
        ([[1], ["x"]], pa.string(), ["[1]", '["x"]']),
        ([{}], pa.string(), ["{}"]),
        ([{"x": {}}], pa.string(), ['{"x": {}}']),
        ([{"x": 1}, {"y": "ä"}], pa.struct({"x": pa.int64(), "y": pa.string()}),
         [{"x": 1, "y": None}, {"x": None, "y": "ä"}]),
        ([{"x": 1}, {"x": "ä"}], pa.string(), ['{"x": 1}', '{"x": "ä"}']),
        ([{"x": 1}, [1]], pa.string(), ['{"x": 1}', "[1]"]),
        ([{"x": [{"y": 2}]}, {"x": []}], pa.struct({"x": pa.list_(pa.struct({"y": pa.int64()}))}),
         [{"x": [{"y": 2}]}, {"x": []}]),
        ([{"x": 2**60 + 1, "y": 0.5}], pa.struct({"x": pa.int64(), "y": pa.float64()}),
         [{"x": 2**60 + 1, "y": 0.5}]),
    ],
)  # fmt: skip
def test_one_column(values: list[Any], kind: pa.DataType, stored: list[Any]) -> None:
    assert one(values) == (kind, stored)


def test_missing_keys_are_null_and_order_is_that_of_the_input() -> None:
    result = table([{"b": 1}, {"a": "x", "b": 2}, {}])
    assert result.to_pylist() == [{"b": 1, "a": None}, {"b": 2, "a": "x"}, {"b": None, "a": None}]
    assert result.column_names == ["b", "a"]


def test_no_columns() -> None:
    assert table([{}, {}]).column_names == []
    assert table([]).column_names == []


def test_taken_names_get_a_prefix_and_never_meet_another_column() -> None:
    rows = [{"reward": 1, "input_reward": 2, "prompt": 3, "x": 4}]
    result = table(rows, taken=("reward", "prompt"))
    assert result.to_pylist() == [
        {"input_input_reward": 1, "input_reward": 2, "input_prompt": 3, "x": 4}
    ]


@given(st.lists(EXTRAS, max_size=6), st.data())
def test_types_do_not_depend_on_how_rows_are_batched(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    whole, cut_up = ExtraColumns(["reward"]), ExtraColumns(["reward"])
    whole.learn(rows)
    cut_up.learn(rows[:cut])
    cut_up.learn(rows[cut:])
    assert whole.fields == cut_up.fields
    assert [a.to_pylist() for a in whole.arrays(rows)] == [
        left + right
        for left, right in zip(
            [a.to_pylist() for a in cut_up.arrays(rows[:cut])],
            [a.to_pylist() for a in cut_up.arrays(rows[cut:])],
            strict=True,
        )
    ]


@given(st.lists(EXTRAS, min_size=1, max_size=5))
def test_any_json_is_stored_without_loss_and_parquet_takes_it(rows: list[dict[str, Any]]) -> None:
    result = table(rows, taken=("reward",))
    assert len(set(result.column_names)) == result.num_columns
    sink = pa.BufferOutputStream()
    pq.write_table(result, sink)
    if result.num_columns:  # Parquet keeps no number of rows without a column
        assert pq.read_table(pa.BufferReader(sink.getvalue())).equals(result)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name, column in zip(names, result.columns, strict=True):
        for row, stored in zip(rows, column.to_pylist(), strict=True):
            value = row.get(name)
            as_text = isinstance(stored, str) and not isinstance(value, str)
            assert holds(json.loads(stored) if as_text else stored, value)


def test_what_was_learnt_serves_an_output_with_other_names() -> None:
    columns = ExtraColumns(["a"])
    columns.learn([{"a": 1, "b": 0.5}, {"c": "x"}])
    other = columns.beside(["b"], without=["c"])
    assert [field.name for field in other.fields] == ["a", "input_b"]
    assert [array.to_pylist() for array in other.arrays([{"a": 2, "b": 1}])] == [[2], [1.0]]
    assert [field.name for field in columns.fields] == ["input_a", "b", "c"]
