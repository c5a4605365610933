"""`bon score --ref-model` on a pool that vLLM sampled, with its own model as the reference."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.commands import GENERATOR, PROMPTS, REWARD, bon, bon_json, bon_stopped
from support.fakes import InlineEngine, Run, ignore, input_rows

from bon.cli.build import scoring_plans
from bon.config import ScoreSettings
from bon.durable import PARQUET_OPTIONS
from bon.pipeline.plans import ScoringPlan
from bon.pipeline.run import score
from bon.pipeline.verify import VerifyPlan, verify
from bon.pool.pool import Pool


def column(pool: Path, kind: str, name: str) -> list[Any]:
    return [
        value
        for file in sorted((pool / kind).glob("*.parquet"))
        for value in pq.read_table(file)[name].to_pylist()
    ]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of 40 prompts, sampled so hot that text does not always tell the tokens."""
    root = tmp_path_factory.mktemp("pools")
    settings = ("-n", 4, "--limit", 40, "--part-size", 8, "--kv-cache-gib", 0.25)
    settings += ("--temperature", 1.7, "--max-tokens", 40, "--system-prompt", "Be brief.")
    bon_json("generate", PROMPTS, "-m", GENERATOR, *settings, "--pool", "p.pool", cwd=root)
    return root / "p.pool"


@pytest.fixture
def pool(sampled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sampled, tmp_path / "p.pool"))


def plan() -> ScoringPlan:
    (found,) = scoring_plans(ScoreSettings(reward=(), ref_model=str(GENERATOR)))
    return found


@pytest.mark.vllm
@pytest.mark.slow
def test_a_model_as_its_own_reference_gives_what_was_sampled(pool: Path) -> None:
    parts = pool / "scores/ref"

    def has_some() -> bool:
        return parts.is_dir() and len(list(parts.iterdir())) >= 2

    command = ("score", pool, "--ref-model", GENERATOR)
    bon_stopped(*command, cwd=pool.parent, when=has_some, how=signal.SIGKILL)
    done = bon_json(*command, cwd=pool.parent)
    assert (done["input_rows"], done["drops"], done["candidate_drops"]) == (40, {}, {})
    assert [stage["name"] for stage in done["stages"]] == ["score ref"]
    assert done["stages"][0]["num_parts_done"] < 5, "what was there before stays"

    own, found = column(pool, "candidates", "logprob"), column(pool, "scores/ref", "score")
    num_tokens = np.array(column(pool, "candidates", "num_tokens"))
    assert len(found) == 160
    assert min(own) < -20
    assert (np.abs(np.array(own) - np.array(found)) < 1e-4 * num_tokens).all()
    ids = column(pool, "candidates", "token_ids")
    assert [len(one) for one in ids] == num_tokens.tolist()
    reasons = column(pool, "candidates", "finish_reason")
    assert {one[-1] for one, reason in zip(ids, reasons, strict=True) if reason == "stop"} == {2}


@pytest.mark.vllm
@pytest.mark.slow
def test_stored_scores_are_held_to_one_response_at_a_time(pool: Path) -> None:
    ref = plan()
    assert ref.reference is not None
    score(Pool.open(pool), ref, InlineEngine(), None, ignore)
    checked = VerifyPlan("ref", ref.reference, 20, 0, ref.reads_candidates)
    report = verify(Pool.open(pool), checked, InlineEngine(), None, ignore)
    assert (report.num_candidates, report.num_failed) == (20, 0)
    assert report.largest_difference is not None
    assert report.largest_difference < 1e-4


@pytest.mark.vllm
@pytest.mark.slow
def test_a_pool_from_before_token_ids_is_read_by_its_texts(pool: Path) -> None:
    known = column(pool, "candidates", "logprob")
    for file in (pool / "candidates").glob("*.parquet"):
        table, covers = pq.read_table(file), pq.read_metadata(file).metadata[b"bon.covers"]
        table = table.drop_columns("token_ids").replace_schema_metadata({"bon.covers": covers})
        pq.write_table(table, file, **PARQUET_OPTIONS)
    score(Pool.open(pool), plan(), InlineEngine(), None, ignore)
    found = column(pool, "scores/ref", "score")
    drops = list(Pool.open(pool).read_drops("scores/ref"))
    assert {drop.reason for drop in drops} <= {"other_tokens"}
    assert len(drops) == found.count(None)
    same = [a for a, b in zip(known, found, strict=True) if b is not None and abs(a - b) < 1e-3]
    assert len(same) > 140, "most texts are the tokens that were sampled"


def test_only_the_reference_is_computed_where_no_reward_was_named(tmp_path: Path) -> None:
    Run(input_rows(2)).candidates(tmp_path / "in.pool")

    def steps(*arguments: object) -> str:
        return bon("score", "in.pool", *arguments, "--dry-run", cwd=tmp_path).stdout

    ref = f"score in.pool with logprob:{GENERATOR} as ref"
    assert f"  1. {ref}\n" in steps("--ref-model", GENERATOR)
    both = steps("-r", f"rm={REWARD}", "--ref-model", GENERATOR)
    assert f"  1. score in.pool with {REWARD} as rm\n  2. {ref}\n" in both


def test_given_responses_have_log_probabilities_too(tmp_path: Path) -> None:
    line = '{"prompt": "What is 40 + 42?", "responses": ["It is 82.", "q|^ zy.", ""]}\n'
    (tmp_path / "in.jsonl").write_text(line)
    done = bon_json("score", "in.jsonl", "--ref-model", GENERATOR, cwd=tmp_path)
    assert done["candidate_drops"] == {"no_tokens": 1}
    right, babble, empty = column(tmp_path / "in.pool", "scores/ref", "score")
    assert 0 > right > -5 > babble
    assert empty is None


def test_a_foreign_template_is_found_before_anything_is_sampled(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    (tmp_path / "in.jsonl").write_text('{"prompt": "What is 40 + 42?"}\n')
    command = ("select", "in.jsonl", "-m", GENERATOR, "--chat-template", "t.jinja")
    reference = ("-r", REWARD, "--ref-model", GENERATOR, "--kl-beta", "1", "--pool", "in.pool")
    done = bon(*command, *reference, "-o", "x.parquet", cwd=tmp_path)
    assert done.returncode == 2
    assert "give the reference the same" in done.stderr
    assert not (tmp_path / "in.pool/candidates").exists()
