"""Which rows pass a filter: numbers of the rows in, masks and thresholds out.

A reward that is NaN is unknown: it never passes a bound and is last in every order. Of equals the
first row wins.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "UnionFind",
    "best_of_groups",
    "between",
    "group_quantiles",
    "preference_probs",
    "share_right",
    "top_k_of_groups",
]

Floats: TypeAlias = NDArray[np.floating]
Ints: TypeAlias = NDArray[np.integer]
Mask: TypeAlias = NDArray[np.bool_]


def between(values_U: Floats | Ints, low: float | None, high: float | None) -> Mask:
    """Tell which values lie between two inclusive bounds; none is no bound, NaN lies nowhere.

    Bounds are rounded as the values are, so that 0.1 is not below a stored float32 of 0.1.
    """
    kind = values_U.dtype.type if np.issubdtype(values_U.dtype, np.floating) else np.float64
    passes_U = ~np.isnan(values_U)
    if low is not None:
        passes_U &= values_U >= kind(low)
    if high is not None:
        passes_U &= values_U <= kind(high)
    return passes_U


def group_quantiles(values_U: Floats, group_U: Ints, quantile: float) -> NDArray[np.float64]:
    """Return for each row the quantile of the known values of its group, shape (U,).

    Linearly interpolated between order statistics, numpy's default, at a place that is exact for
    the quantile as it is written; NaN for a group without any known value.
    """
    result_U = np.full(len(values_U), np.nan)
    known = np.flatnonzero(~np.isnan(values_U))
    if not len(known):
        return result_U
    values = values_U[known].astype(np.float64)
    order = np.lexsort((values, group_U[known]))
    ordered, groups = values[order], group_U[known][order]
    start_G = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    count_G = np.diff(start_G, append=len(groups))
    below_G, part_G = _places(quantile, count_G)
    low_G = ordered[start_G + below_G]
    high_G = ordered[start_G + np.minimum(below_G + 1, count_G - 1)]
    quantile_G = low_G + (high_G - low_G) * part_G
    # A group whose values are all unknown has no quantile: its rows stay NaN.
    found = np.searchsorted(groups[start_G], group_U)
    found = np.minimum(found, len(start_G) - 1)
    same = groups[start_G][found] == group_U
    result_U[same] = quantile_G[found[same]]
    return result_U


def _places(quantile: float, count_G: Ints) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where quantiles lie between order statistics: the one below, and how far above it."""
    # In floats 0.07 * 100 is a little above 7, and the value at place 7 would not reach it.
    exact = Fraction(str(quantile))
    counts, of_group_G = np.unique(count_G, return_inverse=True)
    places = [divmod(exact * (int(count) - 1), 1) for count in counts]
    below = np.array([int(whole) for whole, _ in places], np.int64)
    part = np.array([float(rest) for _, rest in places], np.float64)
    return below[of_group_G], part[of_group_G]


def top_k_of_groups(values_U: Floats, group_U: Ints, k: int) -> Mask:
    """Tell which rows have one of the k highest known values of their group; ties: the first."""
    rank_U = _rank_in_groups(values_U, group_U)
    passes_U: Mask = (rank_U < k) & ~np.isnan(values_U)
    return passes_U


def best_of_groups(values_U: Floats, group_U: Ints) -> NDArray[np.int64]:
    """Return for each row the row of its group with the highest value, the first of equals.

    Shape (U,); a row that is its own best is the one to keep. Unknown values come last.
    """
    rank_U = _rank_in_groups(values_U, group_U)
    best = np.flatnonzero(rank_U == 0)
    order = np.argsort(group_U[best], kind="stable")
    found = np.searchsorted(group_U[best][order], group_U)
    result: NDArray[np.int64] = best[order][found]
    return result


def _rank_in_groups(values_U: Floats, group_U: Ints) -> NDArray[np.int64]:
    """Place of each row within its group by descending value, from 0."""
    order = np.lexsort((-values_U.astype(np.float64), group_U))  # stable, and NaN comes last
    groups = group_U[order]
    is_start = np.r_[True, groups[1:] != groups[:-1]] if len(groups) else np.zeros(0, bool)
    start = np.flatnonzero(is_start)
    rank = np.arange(len(groups)) - np.repeat(start, np.diff(start, append=len(groups)))
    rank_U = np.empty(len(groups), np.int64)
    rank_U[order] = rank
    return rank_U


def share_right(verdict_U: Floats, group_U: Ints, num_groups: int) -> NDArray[np.float64]:
    """Return each group's share of right rows (1) among those with a verdict, shape (groups,).

    NaN is no verdict and does not count; a group without any has the share NaN.
    """
    known = ~np.isnan(verdict_U)
    right_G = np.bincount(group_U[known], verdict_U[known], num_groups)
    count_G = np.bincount(group_U[known], minlength=num_groups)
    share_G = np.full(num_groups, np.nan)
    np.divide(right_G, count_G, out=share_G, where=count_G > 0)
    return share_G


def preference_probs(
    chosen_Q: Floats, rejected_Q: Floats, temperature: float
) -> NDArray[np.float64]:
    """Return σ((r_chosen − r_rejected) / τ) of each pair (Bradley-Terry), NaN where unknown."""
    logit_Q = (chosen_Q.astype(np.float64) - rejected_Q.astype(np.float64)) / temperature
    with np.errstate(over="ignore"):  # exp overflows to infinity, which is the right limit
        result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logit_Q))
    return result


class UnionFind:
    """Clusters of rows that grow by joining two rows; a cluster's root is its first row."""

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size)

    def find(self, row: int) -> int:
        """Return the root of a row's cluster."""
        parent = self._parent
        root = row
        while parent[root] != root:
            root = int(parent[root])
        while parent[row] != root:
            parent[row], row = root, int(parent[row])
        return root

    def join(self, one: int, other: int) -> None:
        """Make the clusters of two rows one."""
        first, second = self.find(one), self.find(other)
        self._parent[max(first, second)] = min(first, second)

    def roots(self) -> NDArray[np.int64]:
        """Return the root of every row, shape (size,)."""
        parent = self._parent
        while (parent[parent] != parent).any():
            parent = parent[parent]
        self._parent = parent
        return parent
