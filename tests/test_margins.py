import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bon.margins
from bon.margins import is_similar, widest_pairs

NAN = math.nan
# At 1e17 a difference of 1 is rounded away: margins tie where rewards do not.
REWARD = st.sampled_from([NAN, 0.0, 1.0, 1.5, 1e17, -1e17]) | st.floats(-5, 5, width=16)
CANDIDATE = st.tuples(REWARD, st.sampled_from([NAN, 0.0, 10.0, 11.0, 12.0, 20.0]))


def widest(rewards, lengths, threshold, share, max_pairs):
    """Every pair of one prompt, sorted."""
    numbers = range(len(rewards))
    found = [
        (rewards[j] - rewards[i], i, j)
        for i in numbers
        for j in numbers
        if rewards[i] - rewards[j] > threshold
        and (lengths is None or (lengths[i] > 0 and abs(lengths[j] / lengths[i] - 1) <= share))
    ]
    return [(i, j) for _, i, j in sorted(found)[:max_pairs]]


def found(rewards, lengths, threshold, share, max_pairs, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bon.margins, "_BLOCK_MARGINS", block)
        pairs = widest_pairs(rewards, lengths, threshold, share, max_pairs)
    return [one.tolist() for one in pairs]


@given(
    prompts=st.integers(1, 9).flatmap(
        lambda width: st.lists(st.lists(CANDIDATE, min_size=width, max_size=width), max_size=3)
    ),
    threshold=st.sampled_from([0.0, 1.0]),
    share=st.sampled_from([None, 0.15]),
    max_pairs=st.sampled_from([1, 2, 4, 100]),
    block=st.sampled_from([1, 8, 20, 200, 1 << 20]),
)
def test_blocks_of_any_size_find_the_widest(prompts, threshold, share, max_pairs, block):
    values_PN2 = np.array(prompts).reshape(len(prompts), -1, 2) if prompts else np.ones((0, 3, 2))
    reward_PN = values_PN2[..., 0]
    length_PN = None if share is None else values_PN2[..., 1]
    result = found(reward_PN, length_PN, threshold, share, max_pairs, block)
    expected = [
        (prompt, *pair)
        for prompt in range(len(prompts))
        for pair in widest(
            reward_PN[prompt].tolist(),
            None if share is None else length_PN[prompt].tolist(),
            threshold,
            share,
            max_pairs,
        )
    ]
    assert list(zip(*result, strict=True)) == expected


@pytest.mark.parametrize("kind", ["all different", "two values", "few values", "rounded"])
@pytest.mark.parametrize("share", [None, 0.1])
@pytest.mark.parametrize("max_pairs", [1, 4, 500])
def test_long_prompts_have_the_pairs_that_comparing_all_finds(kind, share, max_pairs):
    rng = np.random.default_rng(0)
    shape = (5, 120)
    reward_PN = {
        "all different": rng.normal(size=shape),
        "two values": rng.integers(2, size=shape).astype(float),
        "few values": rng.integers(7, size=shape) / 3,
        "rounded": np.where(rng.random(shape) < 0.3, -1e17, rng.normal(size=shape)),
    }[kind]
    reward_PN[rng.random(shape) < 0.1] = NAN
    length_PN = None if share is None else rng.integers(1, 400, size=shape).astype(float)
    options = (reward_PN, length_PN, 0.5, share, max_pairs)
    at_once = found(*options, block=1 << 20)
    assert len(at_once[0]) > 0
    for block in (1, 500, 5000):
        assert found(*options, block=block) == at_once


def test_ties_of_rounding_go_to_the_lowest_numbers():
    # 1 - -1e17 and 2 - -1e17 are the same number in float64.
    rewards = np.array([[1.0, -1e17, 2.0, -1e17]])
    for block in (1, 1 << 20):
        assert found(rewards, None, 0.0, None, 3, block) == [[0] * 3, [0, 0, 2], [1, 3, 1]]


@pytest.mark.parametrize("kind", ["all different", "two values"])
@pytest.mark.parametrize("lengths", ["none", "any", "none similar"])
def test_a_long_prompt_fits_into_the_bound(kind, lengths):
    rng, num_candidates = np.random.default_rng(0), 4000
    reward_N = (
        rng.normal(size=num_candidates) if kind == "all different" else rng.random(4000) < 0.5
    )
    length_N = {
        "none": None,
        "any": rng.integers(1, 2000, size=num_candidates).astype(float),
        "none similar": np.geomspace(1.0, 1e200, num_candidates),  # each 12 % above the one before
    }[lengths]
    length_PN = None if length_N is None else length_N[None]
    tracemalloc.start()
    pairs = widest_pairs(reward_N[None].astype(float), length_PN, 0.5, 0.1, 4)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pairs[0]) == (0 if lengths == "none similar" else 4)
    # All 16 million margins alone are 128 MB; a block's million, copies and masks are below 50.
    assert peak_bytes < 50e6


def test_similar_lengths():
    other = np.array([71.0, 129.0, 130.0, NAN])
    assert is_similar(np.array([100.0]), other, 0.29).tolist() == [True, True, False, False]
    assert not is_similar(np.array([0.0]), np.array([0.0]), 0.29).any()
