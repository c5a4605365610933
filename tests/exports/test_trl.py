"""Rows for TRL by hand, and what TRL itself makes of them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.native_rows import ONE, TWO, said

from bon.exports.formats import choose_format


def rows(table: pa.Table, kind: str, name: str) -> list[dict]:
    return choose_format(name, kind).convert(table, kind).to_pylist()


def test_dpo_and_reward(pairs: pa.Table) -> None:
    last = rows(pairs, "pairs", "trl-dpo")[-1]
    assert (last["prompt"], last["chosen"], last["rejected"]) == (TWO, said("p2-3"), said("p2-2"))
    assert last["topic"] == "maths"

    last = rows(pairs, "pairs", "trl-reward")[-1]
    assert (last["chosen"], last["rejected"]) == (TWO + said("p2-3"), TWO + said("p2-2"))
    assert last["margin"] == pytest.approx(0.1)
    assert "prompt" not in last


def test_reward_margin_is_never_null(pairs: pa.Table) -> None:
    place = pairs.schema.get_field_index("margin")
    nulls = pairs.set_column(place, "margin", pa.nulls(3, pa.float32()))
    assert [row["margin"] for row in rows(nulls, "pairs", "trl-reward")] == [0.0, 0.0, 0.0]


def test_sft(pairs: pa.Table, responses: pa.Table) -> None:
    last = rows(responses, "responses", "trl-sft")[-1]
    assert (last["prompt"], last["completion"]) == (TWO, said("p2-1"))
    assert last["rewards"] == [pytest.approx(0.1), None]
    assert {"messages", "response"}.isdisjoint(last)

    last = rows(pairs, "pairs", "trl-sft")[-1]
    assert (last["prompt"], last["completion"]) == (TWO, said("p2-3"))
    assert (last["candidate_chosen"], last["score_chosen"]) == (3, pytest.approx(0.1))
    assert not any("rejected" in name for name in last)


def test_kto(pairs: pa.Table) -> None:
    found = rows(pairs, "pairs", "trl-kto")
    assert [row["label"] for row in found] == [True, False] * 3
    assert [row["completion"] for row in found[:2]] == [said("p1-0"), said("p1-1")]
    assert [row["candidate"] for row in found] == [0, 1, 0, 2, 3, 2]
    assert [row["num_tokens"] for row in found] == [3, 4] * 3
    assert found[4]["prompt"] == found[5]["prompt"] == TWO
    assert found[5]["answer"] == "so #### 2"


def test_grpo(prompts: pa.Table, responses: pa.Table, pairs: pa.Table) -> None:
    first = {"prompt": ONE, "prompt_id": "p1", "answer": "so #### 1", "topic": "maths"}
    for kind, table in (("prompts", prompts), ("responses", responses), ("pairs", pairs)):
        assert rows(table, kind, "trl-grpo")[0] == first


def test_columns_that_trl_would_read_get_another_name(pairs: pa.Table) -> None:
    names = ["messages", "completion", "label", "input_ids", "completions", "conversations"]
    table = pairs
    for name in names:
        table = table.append_column(name, pa.array([1, 2, 3]))
    for form in ("trl-dpo", "trl-reward", "trl-kto", "trl-sft", "trl-grpo"):
        kept = choose_format(form, "pairs").convert(table, "pairs").column_names
        assert {"input_messages", "input_input_ids", "input_conversations"} <= set(kept)
        assert {"messages", "input_ids", "conversations"}.isdisjoint(kept)
    assert "input_completions" in kept  # a keyword of GRPO's reward functions


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("trl-dpo", "pairs"),
        ("trl-reward", "pairs"),
        ("trl-kto", "pairs"),
        ("trl-sft", "pairs"),
        ("trl-sft", "responses"),
        ("trl-grpo", "prompts"),
    ],
)
def test_trl_takes_every_row_for_a_conversation(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    from trl.data_utils import is_conversational

    for row in rows(request.getfixturevalue(kind), kind, name):
        assert is_conversational(row)


def test_kto_rows_are_those_that_trl_unpairs(pairs: pa.Table) -> None:
    from datasets import Dataset
    from trl import unpair_preference_dataset

    native = Dataset.from_list(rows(pairs.select(["prompt", "chosen", "rejected"]), "pairs", "bon"))
    theirs = unpair_preference_dataset(native).to_list()
    ours = [
        {name: row[name] for name in ("prompt", "completion", "label")}
        for row in rows(pairs, "pairs", "trl-kto")
    ]
    assert sorted(map(repr, ours)) == sorted(
        repr({name: row[name] for name in ("prompt", "completion", "label")}) for row in theirs
    )


def test_reward_rows_are_those_whose_prompt_trl_finds_again(pairs: pa.Table) -> None:
    from trl import extract_prompt

    for row, native in zip(rows(pairs, "pairs", "trl-reward"), pairs.to_pylist(), strict=True):
        found = extract_prompt({"chosen": row["chosen"], "rejected": row["rejected"]})
        assert found == {name: native[name] for name in ("prompt", "chosen", "rejected")}
