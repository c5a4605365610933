"""The scorer on an NVIDIA GPU: FlexAttention, the measured budget, memory that runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.scoring import flat, groups, largest_difference, reward_scorer, root_mean_square
from support.tiny_models import save_reward

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.gpu


def scores(folder: Path, **settings: Any) -> list[float]:
    with reward_scorer(folder, device="cuda", **settings) as scorer:
        return flat(scorer.score(groups()))


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma2", "gemma3_text", "mistral", "phi3"])
def test_tries_on_a_gpu_give_the_scores_of_one_at_a_time(kind: str, tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind=kind)  # windows of 16 tokens, where the kind has them
    assert largest_difference(scores(folder), scores(folder, alone=True)) < 1e-4


@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_bfloat16_is_as_near_to_float32_as_one_at_a_time(kind: str, tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind=kind, dtype="bfloat16")
    exact = scores(folder, alone=True, dtype="float32")
    alone, packed = scores(folder, alone=True), scores(folder)
    assert root_mean_square(packed, exact) <= 1.25 * root_mean_square(alone, exact)


def test_encoders_are_padded(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind="modernbert")
    assert largest_difference(scores(folder), scores(folder, alone=True)) < 1e-4


def test_the_budget_is_measured_and_fits(tmp_path: Path) -> None:
    with reward_scorer(save_reward(tmp_path), device="cuda") as scorer:
        scorer.score(groups())
        budget = scorer._runner._tokens
        assert budget >= 2048
        assert budget & (budget - 1) == 0
        torch.cuda.reset_peak_memory_stats()
        scorer.score(groups())
        assert torch.cuda.max_memory_allocated() < torch.cuda.mem_get_info()[1]


def test_memory_that_runs_out_halves_the_budget(tmp_path: Path) -> None:
    folder = save_reward(tmp_path)
    want = scores(folder)
    free, total = torch.cuda.mem_get_info()
    with reward_scorer(folder, device="cuda", batch_tokens=1 << 20) as scorer:
        scorer.score(groups()[:1])  # compiled, and its first blocks reserved
        used = total - free
        torch.cuda.set_per_process_memory_fraction((used + (64 << 20)) / total)
        try:
            assert largest_difference(flat(scorer.score(groups())), want) < 1e-4
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
