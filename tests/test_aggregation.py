"""Scores put together: numbers from the papers, and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.aggregation import (
    Moments,
    fit_linear,
    fit_lowess,
    global_z,
    kl_penalised,
    lexicographic,
    mean,
    passes,
    prompt_rank,
    prompt_z,
    uncertainty_weighted,
    weighted_mean,
    weighted_sum,
    worst_case,
)

NAN = math.nan
ENSEMBLE = np.array([[1.0], [2.0], [3.0]])
SCORE = st.one_of(st.just(NAN), st.sampled_from([0.0, 1.0, 2.0]), st.floats(-9, 9, width=32))


@st.composite
def pools(draw: st.DrawFn, num_scorers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scores of shape (K, C), and whose the candidates are."""
    counts = draw(st.lists(st.integers(1, 5), max_size=5))
    prompt_C = np.repeat(np.arange(len(counts)), counts)
    row = st.lists(SCORE, min_size=len(prompt_C), max_size=len(prompt_C))
    scores = [draw(row) for _ in range(num_scorers)]
    return np.array(scores).reshape(num_scorers, len(prompt_C)), prompt_C


@pytest.mark.parametrize("num_scorers", range(1, 9))
def test_equal_scores_make_equal_rewards_wherever_they_stand(num_scorers: int) -> None:
    """A matrix product rounds its last columns otherwise."""
    generator = np.random.default_rng(num_scorers)
    for num_candidates in range(1, 26):
        score_KC = np.repeat(generator.normal(size=(num_scorers, 1)), num_candidates, axis=1)
        weight_K = generator.normal(size=num_scorers)
        for reward_C in (
            weighted_sum(score_KC, weight_K),
            mean(score_KC),
            uncertainty_weighted(score_KC, 0.7),
        ):
            assert len(set(reward_C.tolist())) == 1


def test_ensembles() -> None:
    """arXiv 2310.02743."""
    assert mean(ENSEMBLE).tolist() == [2.0]
    assert worst_case(ENSEMBLE).tolist() == [1.0]
    assert uncertainty_weighted(ENSEMBLE, 0.5).tolist() == pytest.approx([1.6667], abs=1e-4)
    assert uncertainty_weighted(ENSEMBLE, 0.0).tolist() == [2.0]


def test_weights() -> None:
    weight_K = np.array([0.5, 0.25, 0.0])
    assert weighted_sum(ENSEMBLE, weight_K).tolist() == [1.0]
    assert weighted_mean(ENSEMBLE, weight_K).tolist() == pytest.approx([4 / 3])
    assert weighted_sum(ENSEMBLE, np.array([1.0, 0.0, -1.0])).tolist() == [-2.0]
    for weights in ([0.0, 0.0, 0.0], [1.0, -2.0, 0.0]):
        with pytest.raises(ValueError, match="sum above 0"):
            weighted_mean(ENSEMBLE, np.array(weights))


def test_what_is_missing_is_missing_in_the_reward_but_with_weight_0() -> None:
    score_KC = np.array([[1.0, NAN], [NAN, 2.0]])
    prompt_C = np.zeros(2, np.int64)
    for reward_C in (
        mean(score_KC),
        worst_case(score_KC),
        uncertainty_weighted(score_KC, 1.0),
        lexicographic(score_KC, prompt_C),
    ):
        assert np.isnan(reward_C).all()
    assert weighted_sum(score_KC, np.array([1.0, 0.0]))[0] == 1.0


def test_a_verdict_first_then_a_reward_model() -> None:
    verdict = [0.0, 1.0, 1.0, 0.0, 1.0]
    reward = [9.0, -5.0, 3.0, 2.0, 3.0]
    reward_C = lexicographic(np.array([verdict, reward]), np.zeros(5, np.int64))
    assert reward_C.tolist() == [0.75, 1.0, 1.5, 0.25, 1.5]
    assert lexicographic(np.array([verdict]), np.zeros(5, np.int64)).tolist() == verdict


@settings(deadline=None)
@given(pools(num_scorers=3))
def test_lexicographic_orders_as_tuples_do(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    score_KC, prompt_C = drawn
    reward_C = lexicographic(score_KC, prompt_C)
    assert (np.isnan(reward_C) == np.isnan(score_KC).any(axis=0)).all()
    for prompt in np.unique(prompt_C):
        there = np.flatnonzero((prompt_C == prompt) & ~np.isnan(reward_C))
        for one in there:
            for other in there:
                tuples = tuple(score_KC[:, one]), tuple(score_KC[:, other])
                assert (reward_C[one] < reward_C[other]) == (tuples[0] < tuples[1])


def test_a_gate_is_open_at_its_value_and_closed_without_a_score() -> None:
    assert passes(np.array([0.5, 1.0, 2.0, NAN]), 1.0).tolist() == [False, True, True, False]


def test_kl_penalty_of_verl() -> None:
    """logp −1, logref −1.5: k1 is 0.5."""
    assert kl_penalised(np.array([2.0]), np.array([0.5]), 0.1).tolist() == [1.95]


@settings(deadline=None)
@given(pools())
def test_z_within_the_prompt(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    (score_C,), prompt_C = drawn
    found_C = prompt_z(score_C, prompt_C)
    assert (np.isnan(found_C) == np.isnan(score_C)).all()
    for prompt in np.unique(prompt_C):
        mine = score_C[(prompt_C == prompt) & ~np.isnan(score_C)]
        if not len(mine):
            continue
        std = mine.std()
        expected = (mine - mine.mean()) / std if std > 1e-9 else np.zeros(len(mine))
        found = found_C[(prompt_C == prompt) & ~np.isnan(score_C)]
        assert found == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(pools())
def test_rank_within_the_prompt(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    (score_C,), prompt_C = drawn
    found_C = prompt_rank(score_C, prompt_C)
    for one, found in enumerate(found_C):
        if np.isnan(score_C[one]):
            assert np.isnan(found)
            continue
        others = score_C[(prompt_C == prompt_C[one]) & ~np.isnan(score_C)]
        below, same = (others < score_C[one]).sum(), (others == score_C[one]).sum() - 1
        expected = (below + same / 2) / (len(others) - 1) if len(others) > 1 else 0.5
        assert found == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.lists(SCORE, max_size=6), max_size=5))
def test_moments_of_pieces_are_those_of_the_whole(pieces: list[list[float]]) -> None:
    moments = Moments()
    for piece in pieces:
        moments.add(np.array(piece, np.float64))
    whole = np.array([one for piece in pieces for one in piece if not math.isnan(one)])
    assert moments.count == len(whole)
    if len(whole):
        assert moments.mean == pytest.approx(whole.mean(), abs=1e-9)
        assert moments.std == pytest.approx(whole.std(), abs=1e-9)
    else:
        assert moments.std == 0.0


def test_global_z_without_spread_is_0() -> None:
    moments = Moments()
    moments.add(np.array([2.0, 2.0]))
    assert global_z(np.array([2.0, NAN]), moments).tolist()[0] == 0.0
    assert np.isnan(global_z(np.array([2.0, NAN]), moments)[1])
    moments.add(np.array([4.0, 4.0]))
    assert global_z(np.array([2.0, 3.0, 5.0]), moments).tolist() == [-1.0, 0.0, 2.0]


def test_linear_length_regression() -> None:
    length, reward = np.array([100.0, 200, 300, 400]), np.array([1.0, 2, 3, 5])
    fit = fit_linear(reward, length)
    assert fit.slope == pytest.approx(0.013)
    assert fit.residual(reward, length).tolist() == pytest.approx([0.2, -0.1, -0.4, 0.3])
    with_missing = fit_linear(np.append(reward, NAN), np.append(length, 9_000.0))
    assert with_missing.slope == pytest.approx(0.013)


@pytest.mark.parametrize("fit", [fit_linear, fit_lowess])
@pytest.mark.parametrize("lengths", [[], [3.0], [3.0, 3.0], [3.0, 5.0]])
def test_too_few_lengths_for_a_curve(fit, lengths: list[float]) -> None:  # type: ignore[no-untyped-def]
    length = np.array(lengths)
    score = np.arange(len(lengths), dtype=np.float64)
    residual = fit(score, length).residual(score, length)
    assert np.isfinite(residual).all()
    if len(set(lengths)) == 1:
        assert residual.tolist() == (score - score.mean()).tolist()


def test_lowess_takes_out_what_is_no_line() -> None:
    generator = np.random.default_rng(0)
    length = generator.integers(1, 400, 3_000).astype(np.float64)
    noise = generator.normal(size=3_000)
    score = 5 * np.sin(length / 120) + noise
    residual = fit_lowess(score, length, share=0.2).residual(score, length)
    assert np.abs(np.corrcoef(residual, noise)[0, 1]) > 0.98
    line = fit_linear(score, length).residual(score, length)
    assert line.std() > 1.5 * residual.std()


def test_lowess_where_most_responses_were_cut_at_one_length() -> None:
    generator = np.random.default_rng(2)
    length = np.append(generator.integers(1, 1_000, 400), np.full(1_600, 1_024)).astype(np.float64)
    score = 10 + generator.normal(size=2_000) * 0.3
    order = generator.permutation(2_000)
    fits = [fit_lowess(score, length), fit_lowess(score[order], length[order])]
    at_cut = [-fit.residual(np.zeros(1), np.array([1_024.0]))[0] for fit in fits]
    assert at_cut[0] == pytest.approx(at_cut[1], abs=1e-6)
    assert at_cut[0] == pytest.approx(score[length == 1_024].mean(), abs=0.05)


def test_lowess_of_many_is_that_of_some_of_them() -> None:
    generator = np.random.default_rng(1)
    length = generator.integers(1, 2_000, 60_000).astype(np.float64)
    score = np.sqrt(length) + generator.normal(size=60_000)
    fit = fit_lowess(score, length, share=0.3)
    middle = np.array([500.0, 1_000, 1_500])
    found = -fit.residual(np.zeros(3), middle)
    assert found == pytest.approx(np.sqrt(middle), abs=0.3)
