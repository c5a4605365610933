"""What a kind of scorer is to the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from bon.config import ScorerSettings
from bon.pipeline.plans import ScoringPlan
from bon.pipeline.trust import Pickles

__all__ = ["ScorerKind", "pickles_of"]


@dataclass(frozen=True, slots=True)
class ScorerKind:
    """One kind of scorer: how its spec begins, what it reads, how it is planned."""

    prefix: str
    """What a spec of this kind begins with; nothing for reward models."""
    noun: str
    """What it is called in messages, with its article."""
    reads: Mapping[str, str]
    """Fields of `ScoreSettings`, besides `reward`, that this kind has a use for, each with what to
    give to -r for a scorer that reads it."""
    reads_of: Callable[[ScorerSettings], Collection[str]]
    """Return those of them that this scorer has a use for."""
    gives_verdicts: Callable[[ScorerSettings], bool]
    """Tell whether its scores say right (1) or wrong (0)."""
    check: Callable[[ScorerSettings], None]
    """Raise, before any work and without loading anything, where its settings cannot be."""
    plan: Callable[[ScorerSettings], ScoringPlan]
    """Find all that it needs and join the classes; loads no model."""


def pickles_of(settings: ScorerSettings) -> Pickles:
    """Return whether the weights of a scorer's model may be pickles."""
    return Pickles(settings.allow_pickle, "--reward-allow-pickle")
