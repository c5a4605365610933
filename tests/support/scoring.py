"""Reward model scorers as the command line makes them, and a plain reference beside them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bon.config import ScorerSettings
from bon.pipeline.models import ResolvedModel, read_config
from bon.records import CandidateGroup, Message, Scores
from bon.scorers.families import find_family
from bon.scorers.reward_model import RewardModelScorer


def reward_scorer(
    folder: Path, template: str | None = None, *, alone: bool = False, **settings: Any
) -> RewardModelScorer:
    """Return the scorer of a folder's family, not entered yet."""
    values = {"name": "reward", "spec": str(folder), "device": "cpu"} | settings
    config = read_config(ResolvedModel("reward", str(folder), ""))
    family = find_family(config, str(folder))
    return RewardModelScorer(ScorerSettings(**values), str(folder), family, config, template, alone)


@cache
def groups() -> tuple[CandidateGroup, ...]:
    """Conversations of 30 to 500 tokens: one turn and several, with and without a system."""
    letters = random.Random(0)

    def text(length: int) -> str:
        return "".join(letters.choices("abcdefgh ijkl é🙂\n", k=length))

    def group(number: int, messages: tuple[Message, ...], *lengths: int) -> CandidateGroup:
        return CandidateGroup(f"p{number}", messages, tuple(text(length) for length in lengths))

    def say(role: str, length: int) -> Message:
        return {"role": role, "content": text(length)}

    return (
        group(0, (say("user", 3),), 1, 0, 7, 90),
        group(1, (say("system", 20), say("user", 40)), 5, 5, 300),
        group(2, (say("user", 9), say("assistant", 30), say("user", 0)), 12),
        group(3, (say("user", 200),), 0, 2, 64, 33),
        group(4, (say("user", 1),), 1, 1),
    )


def flat(results: Sequence[Scores]) -> list[float]:
    """Return all scores in order; none may be missing."""
    values = [value for result in results for value in result.scores]
    assert None not in values
    return [value for value in values if value is not None]


def largest_difference(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the largest difference of two lists of equal length."""
    return max(abs(a - b) for a, b in zip(left, right, strict=True))


def root_mean_square(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the root of the mean squared difference of two lists of equal length."""
    squares = [(a - b) ** 2 for a, b in zip(left, right, strict=True)]
    return math.sqrt(sum(squares) / len(squares))


def limit_memory(model: Any, most: int, seen: list[int]) -> None:
    """Have forward passes of more tokens than `most` fail as a device without memory does."""
    import torch

    forward = model.body.forward

    def limited(*arguments: Any, input_ids: Any, **rest: Any) -> Any:
        seen.append(input_ids.numel())
        if input_ids.numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return forward(*arguments, input_ids=input_ids, **rest)

    model.body.forward = limited
