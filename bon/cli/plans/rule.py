"""`-r rule:NAME`."""

from __future__ import annotations

from bon.cli.plans.kinds import ScorerKind
from bon.config import ScorerSettings
from bon.pipeline.run import ScoringPlan
from bon.scorers.rules import PREFIX, RuleScorer, find_rule

__all__ = ["RULE"]


def gives_verdicts(settings: ScorerSettings) -> bool:
    """All rules do."""
    return True


def check(settings: ScorerSettings) -> None:
    """Raise where there is no such rule, or what it needs is not installed."""
    find_rule(settings.spec.removeprefix(PREFIX))


def plan(settings: ScorerSettings) -> ScoringPlan:
    """Plan a rule."""
    scorer = RuleScorer(settings, find_rule(settings.spec.removeprefix(PREFIX)))
    return ScoringPlan(settings.name, scorer, scorer.fingerprint())


RULE = ScorerKind(
    prefix=PREFIX,
    noun="a rule",
    example="rule:math or rule:exact",
    reads=frozenset({"rule_answer_column", "rule_timeout_s"}),
    gives_verdicts=gives_verdicts,
    check=check,
    plan=plan,
)
