"""What a judge's answer says: a probability, a number, or which of two is better."""

from __future__ import annotations

import math
import re

from bon.records import Drop
from bon.scorers.judge.model import Answer

__all__ = ["rubric_score", "text_verdict", "word_verdict", "yes_probability"]

_MAX_CHARS_KEPT = 200
_SCORE = (
    r"(?i:score)(?:\s+(?i:is|of))?\W{0,10}?(-?\d+(?:\.\d+)?)"
    r"|^\W*?(-?\d+(?:\.\d+)?)(?:\s*/\s*\d+)?\W*$"
)
_TIE = r"(?i:(?:a )?tie)"
_SIDE = rf"(?:(?i:answer|response)\s+)?({_TIE}|[ABC])\b"
_VERDICT = (
    rf"(?i:verdict)[^\w]{{0,10}}(?:(?i:is)[^\w]{{1,10}})?{_SIDE}|\[\[([ABC])\]\]|^\W*{_SIDE}\W*$"
)
_SIDES = {"a": 1.0, "b": 0.0, "c": 0.5, "tie": 0.5, "a tie": 0.5}
_LARGEST_EXPONENT = 700.0
"""A little more is beyond a float."""
_THOUGHT = "</think>"


def yes_probability(answer: Answer) -> float | Drop:
    """Return P(first word) / (P(first word) + P(second word))."""
    lead = _lead(answer)
    if isinstance(lead, Drop):
        return lead
    return 1.0 / (1.0 + math.exp(-lead)) if lead > -_LARGEST_EXPONENT else 0.0


def word_verdict(answer: Answer) -> float | Drop:
    """Return 1 where the first word is the likelier, 0 where the second is, 0.5 where neither."""
    lead = _lead(answer)
    return lead if isinstance(lead, Drop) else (0.5 if lead == 0 else float(lead > 0))


def _lead(answer: Answer) -> float | Drop:
    """Return by how many nats the first word is the likelier."""
    first, second = answer.logprobs or (math.nan, math.nan)
    lead = first - second
    if math.isnan(lead):
        return Drop("non_finite_score", f"the two words' log-probabilities are {first}, {second}")
    return lead


def rubric_score(answer: Answer, pattern: str | None, bounds: tuple[float, float]) -> float | Drop:
    """Return the number that an answer ends with; a drop (`judge_unparseable`) keeps the text."""
    found = _last_match(answer.text, pattern or _SCORE)
    try:
        score = float(found or "")
    except ValueError:
        return _unparseable(answer, "no score")
    if not bounds[0] <= score <= bounds[1]:
        return _unparseable(answer, f"a score of {score:g}, not {bounds[0]:g} to {bounds[1]:g},")
    return score


def text_verdict(answer: Answer, pattern: str | None) -> float | Drop:
    """Return 1 where an answer prefers the first, 0 for the second, 0.5 for neither.

    What the pattern finds must be A, B, C or tie (the last two are the same), in any case.
    """
    found = _last_match(answer.text, pattern or _VERDICT)
    side = _SIDES.get(" ".join((found or "").split()).casefold())
    return _unparseable(answer, "no verdict") if side is None else side


def _last_match(text: str, pattern: str) -> str | None:
    """Return what the last match captured, all of it where there are no groups."""
    found = list(re.finditer(pattern, _said(text)))
    if not found:
        return None
    groups = [group for group in found[-1].groups() if group is not None]
    return groups[0] if groups else found[-1][0]


def _said(text: str) -> str:
    """Return what was said after thinking; nothing where the thinking never ended."""
    said = text.rpartition(_THOUGHT)[2]
    return "" if said.lstrip().startswith("<think>") else said.strip()


def _unparseable(answer: Answer, what: str) -> Drop:
    shown = answer.text.strip()[:_MAX_CHARS_KEPT]
    return Drop("judge_unparseable", f"{what} in the judge's answer: {shown!r}")
