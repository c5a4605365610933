"""How far scores are from a reference's, and whether that moves a rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.verification import compare

SCORES = st.none() | st.sampled_from([-1.0, 0.0, 0.5, 0.5 + 1e-9, 1.0]) | st.floats(width=32)
PAIRS = st.lists(st.tuples(SCORES, SCORES), max_size=8)


@pytest.mark.parametrize(
    ("scores", "references", "changes"),
    [
        ([3.0, 2.0, 1.0], [2.5, None, None], False),
        ([3.0, 2.0, 1.0], [1.5, None, None], True),
        ([3.0, 2.0, 1.0], [None, None, 9.0], True),
        ([3.0, 2.0, 1.0], [13.0, 12.0, 11.0], False),
        ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], True),
        # a tie goes to the lower number, so only the higher one's rise out of it moves a rank
        ([2.0, 2.0], [2.1, None], False),
        ([2.0, 2.0], [None, 2.1], True),
        # and only the higher one's fall into it moves none
        ([3.0, 2.0], [2.0, None], False),
        ([2.0, 3.0], [None, 2.0], True),
        # a candidate without a score has no rank
        ([None, 2.0, 1.0], [9.0, None, None], False),
        ([2.0], [-5.0], False),
    ],
)
def test_rankings_by_hand(
    scores: list[float | None], references: list[float | None], changes: bool
) -> None:
    assert compare(scores, references).changes_ranking is changes


def test_the_largest_difference_by_hand() -> None:
    found = compare([1.0, 2.0, 3.0, None], [1.25, 1.5, math.nan, 99.0])
    assert (found.candidate, found.difference) == (1, 0.5)
    assert compare([1.0, 2.0], [1.5, 2.5]).candidate == 0, "the lowest of equals"


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, 1e39])
def test_nothing_to_compare(missing: float | None) -> None:
    for scores, references in (([missing], [1.0]), ([1.0], [missing]), ([], [])):
        found = compare(scores, references)
        assert (found.candidate, found.changes_ranking) == (None, False)


def test_what_is_stored_as_one_number_is_a_tie() -> None:
    """A reference in float64 would part scores that no pool can tell apart."""
    found = compare([0.1, 0.1], [None, 0.1 + 1e-12])
    assert (found.difference, found.changes_ranking) == (0.0, False)


def test_as_many_references_as_scores() -> None:
    with pytest.raises(ValueError, match="1 reference scores for 2 scores"):
        compare([1.0, 2.0], [1.0])


@given(PAIRS)
def test_against_plain_loops(pairs: list[tuple[float | None, float | None]]) -> None:
    def stored(value: float | None) -> float:
        return math.nan if value is None else float(np.float32(value))

    scores = [stored(score) for score, _ in pairs]
    references = [stored(reference) for _, reference in pairs]
    compared = [
        i for i in range(len(pairs)) if math.isfinite(scores[i]) and math.isfinite(references[i])
    ]
    replaced = [references[i] if i in compared else scores[i] for i in range(len(pairs))]

    def order(values: list[float]) -> list[tuple[float, int]]:
        ranked = sorted((-v, i) for i, v in enumerate(values) if math.isfinite(v))
        return [i for _, i in ranked]  # type: ignore[misc]

    found = compare([score for score, _ in pairs], [reference for _, reference in pairs])
    assert (found.candidate is None) == (not compared)
    assert found.changes_ranking == (order(scores) != order(replaced))
    if compared:
        differences = [abs(scores[i] - references[i]) for i in compared]
        assert found.difference == max(differences)
        assert found.candidate == compared[differences.index(max(differences))]
