import inspect
import math
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.config import PairSettings
from bon.errors import SettingsError, UnknownChoiceError
from bon.pairs import REASONS, STRATEGIES, draw_bits, form_pairs

NAN = math.nan
BY_REWARD = [name for name in STRATEGIES if name != "verified"]
ONE_PAIR = [name for name in STRATEGIES if name not in ("max-margin", "k-vs-k")]
OPTIONS = {"min_preference_prob": 0.7, "max_pairs": 3, "num_sigmas": 1.0, "rejected_quantile": 0.3}

REWARD = st.sampled_from([NAN, 0.0, 1.0, 2.0, -1.5]) | st.floats(-100, 100, width=32)
LENGTH = st.sampled_from([NAN, 0.0, 5.0, 10.0, 11.0, 12.0, 20.0])
CANDIDATE = st.tuples(REWARD, st.sampled_from([NAN, 0.0, 1.0]), LENGTH)
PROMPT = st.tuples(st.lists(CANDIDATE, max_size=7), st.integers(-(2**63), 2**63 - 1))
MATCH_LENGTH = st.sampled_from([None, 0.1, 0.5])


def form(rewards, strategy, *, rights=None, lengths=None, seeds=None, width=None, **options):
    """Pairs of ragged rows, padded with values that would be chosen if they were looked at."""
    count_P = np.array([len(row) for row in rewards], dtype=np.int64)
    width = max(count_P, default=0) if width is None else width

    def padded(rows, behind):
        values = [[*row, *[behind] * (width - len(row))] for row in rows]
        return np.array(values, dtype=np.float64).reshape(len(rows), width)

    return form_pairs(
        padded(rewards, 1e6),
        count_P,
        strategy=strategy,
        right_PN=padded(rights or [[NAN] * len(row) for row in rewards], 1.0),
        length_PN=padded(lengths or [[1.0] * len(row) for row in rewards], 10.0),
        seed_P=np.array(seeds or [0] * len(rewards), dtype=np.int64),
        **options,
    )


def form_one(rewards, strategy, **options):
    """One prompt's pairs, or its reason."""
    nested = {k: [options.pop(k)] for k in ("rights", "lengths", "seeds") if k in options}
    pairs = form([rewards], strategy, **nested, **options)
    found = list(zip(pairs.chosen_Q.tolist(), pairs.rejected_Q.tolist(), strict=True))
    assert bool(found) == (pairs.reason_P[0] == "")
    return found or str(pairs.reason_P[0])


def test_names_and_defaults_are_those_of_the_settings():
    fields = PairSettings.model_fields
    assert set(STRATEGIES) == set(fields["strategy"].annotation.__args__)
    shared = fields.keys() & inspect.signature(form_pairs).parameters.keys() - {"strategy"}
    assert len(shared) == 8
    for name in shared:
        assert inspect.signature(form_pairs).parameters[name].default == fields[name].default


# Rewards by hand: the best is 3 (number 1), then 2, 1.5, 0 and -4; the third is missing.
REWARDS = [1.5, 3.0, NAN, -4.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("strategy", "options", "expected"),
    [
        ("best-worst", {}, [(1, 3)]),
        ("best-second", {}, [(1, 4)]),
        ("best-median", {}, [(1, 0)]),  # of -4, 0, 1.5, 2, 3
        ("sigma", {"num_sigmas": 0.25}, [(1, 5)]),  # mu .5, sigma 2.470: target -.117
        ("sigma", {"num_sigmas": 2.0}, [(1, 3)]),  # target -4.44
        ("quantile", {}, [(1, 3)]),  # place .4 between -4 and 0: -2.4
        ("quantile", {"rejected_quantile": 0.2}, [(1, 5)]),  # place .8: -.8
        ("quantile", {"chosen_quantile": 0.75, "rejected_quantile": 0.5}, [(4, 0)]),
        ("max-margin", {"max_pairs": 3}, [(1, 3), (4, 3), (0, 3)]),  # 7, 6, 5.5
        ("k-vs-k", {}, [(1, 3), (4, 5)]),
        ("k-vs-k", {"k": 9}, [(1, 3), (4, 5)]),  # the third best is the third worst
        ("k-vs-k", {"k": 1}, [(1, 3)]),
    ],
)
def test_strategies_by_hand(strategy, options, expected):
    assert form_one(REWARDS, strategy, **options) == expected


def test_best_median_of_an_even_count_takes_the_lower_middle():
    assert form_one([1.0, 2.0, 3.0, 4.0], "best-median") == [(3, 1)]
    # Where the median is as high as the best, the nearest below it.
    assert form_one([5.0, 5.0, 5.0, 0.0, 1.0], "best-median") == [(0, 4)]


def test_sigma_oracle():
    # arXiv 2502.16825: mu -.1, sigma 2.022, target -4.145: the -3, not the -8.
    rewards = [-8.0, -3.0, *[0.0] * 9, *[1.0] * 9]
    assert form_one(rewards, "sigma") == [(11, 1)]
    assert form_one(rewards, "best-worst") == [(11, 0)]


@pytest.mark.parametrize(
    ("tau", "eta", "expected"),
    [
        (1.0, 0.85, [(0, 2)]),  # sigma(2) = .881, sigma(1) = .731
        (1.0, 0.73, [(0, 2), (0, 1), (1, 2)]),
        (2.0, 0.73, [(0, 2)]),  # sigma(2 / 2) = .731
        (2.0, 0.74, "no_pair_above_probability"),
        (1.0, 0.5, [(0, 2), (0, 1), (1, 2)]),
        (1.0, 0.89, "no_pair_above_probability"),
    ],
)
def test_max_margin_oracle(tau, eta, expected):
    options = {"preference_temperature": tau, "min_preference_prob": eta}
    assert form_one([2.0, 1.0, 0.0], "max-margin", **options) == expected


def test_max_margin_keeps_the_widest_and_of_equal_ones_the_lowest_numbers():
    options = {"min_preference_prob": 0.5}
    assert form_one([0.0, 1.0, 1.0, 0.0], "max-margin", max_pairs=3, **options) == [
        (1, 0),
        (1, 3),
        (2, 0),
    ]
    assert len(form_one(list(range(9)), "max-margin", max_pairs=99, **options)) == 36


def test_k_vs_k_never_overlaps_and_leaves_no_tie():
    assert form_one([1.0, 1.0, 1.0, 0.0], "k-vs-k") == [(0, 3)]
    assert form_one([2.0, 1.0, 1.0, 1.0], "k-vs-k") == [(0, 1)]
    assert form_one([3.0, 2.0, 1.0], "k-vs-k") == [(0, 2)]
    # Nothing is about as long as the best; the second best has the fourth.
    lengths = [99.0, 10.0, 50.0, 10.0]
    assert form_one([4.0, 3.0, 2.0, 1.0], "k-vs-k", lengths=lengths, match_length=0.1) == [(1, 3)]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.5, 0.1, 0.9, 0.2, 0.0], [(2, 4)]),  # right: 0, 2; wrong: 3, 4
        ([0.5, 9.0, 0.4, 0.6, 0.7], [(0, 3)]),  # a right one of lower reward than the wrong one
        ([NAN, NAN, NAN, NAN, NAN], [(0, 3)]),
        ([NAN, NAN, -5.0, NAN, 7.0], [(2, 4)]),  # a low reward beats none, a high one is known
    ],
)
def test_verified_takes_the_best_right_and_the_worst_wrong(rewards, expected):
    rights = [1.0, NAN, 1.0, 0.0, 0.0]
    assert form_one(rewards, "verified", rights=rights) == expected


@pytest.mark.parametrize("strategy", BY_REWARD)
@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ([], "no_scored_candidate"),
        ([1.0], "one_candidate"),
        ([NAN], "one_candidate"),
        ([NAN, NAN], "no_scored_candidate"),
        ([NAN, 1.0, math.inf, -math.inf], "one_scored_candidate"),
        ([1.0, 1.0, NAN], "all_tied"),
    ],
)
def test_reasons_of_rewards(strategy, rewards, reason):
    assert form_one(rewards, strategy) == reason


@pytest.mark.parametrize(
    ("rights", "reason"),
    [
        ([], "no_verdict"),
        ([1.0], "one_candidate"),
        ([NAN, NAN], "no_verdict"),
        ([0.0, NAN], "no_right"),
        ([NAN, 1.0], "no_wrong"),
    ],
)
def test_reasons_of_verdicts(rights, reason):
    assert form_one([1.0] * len(rights), "verified", rights=rights) == reason


def test_quantile_may_choose_the_lowest():
    # Place .3 between 0 and 10 is nearer to 0, and nothing is below it.
    options = {"chosen_quantile": 0.3, "rejected_quantile": 0.0}
    assert form_one([0.0, 10.0], "quantile", **options) == "no_lower_reward"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_match_length_leaves_the_strategys_own_choice_among_similar_ones(strategy):
    rewards, rights = [4.0, 1.0, 2.0, 3.0], [1.0, 0.0, 0.0, 0.0]
    options = {"match_length": 0.29, "min_preference_prob": 0.5, "max_pairs": 1, "k": 1}

    def matched(lengths):
        return form_one(rewards, strategy, rights=rights, lengths=lengths, **options)

    # 129 and 71 are 29 % of 100 away, 130 is not, and a length that nobody knows is not either.
    assert matched([100, 130, NAN, 71]) == [(0, 3)]
    assert matched([100, 130, 129, 170]) == [(0, 2)]
    assert matched([100, 200, 400, 800]) == "no_similar_length"
    assert matched([0, 0, 0, 0]) == "no_similar_length"
    assert matched([NAN, NAN, NAN, NAN]) == "no_similar_length"


def test_draw_bits_are_splitmix64():
    # The generator's published first outputs of the seeds 0 and 1234567.
    assert draw_bits(np.array([0, 1234567]), 3).tolist() == [
        [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
        [6457827717110365317, 3203168211198807973, 9817491932198370423],
    ]


def test_best_random_is_even_among_the_lower_ones():
    num_prompts = 20_000
    pairs = form(
        [[0.0, 5.0, 1.0, NAN, 1.0, 5.0]] * num_prompts, "best-random", seeds=range(num_prompts)
    )
    drawn = Counter(pairs.rejected_Q.tolist())
    assert drawn.keys() == {0, 2, 4}
    # Four standard errors of a third, sqrt(2 / 9 / 20000) = .00333.
    for count in drawn.values():
        assert count / num_prompts == pytest.approx(1 / 3, abs=0.0134)


def test_best_random_never_changes():
    # Of the outputs for seed 0 above, the lowest is the third, then the second.
    assert form_one([1.0, 1.0, 1.0, 2.0], "best-random") == [(3, 2)]
    assert form_one([1.0, 1.0, 2.0], "best-random") == [(2, 1)]
    # Of those for seed 1234567 the second.
    assert form_one([1.0, 1.0, 1.0, 2.0], "best-random", seeds=1234567) == [(3, 1)]


def test_values_of_pairs():
    reward_PN = np.array([[0.1, 0.3, NAN], [1.0, 1.0, 1.0], [2.0, -1.0, 0.0]])
    pairs = form_pairs(reward_PN, np.array([3, 3, 3]), strategy="best-worst")
    assert pairs.prompt_Q.tolist() == [0, 2]
    assert pairs.of_chosen(reward_PN).tolist() == [0.3, 2.0]
    assert pairs.of_rejected(reward_PN).tolist() == [0.1, -1.0]
    assert pairs.margins(reward_PN).tolist() == [np.float32(0.3 - 0.1), 3.0]
    assert pairs.reason_P.tolist() == ["", "all_tied", ""]


def test_a_margin_that_float32_cannot_hold_is_missing():
    reward_PN = np.array([[3e38, -3e38], [1.5e38, -1.5e38], [1.7e308, -1.7e308]])
    pairs = form_pairs(reward_PN, np.array([2, 2, 2]), strategy="best-worst")
    assert pairs.prompt_Q.tolist() == [0, 1, 2]
    margin_Q = pairs.margins(reward_PN)
    assert np.isnan(margin_Q).tolist() == [True, False, True]
    assert margin_Q[1] == np.float32(3e38)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_empty_batches(strategy, shape):
    pairs = form([[]] * shape[0], strategy, width=shape[1], match_length=0.5)
    assert len(pairs.prompt_Q) == len(pairs.chosen_Q) == len(pairs.rejected_Q) == 0
    assert pairs.prompt_Q.dtype == pairs.chosen_Q.dtype == pairs.rejected_Q.dtype == np.int64
    assert len(pairs.reason_P) == shape[0]
    assert set(pairs.reason_P) <= {"no_scored_candidate", "no_verdict"}


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("verified", {"right_PN": None}, "right_PN must have shape"),
        ("best-random", {"seed_P": None}, "seed_P must have shape"),
        ("best-random", {"seed_P": np.zeros(3, int)}, "seed_P must have shape"),
        ("best-worst", {"match_length": 0.1}, "length_PN must have shape"),
        ("best-worst", {"count_P": np.array([2])}, "count_P must have shape"),
        ("sigma", {"num_sigmas": 0.0}, "num_sigmas must be above 0"),
        ("k-vs-k", {"k": 0}, "k must be at least 1"),
        ("max-margin", {"max_pairs": 0}, "max_pairs >= 1, not 0.85, 1.0 and 0"),
        ("max-margin", {"min_preference_prob": 1.0}, "max-margin needs"),
        ("max-margin", {"preference_temperature": 0.0}, "max-margin needs"),
    ],
)
def test_calls_that_cannot_be_meant_are_refused(strategy, options, message):
    arguments = {"reward_PN": np.zeros((2, 2)), "count_P": np.array([2, 2])}
    with pytest.raises(ValueError, match=message):
        form_pairs(**arguments | options, strategy=strategy)


def test_settings_that_a_person_can_get_wrong_say_what_to_do():
    with pytest.raises(UnknownChoiceError, match="did you mean 'best-worst'"):
        form([[1.0]], "best-wurst")
    with pytest.raises(SettingsError, match=r"chosen_quantile 0.1 is not above") as raised:
        form([[1.0]], "quantile", chosen_quantile=0.1, rejected_quantile=0.1)
    assert raised.value.next_step != ""


def reference(rewards, rights, lengths, seed, strategy, match_length, options):
    """The strategies again, a prompt at a time and as they are described."""
    scored = [i for i, reward in enumerate(rewards) if not math.isnan(reward)]

    def similar(i, j):
        if match_length is None:
            return True
        return lengths[i] > 0 and abs(lengths[j] - lengths[i]) / lengths[i] <= match_length

    def below(i):
        return [j for j in scored if rewards[j] < rewards[i] and similar(i, j)]

    if strategy == "verified":

        def merit(i):
            return -math.inf if math.isnan(rewards[i]) else rewards[i]

        def demerit(j):
            return math.inf if math.isnan(rewards[j]) else rewards[j]

        right = [i for i in range(len(rewards)) if rights[i] == 1.0]
        chosen = max(right, key=merit, default=None)
        wrong = [j for j in range(len(rewards)) if rights[j] == 0.0]
        wrong = [j for j in wrong if chosen is not None and similar(chosen, j)]
        return [(chosen, min(wrong, key=demerit))] if wrong else []
    if len(scored) < 2:
        return []
    values = [rewards[i] for i in scored]
    best = max(scored, key=lambda i: rewards[i])
    widest_first = lambda pair: (rewards[pair[1]] - rewards[pair[0]], pair)  # noqa: E731
    if strategy == "max-margin":
        probability = {
            (i, j): 1 / (1 + math.exp(min(rewards[j] - rewards[i], 700)))
            for i in scored
            for j in scored
            if similar(i, j)
        }
        found = [pair for pair, p in probability.items() if p > options["min_preference_prob"]]
        return sorted(found, key=widest_first)[: options["max_pairs"]]
    if strategy == "k-vs-k":
        best_first = sorted(scored, key=lambda i: (-rewards[i], i))
        worst_first = sorted(scored, key=lambda i: (rewards[i], i))
        straight = [
            (i, j)
            for i, j in zip(best_first[:2], worst_first[:2], strict=True)
            if rewards[i] > rewards[j]
        ]
        if match_length is None:
            return sorted(straight, key=widest_first)
        left, found = set(worst_first) - {i for i, _ in straight}, []
        for i, _ in straight:
            open_ = [j for j in worst_first if j in left and j in below(i)]
            if open_:
                left.remove(open_[0])
                found.append((i, open_[0]))
        return sorted(found, key=widest_first)

    def nearest(target, among):
        return min(among, key=lambda i: abs(rewards[i] - target))

    if strategy == "quantile":
        best = nearest(np.quantile(values, 1.0), scored)
    open_ = below(best)
    if not open_:
        return []
    match strategy:
        case "best-worst":
            rejected = min(open_, key=lambda j: rewards[j])
        case "best-second":
            rejected = max(open_, key=lambda j: rewards[j])
        case "best-median":
            rejected = nearest(statistics.median_low(values), open_)
        case "sigma":
            mean = sum(values) / len(values)
            sigma = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))
            rejected = nearest(mean - options["num_sigmas"] * sigma, open_)
        case "quantile":
            rejected = nearest(np.quantile(values, options["rejected_quantile"]), open_)
        case "best-random":
            draws = draw_bits(np.array([seed]), len(rewards))[0].tolist()
            rejected = min(open_, key=lambda j: draws[j])
    return [(best, rejected)]


def as_rows(prompts):
    rewards = [[reward for reward, _, _ in candidates] for candidates, _ in prompts]
    rights = [[right for _, right, _ in candidates] for candidates, _ in prompts]
    lengths = [[length for _, _, length in candidates] for candidates, _ in prompts]
    return {
        "rewards": rewards,
        "rights": rights,
        "lengths": lengths,
        "seeds": [seed for _, seed in prompts],
    }


def pairs_of(pairs, prompt):
    rows = pairs.prompt_Q == prompt
    return list(zip(pairs.chosen_Q[rows].tolist(), pairs.rejected_Q[rows].tolist(), strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(prompts=st.lists(PROMPT, max_size=4), match_length=MATCH_LENGTH)
def test_every_strategy_is_what_it_says(strategy, prompts, match_length):
    rows = as_rows(prompts)
    pairs = form(strategy=strategy, match_length=match_length, **rows, **OPTIONS)
    assert pairs.prompt_Q.tolist() == sorted(pairs.prompt_Q.tolist())
    for prompt, row in enumerate(zip(*rows.values(), strict=True)):
        found = pairs_of(pairs, prompt)
        assert found == reference(*row, strategy, match_length, OPTIONS)
        assert bool(found) == (pairs.reason_P[prompt] == "")
        assert found or pairs.reason_P[prompt] in REASONS
        assert len(found) <= 1 or strategy not in ONE_PAIR
        for chosen, rejected in found if strategy != "verified" else ():
            assert row[0][chosen] > row[0][rejected]


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(
    prompts=st.lists(PROMPT, min_size=1, max_size=4),
    match_length=MATCH_LENGTH,
    padding=st.integers(0, 9),
    data=st.data(),
)
def test_pairs_of_a_prompt_are_its_own(strategy, prompts, match_length, padding, data):
    options = {"strategy": strategy, "match_length": match_length, **OPTIONS}
    together = form(**as_rows(prompts), **options)
    place = data.draw(st.integers(0, len(prompts) - 1))
    width = len(prompts[place][0]) + padding
    alone = form(**as_rows([prompts[place]]), width=width, **options)
    assert pairs_of(alone, 0) == pairs_of(together, place)
    assert alone.reason_P[0] == together.reason_P[place]


def test_sums_do_not_depend_on_the_padding():
    # Targets in the middle of two rewards: the last bit of a sum decides, and np.sum's differs.
    rewards = (np.random.default_rng(1).integers(0, 4, size=(6000, 12)) * 0.1).tolist()
    narrow = form(rewards, "sigma", width=12, num_sigmas=0.5)
    wide = form(rewards, "sigma", width=40, num_sigmas=0.5)
    assert narrow.rejected_Q.tolist() == wide.rejected_Q.tolist()
