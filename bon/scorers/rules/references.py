"""Rules that compare with a right answer: where a row has it, and what is scored without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bon.config import ScorerSettings
from bon.records import CandidateGroup, Drop

__all__ = ["compared"]

_DEFAULT_COLUMN = ScorerSettings.model_fields["answer_column"].default
_FALLBACK_COLUMN = "ground_truth"


def compared(
    groups: Sequence[CandidateGroup],
    column: str,
    reference: Callable[[Any], str | None],
    verdict: Callable[[str, str], bool | Drop],
) -> list[list[float | Drop]]:
    """Return 1.0, 0.0 or a drop for every response of every group.

    `reference` returns the right answer in a column's value, none where there is none; `verdict`
    tells whether a response gives it. Where the column is the default one and has no answer,
    `ground_truth` is looked at. Without any answer a response is a drop, `no_reference`.
    """
    return [_compared(group, column, reference, verdict) for group in groups]


def _compared(
    group: CandidateGroup,
    column: str,
    reference: Callable[[Any], str | None],
    verdict: Callable[[str, str], bool | Drop],
) -> list[float | Drop]:
    right = reference(group.extra.get(column))
    if right is None and column == _DEFAULT_COLUMN:
        right = reference(group.extra.get(_FALLBACK_COLUMN))
    if right is None:
        why = f"its column {column!r} is missing or holds no answer"
        return [Drop("no_reference", why)] * len(group.responses)
    verdicts = [verdict(response, right) for response in group.responses]
    return [one if isinstance(one, Drop) else float(one) for one in verdicts]
