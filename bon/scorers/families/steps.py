"""Steps of a response, and how a process reward model's rewards of them become one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from bon.config import ScorerSettings

__all__ = ["StepAggregate", "aggregate", "rewards_of_steps", "separator_of", "split_steps"]

StepAggregate = Literal["min", "product", "last", "mean"]


def separator_of(settings: ScorerSettings, default: str) -> str:
    r"""Return the text between steps: the settings' own, where a typed `\n` is a line break."""
    if settings.step_separator is None:
        return default
    return settings.step_separator.replace("\\n", "\n").replace("\\t", "\t")


def split_steps(response: str, separator: str, *, strip: bool = True) -> list[str]:
    """Return a response's steps, without the white space around them if it is to be stripped.

    Blank ones are left out either way.
    """
    steps = [step for step in response.split(separator) if step.strip()]
    return [step.strip() for step in steps] if strip else steps


def aggregate(values: Sequence[float], how: StepAggregate) -> float:
    """Return one reward from those of the steps, in their order.

    `min` and `product` are those of Lightman et al. 2023 (arXiv:2305.20050, appendix F) and `last`
    that of Snell et al. 2024 (arXiv:2408.03314, section 5). One that is not a number makes the
    result none.

    Raises:
        ValueError: there is no step.
    """
    if not values:
        raise ValueError("a response without steps has no reward")
    if any(math.isnan(value) for value in values):
        return math.nan  # min would pass over it
    match how:
        case "min":
            return min(values)
        case "product":
            return math.prod(values)
        case "last":
            return values[-1]
        case "mean":
            return math.fsum(values) / len(values)


def rewards_of_steps(logits_R2: Any, counts: Sequence[int], how: StepAggregate) -> Any:
    """Return each conversation's reward, `[B]`, from the two labels' logits at its steps' ends.

    A step's reward is the probability of label 1, that it is right. `counts` are the numbers of
    steps of the B conversations, whose rows follow each other. All is computed in float32.
    """
    logits_R2 = logits_R2.float()
    steps_R = logits_R2.softmax(dim=-1)[:, 1].tolist()
    rewards, end = [], 0
    for count in counts:
        rewards.append(aggregate(steps_R[end : end + count], how))
        end += count
    return logits_R2.new_tensor(rewards)
