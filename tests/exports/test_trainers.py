"""Rows for the other trainers, by hand from their documentation."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.native_rows import ONE, TWO, said

from bon.exports.formats import choose_format
from bon.exports.trainers import llama_factory_entry

SHAREGPT = [{"from": "system", "value": "Be short."}, {"from": "human", "value": "Hi 🙂"}]


def last_row(table: pa.Table, kind: str, name: str) -> dict:
    return choose_format(name, kind).convert(table, kind).to_pylist()[-1]


def test_openrlhf(pairs: pa.Table) -> None:
    row = last_row(pairs, "pairs", "openrlhf")
    assert (row["prompt"], row["chosen"], row["rejected"]) == (TWO, said("p2-3"), said("p2-2"))
    assert row["margin"] == pytest.approx(0.1)


def test_llama_factory(pairs: pa.Table, responses: pa.Table) -> None:
    row = last_row(pairs, "pairs", "llama-factory")
    assert row["conversations"] == SHAREGPT
    assert row["chosen"] == {"from": "gpt", "value": "p2-3"}
    assert row["rejected"] == {"from": "gpt", "value": "p2-2"}

    row = last_row(responses, "responses", "llama-factory")
    assert row["conversations"] == [*SHAREGPT, {"from": "gpt", "value": "p2-1"}]
    assert row["prompt_id"] == "p2"


def test_llama_factory_roles_beyond_chat(responses: pa.Table) -> None:
    turns = [{"role": role, "content": "x"} for role in ("developer", "tool", "narrator")]
    place = responses.schema.get_field_index("messages")
    table = responses.slice(0, 1).set_column(
        place, responses.schema.field("messages"), pa.array([turns], responses["messages"].type)
    )
    said_by = [t["from"] for t in last_row(table, "responses", "llama-factory")["conversations"]]
    assert said_by == ["system", "observation", "narrator"]


def test_llama_factory_entry() -> None:
    assert llama_factory_entry("pairs") == {
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    }
    assert llama_factory_entry("responses")["columns"] == {"messages": "conversations"}
    assert not llama_factory_entry("responses")["ranking"]


def test_axolotl(pairs: pa.Table, responses: pa.Table) -> None:
    row = last_row(pairs, "pairs", "axolotl")
    assert (row["messages"], row["chosen"], row["rejected"]) == (
        TWO,
        said("p2-3")[0],
        said("p2-2")[0],
    )
    assert "prompt" not in row
    assert last_row(responses, "responses", "axolotl")["messages"] == TWO + said("p2-1")


def test_nemo_rl(pairs: pa.Table) -> None:
    assert last_row(pairs.slice(0, 1), "pairs", "nemo-rl") == {
        "context": ONE,
        "completions": [
            {"rank": 0, "completion": said("p1-0")},
            {"rank": 1, "completion": said("p1-1")},
        ],
    }


def test_ms_swift(pairs: pa.Table, responses: pa.Table) -> None:
    assert last_row(pairs, "pairs", "ms-swift") == {
        "messages": TWO + said("p2-3"),
        "rejected_response": "p2-2",
    }
    assert last_row(responses, "responses", "ms-swift") == {"messages": TWO + said("p2-1")}
