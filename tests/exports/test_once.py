"""One row a prompt or candidate, however rows are cut."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.exports.once import Once


@pytest.mark.parametrize("column", ["prompt_id", "candidate"])
@settings(deadline=None)
@given(
    runs=st.lists(st.lists(st.none() | st.integers(0, 2), min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 16), max_size=4),
)
def test_keeps_the_first_of_each(column: str, runs: list, cuts: list[int]) -> None:
    rows = [(f"p{n}", candidate) for n, run in enumerate(runs) for candidate in run]
    expected, seen = [], set()
    for prompt_id, candidate in rows:
        key = prompt_id if column == "prompt_id" else (prompt_id, candidate)
        if key not in seen or (column == "candidate" and candidate is None):
            expected.append((prompt_id, candidate))
        seen.add(key)

    schema = pa.schema([("prompt_id", pa.string()), ("candidate", pa.int32())])
    table = pa.Table.from_pylist([{"prompt_id": p, "candidate": c} for p, c in rows], schema)
    once, kept = Once(column), []
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, end in itertools.pairwise(edges):
        part = once.filter(table.slice(start, end - start))
        kept += [(row["prompt_id"], row["candidate"]) for row in part.to_pylist()]
    assert kept == expected
