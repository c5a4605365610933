"""Rows for verl by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.native_rows import ONE, TWO

from bon.exports.formats import choose_format
from bon.records import MESSAGES_TYPE

VERL = choose_format("verl", "prompts")


def test_rows(prompts: pa.Table) -> None:
    assert VERL.convert(prompts, "prompts", name="gsm", start=7).to_pylist() == [
        {
            "data_source": "gsm",
            "prompt": ONE,
            "ability": "unknown",
            "reward_model": {"style": "rule", "ground_truth": "1"},
            "extra_info": {
                "index": 7, "prompt_id": "p1", "answer": "so #### 1", "topic": "maths",
            },
        },
        {
            "data_source": "gsm",
            "prompt": TWO,
            "ability": "unknown",
            "reward_model": {"style": "model", "ground_truth": None},
            "extra_info": {"index": 8, "prompt_id": "p2", "answer": None, "topic": None},
        },
    ]  # fmt: skip


def test_prompt_of_pairs_and_responses(pairs: pa.Table, responses: pa.Table) -> None:
    for kind, table in (("pairs", pairs), ("responses", responses)):
        row = VERL.convert(table, kind).to_pylist()[-1]
        assert row["prompt"] == TWO
        assert row["reward_model"]["ground_truth"] == "2"
        assert set(row["extra_info"]) == {"index", "prompt_id", "answer", "topic"}


def test_columns_of_its_own_name(prompts: pa.Table) -> None:
    table = prompts
    for name, values in {
        "data_source": ["openai/gsm8k", None], "ability": ["math", "math"],
        "ground_truth": [42.0, 0.5], "index": [5, 6],
    }.items():  # fmt: skip
        table = table.append_column(name, pa.array(values))
    first, second = VERL.convert(table, "prompts", name="x").to_pylist()
    assert (first["data_source"], second["data_source"]) == ("openai/gsm8k", "x")
    assert first["ability"] == "math"
    assert first["reward_model"]["ground_truth"] == "1"
    assert second["reward_model"] == {"style": "rule", "ground_truth": "0.5"}
    assert (first["extra_info"]["index"], first["extra_info"]["input_index"]) == (0, 5)


def test_no_answer_column(prompts: pa.Table) -> None:
    rows = VERL.convert(prompts.drop_columns(["answer"]), "prompts").to_pylist()
    assert [row["reward_model"] for row in rows] == [{"style": "model", "ground_truth": None}] * 2
    assert rows[0]["data_source"] == "bon"


@pytest.mark.parametrize("without", [None, "", " \n"])
def test_each_row_has_the_first_reference_that_it_holds(without: str | None) -> None:
    rows = [("so #### 1", "9"), (without, "so #### 2"), (without, without), ("0", "9")]
    table = pa.table(
        {
            "prompt_id": ["a", "b", "c", "d"],
            "prompt": pa.array([ONE] * 4, MESSAGES_TYPE),
            "ground_truth": pa.array([truth for _, truth in rows], pa.string()),
            "answer": pa.array([answer for answer, _ in rows], pa.string()),
        }
    )
    found = [row["reward_model"] for row in VERL.convert(table, "prompts").to_pylist()]
    assert found == [
        {"style": "rule", "ground_truth": "1"},
        {"style": "rule", "ground_truth": "2"},
        {"style": "model", "ground_truth": None},
        {"style": "rule", "ground_truth": "0"},
    ]
