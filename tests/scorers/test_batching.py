"""Which sequences share a padded batch: all of them once, within the budget, longest first."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bon.scorers.batching import length_sorted_batches

LENGTHS = st.lists(st.integers(1, 300), max_size=80)
BUDGETS = st.integers(1, 2000)


def padded_tokens(batch: list[int], lengths: list[int]) -> int:
    return len(batch) * max(lengths[index] for index in batch)


@given(LENGTHS, BUDGETS)
def test_every_sequence_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    batches = length_sorted_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(batches)


@given(LENGTHS, BUDGETS)
def test_a_batch_holds_the_budget_or_one_sequence(lengths: list[int], budget: int) -> None:
    for batch in length_sorted_batches(lengths, budget):
        assert len(batch) == 1 or padded_tokens(batch, lengths) <= budget


@given(LENGTHS, BUDGETS)
def test_lengths_never_grow_from_batch_to_batch(lengths: list[int], budget: int) -> None:
    flat = [lengths[index] for batch in length_sorted_batches(lengths, budget) for index in batch]
    assert flat == sorted(lengths, reverse=True)


@given(LENGTHS, BUDGETS)
def test_no_batch_could_have_taken_the_next_sequence(lengths: list[int], budget: int) -> None:
    batches = length_sorted_batches(lengths, budget)
    for batch, following in pairwise(batches):
        assert padded_tokens([*batch, following[0]], lengths) > budget


@given(LENGTHS, BUDGETS)
def test_the_result_depends_on_the_lengths_alone(lengths: list[int], budget: int) -> None:
    first = length_sorted_batches(lengths, budget)
    assert first == length_sorted_batches(tuple(lengths), budget)
    assert all(batch == sorted(batch, key=lambda i: (-lengths[i], i)) for batch in first)


@given(st.data(), LENGTHS, BUDGETS)
def test_another_order_gives_batches_of_the_same_shape(
    data: st.DataObject, lengths: list[int], budget: int
) -> None:
    shuffled = data.draw(st.permutations(lengths))
    shapes = [
        [[values[index] for index in batch] for batch in length_sorted_batches(values, budget)]
        for values in (lengths, shuffled)
    ]
    assert shapes[0] == shapes[1]


def test_by_hand() -> None:
    assert length_sorted_batches([3, 9, 4, 9, 1], 18) == [[1, 3], [2, 0, 4]]
    assert length_sorted_batches([3, 9, 4], 1) == [[1], [2], [0]]
    assert length_sorted_batches([], 16) == []
    assert length_sorted_batches([20, 5], 10) == [[0], [1]]
