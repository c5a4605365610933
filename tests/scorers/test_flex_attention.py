"""The way of a GPU, on a CPU: every kind of model under FlexAttention's masks, not compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.scoring import reward_scorer
from support.tiny_models import save_reward

from bon.scorers.encoding import Encoded
from bon.scorers.packed import PACKED_TYPES
from bon.scorers.running import ForwardRunner

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import flex_attention as torchs
    from transformers.integrations import flex_attention as transformers_own

    def attend(*arguments: Any, training: bool = False, **rest: Any) -> Any:
        return torchs.flex_attention(*arguments, **rest)

    create = torchs.create_block_mask
    monkeypatch.setattr(
        torchs,
        "create_block_mask",
        lambda *given, **named: create(*given, **named | {"_compile": False}),
    )
    monkeypatch.setattr(transformers_own, "compile_friendly_flex_attention", attend)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", sorted(PACKED_TYPES))
def test_tries_give_the_scores_of_one_at_a_time(kind: str, tmp_path: Path) -> None:
    folder = save_reward(tmp_path, kind=kind)  # windows of 16 tokens, where the kind has them
    prompt = list(range(10, 40))
    rows = [[*prompt, 50], [*prompt, *range(60, 90)], [*prompt, 50, 51], [7, 8], prompt]
    items = [Encoded(tuple(row), False, (len(row) - 1,)) for row in rows]
    with reward_scorer(folder) as scorer, torch.inference_mode():
        want = ForwardRunner(scorer._model, "cpu", None, alone=True).rewards(items)
        runner = ForwardRunner(scorer._model, "cpu", 1_000)
        packed = runner._packed
        assert packed is not None
        packed.device = "cpu:0"  # it takes whatever is not "cpu" for a GPU
        runner._longest_packed = 1_000
        assert runner.rewards(items) == pytest.approx(want, abs=1e-4)
        assert runner.num_tokens_computed == 30 + 2 + 30 + 2
