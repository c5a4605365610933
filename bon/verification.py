"""How far a prompt's stored scores are from those of a reference, and whether that moves a rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bon.selection import Rewards, top_k

__all__ = ["Deviation", "compare"]


@dataclass(frozen=True, slots=True)
class Deviation:
    """What comparing one prompt's scores with a reference has shown."""

    candidate: int | None
    """Where the difference is largest, the lowest of equals; none where nothing was compared."""
    difference: float
    """The largest absolute difference."""
    changes_ranking: bool
    """Whether the order of all candidates is another with the reference's scores in it."""


def compare(scores_N: Rewards, references_N: Rewards) -> Deviation:
    """Compare one prompt's scores with a reference's, both of shape (N,), as stored (float32).

    Where either is missing (none, NaN, infinite) nothing is compared and the stored score stays.
    The order is `bon`'s own: best first, ties to the lowest candidate number.

    Raises:
        ValueError: the shapes differ.
    """
    score_N, reference_N = _as_stored(scores_N), _as_stored(references_N)
    if score_N.shape != reference_N.shape:
        raise ValueError(f"{len(reference_N)} reference scores for {len(score_N)} scores")
    is_compared_N = np.isfinite(score_N) & np.isfinite(reference_N)
    if not is_compared_N.any():
        return Deviation(None, 0.0, False)
    difference_N = np.full(len(score_N), -1.0)
    difference_N[is_compared_N] = np.abs(score_N - reference_N)[is_compared_N]
    worst = int(difference_N.argmax())
    replaced_N = np.where(is_compared_N, reference_N, score_N)
    return Deviation(
        worst, float(difference_N[worst]),
        top_k(score_N, len(score_N)).candidates != top_k(replaced_N, len(score_N)).candidates,
    )  # fmt: skip


def _as_stored(values_N: Rewards) -> NDArray[np.float64]:
    """Round to what a pool stores: two scores that are stored as one are a tie."""
    value_N = np.asarray(values_N, dtype=np.float64)
    with np.errstate(over="ignore"):
        stored_N = value_N.astype(np.float32).astype(np.float64)
    return np.where(np.isfinite(stored_N), stored_N, np.nan)
