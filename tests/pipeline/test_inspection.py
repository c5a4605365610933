"""Facts of pools and results, damaged and odd ones too."""

from __future__ import annotations

import datetime
import decimal
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import bon
from support.fakes import FakeGenerator, FakeScorer, Run, input_rows

from bon.errors import InputError, PoolCorruptError
from bon.pipeline.inspection import file_facts, pool_facts, prompt_facts
from bon.pool.pool import CANDIDATES, PROMPTS, scores_kind
from bon.records import Drop
from bon.report.inspection import show


def test_pool_facts(tmp_path: Path) -> None:
    scorer = FakeScorer({f"p{n}": [float(n), None, float(n)] for n in range(6)})
    Run(input_rows(6, bad=[5]), scorer=scorer).scores(tmp_path)
    facts = pool_facts(tmp_path)
    assert facts["parts"]["prompts"] == {"done": 2, "to_do": 0, "rows": 5}
    assert facts["parts"][CANDIDATES] == {"done": 2, "to_do": 0, "rows": 15}
    assert facts["drops"]["prompts"] == {"malformed_json": 1}
    assert facts["drops"]["scores/reward"] == {"non_finite_score": 5}
    assert facts["rewards"]["reward"] == {"0%": 0, "25%": 1, "50%": 2, "75%": 3, "100%": 4}
    json.dumps(facts)


def test_pool_without_rows(tmp_path: Path) -> None:
    Run([]).scores(tmp_path)
    facts = pool_facts(tmp_path)
    assert facts["parts"][CANDIDATES] == {"done": 0, "to_do": 0, "rows": 0}
    assert facts["rewards"] == {}


def test_damaged_pool(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).scores(tmp_path)
    os.truncate(pool.layout.part(CANDIDATES, 1), 50)
    with pytest.raises(PoolCorruptError):
        pool_facts(tmp_path)


def test_prompt_facts_are_best_first(tmp_path: Path) -> None:
    Run(input_rows(2), scorer=FakeScorer({"p1": [None, 1.0, 2.0]})).scores(tmp_path)
    facts = prompt_facts(tmp_path, "p1")
    assert [c["candidate"] for c in facts["candidates"]] == [2, 1, 0]
    assert facts["where"] == "in.jsonl:2"
    with pytest.raises(InputError, match="no prompt 'p9'"):
        prompt_facts(tmp_path, "p9")


def test_prompt_facts_without_scores(tmp_path: Path) -> None:
    Run(input_rows(2)).candidates(tmp_path)
    facts = prompt_facts(tmp_path, "p1")
    assert [list(c) for c in facts["candidates"]] == [
        ["candidate", "finish_reason", "num_tokens", "response"]
    ] * 3
    assert [c["candidate"] for c in facts["candidates"]] == [0, 1, 2]


def test_prompt_facts_while_the_pool_is_being_scored(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).scores(tmp_path)
    pool.layout.part(scores_kind("reward"), 1).unlink()
    assert [c["reward"] for c in prompt_facts(tmp_path, "p5")["candidates"]] == [None] * 3
    assert None not in [c["reward"] for c in prompt_facts(tmp_path, "p0")["candidates"]]


def test_prompt_facts_while_the_pool_is_being_generated(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).candidates(tmp_path)
    pool.layout.part(CANDIDATES, 1).unlink()
    facts = prompt_facts(tmp_path, "p5")
    assert facts["where"] == "in.jsonl:6"
    assert facts["candidates"] == facts["drops"] == []
    assert len(prompt_facts(tmp_path, "p0")["candidates"]) == 3


def test_prompt_facts_with_several_scorers(tmp_path: Path) -> None:
    rows = input_rows(1)
    Run(rows, scorer=FakeScorer({"p0": [9.0, 8.0, None]}), scorer_name="b").scores(tmp_path)
    Run(rows, scorer=FakeScorer({"p0": [None, -1.0, -2.0]}), scorer_name="a").scores(tmp_path)
    facts = prompt_facts(tmp_path, "p0")
    found = [(c["candidate"], c["a"], c["b"]) for c in facts["candidates"]]
    assert found == [(1, -1.0, 8.0), (2, -2.0, None), (0, None, 9.0)]
    assert [(d["of"], d["candidate"]) for d in facts["drops"]] == [("scores/a", 0), ("scores/b", 2)]


def test_prompt_facts_break_ties_by_candidate(tmp_path: Path) -> None:
    Run(input_rows(1), scorer=FakeScorer({"p0": [0.0, 1.0, 0.0]})).scores(tmp_path)
    assert [c["candidate"] for c in prompt_facts(tmp_path, "p0")["candidates"]] == [1, 0, 2]


def test_prompt_that_got_no_candidates_says_why(tmp_path: Path) -> None:
    Run(input_rows(2), generator=FakeGenerator(too_long=frozenset({"p1"}))).scores(tmp_path)
    facts = prompt_facts(tmp_path, "p1")
    assert facts["candidates"] == []
    assert facts["drops"] == [
        {"of": CANDIDATES, "reason": "prompt_too_long", "where": "in.jsonl:2",
         "detail": "it has 9 tokens, the model takes 8"}
    ]  # fmt: skip


def test_input_row_that_was_dropped_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Drop("empty_prompt", "it has no text", where="in.jsonl:6", id="e", row=5)
    Run([*input_rows(5, bad=[1]), bad]).scores(tmp_path)
    facts = prompt_facts(tmp_path, "e")
    assert facts["where"] == "in.jsonl:6"
    assert facts["drops"] == [
        {"of": PROMPTS, "reason": "empty_prompt", "detail": "it has no text", "where": "in.jsonl:6"}
    ]
    show(facts)
    shown = capsys.readouterr().out
    assert "candidates: none" in shown
    assert "empty_prompt" in shown
    with pytest.raises(InputError, match="no prompt ''"):
        prompt_facts(tmp_path, "")  # p1's row has no id at all


def test_json_of_columns_that_json_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    row = {"day": datetime.date(2024, 5, 6), "raw": b"x", "price": decimal.Decimal("1.50")}
    pq.write_table(pa.Table.from_pylist([row]), path)
    done = bon("inspect", path, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == [
        {"day": "2024-05-06", "raw": "b'x'", "price": "1.50"}
    ]


@pytest.mark.parametrize(
    ("rewards", "mean"),
    [([1.0, None, 2.0], 1.5), ([None], None), ([], None), (["a"], None)],
)
def test_file_facts(tmp_path: Path, rewards: list[object], mean: float | None) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({"reward": rewards, "id": list(range(len(rewards)))}), path)
    facts = file_facts(path, 2)
    assert facts["mean_reward"] == mean
    assert facts["num_rows"] == len(rewards)
    assert len(facts["rows"]) == min(2, len(rewards))
    assert file_facts(path, 0)["rows"] == []


def test_pairs_are_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    pair = {
        "prompt": [turn("system", "Be short."), turn("user", "2 + 2?")],
        "chosen": [turn("assistant", "4")],
        "rejected": [turn("assistant", "five")],
        "margin": 1.5,
        "prompt_id": "p0",
    }
    show({"rows": [pair]})
    shown = capsys.readouterr().out
    assert "'role'" not in shown
    for text in ("system: Be short.", "user: 2 + 2?", "│ 4 ", "│ five ", "1.5000"):
        assert text in shown
    assert "p0" not in shown


def test_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "o.parquet").write_text("hello")
    with pytest.raises(InputError, match="cannot read this as Parquet"):
        file_facts(tmp_path / "o.parquet", 1)
