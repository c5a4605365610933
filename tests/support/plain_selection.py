"""One prompt at a time: what `bon.selection.choose` must do for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bon.selection import Choice, Rewards, majority, soft, top_k, weighted_majority


def plain_choice(
    rewards_N: Rewards,
    *,
    strategy: str,
    k: int = 1,
    threshold: float = 0.0,
    soft_lambda: float = 1.0,
    answers_N: Sequence[str | None] = (),
    seed: int = 0,
) -> Choice:
    """Choose among one prompt's candidates, by the functions of one prompt."""
    match strategy:
        case "best":
            return top_k(rewards_N, 1)
        case "top-k":
            return top_k(rewards_N, k)
        case "threshold":
            return above_threshold(rewards_N, threshold)
        case "soft":
            return soft(rewards_N, soft_lambda, seed)
        case "majority":
            return majority(rewards_N, answers_N)
    return weighted_majority(rewards_N, answers_N)


def above_threshold(rewards_N: Rewards, lowest: float) -> Choice:
    """Keep the best where its reward is at least `lowest`, both as float32 stores them."""
    choice = top_k(rewards_N, 1)
    if choice.reason is not None:
        return choice
    reward = float(np.asarray(rewards_N, np.float64)[choice.candidates[0]])
    with np.errstate(over="ignore"):
        reaches = np.float32(reward) >= np.float32(lowest)
    if reaches:
        return choice
    detail = f"the best reward, {reward:g}, is below the threshold {lowest:g}"
    return Choice((), "below_threshold", detail, 0)
