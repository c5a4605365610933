"""One strength a player from who beat whom: the Bradley-Terry model, with a ridge."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_bradley_terry"]

_MAX_STEPS = 200
_PRECISION = 1e-11

_Floats: TypeAlias = NDArray[np.float64]


def fit_bradley_terry(win_NN: _Floats, *, ridge: float) -> _Floats:
    """Return the strengths r, shape (N,), that best explain the wins; their mean is 0.

    `win_NN[i, j]` is how often i has beaten j, half a win for either in a tie; the diagonal does
    not count. The model is P(i beats j) = σ(r_i − r_j) (Bradley and Terry 1952). Maximised is the
    log-likelihood less `ridge`/2 · Σ r², which has one maximum whatever the wins: who never lost
    stays finite, and who was never compared is at 0.

    Raises:
        ValueError: the wins are not a square matrix of finite numbers from 0 up, or the ridge is
            not above 0.
    """
    win_NN = np.asarray(win_NN, dtype=np.float64)
    if win_NN.ndim != 2 or win_NN.shape[0] != win_NN.shape[1]:
        raise ValueError(f"wins must be a square matrix: {win_NN.shape}")
    if not np.isfinite(win_NN).all() or (win_NN < 0).any():
        raise ValueError("wins must be finite and not negative")
    if not (np.isfinite(ridge) and ridge > 0):
        raise ValueError(f"the ridge must be above 0: {ridge}")
    win_NN = win_NN.copy()
    np.fill_diagonal(win_NN, 0.0)
    strength_N = np.zeros(len(win_NN))
    for _ in range(_MAX_STEPS):
        step_N = _newton_step(win_NN, strength_N, ridge)
        spread = float(np.ptp(step_N)) if len(step_N) else 0.0
        if spread <= _PRECISION * max(1.0, float(np.ptp(strength_N)) if len(step_N) else 0.0):
            break
        # Newton's own step overshoots where the sigmoid is flat; this share of it always ascends,
        # and is all of it near the maximum (Sun and Tran-Dinh 2019, for the logistic loss)
        strength_N = strength_N + step_N * (np.log1p(spread) / spread)
    centred_N: _Floats = strength_N - strength_N.mean() if len(strength_N) else strength_N
    return centred_N


def _newton_step(win_NN: _Floats, strength_N: _Floats, ridge: float) -> _Floats:
    """Return the step to the maximum of the parabola that the objective looks like here."""
    difference_NN = strength_N[:, None] - strength_N[None, :]
    half_NN = np.exp(-np.abs(difference_NN))  # never overflows
    likely_NN = np.where(difference_NN >= 0, 1.0, half_NN) / (1.0 + half_NN)
    games_NN = win_NN + win_NN.T
    gradient_N = (win_NN - games_NN * likely_NN).sum(axis=1) - ridge * strength_N
    weight_NN = games_NN * likely_NN * likely_NN.T
    curvature_NN = np.diag(weight_NN.sum(axis=1) + ridge) - weight_NN
    step_N: _Floats = np.linalg.solve(curvature_NN, gradient_N)
    return step_N
