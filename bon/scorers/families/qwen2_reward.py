"""Qwen2.5-Math-RM and its kin: a Qwen2 body with a head of two layers, read at the last token.

Their repositories call the class `Qwen2ForRewardModel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bon.config import ScorerSettings
from bon.scorers.families.base import Family, RewardModel, VllmUse
from bon.scorers.families.loading import (
    load_config,
    load_head,
    load_pretrained,
    load_tokenizer,
    longest_conversation,
    read_tensors,
)

__all__ = ["FAMILY"]

_HEAD = r"score\..+"


def _load(path: str, settings: ScorerSettings) -> RewardModel:
    import torch
    from torch import nn
    from transformers import Qwen2Model

    config, tokenizer = load_config(path), load_tokenizer(path)
    body = load_pretrained(Qwen2Model, path, config, settings.dtype, unused=_HEAD)
    wide = config.hidden_size
    score = nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 1))
    head = nn.ModuleDict({"score": score})
    load_head(head, path, read_tensors(path, _HEAD), torch.float32)

    def rewards(hidden_RD: Any, counts: Sequence[int]) -> Any:
        return score(hidden_RD.float())[:, 0]

    module = nn.ModuleDict({"body": body, "head": head})
    return RewardModel(module, body, rewards, tokenizer, longest_conversation(config, tokenizer))


FAMILY = Family(
    name="Qwen2 reward model",
    architectures=("Qwen2ForRewardModel",),
    load=_load,
    vllm=VllmUse("token_classify"),
)
