"""Masks, quantiles and ranks: against hand computation, numpy and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.filters import (
    UnionFind,
    best_of_groups,
    between,
    group_quantiles,
    preference_probs,
    share_right,
    top_k_of_groups,
)

NAN = math.nan
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([NAN, -1.0, 0.0, 0.5, 2.0, 7.0])), max_size=20
)


def columns(rows: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    groups = np.array([group for group, _ in rows], np.int64)
    return np.array([value for _, value in rows], np.float64), groups


def test_bounds_are_inclusive_and_unknown_lies_nowhere():
    values = np.array([1.0, 2.0, 3.0, NAN])
    assert between(values, 2.0, 3.0).tolist() == [False, True, True, False]
    assert between(values, None, None).tolist() == [True, True, True, False]
    assert between(np.array([3, 4]), 4, None).tolist() == [False, True]


def test_bounds_are_rounded_as_the_values_are():
    stored = np.array([0.1], np.float32)  # 0.100000001490116…
    assert between(stored, None, 0.1).all()
    assert between(stored, 0.1, None).all()


def test_quantile_by_hand():
    values = np.array([1.0, 10.0, 2.0, NAN, 3.0, 20.0, 4.0])
    groups = np.array([0, 1, 0, 0, 0, 1, 0])
    # 1 2 3 4 at .5: 2.5; 10 20 at .5: 15
    assert group_quantiles(values, groups, 0.5).tolist() == [2.5, 15, 2.5, 2.5, 2.5, 15, 2.5]
    assert np.isnan(group_quantiles(np.array([NAN]), np.array([0]), 0.5)).all()
    mixed = group_quantiles(np.array([NAN, 1.0]), np.array([0, 1]), 0.3)
    np.testing.assert_array_equal(mixed, [NAN, 1.0])


@pytest.mark.parametrize(("quantile", "expected"), [(0.07, 7.0), (0.29, 29.0), (0.57, 57.0)])
def test_a_quantile_that_falls_on_a_value_is_that_value(quantile, expected):
    # in floats 0.07 * 100 is 7.000000000000001, and 0.29 * 100 is 28.999999999999996
    values = np.arange(101.0)
    assert set(group_quantiles(values, np.zeros(101, np.int64), quantile)) == {expected}


@given(ROWS, st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0]))
def test_quantiles_are_those_of_numpy(rows, quantile):
    values, groups = columns(rows)
    result = group_quantiles(values, groups, quantile)
    for place, group in enumerate(groups):
        known = [v for v, g in zip(values, groups, strict=True) if g == group and v == v]
        expected = np.quantile(known, quantile) if known else NAN
        np.testing.assert_allclose(result[place], expected, rtol=1e-12, atol=1e-12)


@given(ROWS, st.integers(1, 5))
def test_top_k_is_the_head_of_each_sorted_group(rows, k):
    values, groups = columns(rows)
    expected = np.zeros(len(rows), bool)
    for group in set(groups.tolist()):
        known = [i for i in range(len(rows)) if groups[i] == group and values[i] == values[i]]
        expected[sorted(known, key=lambda i: (-values[i], i))[:k]] = True
    assert top_k_of_groups(values, groups, k).tolist() == expected.tolist()


@given(ROWS)
def test_best_of_a_group_is_its_first_highest_or_the_first_of_all_unknown(rows):
    values, groups = columns(rows)
    for place, best in enumerate(best_of_groups(values, groups).tolist()):
        members = [i for i in range(len(rows)) if groups[i] == groups[place]]
        known = [i for i in members if values[i] == values[i]]
        expected = min(known, key=lambda i: (-values[i], i)) if known else members[0]
        assert best == expected


def test_share_of_right_counts_only_verdicts():
    verdicts = np.array([1.0, 0.0, NAN, 1.0, NAN])
    shares = share_right(verdicts, np.array([0, 0, 0, 1, 2]), 4)
    np.testing.assert_array_equal(shares, [0.5, 1.0, NAN, NAN])


def test_preference_probability_by_hand():
    # RS-DPO's example: rewards 2 and 0 at tau 1 give .881
    probs = preference_probs(np.array([2.0, 0.0, 1e9, NAN]), np.array([0.0, 2.0, -1e9, 0.0]), 1.0)
    np.testing.assert_allclose(probs, [0.880797, 0.119203, 1.0, NAN], rtol=1e-5)
    halved = preference_probs(np.array([2.0]), np.array([0.0]), 2.0)
    assert halved[0] == pytest.approx(0.731059, rel=1e-5)


@given(st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
))  # fmt: skip
def test_clusters_are_what_links_connect_and_their_root_is_the_first(case):
    size, links = case
    joined = UnionFind(size)
    cluster = {i: {i} for i in range(size)}
    for one, other in links:
        joined.join(one, other)
        both = cluster[one] | cluster[other]
        for member in both:
            cluster[member] = both
    assert joined.roots().tolist() == [min(cluster[i]) for i in range(size)]
    assert [joined.find(i) for i in range(size)] == joined.roots().tolist()
