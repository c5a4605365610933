"""The seams of `bon`: what generators, scorers and the work of a stage must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

from bon.records import CandidateGroup, Drop, GenerationRequest, GenerationResult, Rescored, Scores

__all__ = [
    "AsksAgain",
    "Engine",
    "Event",
    "Generator",
    "KnowsDone",
    "KnowsOthers",
    "Mapper",
    "Note",
    "PartByPart",
    "PartDone",
    "PartWork",
    "Parts",
    "Progress",
    "Ready",
    "Restarted",
    "Scope",
    "Scorer",
    "Stage",
    "Verified",
    "retries_of",
]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Resource(Protocol):
    """Loads its model when entered and frees its accelerator memory when left."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class AsksAgain(Protocol):
    """A generator or scorer that asks a server, again where it has to."""

    @property
    def retries(self) -> Mapping[str, int]:
        """How often was asked again since it was entered, by cause: `429`, `timeout`, …"""
        ...


def retries_of(resource: Resource) -> dict[str, int]:
    """Return how often a generator or scorer asked again so far; one that asks nobody, never."""
    return dict(resource.retries) if isinstance(resource, AsksAgain) else {}


class Generator(Resource, Protocol):
    """Samples candidates."""

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """Pull requests lazily, keep the engine full, yield each prompt as it finishes."""
        ...


@runtime_checkable
class PartByPart(Protocol):
    """A generator whose last bits follow what is computed together.

    It is given one part at a time, so a part that is done again, or by another worker, has the same
    bits.
    """

    @property
    def is_part_by_part(self) -> Literal[True]:
        """Always true."""
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
    retries: Mapping[str, int] = field(default_factory=dict)
    """How often a server was asked again, by cause."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Candidates of a part were scored again by the reference; nothing is committed."""

    part: int
    prompts: tuple[Rescored, ...]


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part is committed, or needs nothing more."""

    part: int
    drops: Mapping[str, int] = field(default_factory=dict)
    """What was dropped while it was made, by reason."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """A worker was lost, and another one goes on with what it has not committed."""

    cause: str
    """How it was lost: `killed by SIGKILL`, `no sign of progress for 600 s`, …"""
    doing: str
    """What is done about it."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a person should know of where the work runs."""

    text: str


Event = Ready | Progress | Verified | PartDone | Restarted | Note


@dataclass(frozen=True, slots=True)
class Scope:
    """Which prompts of its parts a work computes: all of them, as a rule."""

    only: frozenset[str] | None = None
    """Ids of the prompts that are tried; then nothing is committed."""
    dropped: Mapping[str, Drop] = field(default_factory=dict)
    """By id, why a prompt is not computed: given to a model, it ended the worker."""

    def takes(self, prompt_id: str) -> bool:
        """Tell whether a prompt is tried, or all are."""
        return self.only is None or prompt_id in self.only


Parts: TypeAlias = Iterable[int | None]
"""Numbers of parts, in the order in which they are to be done. A source that several workers share
gives each the next one when it asks; none: there is nothing for now, and more may come."""


class PartWork(Protocol):
    """What an engine runs: picklable, loads its model in `run`, commits parts one by one."""

    @property
    def scope(self) -> Scope:
        """The prompts that it computes."""
        ...

    def within(self, scope: Scope) -> Self:
        """Return the same work for other prompts."""
        ...

    def prompt_ids(self, part: int) -> list[str]:
        """List the prompts of a part that `run` would compute."""
        ...

    def run(self, parts: Parts) -> Iterator[Event]:
        """Do the parts in any order; doing one twice is harmless.

        What was begun is done before a source that has nothing for now is asked again.
        """
        ...


@runtime_checkable
class KnowsDone(Protocol):
    """A work that can tell what is committed already, by whomever."""

    def done(self, part: int) -> PartDone | None:
        """Return how a part was done; none where it still has to be."""
        ...


@runtime_checkable
class KnowsOthers(Protocol):
    """A work that knows more prompts than those that one worker has to do."""

    def others(self, part: int) -> Iterator[tuple[int, str]]:
        """Yield prompts of other parts, each with its part, that may be tried though they are done
        already."""
        ...


@dataclass(frozen=True, slots=True)
class Needs:
    """What each worker of a stage needs."""

    has_model: bool = True
    """It computes with a model where it runs, so it needs a share of the machine of its own."""
    most_gpus: int | None = None
    """GPUs that it can use; none: all that it is given."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One of several works that run side by side, each a step behind the one before."""

    work: PartWork
    parts: Sequence[int]
    """What it has to do."""
    needs: Needs = Needs()


class Engine(Protocol):
    """Where work runs: this machine, or a cluster."""

    def run(self, work: PartWork, parts: Parts, needs: Needs = Needs()) -> Iterator[Event]:
        """Do all parts, whatever dies meanwhile, and yield events as they come."""
        ...

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        """Do several works side by side; yield events, each with its stage's number.

        A part enters a stage once it is done in all stages before that have it to do.
        """
        ...

    def why_in_turn(self, needs: Sequence[Needs]) -> str | None:
        """Say why stages with such needs cannot run side by side; none: they can."""
        ...

    def close(self) -> None:
        """Let go of what it holds from one run to the next."""
        ...


class Mapper(Protocol):
    """Where curation computes: several processes of this machine, or a cluster."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results in the order of the items; takes only few items ahead of them.

        Function, items and results can be pickled, and the function changes nothing. What it raises
        for an item is raised here in that item's turn.
        """
        ...
