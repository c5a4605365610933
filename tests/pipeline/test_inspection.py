"""Facts of pools and results, damaged and odd ones too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fakes import FakeScorer, Run, input_rows

from bon.errors import InputError, PoolCorruptError, PoolIncompleteError
from bon.pipeline.inspection import file_facts, pool_facts, prompt_facts
from bon.pool.pool import CANDIDATES


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
    with pytest.raises(PoolIncompleteError):
        prompt_facts(tmp_path, "p1")


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


def test_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "o.parquet").write_text("hello")
    with pytest.raises(InputError, match="cannot read this as Parquet"):
        file_facts(tmp_path / "o.parquet", 1)
