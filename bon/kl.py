"""Estimators of a KL divergence from samples (Schulman, as used by verl); arrays in, arrays out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["KlEstimates", "kl_estimates"]


class KlEstimates(NamedTuple):
    """Estimates for each sample, the log-ratio's shape; the mean over samples estimates the KL."""

    k1: NDArray[np.float64]
    """The log-ratio itself: unbiased, may be negative."""
    k2: NDArray[np.float64]
    """k1² / 2: biased, never negative."""
    k3: NDArray[np.float64]
    """e^(−k1) + k1 − 1: unbiased, never negative; infinite where the exponential overflows."""


def kl_estimates(log_ratio: NDArray[np.float64]) -> KlEstimates:
    """Return k1, k2 and k3 of log p − log q at samples of p.

    A token's log-ratio gives the token's estimates, a whole response's (the sum over its tokens)
    the response's.
    """
    with np.errstate(over="ignore"):
        k3 = np.expm1(-log_ratio) + log_ratio
    return KlEstimates(log_ratio, log_ratio**2 / 2, k3)
