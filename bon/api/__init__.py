"""`bon` in Python: scorers as the reward functions of trainers."""

from bon.api.loading import load_scorer
from bon.api.reward_function import RewardFunction

__all__ = ["RewardFunction", "load_scorer"]
