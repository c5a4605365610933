"""`-r rule:NAME` and `-r rule:FILE.py:FUNCTION`."""

from __future__ import annotations

from bon.cli.plans.kinds import ScorerKind
from bon.config import ScorerSettings
from bon.pipeline.run import ScoringPlan
from bon.scorers.rules import PREFIX, RuleScorer, make_rule

__all__ = ["RULE"]


def gives_verdicts(settings: ScorerSettings) -> bool:
    """Ask the rule."""
    return make_rule(settings).is_verdict


def check(settings: ScorerSettings) -> None:
    """Raise where there is no such rule, what it needs is not installed, or an option is wrong."""
    make_rule(settings)


def plan(settings: ScorerSettings) -> ScoringPlan:
    """Plan a rule."""
    rule = make_rule(settings)
    scorer = RuleScorer(settings, rule)
    return ScoringPlan(
        settings.name, scorer, scorer.fingerprint(), reads_candidates=rule.reads_candidates
    )


RULE = ScorerKind(
    prefix=PREFIX,
    noun="a rule",
    example="rule:math or rule:exact",
    reads=frozenset({"rule_answer_column", "rule_timeout_s"}),
    gives_verdicts=gives_verdicts,
    check=check,
    plan=plan,
)
