"""What a run is to make of its input: prompts or responses read, candidates sampled, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from bon.protocols import Generator, Needs, Scorer
from bon.records import Drop, GivenResponses, Prompt

__all__ = [
    "GenerationPlan",
    "GivenPlan",
    "GivenSource",
    "InputPlan",
    "PromptSource",
    "PromptsPlan",
    "ScoringPlan",
]

_HERE = ("vllm", "transformers")
Source = TypeVar("Source")


class PromptSource(Protocol):
    """What the pipeline needs of a reader."""

    def __iter__(self) -> Iterator[Prompt | Drop]:
        """Start again from the first row."""
        ...

    def describe(self) -> str:
        """Say how the rows are read, once they have been."""
        ...


class GivenSource(Protocol):
    """What the pipeline needs of a reader of responses."""

    def __iter__(self) -> Iterator[GivenResponses | Drop]:
        """Start again from the first row."""
        ...

    @property
    def kind(self) -> str | None:
        """What a row is, responses or pairs, once a good one has been read."""
        ...

    @property
    def is_scattered(self) -> bool:
        """Whether rows so far answer a prompt of rows before, with others between them."""
        ...

    def gather(self, beside: Path) -> None:
        """From the next reading on, make one prompt of all rows that answer it."""
        ...

    def describe(self) -> str:
        """Say how the rows are read, once they have been."""
        ...


@dataclass(frozen=True, slots=True)
class InputPlan(Generic[Source]):
    """An input, and how it becomes part of a pool."""

    name: str
    rows: Source
    fingerprint: dict[str, Any]
    """What decides how rows are read."""
    digest: str | None
    """Hash of the input's bytes, none where it has no files."""
    limit: int | None
    part_size: int | None


@dataclass(frozen=True, slots=True)
class PromptsPlan(InputPlan[PromptSource]):
    """An input of prompts."""


@dataclass(frozen=True, slots=True)
class GivenPlan(InputPlan[GivenSource]):
    """An input with responses; grouping belongs to its fingerprint."""


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """The sampling of a run."""

    generator: Generator
    fingerprint: dict[str, Any]
    num_candidates: int
    seed: int
    engine: str | None = None
    """What runs the generator: vllm, transformers or server."""
    engine_why: str | None = None
    """Why it does, for people."""

    @property
    def needs(self) -> Needs:
        """What its workers need: a server has its model elsewhere."""
        has_model = self.engine in _HERE
        return Needs(has_model, None if has_model else 0)


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """One scorer of a run."""

    name: str
    scorer: Scorer
    fingerprint: dict[str, Any]
    reference: Scorer | None = None
    """The same model by a plain forward pass of one conversation at a time; rules have none."""
    engine: str | None = None
    """What runs a reward model: transformers or vllm."""
    engine_why: str | None = None
    """Why it does, for people."""
    typed: dict[str, Any] = field(default_factory=dict)
    """Settings that older pools hold as they were typed, not as they were understood."""
    reads_candidates: bool = False
    """Its groups carry all that the pool knows of their candidates, token ids among it."""
    check_sampling: Callable[[Mapping[str, Any]], None] | None = None
    """Raises where candidates that were sampled with these settings cannot be scored."""
    num_gpus: int = 1
    """GPUs that its model, if it has one, is spread over."""

    @property
    def needs(self) -> Needs:
        """What its workers need: rules have no model, servers their own."""
        has_model = self.engine in _HERE
        return Needs(has_model, self.num_gpus if has_model else 0)
