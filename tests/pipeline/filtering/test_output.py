"""The rows that are written: ours and the input's columns, ids and numbers of an earlier pool."""

from __future__ import annotations

import pytest

from bon.pipeline.filtering.output import OutputColumns, dropped_tables, kept_tables
from bon.pipeline.passthrough import read_extras
from bon.records import GIVEN_ID, PAIR_FIELDS, RESPONSE_FIELDS


def test_candidates_have_the_columns_of_a_set_of_responses(filtered, row):
    rows = [
        row(["a", "bb"], [1.0, None], finish=["stop", None], num_tokens=[3, None], extra={"k": 1}),
        row(["cc"], [0.5], prompt="Wozu?", extra={"k": 2, "reward": "high", "tags": ["x"]}),
    ]
    table = filtered(rows, "regex:pattern=[^a]").table()
    ours = [field for field in RESPONSE_FIELDS if field.name != "rewards"]
    assert list(table.schema)[: len(ours)] == ours
    assert table.to_pylist() == [
        {
            "prompt_id": "p0",
            "prompt": "Why?",
            "response": "bb",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "bb"},
            ],
            "reward": None,
            "candidate": 1,
            "num_candidates": 2,
            "finish_reason": None,
            "num_tokens": None,
            "k": 1,
            "input_reward": None,
            "tags": None,
        },
        {
            "prompt_id": "p1",
            "prompt": "Wozu?",
            "response": "cc",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Wozu?"},
                {"role": "assistant", "content": "cc"},
            ],
            "reward": 0.5,
            "candidate": 0,
            "num_candidates": 1,
            "finish_reason": None,
            "num_tokens": None,
            "k": 2,
            "input_reward": "high",
            "tags": ["x"],
        },
    ]


def test_pairs_have_the_columns_of_a_set_of_pairs(filtered, row):
    rows = [row(["good", "bad"], [2.0, 0.5], num_tokens=[5, 6], extra={"source": "s"})]
    result = filtered(rows, kind="pairs")
    assert list(result.table().schema)[: len(PAIR_FIELDS)] == list(PAIR_FIELDS)
    (pair,) = result.table().to_pylist()
    assert pair["prompt"][-1] == {"role": "user", "content": "Why?"}
    assert pair["chosen"] == [{"role": "assistant", "content": "good"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "bad"}]
    assert (pair["score_chosen"], pair["score_rejected"], pair["margin"]) == (2.0, 0.5, 1.5)
    assert (pair["num_tokens_chosen"], pair["num_tokens_rejected"]) == (5, 6)
    assert pair["source"] == "s"


def test_a_given_id_replaces_the_pools(filtered, row):
    rows = [row(["a"], extra={GIVEN_ID: "mine", "n": 1}), row(["b"])]
    table = filtered(rows).table()
    assert table["prompt_id"].to_pylist() == ["mine", "p1"]
    assert GIVEN_ID not in table.schema.names


def test_numbers_of_an_earlier_pool_stay(filtered, row):
    own = {"candidate": 6, "num_candidates": 8}
    (one,) = filtered([row(["a"], extra=own)]).table().to_pylist()
    assert (one["candidate"], one["num_candidates"]) == (6, 8)
    pairs = [
        row([c, "r"], [m, 0.0], extra={"candidate_chosen": 4, "candidate_rejected": 7})
        for c, m in (("x", 5.0), ("y", -5.0))
    ]
    result = filtered(pairs, "agreement:action=flip", kind="pairs")
    assert result.kept == ["x|r", "r|y"]
    numbers = [
        (one["candidate_chosen"], one["candidate_rejected"]) for one in result.table().to_pylist()
    ]
    assert numbers == [(4, 7), (7, 4)]


def test_several_candidates_of_a_prompt_have_no_number_of_an_earlier_pool(filtered, row):
    own = {"candidate": 0, "num_candidates": 8}
    table = filtered([row(["a", "b"], extra=own), row(["c"], extra=own)]).table()
    assert table["candidate"].to_pylist() == [0, 1, 0]
    assert table["num_candidates"].to_pylist() == [2, 2, 1]
    assert table["input_candidate"].to_pylist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("given", "written"),
    [([0, 0.0], [0.0, 0.0]), ([None, 0], [None, 0.0]), ([0.5, -1], [0.5, -1.0])],
)
def test_margins_without_scores_are_the_outputs(filtered, row, given, written):
    rows = [row(["c", "r"], extra={"margin": margin}) for margin in given]
    table = filtered(rows, kind="pairs").table()
    assert table["margin"].to_pylist() == written
    assert "input_margin" not in table.schema.names


@pytest.mark.parametrize(
    ("given", "scores"), [([0, "wide"], None), ([0, True], None), ([0], [1, 1])]
)
def test_other_margins_are_a_column(filtered, row, given, scores):
    rows = [row(["c", "r"], scores, extra={"margin": margin}) for margin in given]
    assert "input_margin" in filtered(rows, kind="pairs").table().schema.names


def test_a_column_that_happens_to_be_called_like_the_key_of_ids_stays(filtered, row):
    table = filtered([row(["a"], extra={GIVEN_ID: 7}), row(["b"], extra={GIVEN_ID: None})]).table()
    assert table["prompt_id"].to_pylist() == ["p0", "p1"]
    assert table[GIVEN_ID].to_pylist() == [7, None]


def test_the_inputs_columns_are_read_once_for_both_files(filtered, row, monkeypatch):
    result = filtered([row(["a"], extra={"margin": 1}) for _ in range(4)], "regex:pattern=b")
    read: list[int] = []
    monkeypatch.setattr(
        "bon.pipeline.passthrough.read_extras",
        lambda table: read.append(table.num_rows) or read_extras(table),
    )
    OutputColumns(result.pool, result.decision).with_reasons()
    assert read == [2, 2]


def test_other_columns_of_these_names_are_the_inputs_own(filtered, row):
    rows = [row(["a"], extra={"candidate": "Ada", "num_candidates": 3}), row(["b"])]
    table = filtered(rows).table()
    assert table["candidate"].to_pylist() == [0, 0]
    assert table["input_candidate"].to_pylist() == ["Ada", None]


def test_dropped_rows_say_by_what_and_why(filtered, row):
    rows = [row(["a", "bb"], [1.0, 2.0], extra={"detail": "own"}), row(["ccc"], [9.0])]
    result = filtered(rows, "length:max_chars=2", "reward:top_k=1")
    kept, dropped = result.table(), result.table(dropped=True)
    assert kept.num_rows == 1
    assert dropped.select(["response", "dropped_by", "detail", "input_detail"]).to_pylist() == [
        {
            "response": "a",
            "dropped_by": "reward",
            "detail": "its reward by reward, 1, is not one of the 1 highest of all",
            "input_detail": "own",
        },
        {
            "response": "ccc",
            "dropped_by": "length",
            "detail": "a response of 3 characters, more than 2",
            "input_detail": None,
        },
    ]


def test_every_table_has_the_one_schema(filtered, row):
    rows = [row([f"r{i}"], extra={"late": 1.5} if i == 4 else {}) for i in range(5)]
    result = filtered(rows, "regex:pattern=r[024]")
    columns = OutputColumns(result.pool, result.decision)
    tables = list(kept_tables(result.pool, result.decision, columns))
    assert [table.num_rows for table in tables] == [1, 1, 1]
    assert {table.schema for table in tables} == {columns.schema}
    assert str(columns.schema.field("late").type) == "double"
    columns = columns.with_reasons()
    assert {t.schema for t in dropped_tables(result.pool, result.decision, columns)} == {
        columns.schema
    }
