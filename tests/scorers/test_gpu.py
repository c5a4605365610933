"""The scorer on an NVIDIA GPU: FlexAttention, the measured budget, memory that runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scoring import flat, groups, largest_difference, reward_scorer, root_mean_square
from support.short_of_memory import conversations
from support.tiny_models import edit_weights, save_reward

from bon.records import CandidateGroup
from bon.scorers.encoding import Encoded
from bon.scorers.packed import PACKED_TYPES
from bon.scorers.running import ForwardRunner

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

FREE_BYTES = 2 << 30


def scores(folder: Path, **settings: Any) -> list[float]:
    with reward_scorer(folder, device="cuda", **settings) as scorer:
        return flat(scorer.score(groups()))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """All but 2 GiB of the GPU are taken."""
    torch.cuda.empty_cache()
    taken = torch.empty(torch.cuda.mem_get_info()[0] - FREE_BYTES, dtype=torch.uint8, device="cuda")
    yield
    del taken
    torch.cuda.empty_cache()


@pytest.mark.parametrize("kind", sorted(PACKED_TYPES))
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_a_conversation_that_is_not_finite_spoils_no_other(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    bad = 9
    rows = [[1], [1, bad], [1, 2, 3], [1, 2, 3, bad, 4], [1, 2, 5], [6] * 200, [*[6] * 200, bad]]
    items = [Encoded(tuple(row), False, (len(row) - 1,)) for row in rows]

    def poison(weights: dict[str, Any]) -> None:
        (name,) = (name for name in weights if name.endswith("embed_tokens.weight"))
        weights[name][bad] = torch.nan

    folder = save_reward(tmp_path, kind=kind, dtype=dtype)
    edit_weights(folder, poison)
    with reward_scorer(folder, device="cuda") as scorer, torch.inference_mode():
        found = ForwardRunner(scorer._model, "cuda", 4096).rewards(items)
        want = ForwardRunner(scorer._model, "cuda", 4096, alone=True).rewards(items)
    for row, one, other in zip(rows, found, want, strict=True):
        assert isinstance(one, float)
        assert isinstance(other, float)
        assert math.isfinite(one) == math.isfinite(other) == (bad not in row)
        if math.isfinite(other):
            assert one == pytest.approx(other, abs=1e-4 if dtype == "float32" else 0.3)


@pytest.mark.usefixtures("little_memory")
def test_the_budget_is_measured_and_fits(tmp_path: Path) -> None:
    # gate, up and their product: 48 KiB a token, so 2 GiB take some ten thousand tokens
    folder = save_reward(tmp_path, intermediate_size=4096)
    many = tuple(
        CandidateGroup(
            f"p{number}", ({"role": "user", "content": chr(97 + number) * 1500},), ("b",)
        )
        for number in range(26)
    )
    with reward_scorer(folder, device="cuda") as scorer:
        before, free = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]
        scorer.score(many)
        budget = scorer._runner._tokens
        assert scorer.halved_batch_tokens is None
        assert budget & (budget - 1) == 0
        assert 2048 <= budget < scorer.num_tokens_computed, "a batch must have been full"
        assert torch.cuda.max_memory_allocated() - before < 0.8 * free


def test_memory_that_runs_out_halves_the_budget(tmp_path: Path) -> None:
    folder = save_reward(tmp_path, intermediate_size=4096)
    with reward_scorer(folder, device="cuda", batch_tokens=1 << 14) as scorer:
        want = flat(scorer.score(conversations()))
        assert scorer.halved_batch_tokens is None
    first = CandidateGroup("first", ({"role": "user", "content": "x"},), ("y",))
    with reward_scorer(folder, device="cuda", batch_tokens=1 << 14) as scorer:
        scorer.score((first,))  # compiled, and its first blocks reserved
        torch.cuda.empty_cache()
        # of 3,724 tokens, gate and up alone take 116 MiB at once; half of them fit, or a quarter
        most = torch.cuda.memory_reserved() + (100 << 20)
        torch.cuda.set_per_process_memory_fraction(most / torch.cuda.mem_get_info()[1])
        try:
            assert largest_difference(flat(scorer.score(conversations())), want) < 1e-4
            assert 0 < (scorer.halved_batch_tokens or 0) <= 3_724 // 2
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
