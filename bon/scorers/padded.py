"""Forward passes over right-padded batches: for models that cannot take a token trie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bon.scorers.encoding import Encoded
from bon.scorers.families.base import RewardModel

__all__ = ["padded_rewards"]


def padded_rewards(model: RewardModel, device: str, items: Sequence[Encoded]) -> Any:
    """Return the rewards of one batch, `[B]`.

    Rows are padded on the right, each with its own last token, and the head reads the positions
    that were found here: no pad token is needed, and whatever the model's own is moves nothing.
    One conversation is a batch without padding: a plain forward pass.
    """
    import torch

    lengths = [len(item.tokens) for item in items]
    width = max(lengths)
    ids_BT = torch.tensor(
        [
            [*item.tokens, *[item.tokens[-1]] * (width - length)]
            for item, length in zip(items, lengths, strict=True)
        ],
        device=device,
    )
    lengths_B1 = torch.tensor(lengths, device=device)[:, None]
    mask_BT = (torch.arange(width, device=device) < lengths_B1).long()
    if model.logits is not None:
        return model.logits(input_ids=ids_BT, attention_mask=mask_BT)
    hidden_BTD = model.body(
        input_ids=ids_BT, attention_mask=mask_BT, use_cache=False
    ).last_hidden_state
    rows = [row for row, item in enumerate(items) for _ in item.reads]
    columns = [position for item in items for position in item.reads]
    return model.head(hidden_BTD[rows, columns], items)
