"""Qwen2.5-Math-RM and its kin: a Qwen2 body with a head of two layers, read at the last token.

Their repositories call the class `Qwen2ForRewardModel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bon.config import ScorerSettings
from bon.scorers.families.base import Family, RewardModel, VllmUse
from bon.scorers.families.loading import load_tokenizer
from bon.scorers.families.qwen2 import load_qwen2

__all__ = ["FAMILY"]


def _load(path: str, settings: ScorerSettings) -> RewardModel:
    def rewards(values_R1: Any, counts: Sequence[int]) -> Any:
        return values_R1[:, 0]

    return load_qwen2(path, settings, load_tokenizer(path), 1, rewards)


FAMILY = Family(
    name="Qwen2 reward model",
    architectures=("Qwen2ForRewardModel",),
    load=_load,
    vllm=VllmUse("token_classify"),
)
