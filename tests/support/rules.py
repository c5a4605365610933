"""Rules applied to texts, as `-r` says them."""

from __future__ import annotations

from typing import Any

from bon.config import ScorerSettings
from bon.config.scorer_spec import parse_scorer_spec
from bon.records import CandidateGroup
from bon.scorers.rules import Rule, RuleScorer, make_rule

__all__ = ["ASK", "fingerprint", "rewards", "rule_of", "scorer_of"]

ASK = ({"role": "user", "content": "1 + 2?"},)


def rule_of(spec: str, **fields: Any) -> Rule:
    """Return the rule of a spec with its options, not entered."""
    return scorer_of(spec, **fields).rule


def scorer_of(spec: str, **fields: Any) -> RuleScorer:
    """Return the scorer of a spec with its options."""
    said = parse_scorer_spec(spec, kinds=("rule:",))
    settings = ScorerSettings(name="r", spec=said.spec, options=said.options, **fields)
    return RuleScorer(settings, make_rule(settings))


def fingerprint(spec: str, **fields: Any) -> dict[str, Any]:
    """Return what decides the scores of a spec."""
    return scorer_of(spec, **fields).fingerprint()


def rewards(spec: str, *responses: str, extra: dict[str, Any] | None = None) -> list[Any]:
    """Return each response's reward, or the reason for none."""
    with scorer_of(spec) as scorer:
        (scores,) = scorer.score([CandidateGroup("p", ASK, responses, extra or {})])
    return [
        one if one is not None else scores.reasons[number].reason
        for number, one in enumerate(scores.scores)
    ]
