"""What a rule is, and the scorer that applies one to candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from bon.config import ScorerSettings
from bon.records import CandidateGroup, Drop, Scores

__all__ = ["PREFIX", "Rule", "RuleScorer"]

PREFIX = "rule:"
"""What the spec of a rule begins with."""
_DEFAULT_COLUMN = ScorerSettings.model_fields["answer_column"].default
_FALLBACK_COLUMN = "ground_truth"


class Rule(Protocol):
    """Tells right responses from wrong ones; entered once per worker."""

    version: ClassVar[int]
    """Goes up when a verdict changes: a pool that another version has scored is not resumed."""
    settings_read: ClassVar[frozenset[str]]
    """Scorer settings that decide its verdicts, besides the answer column."""

    def __init__(self, settings: ScorerSettings) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def check(cls) -> None:
        """Raise where something that the rule needs is not installed."""
        ...

    def reference(self, value: Any) -> str | None:
        """Return the right answer that an answer column's value holds, none where none."""
        ...

    def verdict(self, response: str, reference: str) -> bool | Drop:
        """Tell whether a response gives the right answer, or why that cannot be told."""
        ...


@dataclass
class RuleScorer:
    """`Scorer` that gives 1.0 to a right response and 0.0 to a wrong one."""

    settings: ScorerSettings
    rule: type[Rule]
    num_tokens_computed: int = 0
    """A rule reads text."""
    halved_batch_tokens: int | None = None

    def __enter__(self) -> RuleScorer:
        self._rule = self.rule(self.settings).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._rule.__exit__(*error)

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the scores; what only reward models read is not in it."""
        fields = {"name", "spec", "answer_column"} | self.rule.settings_read
        return self.settings.model_dump(mode="json", include=fields) | {
            "rule_version": self.rule.version
        }

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Judge every response of every group; a failed one is none, with its reason."""
        return [self._score(group) for group in groups]

    def _score(self, group: CandidateGroup) -> Scores:
        reference = self._reference(group)
        verdicts: list[bool | Drop]
        if reference is None:
            why = f"its column {self.settings.answer_column!r} is missing or holds no answer"
            verdicts = [Drop("no_reference", why)] * len(group.responses)
        else:
            verdicts = [self._rule.verdict(response, reference) for response in group.responses]
        return Scores(
            group.prompt_id,
            tuple(None if isinstance(one, Drop) else float(one) for one in verdicts),
            (0,) * len(verdicts),
            (False,) * len(verdicts),
            {number: one for number, one in enumerate(verdicts) if isinstance(one, Drop)},
        )

    def _reference(self, group: CandidateGroup) -> str | None:
        column = self.settings.answer_column
        reference = self._rule.reference(group.extra.get(column))
        if reference is None and column == _DEFAULT_COLUMN:
            return self._rule.reference(group.extra.get(_FALLBACK_COLUMN))
        return reference
