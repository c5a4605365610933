"""Figures of rewards against the standard library's, which keeps all values."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.api.figures import RewardFigures

REWARDS = st.lists(st.none() | st.floats(-1e4, 1e4), max_size=30)


@given(st.lists(REWARDS, max_size=4))
def test_figures_are_those_of_all_rewards(calls: list[list[float | None]]) -> None:
    figures = RewardFigures()
    for rewards in calls:
        figures.add(rewards)
    every = [reward for rewards in calls for reward in rewards]
    scored = [reward for reward in every if reward is not None]
    nan = math.nan
    expected = {
        "num_samples": len(every),
        "mean_reward": statistics.fmean(scored) if scored else nan,
        "std_reward": statistics.stdev(scored) if len(scored) > 1 else nan,
        "min_reward": min(scored, default=nan),
        "max_reward": max(scored, default=nan),
        "num_null": len(every) - len(scored),
    }
    assert figures.as_dict() == pytest.approx(expected, rel=1e-9, abs=1e-6, nan_ok=True)


def test_a_large_offset_leaves_the_spread() -> None:
    figures = RewardFigures()
    figures.add([1e9 + 1, 1e9 + 2, 1e9 + 3])
    assert figures.as_dict()["std_reward"] == pytest.approx(1.0)
