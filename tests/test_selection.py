import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.plain_selection import plain_choice

from bon.config import SelectSettings
from bon.errors import UnknownChoiceError
from bon.selection import (
    STRATEGIES,
    Choice,
    choose,
    majority,
    soft,
    soft_probabilities,
    top_k,
    weighted_majority,
)

FINITE = st.floats(min_value=-1e30, max_value=1e30)
REWARDS = st.lists(st.none() | FINITE | st.sampled_from([0.0, 1.0]), max_size=12)
VOTES = st.lists(
    st.tuples(st.none() | st.sampled_from([-1.0, 0.5, 2.0]), st.none() | st.sampled_from("ABC")),
    max_size=12,
)
# The oracle's four candidates: A twice, B and C once.
ORACLE_REWARDS = [0.4, 0.4, 0.7, 0.1]
ORACLE_ANSWERS = ["A", "A", "B", "C"]


def choose_one(rewards, *, answers_N=None, seed=0, **settings):
    """Choose among one prompt's candidates."""
    reward_C = np.array(rewards, np.float64)
    made = choose(
        reward_C, np.array([len(rewards)]), answers_C=answers_N, seeds_P=[seed], **settings
    )
    reason, detail = made.dropped.get(0, (None, ""))
    assert len(made.chosen_K) == made.num_kept_P[0]
    return Choice(tuple(made.chosen_K.tolist()), reason, detail, int(made.num_tied_P[0]))


def best(rewards):
    return choose_one(rewards, strategy="best")


def above_threshold(rewards, lowest):
    return choose_one(rewards, strategy="threshold", threshold=lowest)


def scored(rewards):
    return [i for i, reward in enumerate(rewards) if reward is not None]


def dropped(choice, reason):
    return choice.candidates == () and choice.reason == reason and choice.detail != ""


def test_strategies_are_those_of_the_settings():
    assert set(STRATEGIES) == set(SelectSettings.model_fields["strategy"].annotation.__args__)


def test_plain_majority_and_weighted_choose_as_the_oracle_says():
    chosen = {
        strategy: choose_one(ORACLE_REWARDS, strategy=strategy, answers_N=ORACLE_ANSWERS).candidates
        for strategy in ("best", "majority", "weighted-majority")
    }
    assert chosen == {"best": (2,), "majority": (0,), "weighted-majority": (0,)}


def test_weighted_majority_can_overrule_the_majority():
    rewards, answers = [0.2, 0.2, 0.5], ["A", "A", "B"]
    assert majority(rewards, answers).candidates == (0,)
    assert weighted_majority(rewards, answers).candidates == (2,)


def test_negative_rewards_make_votes_count_against_their_answer():
    rewards, answers = [-1.0, -1.0, -1.5], ["A", "A", "B"]
    assert weighted_majority(rewards, answers).candidates == (2,)


def test_soft_probabilities_match_the_oracle():
    probability_N = soft_probabilities([0, 1, 2], 1.0)
    np.testing.assert_allclose(probability_N, [0.0900, 0.2447, 0.6652], atol=5e-5)
    assert probability_N @ [0, 1, 2] == pytest.approx(1.5752, abs=5e-5)


def test_soft_draws_with_the_oracles_frequencies():
    num_draws = 20_000
    drawn = Counter(soft([0, 1, None, 2], 1.0, seed).candidates[0] for seed in range(num_draws))
    frequency_N = np.array([drawn[i] for i in range(4)]) / num_draws
    # Four standard errors of the likeliest one, sqrt(.6652 * .3348 / 20000) = .0033.
    np.testing.assert_allclose(frequency_N, [0.0900, 0.2447, 0.0, 0.6652], atol=0.0134)


def test_soft_draw_never_changes():
    # sha256 of "bon-soft:0", "bon-soft:1", … begins fcd3 f66c 3579 db61 fbbe 67e3 d28a 8745; with
    # four equal rewards a quarter of the hexadecimal range is one candidate's.
    drawn = [soft([0, 0, 0, 0], 1.0, seed).candidates[0] for seed in range(8)]
    assert drawn == [3, 3, 0, 3, 3, 1, 3, 2]


def test_soft_becomes_best_and_uniform_at_its_ends():
    assert soft_probabilities([0.0, 1.0, 1.0], 1e-320).tolist() == [0.0, 0.5, 0.5]
    np.testing.assert_allclose(soft_probabilities([-5.0, 3.0], 1e12), [0.5, 0.5])
    assert soft_probabilities([-1e308, 1e308], 1.0).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("soft_lambda", [0.0, -1.0, math.nan])
def test_soft_refuses_a_lambda_that_is_not_positive(soft_lambda):
    with pytest.raises(ValueError, match="soft_lambda must be above 0"):
        soft([1.0], soft_lambda, 0)


def test_soft_depends_on_the_seed_and_nothing_else():
    draws = {soft(list(range(50)), 20.0, seed).candidates for seed in range(50)}
    assert len(draws) > 10
    assert soft([1, 2, 3], 1.0, 7) == soft(np.array([1, 2, 3]), 1.0, 7)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_missing_rewards_are_not_scored(missing):
    rewards = [missing, 1.0, missing, 0.0]
    assert top_k(rewards, 4).candidates == (1, 3)
    assert weighted_majority(rewards, ["A", "B", "A", "B"]).candidates == (1,)
    assert soft_probabilities(rewards, 1.0)[[0, 2]].tolist() == [0.0, 0.0]


def test_arrays_and_lists_choose_alike():
    array = np.array([np.nan, 0.25, 0.75], dtype=np.float32)
    assert best(array) == best([None, 0.25, 0.75]) == Choice((2,), None, "", 1)
    assert np.isnan(array[0])


@pytest.mark.parametrize("rewards", [[], [None], [None, math.nan]])
@pytest.mark.parametrize("strategy", ["best", "top-k", "threshold", "weighted-majority", "soft"])
def test_prompt_without_a_scored_candidate_is_dropped(rewards, strategy):
    choice = choose_one(rewards, strategy=strategy, answers_N=["A"] * len(rewards))
    assert dropped(choice, "no_scored_candidate")
    assert choice.num_tied == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_candidate_is_kept_by_every_strategy(strategy):
    choice = choose_one([0.5], strategy=strategy, k=3, threshold=0.5, answers_N=["A"])
    assert choice == Choice((0,), None, "", 1)


@pytest.mark.parametrize("strategy", ["majority", "weighted-majority"])
def test_prompt_without_an_answer_is_dropped(strategy):
    assert dropped(choose_one([1.0, 2.0], strategy=strategy, answers_N=[None, None]), "no_answer")


def test_answers_of_unscored_candidates_vote_only_in_the_plain_majority():
    rewards, answers = [None, None, 0.9], ["A", "A", None]
    assert majority(rewards, answers) == Choice((0,), None, "", 1)
    assert dropped(weighted_majority(rewards, answers), "no_answer")
    assert majority([None, None, 0.1], ["A", "A", "A"]).candidates == (2,)
    assert majority([None, None], ["B", "A"]).candidates == (0,)
    assert dropped(majority([], []), "no_answer")


def test_majority_ties_go_to_total_then_best_then_lowest():
    answers = ["A", "B", "A", "B"]
    assert majority([1.0, 2.0, 1.0, 1.0], answers) == Choice((1,), None, "", 2)  # 2 < 3
    assert majority([1.0, 2.0, 1.0, 0.0], answers) == Choice((1,), None, "", 2)  # 2 = 2, 1 < 2
    assert majority([0.0, 1.0, 1.0, 0.0], answers) == Choice((2,), None, "", 2)  # all equal
    # A reward below 0 is still a reward: it beats an answer that has none.
    assert majority([None, -5.0], ["A", "B"]) == Choice((1,), None, "", 2)


def test_weighted_ties_go_to_best_then_lowest():
    assert weighted_majority([1.0, 2.0, 1.0], ["A", "B", "A"]) == Choice((1,), None, "", 2)
    assert weighted_majority([0.5, 0.5], ["B", "A"]) == Choice((0,), None, "", 2)


def test_threshold_takes_its_own_value_and_drops_below_it():
    assert above_threshold([0.2, 0.5], 0.5).candidates == (1,)
    choice = above_threshold([0.2, 0.5], 0.51)
    assert dropped(choice, "below_threshold")
    assert choice.detail == "the best reward, 0.5, is below the threshold 0.51"


def test_top_k_counts_ties_only_where_they_decide():
    assert top_k([1, 3, 1, 2, 1], 3) == Choice((1, 3, 0), None, "", 3)
    assert top_k([1, 3, 3, 2], 2) == Choice((1, 2), None, "", 1)
    assert top_k([1, 1], 5) == Choice((0, 1), None, "", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "top-k", "k": 0}, "k must be at least 1"),
        ({"strategy": "majority"}, "needs answers_C"),
        ({"strategy": "majority", "answers_N": ["A"]}, "1 answers for 2 candidates"),
        ({"strategy": "weighted-majority", "answers_N": ["A"]}, "1 answers for 2 candidates"),
    ],
)
def test_calls_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_one([1.0, 2.0], **arguments)


def test_unknown_strategy_names_the_nearest():
    with pytest.raises(UnknownChoiceError, match="did you mean 'majority'"):
        choose_one([1.0], strategy="majorty")


@given(REWARDS)
def test_best_is_the_first_of_the_highest(rewards):
    choice = best(rewards)
    values = [rewards[i] for i in scored(rewards)]
    if not values:
        assert dropped(choice, "no_scored_candidate")
        return
    assert choice.candidates == (rewards.index(max(values)),)
    assert choice.num_tied == values.count(max(values))


@given(REWARDS, st.integers(1, 14))
def test_top_k_is_sorted_and_a_prefix_of_the_full_ranking(rewards, k):
    ranking = top_k(rewards, max(len(rewards), 1)).candidates
    assert sorted(ranking) == scored(rewards)
    keys = [(-rewards[i], i) for i in ranking]
    assert keys == sorted(keys)
    assert top_k(rewards, k).candidates == ranking[:k]


@given(st.lists(FINITE, min_size=1, max_size=12, unique=True), st.data())
def test_distinct_rewards_choose_the_same_candidate_in_any_order(rewards, data):
    order = data.draw(st.permutations(range(len(rewards))))
    shuffled = [rewards[i] for i in order]
    assert tuple(order[i] for i in top_k(shuffled, 3).candidates) == top_k(rewards, 3).candidates
    np.testing.assert_allclose(
        soft_probabilities(shuffled, 1.0), soft_probabilities(rewards, 1.0)[order], rtol=1e-12
    )


@given(VOTES, st.data(), st.sampled_from([majority, weighted_majority]))
def test_votes_win_by_count_or_sum_whatever_their_order(votes, data, vote):
    rewards, answers = [r for r, _ in votes], [a for _, a in votes]
    choice = vote(rewards, answers)
    shuffled = data.draw(st.permutations(votes))
    again = vote([r for r, _ in shuffled], [a for _, a in shuffled])
    assert (again.reason, again.num_tied) == (choice.reason, choice.num_tied)
    if not choice.candidates:
        return
    weights = {a: [] for a in answers if a is not None}
    for reward, answer in votes:
        if answer is not None and vote is majority:
            weights[answer].append(1.0)
        elif answer is not None and reward is not None:
            weights[answer].append(reward)
    sums = [sum(values) for values in weights.values() if values]
    (kept,) = choice.candidates
    assert sum(weights[answers[kept]]) == max(sums)
    assert choice.num_tied == sums.count(max(sums))
    own = [rewards[i] for i in scored(rewards) if answers[i] == answers[kept]]
    assert rewards[kept] == max(own, default=None)


@given(VOTES, st.sampled_from(STRATEGIES), st.integers(0, 2**63 - 1))
def test_every_strategy_keeps_scored_candidates_or_says_why_not(votes, strategy, seed):
    rewards, answers = [r for r, _ in votes], [a for _, a in votes]
    choice = choose_one(rewards, strategy=strategy, k=2, answers_N=answers, seed=seed)
    assert bool(choice.candidates) == (choice.reason is None) == (choice.detail == "")
    assert bool(choice.candidates) == (choice.num_tied >= 1)
    assert len(set(choice.candidates)) == len(choice.candidates)
    for kept in choice.candidates:
        same = [i for i in scored(rewards) if answers[i] == answers[kept]]
        assert rewards[kept] is not None or (strategy == "majority" and not same)


@given(REWARDS.filter(scored), st.floats(min_value=0.001, max_value=1e6))
def test_adding_a_worse_candidate_does_not_change_best(rewards, gap):
    worse = min(rewards[i] for i in scored(rewards)) - gap
    assert best([*rewards, worse]).candidates == best(rewards).candidates
    assert best([*rewards, None]) == best(rewards)


@given(FINITE, st.integers(1, 20))
def test_equal_rewards_keep_the_first_and_count_all(reward, num_candidates):
    assert best([reward] * num_candidates) == Choice((0,), None, "", num_candidates)


@given(REWARDS, st.floats(min_value=1e-3, max_value=1e3))
def test_soft_probabilities_are_a_distribution_in_the_order_of_the_rewards(rewards, soft_lambda):
    probability_N = soft_probabilities(rewards, soft_lambda)
    assert probability_N.shape == (len(rewards),)
    assert probability_N.sum() == pytest.approx(1.0 if scored(rewards) else 0.0)
    ranked = top_k(rewards, len(rewards) or 1).candidates
    assert list(probability_N[list(ranked)]) == sorted(probability_N[list(ranked)], reverse=True)


PROMPTS = st.lists(VOTES, max_size=8)


@settings(deadline=None)
@given(
    PROMPTS,
    st.sampled_from(STRATEGIES),
    st.integers(1, 5),
    st.sampled_from([-1.0, 0.5, 2.0, 1e300]),
    st.floats(min_value=1e-3, max_value=1e3),
    st.data(),
)
def test_all_prompts_at_once_choose_as_each_alone(prompts, strategy, k, threshold, lam, data):
    wild = st.sampled_from([None, math.nan, math.inf, -math.inf, 0.1, -0.0, 0.0, 3e38, 1e39, -5.0])
    rewards = [[data.draw(st.just(r) | wild) for r, _ in votes] for votes in prompts]
    seeds = [data.draw(st.integers(0, 2**64 - 1)) for _ in prompts]
    answers = [[answer for _, answer in votes] for votes in prompts]
    made = choose(
        np.array([r for one in rewards for r in one], np.float64),
        np.array([len(one) for one in rewards], np.int64),
        strategy=strategy, k=k, threshold=threshold, soft_lambda=lam,
        answers_C=[a for one in answers for a in one], seeds_P=seeds,
    )  # fmt: skip
    expected = [
        plain_choice(
            r, strategy=strategy, k=k, threshold=threshold, soft_lambda=lam, answers_N=a, seed=s
        )
        for r, a, s in zip(rewards, answers, seeds, strict=True)
    ]
    starts = np.cumsum([0, *map(len, rewards)]).tolist()
    chosen = [start + n for start, c in zip(starts, expected, strict=False) for n in c.candidates]
    assert made.chosen_K.tolist() == chosen
    assert made.num_kept_P.tolist() == [len(one.candidates) for one in expected]
    assert made.num_tied_P.tolist() == [one.num_tied for one in expected]
    dropped = {n: (c.reason, c.detail) for n, c in enumerate(expected) if c.reason is not None}
    assert list(made.dropped.items()) == list(dropped.items())
