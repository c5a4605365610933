"""`-r rule:NAME` and `-r rule:FILE.py:FUNCTION`."""

from __future__ import annotations

from bon.cli.plans.kinds import ScorerKind
from bon.config import ScorerSettings
from bon.pipeline.plans import ScoringPlan
from bon.scorers.rules import PREFIX, RULES, RuleScorer, make_rule

__all__ = ["RULE"]

_FIELDS = {"rule_answer_column": "answer_column", "rule_timeout_s": "rule_timeout_s"}
"""Fields of `ScoreSettings` for rules, and what they are to one scorer."""


def reads_of(settings: ScorerSettings) -> set[str]:
    """Ask the rule."""
    read = make_rule(settings).settings_read
    return {name for name, field in _FIELDS.items() if field in read}


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


def _readers(field: str) -> str:
    """List the rules that read a field of `ScorerSettings`."""
    *most, last = [f"{PREFIX}{name}" for name, rule in RULES.items() if field in rule.settings_read]
    return f"{', '.join(most)} or {last}"


RULE = ScorerKind(
    prefix=PREFIX,
    noun="a rule",
    reads={name: _readers(field) for name, field in _FIELDS.items()},
    reads_of=reads_of,
    gives_verdicts=gives_verdicts,
    check=check,
    plan=plan,
)
