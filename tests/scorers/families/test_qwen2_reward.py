"""Qwen2ForRewardModel against a forward pass written out from the checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.parity import (
    check_bfloat16,
    check_float32,
    conversations,
    read_config,
    refused,
)
from support.plain_decoder import hidden_states, llama_names, llama_projection
from support.tiny_families import edit_tensors, read_checkpoint, save_qwen2_reward

from bon.scorers.families import VllmUse, find_family

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CHATML_TURN = "<|im_start|>{role}\n{content}<|im_end|>\n"


def reference(folder: Path) -> list[float]:
    weights, config = read_checkpoint(folder), read_config(folder)

    def score(ids: list[int]) -> float:
        states = hidden_states(ids, weights, config, llama_names(), llama_projection(weights))
        inner = weights["score.0.weight"] @ states[-1] + weights["score.0.bias"]
        reward = weights["score.2.weight"] @ inner.clamp(min=0) + weights["score.2.bias"]
        return float(reward)

    return [score(ids) for ids in conversations(folder, CHATML_TURN)]


@pytest.mark.parametrize("files", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
def test_scores_are_those_of_a_plain_forward(files: Any, tmp_path: Path) -> None:
    check_float32(save_qwen2_reward(tmp_path / "model", files=files), reference)


def test_bfloat16_is_within_the_models_own_rounding(tmp_path: Path) -> None:
    check_bfloat16(save_qwen2_reward(tmp_path / "model", dtype="bfloat16"), reference)


def test_vllm_gives_the_same_number_for_every_token() -> None:
    family = find_family({"architectures": ["Qwen2ForRewardModel"], "num_labels": 1}, "folder")
    assert family.vllm == VllmUse("token_classify")


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda found: found.pop("score.2.bias"), "score.2.bias"),
        (lambda found: found.update({"score.0.weight": torch.ones(3, 64)}), "score.0.weight"),
        (lambda found: found.update({"score.4.weight": torch.ones(1, 64)}), "score.4.weight"),
        (lambda found: found.pop("model.norm.weight"), "norm.weight"),
        (lambda found: found.update({"model.other": torch.ones(1)}), "model.other"),
        (
            lambda found: found.update({"model.layers.0.mlp.up_proj.weight": torch.ones(2, 2)}),
            "layers.0.mlp.up_proj.weight",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    edit: Callable[[dict[str, Any]], object], name: str, tmp_path: Path
) -> None:
    folder = save_qwen2_reward(tmp_path / "model")
    edit_tensors(folder, edit)
    assert name in refused(folder).why
