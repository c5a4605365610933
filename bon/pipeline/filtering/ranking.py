"""Filters that rank rows against each other: quantiles, the k best, a prompt's difficulty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.config.filters import Difficulty, Margin, Reward
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.filters import between, group_quantiles, share_right, top_k_of_groups
from bon.guards import low_margin, margin_threshold
from bon.pipeline.filtering.prompt_numbers import PromptNumbers
from bon.pipeline.filtering.units import Needs, Units, Verdict, View
from bon.pipeline.passthrough import read_extras

__all__ = ["DifficultyStep", "MarginShareStep", "RankStep"]

_BELOW, _NOT_TOP, _UNKNOWN = 0, 1, 2
_PROMPT = ("prompt", "prompt_id")
"""What `by` takes for a prompt."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    """What ranks the units of a frame, and the groups that they are in."""

    value_U: NDArray[np.floating]
    row_U: NDArray[np.int64] | None = None
    """Input rows, where groups are prompts."""
    keys: tuple[str, ...] = ()
    """Values of the column that groups are, as JSON, in order; a place may repeat a value."""
    key_U: NDArray[np.int64] | None = None
    """Places among the keys."""
    columns: frozenset[str] = frozenset()
    """The input's columns, where one of them makes the groups."""


@dataclass(frozen=True, slots=True)
class _Rank:
    """Finds the rewards of a view, and what groups its units are in."""

    scorer: str
    by: str | None

    def __call__(self, view: View) -> _Ranked:
        value_U = view.rank(self.scorer)
        if self.by is None:
            return _Ranked(value_U)
        if self.by in _PROMPT:
            return _Ranked(value_U, view.row_U)
        used_P, key_U = np.unique(view.prompt_U, return_inverse=True)
        extras = read_extras(view.frame.prompts.take(pa.array(used_P)))
        keys = tuple(json.dumps(extra.get(self.by), sort_keys=True) for extra in extras)
        return _Ranked(value_U, None, keys, key_U, frozenset().union(*extras))


class RankStep:
    """`reward` by quantile or rank, over all, prompts or a column."""

    def __init__(self, settings: Reward, scorer: str) -> None:
        self._by = settings.by
        columns = () if self._by in (None, *_PROMPT) else ("extra",)
        self.needs = Needs(columns, (), (scorer,))
        self.look = _Rank(scorer, self._by)
        self._scorer, self._quantile, self._top_k = scorer, settings.min_quantile, settings.top_k
        self._groups: dict[str, int] = {}
        self._columns: set[str] = set()
        self._values: list[NDArray[np.floating]] = []
        self._group: list[NDArray[np.int32]] = []

    def begin(self, max_units: int) -> None:
        """Start afresh; arrays grow with the frames."""

    def take(self, seen: _Ranked, numbers: PromptNumbers) -> None:
        """Take in rewards, and the groups they are in."""
        self._values.append(seen.value_U)
        self._columns |= seen.columns
        if seen.row_U is not None:
            group_U = numbers.of(seen.row_U)
        elif seen.key_U is not None:
            codes = [self._groups.setdefault(key, len(self._groups)) for key in seen.keys]
            group_U = np.array(codes, np.int32)[seen.key_U]
        else:
            group_U = np.zeros(len(seen.value_U), np.int32)
        self._group.append(group_U)

    def decide(self, units: NDArray[np.int64]) -> Verdict:
        """Pass what reaches its group's quantile and is among its group's k highest.

        Raises:
            UnknownChoiceError: `by` is no column of the input.
        """
        if self._by not in (None, *_PROMPT, *self._columns) and len(units):
            raise _no_column(str(self._by), self._columns)
        value_U = np.concatenate([*self._values, np.zeros(0, np.float32)])
        group_U = np.concatenate([*self._group, np.zeros(0, np.int32)])
        unknown_U = np.isnan(value_U)
        passes_U = ~unknown_U
        if self._quantile is not None:
            passes_U &= value_U >= group_quantiles(value_U, group_U, self._quantile)
        code_U = np.where(unknown_U, _UNKNOWN, _BELOW).astype(np.uint8)
        if self._top_k is not None:
            top_U = top_k_of_groups(value_U, group_U, self._top_k)
            code_U[passes_U & ~top_U] = _NOT_TOP
            passes_U &= top_U
        self._values, self._group = [], []
        return Verdict(passes_U, value_U.astype(np.float64), code_U)

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the value and what it did not reach."""
        if code == _UNKNOWN:
            return f"it has no reward by {self._scorer}"
        among = "all" if self._by is None else f"those of its {self._by}"
        among = "its prompt's" if self._by in _PROMPT else among
        said = f"its reward by {self._scorer}, {value:.6g}, is "
        if code == _NOT_TOP:
            return f"{said}not one of the {self._top_k} highest of {among}"
        return f"{said}below the {self._quantile:g} quantile of {among}"


def _no_column(name: str, columns: set[str]) -> SettingsError:
    return UnknownChoiceError(
        f"no input column {name!r}",
        where="the key `by` of the filter reward",
        next_step=did_you_mean(name, {"prompt", *columns}),
    )


@dataclass(frozen=True, slots=True)
class _Margins:
    """Finds the margins of a view."""

    scorer: str

    def __call__(self, view: View) -> NDArray[np.floating]:
        return view.rank(self.scorer)


class MarginShareStep:
    """`margin`, where it is a share: the same pairs as `bon build-dpo` drops with it."""

    def __init__(self, settings: Margin, scorer: str) -> None:
        self.needs = Needs(scorers=(scorer,))
        self.look = _Margins(scorer)
        self._share, self._scorer = settings.min, scorer
        self._margins: list[NDArray[np.floating]] = []
        self._threshold = -np.inf

    def begin(self, max_units: int) -> None:
        """Start afresh; arrays grow with the frames."""

    def take(self, seen: NDArray[np.floating], numbers: PromptNumbers) -> None:
        """Take in the margins."""
        self._margins.append(seen)

    def decide(self, units: NDArray[np.int64]) -> Verdict:
        """Pass what lies above the threshold that the share makes; an unknown margin fails."""
        margin_U = np.concatenate([*self._margins, np.zeros(0, np.float32)]).astype(np.float64)
        self._threshold = margin_threshold(self._share, margin_U)
        self._margins = []
        return Verdict(~low_margin(margin_U, self._threshold) & ~np.isnan(margin_U), margin_U)

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the margin and the share."""
        if np.isnan(value):
            return f"it has no margin by {self._scorer}"
        return (
            f"its margin by {self._scorer}, {value:.6g}, is among the smallest {self._share}: "
            f"not above {self._threshold:.6g}"
        )


@dataclass(frozen=True, slots=True)
class _Judgements:
    """A frame's verdicts, and the input rows that they are of."""

    verdict_U: NDArray[np.floating]
    row_U: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Judge:
    """Finds the verdicts in a view.

    Raises:
        SettingsError: the scorer's scores are no verdicts.
    """

    scorer: str

    def __call__(self, view: View) -> _Judgements:
        verdict_U = view.rank(self.scorer)
        known = verdict_U[~np.isnan(verdict_U)]
        if not np.isin(known, (0.0, 1.0)).all():
            raise _no_verdict(self.scorer, known)
        return _Judgements(verdict_U, view.row_U)


class DifficultyStep:
    """`difficulty`: all candidates of a prompt pass, or none."""

    def __init__(self, settings: Difficulty) -> None:
        self.needs = Needs(scorers=(settings.scorer,))
        self.look = _Judge(settings.scorer)
        self._settings = settings
        self._verdicts: list[NDArray[np.floating]] = [np.zeros(0, np.float32)]
        self._prompt: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]

    def begin(self, max_units: int) -> None:
        """Start afresh; arrays grow with the frames."""

    def take(self, seen: _Judgements, numbers: PromptNumbers) -> None:
        """Take in the verdicts: a prompt's candidates may be in rows far apart."""
        self._verdicts.append(seen.verdict_U)
        self._prompt.append(numbers.of(seen.row_U))

    def decide(self, units: NDArray[np.int64]) -> Verdict:
        """Pass the candidates of prompts whose share of right ones is between the bounds."""
        prompt_U = np.concatenate(self._prompt)
        num_prompts = int(prompt_U.max(initial=-1)) + 1
        share_P = share_right(np.concatenate(self._verdicts), prompt_U, num_prompts)
        passes_P = between(share_P, self._settings.min, self._settings.max)
        self._verdicts, self._prompt = [], []
        return Verdict(passes_P[prompt_U], share_P[prompt_U])

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the prompt's share of right candidates."""
        if np.isnan(value):
            return f"{self._settings.scorer} has a verdict on none of its prompt's candidates"
        return (
            f"{value:.4g} of its prompt's candidates are right, "
            f"asked for are {self._settings.min:g} to {self._settings.max:g}"
        )


def _no_verdict(scorer: str, known: NDArray[Any]) -> SettingsError:
    other = known[~np.isin(known, (0.0, 1.0))][0]
    return SettingsError(
        f"the scores of {scorer} are not right or wrong",
        where="the filter difficulty",
        why=f"one of them is {other:g}, neither 0 nor 1",
        next_step="name with the key `scorer` one that verifies, such as a rule",
    )
