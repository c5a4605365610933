"""What a judge's answer says: a probability, a number, or which of two is better."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from bon.records import Drop
from bon.scorers.judge.model import Answer

__all__ = ["Find", "rubric_score", "text_verdict", "word_verdict", "yes_probability"]

Find = Callable[[str], "str | Drop | None"]
"""A person's own way to find the verdict in what a judge said; a drop where it took too long."""
_MAX_CHARS_KEPT = 200
_NOT_READ = r"(?:\s*\([^()\n]{0,60}\)|\s*\[[^\[\]\n]{2,60}\])?[\s:*_=`\[-]{0,10}?"
"""Between a word and its value: a remark such as (1-10), then signs that say nothing."""
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_NO_SCALE = r"(?!\d|\.\d|\s*=|\s*(?:-|–|to)\s*\d)"
"""What does not follow a score: 1-10 and `1 = useless` tell of the scale."""
_SCORE = rf"(?<![a-zA-Z])(?i:score)(?:\s+(?i:is|of))?{_NOT_READ}{_NUMBER}{_NO_SCALE}"
_SCORE_LINE = rf"(?m:^)[ \t>*_#`-]*(?:(?i:the|my|final|overall|total)\s+){{0,2}}{_SCORE}"
_ONLY_SCORE = rf"^\W*?{_NUMBER}(?:\s*/\s*\d+)?\W*$"
_SCORES = (_SCORE_LINE, rf"{_SCORE}|{_ONLY_SCORE}")
"""The first that is found counts: a line of its own says more than a word in passing."""
_TIE = r"(?i:(?:a )?tie)\b"
_MORE = (
    r"[ \t]+(?!(?:is (?:\w+ )?(?:better|best)|wins|because|as|since|by|over|for|due|with)\b)[a-z]+"
    r"|\s*[/&=]\s*(?:(?i:answer|response)\s+)?[ABC]\b"
)
"""What makes of a side something else: A and B, A is worse, A close call."""
_SIDE = rf"(?:(?i:answer|response)\s+)?({_TIE}|[ABC]\b(?:{_MORE})?)"
_VERDICT = (
    rf"(?i:verdict)(?:\s+(?i:is))?{_NOT_READ}(?:(?i:is)[\s:*_=-]{{1,10}})?{_SIDE}"
    rf"|\[\[([ABC])\]\]|^\W*{_SIDE}\W*$"
)
_SIDES = {"a": 1.0, "b": 0.0, "c": 0.5, "tie": 0.5, "a tie": 0.5}
_LARGEST_EXPONENT = 700.0
"""A little more is beyond a float."""
_THOUGHT = "</think>"
_CUT = "cut at max_tokens, and so not read:"


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


def rubric_score(answer: Answer, find: Find | None, bounds: tuple[float, float]) -> float | Drop:
    """Return the number that an answer ends with; a drop (`judge_unparseable`) keeps the text.

    An answer that was cut says none: `Score: 1` may have been on its way to 10.
    """
    if answer.is_cut:
        return _unparseable(answer, _CUT)
    found = find(_said(answer.text)) if find else _last_match(_said(answer.text), _SCORES)
    if isinstance(found, Drop):
        return found
    try:
        score = float(found or "")
    except ValueError:
        return _unparseable(answer, "no score in")
    if not bounds[0] <= score <= bounds[1]:
        return _unparseable(answer, f"a score of {score:g}, not {bounds[0]:g} to {bounds[1]:g}, in")
    return score


def text_verdict(answer: Answer, find: Find | None) -> float | Drop:
    """Return 1 where an answer prefers the first, 0 for the second, 0.5 for neither.

    What is found must be A, B, C or tie (the last two are the same), in any case.
    """
    if answer.is_cut:
        return _unparseable(answer, _CUT)
    found = find(_said(answer.text)) if find else _last_match(_said(answer.text), (_VERDICT,))
    if isinstance(found, Drop):
        return found
    side = _SIDES.get(" ".join((found or "").split()).casefold())
    return _unparseable(answer, "no verdict in") if side is None else side


def _last_match(said: str, patterns: Sequence[str]) -> str | None:
    """Return what the last match of the first pattern that is found captured, all of it where there
    are no groups."""
    found = next((some for one in patterns if (some := list(re.finditer(one, said)))), None)
    if found is None:
        return None
    groups = [group for group in found[-1].groups() if group is not None]
    return groups[0] if groups else found[-1][0]


def _said(text: str) -> str:
    """Return what was said after thinking; nothing where the thinking never ended."""
    said = text.rpartition(_THOUGHT)[2]
    return "" if said.lstrip().startswith("<think>") else said.strip()


def _unparseable(answer: Answer, what: str) -> Drop:
    shown = answer.text.strip()[:_MAX_CHARS_KEPT]
    return Drop("judge_unparseable", f"{what} the judge's answer: {shown!r}")
