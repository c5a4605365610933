"""`rule:exact`: the same number or the same text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bon.answers import extract_answer, is_correct, reference_answer
from bon.config import ScorerSettings
from bon.records import CandidateGroup, Drop
from bon.scorers.rules.options import NoOptions, read_options
from bon.scorers.rules.references import compared

__all__ = ["ExactRule", "same_answer"]


class ExactRule:
    r"""Right is a final answer that is the same number or text as the reference.

    The final answer is what a response marks as such (`####`, `\boxed{}`, a last line `A:` or
    `Answer:`), and where it marks none, its last number or all of its text. Numbers are compared
    in canonical spelling, text without regard to case, white space and trailing punctuation.
    """

    version: ClassVar[int | None] = 2
    settings_read: ClassVar[frozenset[str]] = frozenset({"answer_column"})
    reads_candidates: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = True

    def __init__(self, settings: ScorerSettings) -> None:
        """A rule without options."""
        read_options(NoOptions, settings)
        self._column = settings.answer_column

    def __enter__(self) -> ExactRule:
        return self

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def check(cls) -> None:
        """It needs nothing."""

    def fingerprint(self) -> dict[str, Any]:
        """It has no options."""
        return {}

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return 1.0 for what is right, 0.0 for what is wrong."""
        return compared(groups, self._column, self.reference, self.verdict)

    def reference(self, value: Any) -> str | None:
        """Return the right answer that an answer column's value holds, none where none."""
        return reference_answer(value)

    def verdict(self, response: str, reference: str) -> bool:
        """Tell whether a response gives the right answer."""
        return same_answer(response, reference)


def same_answer(response: str, reference: str) -> bool:
    """Tell whether a response's final answer is the same number or text as the reference."""
    if extract_answer(reference) == reference:
        # a number counts where the response marks its answer, not in what follows the mark
        return is_correct(reference_answer(response) or "", reference)
    return is_correct(response, reference)
