"""Rows with the same text: one of each stays. And what every comparison of rows shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.config.filters import ExactDedup
from bon.filters import best_of_groups
from bon.pipeline.conversations import as_array
from bon.pipeline.filtering.prompt_numbers import PromptNumbers
from bon.pipeline.filtering.texts import digests
from bon.pipeline.filtering.units import Needs, Units, Verdict, View

__all__ = ["Compared", "ExactDedupStep", "Rows", "needs_of"]


def needs_of(on: str, scorer: str | None) -> Needs:
    """Return what a comparison of responses, prompts or both reads."""
    return Needs(
        ("prompt",) if on != "response" else (),
        ("response",) if on != "prompt" else (),
        () if scorer is None else (scorer,),
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """What a frame has to be compared: its units, or its prompts where `on` is prompt."""

    score_U: NDArray[np.floating]
    """Of each unit."""
    row_E: NDArray[np.int64]
    """The input row of each thing to be compared."""
    first_E: NDArray[np.int64]
    """The unit that stands for it."""
    of_unit_U: NDArray[np.int64]
    """Which of them each unit belongs to."""

    @classmethod
    def of(cls, view: View, on: str, scorer: str | None) -> Rows:
        """Find them in a view."""
        score_U = view.rank(scorer)
        if on != "prompt":
            places = np.arange(len(view))
            return cls(score_U, view.row_U, places, places)
        row_E, first_E, of_unit_U = np.unique(view.row_U, return_index=True, return_inverse=True)
        return cls(score_U, row_E, first_E, of_unit_U)


class Compared:
    """What is compared, one after the other: units, or whole prompts where `on` is prompt."""

    def __init__(self, on: str) -> None:
        self._by_prompt = on == "prompt"
        self._score: list[NDArray[np.floating]] = [np.zeros(0, np.float32)]
        self._row: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._numbers: PromptNumbers | None = None
        self._of_unit: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._place_of = np.zeros(0, np.int64)
        """By the number of a prompt, its place among what is compared; -1 is none yet."""
        self.num = 0
        """How many there are so far."""

    def add(self, rows: Rows, numbers: PromptNumbers) -> NDArray[np.int64]:
        """Take in a frame's; return the places of those that are new: rows of one id are one."""
        if self._by_prompt:
            new, of_unit = self._new_prompts(numbers.of(rows.row_E), rows.of_unit_U)
        else:
            new, of_unit = np.arange(len(rows.row_E)), self.num + rows.of_unit_U
        self._numbers = numbers
        self._score.append(rows.score_U)
        self._row.append(rows.row_E[new])
        self._of_unit.append(of_unit)
        self.num += len(new)
        return new

    def _new_prompts(
        self, number_E: NDArray[np.int32], of_unit_U: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first row of each prompt that is new, and the place of every unit's."""
        number, first, of_row = np.unique(number_E, return_index=True, return_inverse=True)
        missing = int(number.max(initial=-1)) + 1 - len(self._place_of)
        if missing > 0:  # as many again at least, so that growing stays cheap
            more = np.full(max(missing, len(self._place_of)), -1)
            self._place_of = np.concatenate([self._place_of, more])
        new = self._place_of[number] < 0
        self._place_of[number[new]] = self.num + np.arange(int(new.sum()))
        return first[new], self._place_of[number][of_row][of_unit_U]

    @property
    def score_E(self) -> NDArray[np.floating]:
        """The score of each thing compared, the best of its units."""
        score_U: NDArray[np.floating] = np.concatenate(self._score)
        if not self._by_prompt:
            return score_U
        score_E = np.full(self.num, np.nan)
        np.fmax.at(score_E, self.of_unit_U, score_U)
        return score_E

    @property
    def prompt_E(self) -> NDArray[np.int32]:
        """The prompt of each, by its number; rows of one id have one."""
        row_E = np.concatenate(self._row)
        return np.zeros(0, np.int32) if self._numbers is None else self._numbers.of(row_E)

    @property
    def of_unit_U(self) -> NDArray[np.int64]:
        """Which of the things compared each unit belongs to."""
        return np.concatenate(self._of_unit)

    def verdict(self, kept_E: NDArray[np.int64], units: NDArray[np.int64]) -> Verdict:
        """Pass the units of what is kept; `kept_E` is what stands for each, itself if kept."""
        of_unit_U = self.of_unit_U
        first_unit_E = np.full(self.num, len(units), np.int64)
        np.minimum.at(first_unit_E, of_unit_U, np.arange(len(units)))
        passes_U = (kept_E == np.arange(self.num))[of_unit_U]
        value_U = units[first_unit_E[kept_E[of_unit_U]]] if len(units) else np.zeros(0)
        return Verdict(passes_U, value_U.astype(np.float64))


@dataclass(frozen=True, slots=True)
class _Digested:
    """A frame's rows, each with a digest, 16 bytes."""

    rows: Rows
    key_E: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Digest:
    """Digests the texts of a view."""

    settings: ExactDedup
    scorer: str | None

    def __call__(self, view: View) -> _Digested:
        on, ignore_case = self.settings.on, self.settings.ignore_case
        rows = Rows.of(view, on, self.scorer)
        parts = []
        if on != "response":
            parts.append(_prompt_digests(view, ignore_case)[view.prompt_U[rows.first_E]])
        if on != "prompt":
            parts += [digests(texts, ignore_case=ignore_case) for texts in view.responses()]
        key = parts[0]
        for part in parts[1:]:
            key = _joined(key, part)
        return _Digested(rows, key)


class ExactDedupStep:
    """`exact_dedup`."""

    def __init__(self, settings: ExactDedup, scorer: str | None) -> None:
        self.needs = needs_of(settings.on, scorer)
        self._settings = settings
        self.look = _Digest(settings, scorer)
        self._compared = Compared(settings.on)
        self._keys: list[NDArray[np.uint64]] = [np.zeros((0, 2), np.uint64)]

    def begin(self, max_units: int) -> None:
        """Start afresh; arrays grow with the frames."""

    def take(self, seen: _Digested, numbers: PromptNumbers) -> None:
        """Take in the texts' digests."""
        self._keys.append(seen.key_E[self._compared.add(seen.rows, numbers)])

    def decide(self, units: NDArray[np.int64]) -> Verdict:
        """Pass the best-scored of each text."""
        key = np.concatenate(self._keys)
        columns: list[NDArray[np.integer]] = [key[:, 0], key[:, 1]]
        if self._settings.scope == "prompt":
            columns.append(self._compared.prompt_E)
        best_E = best_of_groups(self._compared.score_E, _group(columns))
        verdict = self._compared.verdict(best_E, units)
        self._keys = []
        return verdict

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say which one was kept."""
        return f"the same text as {units.place(int(value))}, which was kept"


def _prompt_digests(view: View, ignore_case: bool) -> NDArray[np.uint64]:
    """Digest whole conversations: every role and content counts."""
    prompts = as_array(view.frame.prompts.column("prompt"))
    messages = prompts.flatten()
    role = digests(messages.field("role"))
    content = digests(messages.field("content"), ignore_case=ignore_case)
    turn = _joined(role, content)
    ends = np.cumsum(pc.fill_null(pc.list_value_length(prompts), 0).to_numpy())
    key = np.zeros((len(prompts), 2), np.uint64)
    starts = np.r_[0, ends][:-1]
    for step in range(int((ends - starts).max(initial=0))):
        more = starts + step < ends
        key[more] = _joined(key[more], turn[starts[more] + step])
    return key


def _group(columns: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    """Number the distinct rows of some columns."""
    order = np.lexsort(columns)
    new = np.zeros(len(order), bool)
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new)
    return group


def _joined(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix two digests into one, row by row; their order counts."""
    multiplier, rotate = np.uint64(0xD6E8FEB86659FD93), np.uint64(32)
    mixed = one * multiplier + other
    mixed ^= mixed >> rotate
    mixed *= multiplier
    result: NDArray[np.uint64] = mixed ^ (mixed >> rotate)
    return result
