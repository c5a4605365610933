"""`rule:math`: the same value, whatever way it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

from bon.answers import is_correct, reference_answer
from bon.config import ScorerSettings
from bon.errors import EngineError
from bon.records import CandidateGroup, Drop
from bon.scorers.rules.limited import LimitedProcess
from bon.scorers.rules.options import NoOptions, read_options
from bon.scorers.rules.references import compared

__all__ = ["MathRule", "as_latex"]

_BOXED = "\\boxed{"
"""What an answer begins with that is nothing but the answer."""

_MAX_CHARS = 16_000
"""Of a longer text its end is searched, where the answer stands; a longer formula is none."""
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
"""A number as `reference_answer` spells it."""
# each of these reads a text of any length in one pass
_PERCENT_SIGN = re.compile(r"\\?%")
_PERCENT = re.compile(r" {1,2}percent\b")
_UNIT = re.compile(
    r"(-?[0-9][0-9,]*(?:\.[0-9]+)?)\s+"
    r"(?:[A-Za-z]{3}[A-Za-z /.]*|mm|cm|dm|km|in|ft|yd|mi)(?:\^[23]|\^\{[23]\}|[²³])?\.?"
)
_MIXED = re.compile(r"(-?[0-9]+)\s+([0-9]+)/([0-9]+)")
_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_DELIMITERS = re.compile(r"\$\$(.+)\$\$|\$(.+)\$|\\\((.+)\\\)|\\\[(.+)\\\]", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{3,}|[^\W\d_A-Za-z]{2,}")
_NO_WORDS = frozenset(
    {"and", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh"}
    | {"tanh", "log", "exp", "lim", "max", "min", "sqrt", "mod", "gcd", "lcm", "det"}
)


class MathRule:
    r"""Right is a final answer whose value math-verify finds equal to the reference's.

    The final answer is what a response marks as such (`####`, `\boxed{}`, a last line `A:` or
    `Answer:`), and where it marks none, what math-verify finds in its text. Two plain numbers are
    compared exactly and here; all else (fractions, LaTeX, sets, intervals, percentages, units) in
    a process of its own with a limit on its computing time.
    """

    version: ClassVar[int | None] = 2
    settings_read: ClassVar[frozenset[str]] = frozenset({"answer_column", "rule_timeout_s"})
    reads_candidates: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = True

    def __init__(self, settings: ScorerSettings) -> None:
        """A rule without options."""
        read_options(NoOptions, settings)
        self._column = settings.answer_column
        self._verify = LimitedProcess("math_work.py", None, settings.rule_timeout_s, "rule:math")
        self._reference = ""
        self._known: dict[str, bool | Drop] = {}

    def __enter__(self) -> MathRule:
        self.check()
        self._verify.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._verify.stop()

    @classmethod
    def check(cls) -> None:
        """Raise where math-verify is not installed.

        Raises:
            EngineError: it is not.
        """
        if find_spec("math_verify") is None:
            raise EngineError(
                "rule:math needs math-verify, which is not installed",
                next_step="pip install 'bon-cli[curation]', or take rule:exact",
            )

    def fingerprint(self) -> dict[str, Any]:
        """It has no options."""
        return {}

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return 1.0 for what is right, 0.0 for what is wrong."""
        return compared(groups, self._column, self.reference, self.verdict)

    def reference(self, value: Any) -> str | None:
        """Return the right answer that an answer column's value holds, none where none."""
        return _final_answer(value)

    def verdict(self, response: str, reference: str) -> bool | Drop:
        """Tell whether a response gives the right answer.

        A drop is `rule_timeout` or `rule_crashed`.
        """
        answer = _final_answer(response) or ""
        if _NUMBER.fullmatch(reference) and _NUMBER.fullmatch(answer):
            return answer == reference
        if answer.casefold() == reference.casefold():
            return True
        if _is_text(reference):
            # LaTeX takes a word for a product of letters, in which "listen" is "silent"
            return is_correct(_plain(answer), _plain(reference))
        verdict = self._compare(as_latex(reference), as_latex(answer))
        if verdict is False and answer == _spelled(response).strip():
            return self._compare(as_latex(reference), answer)  # no formula: search in it
        return verdict

    def _compare(self, reference: str, answer: str) -> bool | Drop:
        if len(answer) > _MAX_CHARS and answer.startswith(_BOXED):
            return False
        if reference != self._reference:
            self._reference, self._known = reference, {}
        if answer not in self._known:
            verdict: bool | Drop = self._verify.ask([reference, answer[-_MAX_CHARS:]])
            if isinstance(verdict, Drop) and verdict.reason == "rule_crashed":
                return verdict  # what killed it may have come from outside: not for the next one
            self._known[answer] = verdict
        return self._known[answer]


def as_latex(answer: str) -> str:
    r"""Return a final answer as math-verify reads it: LaTeX in `\boxed{}`.

    A sentence, and what has math delimiters inside, comes back unchanged: math-verify then looks
    for the answer in it.
    """
    answer = answer.strip()
    whole = _DELIMITERS.fullmatch(answer)
    inner = next(filter(None, whole.groups())).strip() if whole else answer
    if "$" in inner.replace("\\$", "") or "\\(" in inner or "\\[" in inner:
        return _PERCENT.sub(r"\\%", answer)
    inner = _PERCENT.sub(r"\\%", inner)
    inner = _UNIT.sub(r"\1", inner) if _UNIT.fullmatch(inner) else inner
    inner = _MIXED.sub(r"\1\\frac{\2}{\3}", inner) if _MIXED.fullmatch(inner) else inner
    inner = _PI.sub(r"\\pi ", inner.replace("°", r"^\circ").replace("**", "^"))
    return answer if _has_words(inner) else f"{_BOXED}{inner}}}"


def _final_answer(value: Any) -> str | None:
    """Return the marked answer, or all of it."""
    return reference_answer(_spelled(value) if isinstance(value, str) else value)


def _spelled(text: str) -> str:
    """Spell percent signs out: `reference_answer` would drop them."""
    return _PERCENT_SIGN.sub(" percent", text)


def _is_text(reference: str) -> bool:
    """Words without a number or a formula: nothing to compute with."""
    plain = _plain(reference)
    return _has_words(plain) and not re.search(r"[0-9\\^=<>]", plain)


def _has_words(text: str) -> bool:
    letters = _COMMAND.sub(" ", _TEXT.sub(" ", text))
    return any(word.lower() not in _NO_WORDS for word in _WORD.findall(letters))


def _plain(text: str) -> str:
    r"""Take text out of `\text{}` and math delimiters."""
    return _TEXT.sub(r"\1", text).strip().strip("$").strip()
