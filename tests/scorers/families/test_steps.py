"""Splitting into steps and the aggregates of their rewards, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.config import ScorerSettings
from bon.scorers.families.steps import (
    StepAggregate,
    aggregate,
    rewards_of_steps,
    separator_of,
    split_steps,
)

HOW: tuple[StepAggregate, ...] = ("min", "product", "last", "mean")
BY_HAND: list[tuple[StepAggregate, float]] = [
    ("min", 0.5),
    ("product", 0.36),
    ("last", 0.8),
    ("mean", 0.73333333),
]


@pytest.mark.parametrize(("how", "want"), BY_HAND)
def test_aggregates_of_three_steps(how: StepAggregate, want: float) -> None:
    assert aggregate([0.9, 0.5, 0.8], how) == pytest.approx(want)


@pytest.mark.parametrize("how", HOW)
def test_no_step_has_no_reward(how: StepAggregate) -> None:
    with pytest.raises(ValueError, match="without steps"):
        aggregate([], how)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_step_that_is_not_a_number_is_not_passed_over(how: StepAggregate, place: int) -> None:
    values = [0.9, 0.5, 0.8]
    values[place] = math.nan
    assert math.isnan(aggregate(values, how))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_order_of_the_aggregates_of_probabilities(values: list[float]) -> None:
    product, low, mean = (aggregate(values, how) for how in ("product", "min", "mean"))
    assert product <= low <= mean + 1e-12 <= max(values) + 2e-12
    assert {aggregate(values[:1], how) for how in HOW} == {values[0]}


@pytest.mark.parametrize(
    ("response", "separator", "steps"),
    [
        ("one\n\ntwo\n\nthree", "\n\n", ["one", "two", "three"]),
        ("one\ntwo\n\nthree\n", "\n\n", ["one\ntwo", "three"]),
        ("one\n\n\n\n\ntwo\n\n", "\n\n", ["one", "two"]),
        ("  one \n \n\ttwo", "\n", ["one", "two"]),
        ("one", "\n", ["one"]),
        ("", "\n", []),
        (" \n\n \n", "\n", []),
        ("Step 1: a Step 2: b", "Step ", ["1: a", "2: b"]),
    ],
)
def test_steps_of_a_response(response: str, separator: str, steps: list[str]) -> None:
    assert split_steps(response, separator) == steps


@pytest.mark.parametrize(
    ("response", "separator", "steps"),
    [
        ("  one \n \n\ttwo", "\n", ["  one ", "\ttwo"]),
        ("one\n\n\ntwo\n\n", "\n\n", ["one", "\ntwo"]),
        (" \n\n \n", "\n", []),
    ],
)
def test_steps_as_they_are(response: str, separator: str, steps: list[str]) -> None:
    assert split_steps(response, separator, strip=False) == steps


@given(st.lists(st.text("ab c\n", min_size=1).filter(str.strip), min_size=1))
def test_splitting_undoes_joining(steps: list[str]) -> None:
    clean = [step.strip() for step in steps]
    assert split_steps("|".join(clean), "|") == clean
    assert split_steps("|".join(steps), "|", strip=False) == steps


@pytest.mark.parametrize(
    ("said", "want"), [(None, "\n"), ("\n\n", "\n\n"), (r"\n\n", "\n\n"), (" ки ", " ки ")]
)
def test_a_line_break_can_be_typed(said: str | None, want: str) -> None:
    settings = ScorerSettings(name="prm", spec="prm", step_separator=said)
    assert separator_of(settings, "\n") == want


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rewards_are_probabilities_of_the_second_label(dtype: str) -> None:
    torch: Any = pytest.importorskip("torch")
    # in bfloat16, too, these logits are exact: the softmax must not be rounded to it
    logits = torch.tensor([[0, 2], [1, 0], [0, 0], [0, 3]], dtype=getattr(torch, dtype))
    sigmoid = {x: 1 / (1 + math.exp(-x)) for x in (2, -1, 0, 3)}
    got = rewards_of_steps(logits, [1, 3], "product")
    assert got.dtype == torch.float32
    want = [sigmoid[2], sigmoid[-1] * sigmoid[0] * sigmoid[3]]
    assert got.tolist() == pytest.approx(want, abs=1e-6)
