from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bon.trie import Segment, pack, segments

# Few tokens, so that sequences branch, repeat and are prefixes of others. The two large ones sort
# the other way round if their bytes are compared in the wrong order.
TOKEN = st.sampled_from([0, 1, 256])
TOKENS = st.lists(TOKEN, min_size=1, max_size=6)


@st.composite
def continued(draw):
    """Sequences each of which goes on from some place in an earlier one: deep tries."""
    sequences = [draw(TOKENS)]
    for _ in range(draw(st.integers(0, 12))):
        earlier = draw(st.sampled_from(sequences))
        sequences.append(earlier[: draw(st.integers(0, len(earlier)))] + draw(TOKENS))
    return sequences


SEQUENCES = st.lists(st.lists(TOKEN, min_size=1, max_size=9), min_size=1, max_size=14) | continued()
COST = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 3.0, math.inf])
MAX_TOKENS = st.integers(1, 40)
LARGE = 10**9


def visible(end):
    """The dense mask [T, T], query by key."""
    query, key = np.arange(len(end))[:, None], np.arange(len(end))
    return (key <= query) & (query < end)


def prefixes(sequences):
    return {tuple(s[:length]) for s in sequences for length in range(1, len(s) + 1)}


def members(batch, sequences):
    return [sequences[number] for number in batch.sequences]


def not_carried(sequences):
    """Those distinct ones that are no prefix of another."""
    distinct = {tuple(s) for s in sequences}
    return [s for s in distinct if not any(s != t and t[: len(s)] == s for t in distinct)]


def num_tokens(sequences, cost, above=0):
    """Tokens that sequences add below the first `above` ones, by the words of the rule.

    They share more than those; how much of it is decided here, from the root down.
    """
    if len(sequences) == 1:
        return len(sequences[0]) - above
    depth = next(d for d in range(99) if len({s[: d + 1] for s in sequences}) > 1)
    branches = {}
    for s in sequences:
        branches.setdefault(s[depth], []).append(s)
    below = len([p for p in prefixes(sequences) if len(p) > depth])
    own = depth - above
    if own * (len(branches) - 1) > cost * below:
        return own + sum(num_tokens(branch, cost, depth) for branch in branches.values())
    return sum(num_tokens(branch, cost, above) for branch in branches.values())


@given(SEQUENCES, MAX_TOKENS, COST)
@settings(max_examples=200)
def test_every_token_sees_its_own_prefix_and_nothing_else(sequences, max_tokens, cost):
    for batch in pack(sequences, max_tokens, sharing_cost=cost):
        sees_TT = visible(batch.end)
        for row, sequence in enumerate(members(batch, sequences)):
            indices = batch.index(row, np.arange(len(sequence)))
            for position, index in enumerate(indices):
                keys = np.flatnonzero(sees_TT[index])
                keys = keys[np.argsort(batch.positions[keys], kind="stable")]
                assert batch.positions[keys].tolist() == list(range(position + 1))
                assert batch.tokens[keys].tolist() == sequence[: position + 1]
                assert keys.tolist() == indices[: position + 1].tolist()


@given(SEQUENCES, MAX_TOKENS, COST)
@example([[0] * 9, [0] * 8, [0] * 8, [1]], 3, 0.0)
def test_every_sequence_is_in_one_batch_within_the_budget(sequences, max_tokens, cost):
    batches = pack(sequences, max_tokens, sharing_cost=cost)
    numbers = np.concatenate([batch.sequences for batch in batches])
    assert sorted(numbers.tolist()) == list(range(len(sequences)))
    sizes = [len(batch.tokens) for batch in batches]
    assert sizes == sorted(sizes, reverse=True)
    for batch in batches:
        inside = members(batch, sequences)
        assert batch.lengths.tolist() == [len(s) for s in inside]
        longest = max(inside, key=len)
        if len(longest) > max_tokens:
            assert batch.tokens.tolist() == longest
        else:
            assert len(batch.tokens) <= max_tokens
    # First fit leaves no two batches that would fit together.
    assert all(sum(pair) > max_tokens for pair in combinations(sizes, 2))


@given(SEQUENCES, MAX_TOKENS)
def test_each_distinct_token_is_laid_out_once(sequences, max_tokens):
    (whole,) = pack(sequences, LARGE)
    assert len(whole.tokens) == len(prefixes(sequences))
    for batch in pack(sequences, max_tokens):
        assert len(batch.tokens) == len(prefixes(members(batch, sequences)))


@given(SEQUENCES, MAX_TOKENS)
@settings(max_examples=200)
def test_a_subtree_that_fits_is_not_cut(sequences, max_tokens):
    batch_of = {}
    for number, batch in enumerate(pack(sequences, max_tokens)):
        batch_of |= dict.fromkeys(batch.sequences.tolist(), number)
    for prefix in prefixes(sequences):
        inside = [i for i, s in enumerate(sequences) if tuple(s[: len(prefix)]) == prefix]
        if len(prefixes([sequences[i] for i in inside])) <= max_tokens:
            assert len({batch_of[i] for i in inside}) == 1


@given(SEQUENCES, COST)
@settings(max_examples=300)
def test_a_prefix_is_shared_where_that_saves_enough(sequences, cost):
    (batch,) = pack(sequences, LARGE, sharing_cost=cost)
    assert len(batch.tokens) == num_tokens(not_carried(sequences), cost)


@given(SEQUENCES)
def test_at_an_infinite_cost_only_prefixes_of_whole_sequences_are_shared(sequences):
    (batch,) = pack(sequences, LARGE, sharing_cost=math.inf)
    whole = not_carried(sequences)
    assert len(batch.tokens) == sum(map(len, whole))
    assert [segment.depth for segment in segments(batch.end)] == [0] * len(whole)


@given(SEQUENCES, MAX_TOKENS, COST, st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_only_the_numbers(sequences, max_tokens, cost, random):
    numbers = list(range(len(sequences)))
    random.shuffle(numbers)
    shuffled = [sequences[number] for number in numbers]
    before = pack(sequences, max_tokens, sharing_cost=cost)
    after = pack(shuffled, max_tokens, sharing_cost=cost)
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        for name in ("tokens", "positions", "end", "lengths"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
        assert members(one, sequences) == members(other, shuffled)


@given(SEQUENCES, MAX_TOKENS, COST)
def test_segments_are_the_paths_between_branches(sequences, max_tokens, cost):
    for batch in pack(sequences, max_tokens, sharing_cost=cost):
        found = segments(batch.end)
        covered = [index for s in found for index in range(s.start, s.stop)]
        assert covered == list(range(len(batch.end)))
        sees_TT = visible(batch.end)
        for segment in found:
            assert set(batch.end[segment.start : segment.stop]) == {segment.end}
            above = [s for s in found if s != segment and sees_TT[segment.start, s.start]]
            assert segment.depth == len(above)
        for left, right in pairwise(found):
            assert left.end != right.end


@given(SEQUENCES, MAX_TOKENS, COST)
def test_a_run_hangs_in_a_run_that_starts_above_it(sequences, max_tokens, cost):
    for batch in pack(sequences, max_tokens, sharing_cost=cost):
        depth_above = np.append(batch.run_depth, -1)[batch.run_parent]
        assert (depth_above < batch.run_depth).all()  # so `index` takes a step a level
        assert ((batch.run_parent == -1) == (batch.run_depth == 0)).all()


def common_prefix(sequences):
    return next((d for d in range(99) if len({tuple(s[: d + 1]) for s in sequences}) > 1), None)


@given(SEQUENCES, MAX_TOKENS, MAX_TOKENS, COST)
@settings(max_examples=200)
def test_an_aim_is_passed_only_for_a_long_path_and_within_the_budget(
    sequences, aim, max_tokens, cost
):
    batches = pack(sequences, max_tokens, aim_tokens=aim, sharing_cost=cost)
    numbers = np.concatenate([batch.sequences for batch in batches])
    assert sorted(numbers.tolist()) == list(range(len(sequences)))
    sizes = [len(batch.tokens) for batch in batches]
    assert sizes == sorted(sizes, reverse=True)
    for batch in batches:
        whole = not_carried(members(batch, sequences))
        if len(whole) > 1:
            assert len(batch.tokens) <= max_tokens
            # what the batch has in common is the path that its pieces would have repeated
            assert len(batch.tokens) <= aim or 8 * common_prefix(whole) > aim
    assert all(sum(pair) > min(aim, max_tokens) for pair in combinations(sizes, 2))


@given(SEQUENCES, MAX_TOKENS, MAX_TOKENS)
@settings(max_examples=200)
def test_a_subtree_above_the_aim_is_whole_where_cutting_repeats_much(sequences, aim, max_tokens):
    batch_of = {}
    for number, batch in enumerate(pack(sequences, max_tokens, aim_tokens=aim)):
        batch_of |= dict.fromkeys(batch.sequences.tolist(), number)
        # so no batch has a token twice either
        assert len(batch.tokens) == len(prefixes(members(batch, sequences)))
    for prefix in prefixes(sequences):
        inside = [i for i, s in enumerate(sequences) if tuple(s[: len(prefix)]) == prefix]
        limit = max_tokens if 8 * len(prefix) > aim else min(aim, max_tokens)
        if len(prefixes([sequences[i] for i in inside])) <= limit:
            assert len({batch_of[i] for i in inside}) == 1


@given(SEQUENCES, MAX_TOKENS, MAX_TOKENS, COST, st.randoms(use_true_random=False))
def test_with_an_aim_too_the_order_of_the_input_changes_only_the_numbers(
    sequences, aim, max_tokens, cost, random
):
    shuffled = random.sample(sequences, len(sequences))
    before = pack(sequences, max_tokens, aim_tokens=aim, sharing_cost=cost)
    after = pack(shuffled, max_tokens, aim_tokens=aim, sharing_cost=cost)
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        for name in ("tokens", "positions", "end", "lengths"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
        assert members(one, sequences) == members(other, shuffled)


@st.composite
def answered(draw):
    """Prompts of their own first token, each with candidates of one length: in any order."""
    sequences = []
    for prompt in range(draw(st.integers(1, 4))):
        length, answer = draw(st.integers(1, 12)), draw(st.integers(1, 12))
        for number in range(draw(st.integers(1, 8))):
            sequences.append([prompt] * length + [100 + number] * answer)
    return draw(st.permutations(sequences))


@given(answered(), st.integers(24, 120), st.integers(0, 60))
@settings(max_examples=200)
def test_no_more_tokens_than_batches_in_order_of_arrival(sequences, aim, more):
    """Candidates of one length: of many lengths, first fit may need a piece more than the best."""
    arrived = [[]]
    for sequence in sequences:
        if len(prefixes([*arrived[-1], sequence])) > aim:
            arrived.append([])
        arrived[-1].append(sequence)
    batches = pack(sequences, aim + more, aim_tokens=aim)
    packed = sum(len(batch.tokens) for batch in batches)
    assert packed <= sum(len(prefixes(group)) for group in arrived)


@pytest.mark.parametrize(
    ("prompt", "sizes"),
    [
        (256, [2_016, 2_016, 736]),  # 256 * 8 = 2048: cut, 256 + 22 * 80 in a batch
        (257, [257 + 50 * 80]),  # one more: kept whole
    ],
)
def test_an_eighth_of_the_aim_decides_whether_a_prompt_is_cut(prompt, sizes):
    sequences = [[1] * prompt + [2 + number] * 80 for number in range(50)]
    batches = pack(sequences, 16_384, aim_tokens=2_048)
    assert [len(batch.tokens) for batch in batches] == sizes


def test_a_layout_by_hand():
    (batch,) = pack([[7, 8, 9], [5], [7, 8, 300, 1], [7, 8], [7, 8, 300, 2], [7, 8, 9]], 100)
    assert batch.tokens.tolist() == [5, 7, 8, 9, 300, 1, 2]
    assert batch.positions.tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert batch.end.tolist() == [1, 7, 7, 4, 7, 6, 7]
    assert batch.sequences.tolist() == [1, 3, 0, 5, 2, 4]
    assert batch.index(range(6), batch.lengths - 1).tolist() == [0, 2, 3, 3, 5, 6]
    assert batch.index(5, [0, 2, 3]).tolist() == [1, 4, 6]
    assert batch.index([[2], [4]], [1, 2]).tolist() == [[2, 3], [2, 4]]
    assert segments(batch.end) == [
        Segment(0, 1, end=1, depth=0),
        Segment(1, 3, end=7, depth=0),
        Segment(3, 4, end=4, depth=1),
        Segment(4, 5, end=7, depth=1),
        Segment(5, 6, end=6, depth=2),
        Segment(6, 7, end=7, depth=2),
    ]


def test_a_cut_repeats_the_path_above_it():
    prompt = list(range(2_000))
    candidates = [[*prompt, 5_000 + number, *[1] * 59] for number in range(64)]
    batches = pack(candidates, 2_000 + 20 * 60)
    assert [len(batch.tokens) for batch in batches] == [3_200, 3_200, 3_200, 2_240]
    assert all(batch.tokens[:2_000].tolist() == prompt for batch in batches)
    assert sum(len(batch.run_start) for batch in batches) == 64  # memory: not candidates x tokens


def test_large_pieces_are_placed_first():
    sequences = [[token] * length for token, length in enumerate([3, 3, 3, 7, 7, 7])]
    assert [len(batch.tokens) for batch in pack(sequences, 10)] == [10, 10, 10]


def test_pieces_of_cut_prompts_share_batches():
    # Two prompts of 10 with 3 candidates of 10 each: one with two fills 30, the rests are 20 each.
    sequences = [[p] * 10 + [c] * 10 for p in (1, 2) for c in (3, 4, 5)]
    batches = pack(sequences, 40)
    assert [len(batch.tokens) for batch in batches] == [40, 40]
    batches = pack(sequences, 39)
    assert [len(batch.tokens) for batch in batches] == [30, 30, 20, 20]


@pytest.mark.parametrize(("cost", "num_tokens"), [(0.49, 4 + 4 + 4), (0.5, 8 + 8)])
def test_a_saving_must_exceed_its_cost(cost, num_tokens):
    # Sharing 4 tokens between 2 branches saves 4, with 8 below: worth it up to a cost of 4 / 8.
    branches = [[0, 0, 0, 0, c, c, c, c] for c in (1, 2)]
    (batch,) = pack(branches, 100, sharing_cost=cost)
    assert len(batch.tokens) == num_tokens


def test_one_token_and_nothing():
    (batch,) = pack([[3]], 1)
    assert (batch.tokens.tolist(), batch.end.tolist()) == ([3], [1])
    assert batch.index(0, 0) == 0
    assert segments(batch.end) == [Segment(0, 1, end=1, depth=0)]
    assert pack([], 1) == []
    assert segments(np.empty(0, np.int64)) == []


def test_any_kind_of_integers_is_taken():
    ids = [1, 2, 2**31 + 5]
    kinds = [
        ids,
        tuple(ids),
        (token for token in ids),
        np.array(ids),
        np.array(ids, np.uint32),
        np.array(ids, ">i8"),
    ]
    (batch,) = pack(kinds, 9)
    assert batch.tokens.tolist() == ids
    assert batch.index(range(6), batch.lengths - 1).tolist() == [2] * 6
    (batch,) = pack([bytes([1, 2, 3, 4, 5]), np.arange(1, 4, dtype=np.int8)], 9)
    assert batch.tokens.tolist() == [1, 2, 3, 4, 5]
    assert all(
        getattr(batch, name).dtype == np.int64
        for name in ("sequences", "lengths", "tokens", "positions", "end")
    )


def test_deep_tries_need_no_deep_stack():
    depths = range(1, 3_000)
    sequences = [[*[1] * depth, 2] for depth in depths]
    (batch,) = pack(sequences, LARGE, sharing_cost=1e-9)
    assert len(batch.tokens) == 2_999 + 2_999
    assert max(segment.depth for segment in segments(batch.end)) == 2_998
    deepest = batch.sequences.tolist().index(2_998)
    expected = np.flatnonzero(visible(batch.end)[batch.index(deepest, 2_999)])
    assert batch.index(deepest, np.arange(3_000)).tolist() == expected.tolist()
    assert sum(len(b.sequences) for b in pack(sequences[:1_200], 2_000)) == 1_200


@pytest.mark.parametrize(
    "sequence",
    [[], (), np.empty(0), [1.0], [-1], [2**32], ["a"], [[1]], 5, np.ones(2), np.ones((1, 2), int)],
    ids=repr,
)
def test_what_is_no_row_of_token_ids_is_refused(sequence):
    with pytest.raises(ValueError, match="sequence 1 is "):
        pack([[1], sequence], 9)


@pytest.mark.parametrize("ids", [[-1, 2], [2**32]])
def test_ids_in_arrays_are_checked(ids):
    with pytest.raises(ValueError, match="ids from"):
        pack([np.array(ids)], 9)


@pytest.mark.parametrize(
    "setting", [{"max_tokens": 0}, {"sharing_cost": -0.1}, {"aim_tokens": 0}, {"aim_tokens": -5}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be"):
        pack([[1]], **{"max_tokens": 1, **setting})


def test_nan_is_no_cost():
    with pytest.raises(ValueError, match="sharing_cost must be"):
        pack([[1]], 1, sharing_cost=math.nan)


@pytest.mark.parametrize("position", [-1, 2, [0, 2]])
def test_a_position_outside_the_sequence_is_refused(position):
    (batch,) = pack([[1, 2], [1, 2, 3]], 9)
    with pytest.raises(IndexError, match="of a sequence of 2 tokens"):
        batch.index(0, position)
