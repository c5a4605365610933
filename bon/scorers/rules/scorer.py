"""What a rule is, and the scorer that applies one to candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from bon.config import ScorerSettings
from bon.heartbeat import beating
from bon.records import CandidateGroup, Drop, Scores

__all__ = ["PREFIX", "Rule", "RuleScorer"]

PREFIX = "rule:"
"""What the spec of a rule begins with."""


class Rule(Protocol):
    """Gives every candidate a float, or says why it has none; entered once per worker.

    It is made where the command runs and sent to the worker, so until it is entered it can be
    pickled and holds no process and nothing heavy.
    """

    version: ClassVar[int | None]
    """Goes up when a reward changes: a pool that another version has scored is not resumed. None
    where the fingerprint has what decides the rewards; such scores are not thrown away with an
    input that changed, because nobody knows what they cost."""
    settings_read: ClassVar[frozenset[str]]
    """Scorer settings that decide its rewards, its options aside."""

    def __init__(self, settings: ScorerSettings) -> None:
        """Read the options.

        Raises:
            SettingsError: one that it does not have, or that cannot be.
            EngineError: a package that an option needs is not installed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def check(cls) -> None:
        """Raise where something that the rule always needs is not installed."""
        ...

    @property
    def is_verdict(self) -> bool:
        """Tell whether its rewards say yes (1) or no (0)."""
        ...

    @property
    def reads_candidates(self) -> bool:
        """Tell whether it asks for all that the pool knows of the candidates."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the rewards besides version and settings: its options, resolved."""
        ...

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return a float, or why there is none, for every response of every group."""
        ...


@dataclass
class RuleScorer:
    """`Scorer` that applies a rule."""

    settings: ScorerSettings
    rule: Rule
    num_tokens_computed: int = 0
    """A rule reads text."""
    halved_batch_tokens: int | None = None

    def __enter__(self) -> RuleScorer:
        self.rule.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.rule.__exit__(*error)

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the scores; what only reward models read is not in it."""
        fields = {"name", "spec"} | self.rule.settings_read
        said = self.settings.model_dump(mode="json", include=fields) | self.rule.fingerprint()
        if self.rule.version is not None:
            said["rule_version"] = self.rule.version
        # a rule's version alone says that it gives verdicts, as in pools of the first days
        if self.rule.is_verdict != (self.rule.version is not None):
            said["is_verdict"] = self.rule.is_verdict
        return said

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Apply the rule to every response of every group; what fails is none, with its reason."""
        with beating():  # what may take long has limits of its own; a user's function has none
            rewards = self.rule.rewards(groups)
        return [_scores(group, one) for group, one in zip(groups, rewards, strict=True)]


def _scores(group: CandidateGroup, rewards: Sequence[float | Drop]) -> Scores:
    return Scores(
        group.prompt_id,
        tuple(None if isinstance(one, Drop) else float(one) for one in rewards),
        (0,) * len(rewards),
        (False,) * len(rewards),
        {number: one for number, one in enumerate(rewards) if isinstance(one, Drop)},
    )
