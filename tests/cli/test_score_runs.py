"""`bon score` of responses that a dataset has already: no generator has a part in it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.commands import bon, bon_json, pool_files
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


@pytest.mark.parametrize("command", ["score", "build-dpo"])
def test_an_answer_that_is_not_used_is_said(tmp_path: Path, command: str) -> None:
    said = "the rows end with an answer, which is not used"
    write_lines(tmp_path / "chats.jsonl", ROWS["chats"])
    write_lines(tmp_path / "alpaca.jsonl", [{"instruction": QUESTION, "output": "42"}])
    write_lines(tmp_path / "gsm8k.jsonl", [{"question": QUESTION, "answer": "#### 42"}])

    def noted(*arguments: str) -> bool:
        done = bon(command, *arguments, "-r", "rule:exact", "--dry-run", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return said in done.stderr

    assert noted("chats.jsonl")
    assert noted("alpaca.jsonl")
    assert not noted("gsm8k.jsonl")
    assert not noted("chats.jsonl", "--source-kind", "prompts")
    assert not noted("chats.jsonl", "--source-kind", "responses")
    assert not noted("chats.jsonl", "-q")


def test_dry_run_says_what_is_scored(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", ROWS["several a row"])

    done = bon("score", "in.jsonl", "-r", "rule:exact", "--dry-run", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "1. read responses from in.jsonl into in.pool" in done.stdout
    assert "2. score in.pool with rule:exact" in done.stdout
    assert "num_candidates" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("flag", ["--source-kind=responses", "--limit=1", "--max-tokens=9"])
def test_flags_that_a_pool_has_settled_are_refused(tmp_path: Path, flag: str) -> None:
    write_lines(tmp_path / "in.jsonl", ROWS["several a row"])
    bon_json("score", "in.jsonl", "-r", "rule:exact", cwd=tmp_path)

    done = bon("score", "in.pool", "-r", "rule:exact", flag, cwd=tmp_path)

    if flag.startswith("--limit"):
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2
        assert flag.split("=")[0] in done.stderr
