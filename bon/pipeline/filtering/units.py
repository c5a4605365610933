"""Every row of a filter run by number: whether it is alive, and what dropped it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.errors import InputError, SettingsError
from bon.pipeline.conversations import as_array
from bon.pipeline.filtering.prompt_numbers import PromptNumbers
from bon.pipeline.filtering.texts import user_turns
from bon.pipeline.frames import Frame

__all__ = [
    "GlobalStep",
    "Kind",
    "Needs",
    "RowStep",
    "TakesNotes",
    "Units",
    "Verdict",
    "View",
    "curation_missing",
    "either_fails",
    "living",
    "union",
    "units_in",
]

Kind = Literal["candidates", "pairs"]


class Verdict(NamedTuple):
    """What a filter says of some units, in their order."""

    passes_U: NDArray[np.bool_]
    value_U: NDArray[np.float64]
    """The number that decided, for the detail."""
    code_U: NDArray[np.uint8] | None = None
    """Which of the filter's rules decided; none is 0."""
    flips_U: NDArray[np.bool_] | None = None
    """Pairs whose chosen and rejected change places."""
    notes: tuple[Any, ...] = ()
    """What a filter has to say beyond a number; then values of units that fail are places in it."""


class Needs(NamedTuple):
    """What a filter reads."""

    prompt_columns: tuple[str, ...] = ()
    candidate_columns: tuple[str, ...] = ()
    scorers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class View:
    """The units of one frame that are still alive: candidates, or pairs of them."""

    frame: Frame
    kind: Kind
    unit_U: NDArray[np.int64]
    """Position of each living unit within the frame."""
    flip_U: NDArray[np.bool_]
    """Pairs whose chosen response is candidate 1."""

    def __len__(self) -> int:
        return len(self.unit_U)

    @cached_property
    def prompt_U(self) -> NDArray[np.int64]:
        """The prompt of each unit, by position within the frame."""
        return self.unit_U if self.kind == "pairs" else self.frame.prompt_C[self.unit_U]

    @cached_property
    def row_U(self) -> NDArray[np.int64]:
        """The input row of each unit's prompt."""
        row_P: NDArray[np.int64] = self.frame.prompts.column("row").to_numpy()
        return row_P[self.prompt_U]

    @cached_property
    def sides(self) -> tuple[NDArray[np.int64], ...]:
        """Positions of the units' candidates: one array, or chosen and rejected."""
        if self.kind == "candidates":
            return (self.unit_U,)
        first = self.frame.start_P[self.unit_U]
        return first + self.flip_U, first + ~self.flip_U

    def responses(self, column: str = "response") -> list[pa.Array]:
        """Return a column of the candidates, an array for each of `sides`."""
        values = as_array(self.frame.candidates.column(column))
        return [self._taken(values, side) for side in self.sides]

    def _taken(self, values: pa.Array, positions: NDArray[np.int64]) -> pa.Array:
        everything = self.kind == "candidates" and len(positions) == len(values)
        return values if everything else values.take(pa.array(positions))

    def prompt_column(self, column: str) -> pa.Array:
        """Return a column of the prompts, repeated for the units."""
        return as_array(self.frame.prompts.column(column)).take(pa.array(self.prompt_U))

    @cached_property
    def prompt_texts_P(self) -> pa.Array:
        """The user's turns of each prompt of the frame."""
        return user_turns(as_array(self.frame.prompts.column("prompt")))

    def texts(self, on: str) -> list[pa.Array]:
        """Return the texts of `response` (one or both) or of `prompt`, unit for unit."""
        if on == "prompt":
            return [self.prompt_texts_P.take(pa.array(self.prompt_U))]
        return self.responses()

    def scores(self, scorer: str) -> list[NDArray[np.floating]]:
        """Return a scorer's scores, an array for each of `sides`."""
        return [self.frame.scores[scorer][side] for side in self.sides]

    def rank(self, scorer: str | None) -> NDArray[np.floating]:
        """Return what ranks units: a candidate's score, a pair's margin; NaN without a scorer."""
        if scorer is None:
            return np.full(len(self), np.nan, np.float32)
        scores = self.scores(scorer)
        return scores[0] if len(scores) == 1 else scores[0] - scores[1]

    def narrowed(self, verdict: Verdict) -> View:
        """Return the view of those that pass."""
        flip_U = self.flip_U if verdict.flips_U is None else self.flip_U ^ verdict.flips_U
        passes_U = verdict.passes_U
        if passes_U.all() and verdict.flips_U is None:
            return self
        return View(self.frame, self.kind, self.unit_U[passes_U], flip_U[passes_U])


def living(frame: Frame, kind: Kind, alive_U: NDArray[np.bool_], flip_U: NDArray[np.bool_]) -> View:
    """Return the living units of a frame; the arrays are of all its units.

    Raises:
        InputError: pairs are asked for, and a prompt has not two candidates.
    """
    if kind == "pairs" and (frame.count_P != 2).any():
        raise _no_pairs(frame)
    unit_U = np.flatnonzero(alive_U)
    return View(frame, kind, unit_U, flip_U[unit_U])


class RowStep(Protocol):
    """A filter, or part of one, that needs to see only one frame at a time; can be pickled."""

    needs: Needs

    def judge(self, view: View) -> Verdict:
        """Say which of the units of a view pass; changes nothing, and may run anywhere."""
        ...

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say in one sentence why a unit was dropped."""
        ...


@runtime_checkable
class TakesNotes(Protocol):
    """A step whose verdicts have notes."""

    def noted(self, verdict: Verdict) -> Verdict:
        """Keep a verdict's notes; return it with their places among all."""
        ...


class GlobalStep(Protocol):
    """A filter, or part of one, that sees every living unit before it decides.

    It looks at one frame at a time, anywhere; what it saw, a few bytes a unit, is taken in here.
    """

    needs: Needs

    @property
    def look(self) -> Callable[[View], Any]:
        """What is to be known of the units of a view; can be pickled, and changes nothing."""
        ...

    def begin(self, max_units: int) -> None:
        """Make room for so many units at most."""
        ...

    def take(self, seen: Any, numbers: PromptNumbers) -> None:
        """Take in what was seen of the next living units; `numbers` says whose rows they are."""
        ...

    def decide(self, units: NDArray[np.int64]) -> Verdict:
        """Say which of the units seen pass; `units` are their numbers."""
        ...

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say in one sentence why a unit was dropped."""
        ...


@dataclass
class Units:
    """All units of a run, a few bytes each; frames are seen in the same order in every pass."""

    kind: Kind
    numbers: PromptNumbers
    alive_U: NDArray[np.bool_]
    flip_U: NDArray[np.bool_]
    reason_U: NDArray[np.uint8]
    """The filter that dropped it, counted from 1; 0 is alive."""
    code_U: NDArray[np.uint8]
    value_U: NDArray[np.float64]
    count_P: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Units of each prompt that has candidates."""
    row_P: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Input row of each."""
    end_G: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Where the units of each group of parts end."""

    @classmethod
    def room_for(cls, kind: Kind, numbers: PromptNumbers, capacity: int) -> Units:
        """Make room for at most so many units, all alive."""
        return cls(
            kind,
            numbers,
            np.ones(capacity, bool),
            np.zeros(capacity, bool),
            np.zeros(capacity, np.uint8),
            np.zeros(capacity, np.uint8),
            np.zeros(capacity, np.float64),
        )

    def settle(
        self, count_P: NDArray[np.int64], row_P: NDArray[np.int64], end_G: NDArray[np.int64]
    ) -> None:
        """Say after the first pass how many units there really are."""
        self.count_P, self.row_P, self.end_G = count_P, row_P, end_G
        num = int(count_P.sum())
        for name in ("alive_U", "flip_U", "reason_U", "code_U", "value_U"):
            setattr(self, name, getattr(self, name)[:num])

    @property
    def of_groups(self) -> list[slice]:
        """The units of each group of parts."""
        ends = self.end_G.tolist()
        return [slice(*bounds) for bounds in zip([0, *ends], ends, strict=False)]

    @cached_property
    def start_P(self) -> NDArray[np.int64]:
        """Number of each prompt's first unit."""
        return np.cumsum(self.count_P) - self.count_P

    def apply(self, number: int, unit_U: NDArray[np.int64], verdict: Verdict) -> None:
        """Take down what filter `number` (from 1) says of these units."""
        drops_U = ~verdict.passes_U
        gone = unit_U[drops_U]
        self.alive_U[gone] = False
        self.reason_U[gone] = number
        self.value_U[gone] = verdict.value_U[drops_U]
        if verdict.code_U is not None:
            self.code_U[gone] = verdict.code_U[drops_U]
        if verdict.flips_U is not None:
            self.flip_U[unit_U] ^= verdict.flips_U

    def place(self, unit: int) -> str:
        """Say which unit this is, for a person."""
        prompt = int(np.searchsorted(self.start_P, unit, side="right")) - 1
        row = f"input row {self.row_P[prompt]} (counted from 0)"
        if self.kind == "pairs":
            return row
        return f"candidate {unit - self.start_P[prompt]} of {row}"


def units_in(frame: Frame, kind: Kind) -> int:
    """Return how many units a frame has."""
    return len(frame.count_P) if kind == "pairs" else int(frame.count_P.sum())


def curation_missing(what: str, library: str) -> SettingsError:
    """Return the error for a library that is not installed."""
    return SettingsError(
        f"the filter {what} needs {library}",
        why=f"{library} is not installed",
        next_step="pip install 'bon-cli[curation]'",
    )


def either_fails(verdicts: Sequence[Verdict]) -> Verdict:
    """Join the verdicts on the two responses of pairs: the first that fails says why."""

    def join(one: Verdict, other: Verdict) -> Verdict:
        failed_U = ~one.passes_U
        zero_U = np.zeros(len(failed_U), np.uint8)
        first_U = zero_U if one.code_U is None else one.code_U
        second_U = zero_U if other.code_U is None else other.code_U
        return Verdict(
            one.passes_U & other.passes_U,
            np.where(failed_U, one.value_U, other.value_U),
            np.where(failed_U, first_U, second_U),
        )

    return reduce(join, verdicts)


def _no_pairs(frame: Frame) -> InputError:
    at = int(np.flatnonzero(frame.count_P != 2)[0])
    prompt_id = frame.prompts.column("prompt_id")[at].as_py()
    return InputError(
        "these are no preference pairs",
        where=f"prompt {prompt_id}",
        why=f"it has {frame.count_P[at]} responses, a pair has 2",
        next_step="filter it as responses, or make pairs of it with `bon build-dpo`",
    )


def union(needs: Sequence[Needs]) -> Needs:
    """Return what several filters read together."""
    return Needs(
        tuple(dict.fromkeys(name for one in needs for name in one.prompt_columns)),
        tuple(dict.fromkeys(name for one in needs for name in one.candidate_columns)),
        tuple(dict.fromkeys(name for one in needs for name in one.scorers)),
    )
