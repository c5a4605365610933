"""What a row counts for where a set is cut into groups and files."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.exports.sizes import row_bytes

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=5),
            "list": st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3),
            "deep": st.none() | st.lists(st.fixed_dictionaries({"a": st.none() | st.text()})),
            "one": st.none() | st.fixed_dictionaries({"b": st.none() | st.booleans()}),
        }
    ),
    max_size=12,
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("list", pa.list_(pa.int32())),
        ("deep", pa.list_(pa.struct([("a", pa.string())]))),
        ("one", pa.struct([("b", pa.bool_())])),
    ]
)


def by_hand(row: dict) -> int:
    def text(value: str | None) -> int:
        return 4 + len((value or "").encode())

    deep = sum(text(None if one is None else one["a"]) for one in row["deep"] or [])
    return text(row["text"]) + 4 + 4 * len(row["list"] or []) + 4 + deep + 1


@settings(deadline=None)
@given(ROWS, st.integers(0, 12))
def test_a_row_counts_its_values(rows: list[dict], start: int) -> None:
    table = pa.Table.from_pylist(rows, SCHEMA)
    expected = [by_hand(row) for row in rows]
    assert row_bytes(table).tolist() == expected
    assert row_bytes(table.slice(start)).tolist() == expected[start:]
    chunks = pa.concat_tables([table.slice(0, start), table.slice(start)])
    assert row_bytes(chunks).tolist() == expected


def test_other_types_count_too() -> None:
    columns = [
        pa.array([1.0, None]),
        pa.array([None, None]),
        pa.array([b"ab", None]),
        pa.array([Decimal("1.5"), None]),
    ]
    table = pa.table(columns, names=list("abcd"))
    assert row_bytes(table)[0] >= 8 + 6
