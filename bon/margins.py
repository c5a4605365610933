"""The widest differences in reward between two candidates of a prompt, in bounded memory."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_similar", "widest_pairs"]

_BLOCK_MARGINS = 1 << 20
"""Margins held at a time, unless one candidate alone has more: all pairs would fill the memory."""

_Floats: TypeAlias = NDArray[np.float64]
_Ints: TypeAlias = NDArray[np.int64]
_Mask: TypeAlias = NDArray[np.bool_]
_Triple: TypeAlias = tuple[_Ints, _Ints, _Ints]


def widest_pairs(
    reward_PN: _Floats,
    length_PN: _Floats | None,
    threshold: float,
    match_length: float,
    max_pairs: int,
) -> _Triple:
    """Find each prompt's `max_pairs` widest margins above the threshold.

    Returns prompt, chosen and rejected of Q pairs: prompts ascending, the widest margin first, of
    equal ones the lowest chosen, then the lowest rejected number. A missing reward is NaN. With
    lengths, a rejected one's is within the share `match_length` of the chosen one's.
    """
    num_prompts, width = reward_PN.shape
    blocks = [(np.empty(0, np.int64),) * 3]
    step = _BLOCK_MARGINS // width**2
    for start in range(0, num_prompts, step or 1):
        rows = slice(start, start + (step or 1))
        length_BN = None if length_PN is None else length_PN[rows]
        search = _of_short if step else _of_long
        found = search(reward_PN[rows], length_BN, threshold, match_length, max_pairs)
        blocks.append((found[0] + start, *found[1:]))
    prompt_Q, chosen_Q, rejected_Q = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return prompt_Q, chosen_Q, rejected_Q


def is_similar(chosen: _Floats, other: _Floats, share: float) -> _Mask:
    """Tell whose length is within the share of the chosen one's; shapes are broadcast.

    Nothing is similar to an empty one.
    """
    # Divided, not multiplied: 29 / 100 is 0.29, but 0.29 * 100 is a little below 29.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(other - chosen) / chosen <= share


def _of_short(
    reward_BN: _Floats, length_BN: _Floats | None, threshold: float, share: float, max_pairs: int
) -> _Triple:
    """Compare all candidates of several prompts with each other at once."""
    margin_BNN = reward_BN[:, :, None] - reward_BN[:, None]
    open_BNN = margin_BNN > threshold
    if length_BN is not None:
        open_BNN &= is_similar(length_BN[:, :, None], length_BN[:, None], share)
    return _widest(margin_BNN, open_BNN, max_pairs)


def _of_long(
    reward_1N: _Floats, length_1N: _Floats | None, threshold: float, share: float, max_pairs: int
) -> _Triple:
    """Compare one prompt's candidates, those first whose margins can be the widest.

    No margin of a candidate is above that to the lowest reward. Where the next candidate could not
    be among the widest pairs found so far, no later one can.
    """
    (number_S,) = np.nonzero(np.isfinite(reward_1N[0]))
    reward_S = reward_1N[0, number_S]
    length_S = None if length_1N is None else length_1N[0, number_S]
    bound_S = reward_S - reward_S.min(initial=np.inf)
    order_S = np.argsort(-bound_S, kind="stable")
    order_S = order_S[bound_S[order_S] > threshold]
    chosen_Q, rejected_Q, margin_Q = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    most = max(1, _BLOCK_MARGINS // max(1, len(reward_S)))
    step, start = min(max_pairs, most), 0
    while start < len(order_S):
        if len(margin_Q) == max_pairs:
            last, following = (-margin_Q[-1], chosen_Q[-1]), order_S[start]
            if (-bound_S[following], following) > last:
                break
        chosen_C = np.sort(order_S[start : start + step])  # so that ties fall to the lowest
        margin_CS = reward_S[chosen_C, None] - reward_S
        open_CS = margin_CS > threshold
        if length_S is not None:
            open_CS &= is_similar(length_S[chosen_C, None], length_S, share)
        _, row_Q, column_Q = _widest(margin_CS[None], open_CS[None], max_pairs)
        chosen_Q = np.concatenate([chosen_Q, chosen_C[row_Q]])
        rejected_Q = np.concatenate([rejected_Q, column_Q])
        margin_Q = np.concatenate([margin_Q, margin_CS[row_Q, column_Q]])
        best_Q = np.lexsort((rejected_Q, chosen_Q, -margin_Q))[:max_pairs]
        chosen_Q, rejected_Q, margin_Q = chosen_Q[best_Q], rejected_Q[best_Q], margin_Q[best_Q]
        start, step = start + step, min(2 * step, most)
    return np.zeros_like(chosen_Q), number_S[chosen_Q], number_S[rejected_Q]


def _widest(margin_BCN: _Floats, open_BCN: _Mask, max_pairs: int) -> _Triple:
    """Return prompt, row and column of each prompt's widest open margins, widest first."""
    open_BM = open_BCN.reshape(len(open_BCN), -1)
    margin_BM = np.where(open_BCN, margin_BCN, -np.inf).reshape(open_BM.shape)
    last = max(open_BM.shape[1] - max_pairs, 0)
    least_B = np.partition(margin_BM, last, axis=1)[:, last]
    prompt_Q, flat_Q = np.nonzero(open_BM & (margin_BM >= least_B[:, None]))
    # Flat positions ascend by row, then column, and a stable sort leaves ties so.
    order_Q = np.lexsort((-margin_BM[prompt_Q, flat_Q], prompt_Q))
    prompt_Q, flat_Q = prompt_Q[order_Q], flat_Q[order_Q]
    rank_Q = np.arange(len(prompt_Q)) - np.searchsorted(prompt_Q, prompt_Q)
    prompt_Q, flat_Q = prompt_Q[rank_Q < max_pairs], flat_Q[rank_Q < max_pairs]
    width = open_BCN.shape[2]
    return prompt_Q, flat_Q // width, flat_Q % width
