"""Ranks within a prompt, whose candidates may lie in rows that are far apart."""

from __future__ import annotations

from typing import Any

import pytest

from bon.errors import SettingsError
from bon.records import GIVEN_ID


def rows_of_two_prompts(row: Any, **columns: list[float | None]) -> list[Any]:
    """Rows a0 b0 a1 b1 a2 b2, parts of two: each prompt is in every part."""
    return [
        row(
            [f"{'ab'[n % 2]}{n // 2}"],
            prompt=f"Question {'ab'[n % 2]}?",
            extra={GIVEN_ID: "ab"[n % 2], "n": n},
            **{name: [values[n]] for name, values in columns.items()},
        )
        for n in range(6)
    ]


@pytest.mark.parametrize("by", ["prompt", "prompt_id"])
def test_the_best_of_each_given_id(filtered, row, by):
    rows = rows_of_two_prompts(row, scores=[1.0, 9.0, 3.0, 7.0, 2.0, 8.0])
    result = filtered(rows, f"reward:top_k=1,by={by}")
    assert result.kept == ["b0", "a1"]
    assert result.details[0] == (
        "its reward by reward, 1, is not one of the 1 highest of its prompt's"
    )
    # The medians are 2 and 8.
    assert filtered(rows, f"reward:min_quantile=0.5,by={by}").kept == ["b0", "a1", "a2", "b2"]


def test_the_difficulty_of_each_given_id(filtered, row):
    rows = rows_of_two_prompts(row, label=[1.0, 1.0, 0.0, 1.0, None, 1.0])
    result = filtered(rows, "difficulty:min=0.4,max=0.6")
    assert result.kept == ["a0", "a1", "a2"]
    assert (
        result.details == ["1 of its prompt's candidates are right, asked for are 0.4 to 0.6"] * 3
    )
    result = filtered(rows, "regex:pattern=[^1]$", "difficulty:min=1")
    assert result.kept == ["a0", "b0", "a2", "b2"]


def test_rows_with_and_without_a_given_id(filtered, row):
    rows = [
        row(["x", "y"], [1.0, 2.0], extra={GIVEN_ID: "p2"}),
        row(["z", "w"], [4.0, 3.0], extra={GIVEN_ID: 7}),
        row(["v"], [5.0]),
    ]
    # The third row's own id is the first one's given one; 7 is no id but a column.
    assert filtered(rows, "reward:top_k=1,by=prompt").kept == ["z", "v"]


def test_a_limit_numbers_only_its_rows(filtered, row):
    rows = rows_of_two_prompts(row, scores=[1.0, 9.0, 3.0, 7.0, 2.0, 8.0])
    assert filtered(rows, "reward:top_k=1,by=prompt", limit=1).kept == ["a0"]
    assert filtered(rows, "reward:top_k=1,by=prompt", limit=0).kept == []


def test_the_key_of_given_ids_is_in_no_message(filtered, row):
    rows = rows_of_two_prompts(row, scores=[1.0] * 6)
    with pytest.raises(SettingsError, match="no input column 'zzz'") as caught:
        filtered(rows, "reward:top_k=1,by=zzz")
    assert caught.value.next_step == "known: n, prompt"


@pytest.mark.parametrize("name", ["exact_dedup", "near_dedup"])
def test_copies_are_compared_prompt_by_prompt_of_given_ids(filtered, row, name):
    scores = [1.0, 9.0, 3.0, 7.0, 2.0, 8.0]
    rows = rows_of_two_prompts(row, scores=scores)
    assert len(filtered(rows, f"{name}:on=prompt").kept) == 6
    for one in rows:
        one.prompt = "The same question?"
    assert filtered(rows, f"{name}:on=prompt").kept == ["b0", "b1", "b2"]
    for one in rows:
        one.responses = ["The same answer."]
    result = filtered(rows, f"{name}:on=response,scope=prompt").table()
    assert result["reward"].to_pylist() == [9.0, 3.0]


def test_diversity_of_prompts_keeps_all_that_they_have(filtered, row):
    rows = rows_of_two_prompts(row, scores=[1.0, 9.0, 3.0, 7.0, 2.0, 8.0])
    assert len(filtered(rows, "diversity:on=prompt").kept) == 6
    assert filtered(rows, "diversity:on=prompt,max_rows=1").kept == ["b0", "b1", "b2"]
