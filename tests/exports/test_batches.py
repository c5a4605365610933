"""Work on list columns against the same work on Python lists."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.exports.batches import (
    Batch,
    concatenated,
    first_message,
    interleaved,
    last_message,
    made,
    without_last,
)
from bon.records import MESSAGES_TYPE

MESSAGE = st.fixed_dictionaries({"role": st.sampled_from("su"), "content": st.text(max_size=3)})
ROWS = st.lists(st.none() | st.lists(MESSAGE, max_size=3), max_size=6)


def sliced(rows: list, cut: int) -> tuple[pa.ListArray, list]:
    """An array that does not begin at its buffers' beginning, nulls as empty lists."""
    cut = min(cut, len(rows))
    return pa.array(rows, MESSAGES_TYPE)[cut:], [row or [] for row in rows[cut:]]


@settings(deadline=None)
@given(ROWS, st.integers(0, 2))
def test_last_and_rest(rows: list, cut: int) -> None:
    array, lists = sliced(rows, cut)
    assert last_message(array).to_pylist() == [row[-1:] for row in lists]
    assert without_last(array).to_pylist() == [row[:-1] for row in lists]
    assert first_message(array).to_pylist() == [row[0] if row else None for row in lists]
    assert last_message(array).type == without_last(array).type == MESSAGES_TYPE


@settings(deadline=None)
@given(st.lists(st.tuples(ROWS.map(lambda r: r[0] if r else []), st.lists(MESSAGE))), st.just(1))
def test_concatenated_and_interleaved(rows: list, cut: int) -> None:
    heads, head_lists = sliced([head for head, _ in rows], cut)
    tails, tail_lists = sliced([tail for _, tail in rows], cut)
    both = list(zip(head_lists, tail_lists, strict=True))
    result = concatenated(heads, tails)
    assert result.to_pylist() == [head + tail for head, tail in both]
    assert result.type == MESSAGES_TYPE
    turns = interleaved(last_message(heads), last_message(tails))
    assert turns.to_pylist() == [one[-1:] for pair in both for one in pair]


def test_columns_with_a_taken_name_are_kept_under_another() -> None:
    table = pa.table({"label": [1], "messages": [2], "input_messages": [3], "topic": [4]})
    result = made(Batch(table, "pairs"), {"label": pa.array([0])}, reserved={"messages"})
    assert result.to_pylist() == [
        {"label": 0, "input_label": 1, "input_input_messages": 2, "input_messages": 3, "topic": 4}
    ]
