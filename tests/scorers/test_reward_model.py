"""The scorer of reward models on transformers: where it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scoring import reward_scorer
from support.tiny_models import save_reward

from bon.errors import ModelError

torch = pytest.importorskip("torch")


def test_a_gpu_that_is_not_there_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> Any:
        pytest.fail("the model was loaded")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    scorer = reward_scorer(save_reward(tmp_path), device="cuda")
    scorer.family = replace(scorer.family, load=load)
    with pytest.raises(ModelError, match="sees no GPU") as caught, scorer:
        pytest.fail("it was entered")
    assert caught.value.where == "--reward-device cuda"
    assert "leave the flag out" in caught.value.next_step
