"""Rules that tell right responses from wrong ones: 1.0, 0.0, or none with a reason."""

from bon.errors import UnknownChoiceError, did_you_mean
from bon.scorers.rules.exact import ExactRule
from bon.scorers.rules.math import MathRule
from bon.scorers.rules.scorer import PREFIX, Rule, RuleScorer

__all__ = ["PREFIX", "RULES", "Rule", "RuleScorer", "find_rule"]

RULES: dict[str, type[Rule]] = {"exact": ExactRule, "math": MathRule}
"""What may follow `rule:`."""


def find_rule(name: str) -> type[Rule]:
    """Return the rule of this name.

    Raises:
        UnknownChoiceError: there is none.
        EngineError: a package that it needs is not installed.
    """
    if name not in RULES:
        raise UnknownChoiceError(f"there is no rule {name!r}", next_step=did_you_mean(name, RULES))
    rule = RULES[name]
    rule.check()
    return rule
