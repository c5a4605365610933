"""Figures of the rewards that were given, in one pass and without keeping them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["RewardFigures"]


@dataclass
class RewardFigures:
    """Count, mean, spread and range of rewards (Welford's running mean and squared deviations)."""

    num_samples: int = 0
    num_null: int = 0
    """Samples without a reward; they are in no other figure but `num_samples`."""
    _mean: float = 0.0
    _squares: float = 0.0
    """Sum of the squared deviations from the mean."""
    _min: float = math.inf
    _max: float = -math.inf

    def add(self, rewards: Iterable[float | None]) -> None:
        """Count rewards in."""
        for reward in rewards:
            self.num_samples += 1
            if reward is None:
                self.num_null += 1
                continue
            deviation = reward - self._mean
            self._mean += deviation / self._num_scored
            self._squares += deviation * (reward - self._mean)
            self._min, self._max = min(self._min, reward), max(self._max, reward)

    def as_dict(self) -> dict[str, float]:
        """Return the figures that NeMo RL's reward model environment logs, by its names.

        `std_reward` is of a sample (n - 1 below, as `torch.std`). What cannot be told of so few
        rewards is NaN: all of none, the spread of one.
        """
        scored = self._num_scored
        nan = math.nan
        return {
            "num_samples": self.num_samples,
            "mean_reward": self._mean if scored else nan,
            "std_reward": math.sqrt(self._squares / (scored - 1)) if scored > 1 else nan,
            "min_reward": self._min if scored else nan,
            "max_reward": self._max if scored else nan,
            "num_null": self.num_null,
        }

    @property
    def _num_scored(self) -> int:
        return self.num_samples - self.num_null
