"""Masks of token tries for FlexAttention (Dong et al. 2024, arXiv 2412.05496) on a GPU."""

from __future__ import annotations

from typing import Any

from bon.trie import TrieBatch

__all__ = ["block_masks", "window_of"]


def window_of(config: Any) -> int | None:
    """Return how many tokens back the model's narrowest layer sees, none for all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    window = getattr(config, "sliding_window", None)
    return int(window) if window else None


def block_masks(batch: TrieBatch, config: Any, device: str) -> Any:
    """Return what a model of transformers takes as `attention_mask`.

    One compiled block mask; for a model that has both full and sliding layers, one for each kind.
    """
    window = window_of(config)
    if window is None:
        return _block_mask(batch, None, device)
    if len(set(getattr(config, "layer_types", None) or ())) < 2:
        return _block_mask(batch, window, device)
    return {
        "full_attention": _block_mask(batch, None, device),
        "sliding_attention": _block_mask(batch, window, device),
    }


def _block_mask(batch: TrieBatch, window: int | None, device: str) -> Any:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    length = len(batch.tokens)
    end_T = torch.from_numpy(batch.end).to(device, torch.int32)
    position_T = torch.from_numpy(batch.positions).to(device, torch.int32)

    def is_on_path(b: Any, h: Any, query: Any, key: Any) -> Any:
        return (key <= query) & (query < end_T[key])

    mask_mod: Any = is_on_path
    if window is not None:
        reach = window

        def is_in_window(b: Any, h: Any, query: Any, key: Any) -> Any:
            distance = position_T[query] - position_T[key]
            return is_on_path(b, h, query, key) & (distance < reach)

        mask_mod = is_in_window

    mask: Any = create_block_mask(
        mask_mod, None, None, length, length, device=device, _compile=device != "cpu"
    )
    mask.ndim = len(mask.shape)  # GPT-2 asks for it before it knows that this is no tensor
    return mask
