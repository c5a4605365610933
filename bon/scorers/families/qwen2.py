"""What Qwen2.5-Math's two reward models share: a Qwen2 body and a head of two layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bon.config import ScorerSettings
from bon.scorers.families.base import RewardModel
from bon.scorers.families.loading import (
    load_config,
    load_head,
    load_pretrained,
    longest_conversation,
    read_tensors,
)

__all__ = ["load_qwen2"]

_HEAD = r"score\..+"


def load_qwen2(
    path: str,
    settings: ScorerSettings,
    tokenizer: Any,
    num_labels: int,
    rewards_of: Callable[[Any, Sequence[int]], Any],
) -> RewardModel:
    """Load the body and its head; `rewards_of` makes rewards of the head's rows, `[R, L]`.

    Raises:
        ModelError: files are damaged, or do not fit the class.
    """
    import torch
    from torch import nn
    from transformers import Qwen2Model

    config = load_config(path)
    body = load_pretrained(Qwen2Model, path, config, settings.dtype, unused=_HEAD)
    wide = config.hidden_size
    score = nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, num_labels))
    head = nn.ModuleDict({"score": score})
    load_head(head, path, read_tensors(path, _HEAD), torch.float32)

    def rewards(hidden_RD: Any, counts: Sequence[int]) -> Any:
        return rewards_of(score(hidden_RD.float()), counts)

    module = nn.ModuleDict({"body": body, "head": head})
    return RewardModel(module, body, rewards, tokenizer, longest_conversation(config, tokenizer))
