"""The seams of `bon`: what generators, scorers and the work of a stage must be able to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from bon.records import CandidateGroup, GenerationRequest, GenerationResult, Rescored, Scores

__all__ = [
    "Engine",
    "Event",
    "Generator",
    "PartDone",
    "PartWork",
    "Progress",
    "Ready",
    "Scorer",
    "Verified",
]


class Resource(Protocol):
    """Loads its model when entered and frees its accelerator memory when left."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Generator(Resource, Protocol):
    """Samples candidates."""

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """Pull requests lazily, keep the engine full, yield each prompt as it finishes."""
        ...


class Scorer(Resource, Protocol):
    """Gives every candidate one float, higher is better."""

    @property
    def num_tokens_computed(self) -> int:
        """Tokens computed since the scorer was entered, padding included; 0 where it reads none."""
        ...

    @property
    def halved_batch_tokens(self) -> int | None:
        """Most tokens of a batch since memory ran out; none where it has not."""
        ...

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score part-sized or larger work; results are in the order of `groups`."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded; work begins."""

    load_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What was computed since the last event; a scorer's is committed, a generator's not yet."""

    num_prompts: int = 0
    num_candidates: int = 0
    num_tokens: int = 0
    """Tokens given, or sampled."""
    num_tokens_computed: int = 0
    """Tokens that a scorer computed for them, padding included; 0 where nobody counts."""
    halved_batch_tokens: int | None = None
    """Most tokens of a batch since memory ran out; none where it has not."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Candidates of a part were scored again by the reference; nothing is committed."""

    part: int
    prompts: tuple[Rescored, ...]


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part is committed, or needs nothing more."""

    part: int


Event = Ready | Progress | Verified | PartDone


class PartWork(Protocol):
    """What an engine runs: picklable, loads its model in `run`, commits parts one by one."""

    def run(self, parts: Iterable[int]) -> Iterator[Event]:
        """Do the parts in any order; doing one twice is harmless."""
        ...


class Engine(Protocol):
    """Where work runs: this machine, or a cluster."""

    def run(self, work: PartWork, parts: Sequence[int]) -> Iterator[Event]:
        """Do all parts, whatever dies meanwhile, and yield events as they come."""
        ...
