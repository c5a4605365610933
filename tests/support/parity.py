"""What every family is held to: scores of the scorer against a plain reference."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bon.errors import ModelError
from support.scoring import flat, groups, largest_difference, reward_scorer

TOLERANCE = 1e-4
Reference = Callable[[Path], list[float]]
"""Scores of `groups()`, in order, of a folder's model in float32, written out in the test."""


def conversations(folder: Path, turn: str, start: str = "") -> list[list[int]]:
    """Token ids of `groups()`, written out: `turn` has places for a role and a content."""
    from transformers import PreTrainedTokenizerFast

    tokens = PreTrainedTokenizerFast.from_pretrained(folder)
    texts = [
        start + "".join(turn.format(**message) for message in (*group.messages, answer))
        for group in groups()
        for answer in ({"role": "assistant", "content": text} for text in group.responses)
    ]
    return [list(tokens.encode(text, add_special_tokens=False)) for text in texts]


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's config.json."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def scores(folder: Path, *, alone: bool = False, **settings: Any) -> list[float]:
    """Score `groups()` with the scorer of a folder's family."""
    with reward_scorer(folder, alone=alone, **settings) as entered:
        return flat(entered.score(groups()))


def check_float32(folder: Path, reference: Reference, spread: float = 0.5) -> None:
    """Assert that scores, in batches and alone, are the reference's, and that none of the
    repository's code ran."""
    want = reference(folder)
    assert max(want) - min(want) > spread  # else a wrong mapping would not be seen
    assert largest_difference(scores(folder, dtype="float32"), want) < TOLERANCE
    assert largest_difference(scores(folder, dtype="float32", alone=True), want) < TOLERANCE
    assert not (folder / "it ran").exists()


def check_bfloat16(folder: Path, reference: Reference) -> None:
    """Assert that batches are as far from float32 as one conversation at a time is: as rounding
    goes, equal up to chance, so twice the largest difference and half more than the usual one."""
    exact, alone, batched = reference(folder), scores(folder, alone=True), scores(folder)
    rounding = largest_difference(alone, exact)
    assert 1e-3 < rounding < (max(exact) - min(exact)) / 4
    assert largest_difference(batched, exact) <= 2 * rounding
    assert largest_difference(batched, alone) <= 2 * rounding
    assert math.dist(batched, exact) <= 1.5 * math.dist(alone, exact)


def refused(folder: Path) -> ModelError:
    """Enter a scorer that must not be entered and return what it says."""
    with pytest.raises(ModelError) as caught, reward_scorer(folder):
        pytest.fail("it was taken")
    assert caught.value.where == str(folder)
    assert caught.value.why
    assert caught.value.next_step
    return caught.value
