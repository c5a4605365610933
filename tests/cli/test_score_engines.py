"""`--scorer-engine`: what is chosen is said, and the scores are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import REWARD, bon, bon_json
from support.fakes import Run, input_rows
from support.tiny_families import save_internlm2
from support.tiny_models import save_reward

from bon.cli.build import scoring_plans
from bon.config import ScoreSettings
from bon.pool.pool import Pool, scores_kind
from bon.scorers.reward_model import RewardModelScorer
from bon.scorers.vllm import VllmRewardScorer


def test_the_engine_is_no_part_of_what_the_scores_are() -> None:
    plans = {
        engine: scoring_plans(
            ScoreSettings.model_validate({"reward": (str(REWARD),), "scorer_engine": engine})
        )[0]
        for engine in ("auto", "transformers", "vllm")
    }
    assert isinstance(plans["vllm"].scorer, VllmRewardScorer)
    assert isinstance(plans["auto"].scorer, RewardModelScorer)
    for engine, plan in plans.items():
        assert plan.fingerprint == plans["vllm"].fingerprint
        assert isinstance(plan.reference, RewardModelScorer)
        assert plan.engine == ("vllm" if engine == "vllm" else "transformers")
        assert plan.engine_why


def test_the_note_tells_how_a_body_of_another_type_is_run(tmp_path: Path) -> None:
    """InternLM2's body is a Llama; DeBERTa's is its own."""
    Run(input_rows(2)).candidates(tmp_path / "in.pool")
    save_internlm2(tmp_path / "intern")
    save_reward(tmp_path / "encoder", kind="deberta-v2")
    done = bon("score", "in.pool", "-r", "./intern", "-r", "./encoder", cwd=tmp_path)
    assert "intern: transformers, token tries" in done.stderr
    assert "encoder: transformers, padded batches" in done.stderr


@pytest.mark.vllm
@pytest.mark.slow
def test_both_engines_give_the_same_scores(tmp_path: Path) -> None:
    Run(input_rows(6)).candidates(tmp_path / "in.pool")
    own = bon("score", "in.pool", "-r", f"own={REWARD}", cwd=tmp_path)
    assert "own: transformers, token tries" in own.stderr
    flags = ("-r", f"other={REWARD}", "--scorer-engine", "vllm")

    result = bon_json("score", "in.pool", *flags, cwd=tmp_path)

    (stage,) = result["stages"]
    assert (stage["engine"], stage["engine_why"]) == ("vllm", "as --scorer-engine says")
    assert 0 < stage["num_tokens_computed"] <= stage["num_tokens"]
    pool = Pool.open(tmp_path / "in.pool")
    for part in pool.layout.numbers("candidates"):
        left, right = (pool.read(scores_kind(name), part) for name in ("own", "other"))
        assert left.drop_columns("score") == right.drop_columns("score")
        assert left["score"].to_pylist() == pytest.approx(right["score"].to_pylist(), abs=1e-4)
    (stage,) = bon_json("score", "in.pool", *flags[:2], cwd=tmp_path)["stages"]
    assert (stage["num_parts_done"], stage["engine"]) == (0, None)
