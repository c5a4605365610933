"""Several scores of each candidate put together as one reward: arrays in, arrays out.

C candidates of P prompts lie one after another, `prompt_C` says whose each is; K scorers have
scored them. A score that is NaN is missing, and so is every reward that needs it. All is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LengthFit",
    "Moments",
    "fit_linear",
    "fit_lowess",
    "global_z",
    "kl_penalised",
    "lexicographic",
    "mean",
    "passes",
    "prompt_rank",
    "prompt_z",
    "uncertainty_weighted",
    "weighted_mean",
    "weighted_sum",
    "worst_case",
]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_LOWESS_CANDIDATES = 20_000
"""Of more, so many stand for all: evenly spaced in the order of length, then score."""
_LOWESS_POINTS = 200
"""Lengths between which a LOWESS curve is straight, about."""


# --- one reward from K scores ------------------------------------------------------------------


def weighted_sum(score_KC: Floats, weight_K: Floats) -> Floats:
    """Return Σ w·s, shape (C,); a scorer of weight 0 does not count, missing or not."""
    total_C = np.zeros(score_KC.shape[1])
    # one by one: a matrix product rounds some columns otherwise than others, and ties would break
    for weight, score_C in zip(weight_K, score_KC, strict=True):
        if weight != 0:
            total_C = total_C + weight * score_C
    return total_C


def weighted_mean(score_KC: Floats, weight_K: Floats) -> Floats:
    """Return Σ w·s / Σ w, shape (C,).

    Raises:
        ValueError: the weights' sum is not above 0.
    """
    total = float(weight_K.sum())
    if not total > 0:
        raise ValueError(f"the weights of a mean must have a sum above 0, not {total:g}")
    return weighted_sum(score_KC, weight_K) / total


def mean(score_KC: Floats) -> Floats:
    """Return the mean over scorers, shape (C,)."""
    return weighted_mean(score_KC, np.ones(len(score_KC)))


def worst_case(score_KC: Floats) -> Floats:
    """Return the lowest score, shape (C,): worst-case optimisation (arXiv 2310.02743)."""
    lowest: Floats = score_KC.min(axis=0)
    return lowest


def uncertainty_weighted(score_KC: Floats, penalty: float) -> Floats:
    """Return mean − penalty·variance over scorers, shape (C,): UWO (arXiv 2310.02743).

    The variance is the population's (ddof 0).
    """
    middle_C = mean(score_KC)
    return middle_C - penalty * mean((score_KC - middle_C) ** 2)


def lexicographic(score_KC: Floats, prompt_C: Ints) -> Floats:
    """Return rewards that order each prompt's candidates by the first scorer, ties by the next.

    The reward is the first score plus what stays below the smallest step between two first scores
    of the prompt (below 1 where there is but one). So of a verdict and a reward model the reward
    is in [1, 2) for what is right and in [0, 1) for what is wrong; where the first scores are any
    numbers, rewards of different prompts cannot be compared.
    """
    complete = np.flatnonzero(~np.isnan(score_KC).any(axis=0))
    score, prompt = score_KC[:, complete], prompt_C[complete]
    reward_C = np.full(len(prompt_C), np.nan)
    reward_C[complete] = score[0] + _steps(score[0], prompt) * _places(score[1:], prompt)
    return reward_C


def passes(score_C: Floats, lowest: float) -> NDArray[np.bool_]:
    """Tell which candidates a gate lets through: those that have a score, at least `lowest`."""
    with np.errstate(invalid="ignore"):
        return score_C >= lowest


def kl_penalised(reward_C: Floats, k1_C: Floats, beta: float) -> Floats:
    """Return r − β·k1, shape (C,), k1 = logp − logref of the whole response, as verl does."""
    return reward_C - beta * k1_C


# --- one scorer's scores made comparable -------------------------------------------------------


def prompt_z(score_C: Floats, prompt_C: Ints) -> Floats:
    """Return how many standard deviations (ddof 0) a score is above its prompt's mean.

    Where all scores of a prompt are the same it is 0.
    """
    there = ~np.isnan(score_C)
    count_P = np.bincount(prompt_C[there], minlength=_num_prompts(prompt_C)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_P = _sums(score_C, prompt_C, there) / count_P
        centred_C = score_C - mean_P[prompt_C]
        std_P = np.sqrt(_sums(centred_C**2, prompt_C, there) / count_P)
        # a spread that is but rounding is none
        std_P = np.where(std_P > 1e-12 * np.maximum(1.0, np.abs(mean_P)), std_P, np.inf)
        result: Floats = centred_C / std_P[prompt_C]
    return result


def prompt_rank(score_C: Floats, prompt_C: Ints) -> Floats:
    """Return the rank within the prompt, 0 the lowest and 1 the highest, ties at their mean.

    A single score has rank 0.5.
    """
    result = np.full(len(score_C), np.nan)
    there = np.flatnonzero(~np.isnan(score_C))
    order = there[np.lexsort((score_C[there], prompt_C[there]))]
    prompt, score = prompt_C[order], score_C[order]
    starts_tie = np.ones(len(order), bool)
    starts_tie[1:] = (prompt[1:] != prompt[:-1]) | (score[1:] != score[:-1])
    tie = np.cumsum(starts_tie) - 1
    first = np.flatnonzero(starts_tie)
    last = np.append(first[1:], len(order)) - 1
    middle = (first + last)[tie] / 2 if len(order) else np.zeros(0)
    begin_P = np.searchsorted(prompt, np.arange(_num_prompts(prompt_C)))
    count_P = np.bincount(prompt, minlength=_num_prompts(prompt_C))
    width = (count_P - 1)[prompt]
    place = middle - begin_P[prompt]
    result[order] = np.where(width > 0, place / np.maximum(width, 1), 0.5)
    return result


@dataclass(slots=True)
class Moments:
    """Mean and standard deviation (ddof 0) of scores that come piece by piece (Chan's method)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared distances from the mean."""

    def add(self, score_C: Floats) -> None:
        """Take scores in; those that are missing do not count."""
        score = score_C[~np.isnan(score_C)]
        if not len(score):
            return
        middle, total = float(score.mean()), self.count + len(score)
        distance = middle - self.mean
        self.squares += float(((score - middle) ** 2).sum())
        self.squares += distance**2 * self.count * len(score) / total
        self.mean += distance * len(score) / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation, 0 of nothing."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0


def global_z(score_C: Floats, moments: Moments) -> Floats:
    """Return how many standard deviations a score is above the mean of all; 0 without spread."""
    if moments.std <= 1e-12 * max(1.0, abs(moments.mean)):
        return np.where(np.isnan(score_C), np.nan, 0.0)
    return (score_C - moments.mean) / moments.std


# --- the share of a score that length explains -------------------------------------------------


@dataclass(frozen=True, slots=True)
class LengthFit:
    """The score expected of a length: straight between points, level beyond them."""

    length: Floats
    """Ascending, shape (L,), L at least 1."""
    expected: Floats
    """Shape (L,)."""
    slope: float = 0.0
    """Of a linear fit: the line goes on beyond its points."""

    def residual(self, score_C: Floats, length_C: Floats) -> Floats:
        """Return the score less what its length explains, shape (C,)."""
        expected_C = np.interp(length_C, self.length, self.expected)
        beyond_C = length_C - np.clip(length_C, self.length[0], self.length[-1])
        residual: Floats = score_C - expected_C - self.slope * beyond_C
        return residual


def fit_linear(score_C: Floats, length_C: Floats) -> LengthFit:
    """Fit score = a + b·length by least squares over all candidates that have a score."""
    length, score = _scored(score_C, length_C)
    if not len(length):
        return LengthFit(np.zeros(1), np.zeros(1))
    centred = length - length.mean()
    spread = float(centred @ centred)
    slope = float(centred @ (score - score.mean())) / spread if spread > 0 else 0.0
    return LengthFit(np.array([length.mean()]), np.array([score.mean()]), slope)


def fit_lowess(score_C: Floats, length_C: Floats, share: float = 2 / 3) -> LengthFit:
    """Fit a LOWESS curve (Cleveland 1979, three robust rounds) over all candidates with a score.

    `share` of the candidates decides the curve at each length, more where many have the same one.
    Beyond the shortest and the longest it is level. Source of the method for rewards: arXiv
    2409.17407.
    """
    from statsmodels.nonparametric.smoothers_lowess import lowess

    length, score = _scored(score_C, length_C)
    points = np.unique(length)
    if len(points) < 3:  # no curve: the mean at each length
        means = [float(score[length == point].mean()) for point in points]
        return LengthFit(points, np.array(means)) if len(points) else fit_linear(score, length)
    if len(length) > _LOWESS_CANDIDATES:
        order = np.lexsort((score, length))
        some = order[np.linspace(0, len(order) - 1, _LOWESS_CANDIDATES).astype(np.int64)]
        length, score = length[some], score[some]
    # where a length is more common than that, it would have no neighbours, and no curve
    commonest = float(np.unique(length, return_counts=True)[1].max()) / len(length)
    if commonest >= share:
        share = (1 + commonest) / 2
    near = float(np.ptp(length)) / _LOWESS_POINTS
    curve = lowess(score, length, frac=share, delta=near, return_sorted=True)
    known = curve[np.isfinite(curve[:, 1])]
    point, first = np.unique(known[:, 0], return_index=True)
    return LengthFit(point, known[first, 1]) if len(point) else fit_linear(score, length)


# --- helpers -----------------------------------------------------------------------------------


def _num_prompts(prompt_C: Ints) -> int:
    return int(prompt_C.max(initial=-1)) + 1


def _sums(value_C: Floats, prompt_C: Ints, there: NDArray[np.bool_]) -> Floats:
    total_P: Floats = np.bincount(
        prompt_C[there], value_C[there], minlength=_num_prompts(prompt_C)
    ).astype(np.float64)
    return total_P


def _scored(score_C: Floats, length_C: Floats) -> tuple[Floats, Floats]:
    there = ~np.isnan(score_C) & ~np.isnan(length_C)
    return length_C[there], score_C[there]


def _steps(score_C: Floats, prompt_C: Ints) -> Floats:
    """Return the smallest difference between two scores of a candidate's prompt, 1 without any."""
    order = np.lexsort((score_C, prompt_C))
    prompt, step = prompt_C[order][1:], np.diff(score_C[order])
    differs = (prompt == prompt_C[order][:-1]) & (step > 0)
    smallest_P = np.full(_num_prompts(prompt_C), np.inf)
    np.minimum.at(smallest_P, prompt[differs], step[differs])
    return np.where(np.isfinite(smallest_P), smallest_P, 1.0)[prompt_C]


def _places(score_KC: Floats, prompt_C: Ints) -> Floats:
    """Return where a candidate stands in its prompt by these scores, the first one counting most.

    In [0, 1), ties at the same place; 0 without any scores.
    """
    order = np.lexsort((*score_KC[::-1], prompt_C))
    prompt, score = prompt_C[order], score_KC[:, order]
    begins = np.ones(len(order), bool)
    begins[1:] = prompt[1:] != prompt[:-1]
    differs = begins.copy()
    differs[1:] |= (score[:, 1:] != score[:, :-1]).any(axis=0)
    number = np.cumsum(differs)
    first_P = np.zeros(_num_prompts(prompt_C), np.int64)
    first_P[prompt[begins]] = number[begins]
    count_P = np.bincount(prompt[differs], minlength=_num_prompts(prompt_C))
    place_C = np.zeros(len(order))
    place_C[order] = (number - first_P[prompt]) / np.maximum(count_P[prompt], 1)
    return place_C
