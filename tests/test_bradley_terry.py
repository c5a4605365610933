"""Strengths against the model by hand, and what must hold whatever the wins are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from bon.bradley_terry import fit_bradley_terry

RIDGES = st.sampled_from([1e-3, 0.1, 1.0, 10.0])
WINS = array_shapes(min_dims=1, max_dims=1, min_side=1, max_side=7).flatmap(
    lambda shape: arrays(np.float64, shape * 2, elements=st.sampled_from([0, 0.5, 1, 2, 50]))
)


def gradient(win_NN: NDArray[np.float64], strength_N: NDArray[np.float64], ridge: float) -> float:
    """Return the largest slope of the penalised log-likelihood, written out pair by pair."""
    slopes = []
    for i, strength in enumerate(strength_N):
        slope = -ridge * strength
        for j, other in enumerate(strength_N):
            if i != j:
                beats = 1 / (1 + math.exp(other - strength))
                slope += win_NN[i, j] * (1 - beats) - win_NN[j, i] * beats
        slopes.append(abs(slope))
    return max(slopes)


def test_two_players_by_hand() -> None:
    """Three wins to one: σ(r₁ − r₂) = 3/4, so r₁ − r₂ = log 3; the ridge is next to nothing."""
    first, second = fit_bradley_terry(np.array([[0, 3], [1, 0]]), ridge=1e-9)
    assert first - second == pytest.approx(math.log(3), abs=1e-6)
    assert 1 / (1 + math.exp(second - first)) == pytest.approx(0.75, abs=1e-6)
    assert first + second == pytest.approx(0)


def test_a_ridge_by_hand() -> None:
    """One win, ridge 1: the slope 1 − σ(2r) − r is 0, at r = 0.3374."""
    first, second = fit_bradley_terry(np.array([[0, 1], [0, 0]]), ridge=1.0)
    assert 1 / (1 + math.exp(2 * first)) == pytest.approx(first)
    assert (first, second) == (pytest.approx(0.33745, abs=1e-4), pytest.approx(-first))


def test_three_players_of_known_strengths() -> None:
    """Wins in the very proportions of the model give its strengths back."""
    strengths = np.array([1.0, 0.25, -1.25])
    win_NN = 1e6 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
    found = fit_bradley_terry(win_NN, ridge=1e-3)
    np.testing.assert_allclose(found, strengths, atol=1e-6)


def test_nobody_and_one() -> None:
    assert fit_bradley_terry(np.zeros((0, 0)), ridge=0.1).tolist() == []
    assert fit_bradley_terry(np.ones((1, 1)), ridge=0.1).tolist() == [0.0]


def test_who_was_never_compared_is_in_the_middle() -> None:
    found = fit_bradley_terry(np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]]), ridge=0.1)
    assert found[0] > found[2] > found[1]
    assert found[2] == pytest.approx(0)


@given(WINS, RIDGES)
def test_it_is_the_maximum_and_its_mean_is_0(win_NN: NDArray[np.float64], ridge: float) -> None:
    found = fit_bradley_terry(win_NN, ridge=ridge)
    assert gradient(win_NN, found, ridge) < 1e-7
    assert found.mean() == pytest.approx(0, abs=1e-9)


@given(WINS, RIDGES, st.randoms(use_true_random=False))
def test_another_order_of_players_is_another_order_of_strengths(
    win_NN: NDArray[np.float64], ridge: float, random: object
) -> None:
    order = list(range(len(win_NN)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = fit_bradley_terry(win_NN[np.ix_(order, order)], ridge=ridge)
    np.testing.assert_allclose(shuffled, fit_bradley_terry(win_NN, ridge=ridge)[order], atol=1e-7)


@given(WINS.filter(lambda wins: len(wins) > 1), RIDGES, st.data())
def test_one_more_win_raises_the_winner_most(
    win_NN: NDArray[np.float64], ridge: float, data: st.DataObject
) -> None:
    players = st.integers(0, len(win_NN) - 1)
    winner, loser = data.draw(st.tuples(players, players).filter(lambda pair: pair[0] != pair[1]))
    more_NN = win_NN.copy()
    more_NN[winner, loser] += 1
    before, after = (fit_bradley_terry(wins, ridge=ridge) for wins in (win_NN, more_NN))
    change = after - before
    assert change[winner] > 0 > change[loser]
    assert change[winner] == pytest.approx(change.max(), abs=1e-9)


@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_unbeaten_and_beaten_by_all_are_finite(ridge: float) -> None:
    """A strict order of 30, each beating all after it a thousand times."""
    found = fit_bradley_terry(1000.0 * np.triu(np.ones((30, 30)), 1), ridge=ridge)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()
    np.testing.assert_allclose(found, -found[::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("wins", "ridge"),
    [
        (np.zeros(3), 0.1),
        (np.zeros((2, 3)), 0.1),
        (np.array([[0, -1], [0, 0]]), 0.1),
        (np.array([[0, math.nan], [0, 0]]), 0.1),
        (np.zeros((2, 2)), 0.0),
        (np.zeros((2, 2)), math.inf),
    ],
)
def test_what_makes_no_sense_is_refused(wins: NDArray[np.float64], ridge: float) -> None:
    with pytest.raises(ValueError, match=r"square|finite|above 0"):
        fit_bradley_terry(wins, ridge=ridge)
