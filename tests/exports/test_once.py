"""One row a prompt or response, however rows are cut."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.native_rows import ONE, TWO, pair, said

from bon.exports.batches import Kind, conversation_keys
from bon.exports.once import Once
from bon.records import MESSAGES_TYPE, PAIR_FIELDS

IDS, TEXTS = st.sampled_from([None, "x", "y"]), st.sampled_from(["a", "b", "c"])
ROWS = st.lists(st.tuples(st.sampled_from([ONE, TWO]), IDS, TEXTS), max_size=16)


def filtered(kind: Kind, column: str, table: pa.Table, cuts: list[int]) -> list[dict[str, Any]]:
    once, kept = Once(kind, column), []
    edges = [0, *sorted(min(cut, len(table)) for cut in cuts), len(table)]
    for start, end in itertools.pairwise(edges):
        kept += once.filter(table.slice(start, end - start)).to_pylist()
    assert once.num_merged == len(table) - len(kept)
    return kept


@pytest.mark.parametrize("column", ["prompt_id", "chosen"])
@settings(deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 16), max_size=4))
def test_keeps_the_first_of_each(column: str, rows: list[Any], cuts: list[int]) -> None:
    pairs = [
        pair("p", prompt, (0, 1), i) | {"prompt_id": name, "chosen": said(text)}
        for i, (prompt, name, text) in enumerate(rows)
    ]
    expected = []
    for _, run in itertools.groupby(pairs, key=lambda row: row["prompt"]):
        seen = []
        for row in run:
            if row[column] is None or row[column] not in seen:
                expected.append(row["margin"])
            seen.append(row[column])
    table = pa.Table.from_pylist(pairs, pa.schema(PAIR_FIELDS))
    assert [row["margin"] for row in filtered("pairs", column, table, cuts)] == expected


@pytest.mark.parametrize("cuts", [[], [1], [1, 2]])
def test_other_responses_and_other_prompts_with_the_same_numbers_stay(cuts: list[int]) -> None:
    # What a pair file without ids of its own responses gives: chosen is candidate 0 everywhere.
    rows = [
        pair("1", ONE, (0, 1), 0.5) | {"chosen": said("two")},
        pair("1", ONE, (0, 1), 0.25) | {"chosen": said("2")},
        pair("1", TWO, (0, 1), 0.125) | {"chosen": said("2")},
    ]
    table = pa.Table.from_pylist(rows, pa.schema(PAIR_FIELDS))
    margins = [row["margin"] for row in filtered("pairs", "chosen", table, cuts)]
    assert margins == [0.5, 0.25, 0.125]
    margins = [row["margin"] for row in filtered("pairs", "prompt_id", table, cuts)]
    assert margins == [0.5, 0.125]


def test_keys_are_the_same_only_of_the_same_messages() -> None:
    def turn(role: str | None, content: str | None) -> dict[str, str | None]:
        return {"role": role, "content": content}

    different = [
        [],
        [turn("user", "")],
        [turn("user", None)],
        [turn(None, "user")],
        [turn("user", "a"), turn("user", "b")],
        [turn("user", "a4:user1:b")],
        [turn("user", "ab")],
        [turn("usera", "b")],
    ]
    keys = conversation_keys(pa.array([*different, *different], MESSAGES_TYPE)).to_pylist()
    assert keys[: len(different)] == keys[len(different) :]
    assert len(set(keys)) == len(different)
    sliced = conversation_keys(pa.array(different, MESSAGES_TYPE).slice(3, 2)).to_pylist()
    assert sliced == keys[3:5]
