"""Rules: what can be told of a response by its text, a right answer, or the user's own function."""

from bon.config import ScorerSettings
from bon.errors import UnknownChoiceError, did_you_mean
from bon.scorers.rules.exact import ExactRule
from bon.scorers.rules.format import FormatRule
from bon.scorers.rules.function import FunctionRule
from bon.scorers.rules.json import JsonRule
from bon.scorers.rules.length import LengthRule
from bon.scorers.rules.math import MathRule
from bon.scorers.rules.regex import RegexRule
from bon.scorers.rules.repetition import RepetitionRule
from bon.scorers.rules.scorer import PREFIX, Rule, RuleScorer
from bon.scorers.rules.user_file import names_file

__all__ = ["PREFIX", "RULES", "Rule", "RuleScorer", "find_rule", "make_rule"]

RULES: dict[str, type[Rule]] = {
    "exact": ExactRule,
    "math": MathRule,
    "regex": RegexRule,
    "length": LengthRule,
    "repetition": RepetitionRule,
    "format": FormatRule,
    "json": JsonRule,
}
"""What may follow `rule:`, besides a file and a function in it."""


def make_rule(settings: ScorerSettings) -> Rule:
    """Return the rule that a scorer's settings say, with its options.

    Raises:
        UnknownChoiceError: there is none.
        SettingsError: an option, or the user's file, cannot be used.
        EngineError: a package that it needs is not installed.
    """
    said = settings.spec.removeprefix(PREFIX)
    return FunctionRule(settings) if names_file(said) else find_rule(said)(settings)


def find_rule(name: str) -> type[Rule]:
    """Return the rule of this name.

    Raises:
        UnknownChoiceError: there is none.
        EngineError: a package that it needs is not installed.
    """
    if name not in RULES:
        raise UnknownChoiceError(
            f"there is no rule {name!r}",
            why=f"there are {', '.join(RULES)}, and FILE.py:FUNCTION for your own",
            next_step=did_you_mean(name, RULES),
        )
    rule = RULES[name]
    rule.check()
    return rule
