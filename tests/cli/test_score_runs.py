"""`bon score` of responses that a dataset has already: no generator has a part in it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.commands import bon_json, pool_files
from support.datasets import assistant, user, write_lines

QUESTION = "What is 40 + 2?"
ROWS = {
    "one a row": [{"prompt": QUESTION, "response": text, "answer": "42"} for text in ("42", "7")],
    "several a row": [{"prompt": QUESTION, "responses": ["42", "7"], "answer": "42"}],
    "pairs": [{"prompt": QUESTION, "chosen": "42", "rejected": "7", "answer": "42"}],
    "chats": [
        {"messages": [user(QUESTION), assistant(text)], "answer": "42"} for text in ("42", "7")
    ],
}


@pytest.mark.parametrize("name", ROWS)
def test_given_responses_are_scored_as_they_are(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / "in.jsonl", ROWS[name])
    kind = ["--source-kind", "responses"] if name == "chats" else []
    command = ("score", "in.jsonl", "-m", "/no/model", "-r", "rule:exact", *kind)

    result = bon_json(*command, cwd=tmp_path)

    assert (result["pool"], result["input_rows"], result["drops"]) == ("in.pool", 1, {})
    candidates = pq.read_table(tmp_path / "in.pool/candidates/part-00000.parquet")
    assert candidates["response"].to_pylist() == ["42", "7"]
    (scores,) = (tmp_path / "in.pool/scores").glob("*/part-00000.parquet")
    assert pq.read_table(scores)["score"].to_pylist() == [1.0, 0.0]
    before = pool_files(tmp_path / "in.pool")
    again = bon_json(*command, cwd=tmp_path)
    assert [stage["num_parts_done"] for stage in again["stages"]] == [0]
    assert pool_files(tmp_path / "in.pool") == before
