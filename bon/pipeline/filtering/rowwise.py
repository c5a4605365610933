"""Filters on the numbers of one row at a time: reward, margin, agreement, length, finish."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.config.filters import (
    Agreement,
    FinishReason,
    Length,
    Margin,
    Reward,
)
from bon.errors import InputError
from bon.filters import between, preference_probs
from bon.pipeline.filtering.units import Needs, Units, Verdict, View, either_fails

__all__ = [
    "AgreementStep",
    "FinishReasonStep",
    "LengthStep",
    "RewardStep",
]

_LENGTHS = ("chars", "words", "tokens")


class RewardStep:
    """`reward`, its absolute bounds, and `margin`, where it is a difference."""

    def __init__(self, scorer: str, low: float | None, high: float | None, what: str) -> None:
        self.needs = Needs(scorers=(scorer,))
        self._scorer, self._low, self._high, self._what = scorer, low, high, what

    @classmethod
    def of_reward(cls, settings: Reward, scorer: str) -> RewardStep:
        """Make the step of absolute bounds."""
        return cls(scorer, settings.min, settings.max, "reward")

    @classmethod
    def of_margin(cls, settings: Margin, scorer: str) -> RewardStep:
        """Make the step of a smallest difference."""
        return cls(scorer, float(settings.min), None, "margin")

    def judge(self, view: View) -> Verdict:
        """Pass what lies between the bounds; what has no score fails."""
        value_U = view.rank(self._scorer)
        return Verdict(between(value_U, self._low, self._high), value_U.astype(np.float64))

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the value and its bound."""
        if np.isnan(value):
            return f"it has no {self._what} by {self._scorer}"
        if self._low is not None and value < np.float32(self._low):
            return f"its {self._what} by {self._scorer}, {value:.6g}, is below {self._low:g}"
        return f"its {self._what} by {self._scorer}, {value:.6g}, is above {self._high:g}"


class AgreementStep:
    """`agreement`."""

    def __init__(self, settings: Agreement, scorer: str) -> None:
        self.needs = Needs(scorers=(scorer,))
        self._settings, self._scorer = settings, scorer

    def judge(self, view: View) -> Verdict:
        """Pass pairs that the scorer prefers as they are, or flipped."""
        chosen_U, rejected_U = view.scores(self._scorer)
        prob_U = preference_probs(chosen_U, rejected_U, self._settings.temperature)
        agrees_U = prob_U >= self._settings.min_prob
        if self._settings.action == "drop":
            return Verdict(agrees_U, prob_U)
        flips_U = ~agrees_U & (1.0 - prob_U >= self._settings.min_prob)
        return Verdict(agrees_U | flips_U, prob_U, flips_U=flips_U)

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the preference probability."""
        if np.isnan(value):
            return f"one of its responses has no score by {self._scorer}"
        return (
            f"{self._scorer} prefers the chosen response with probability {value:.4g}, "
            f"{self._settings.min_prob:g} is asked for"
        )


class LengthStep:
    """`length`."""

    def __init__(self, settings: Length) -> None:
        self._bounds = [
            (unit, getattr(settings, f"min_{unit}"), getattr(settings, f"max_{unit}"))
            for unit in _LENGTHS
        ]
        self._bounds = [bounds for bounds in self._bounds if bounds[1:] != (None, None)]
        used = {"num_tokens" if unit == "tokens" else "response" for unit, *_ in self._bounds}
        self.needs = Needs(candidate_columns=tuple(sorted(used)))

    def judge(self, view: View) -> Verdict:
        """Pass responses whose every length lies between its bounds.

        Raises:
            InputError: a bound on tokens, and a response whose tokens nobody counted.
        """
        return either_fails([self._judge(view, side) for side in range(len(view.sides))])

    def _judge(self, view: View, side: int) -> Verdict:
        passes_U, value_U = np.ones(len(view), bool), np.zeros(len(view))
        code_U = np.zeros(len(view), np.uint8)
        for number, (unit, low, high) in enumerate(self._bounds):
            length_U = self._length(view, side, unit)
            fails_U = passes_U & ~between(length_U, low, high)
            value_U[fails_U], code_U[fails_U] = length_U[fails_U], number
            passes_U &= ~fails_U
        return Verdict(passes_U, value_U, code_U)

    def _length(self, view: View, side: int, unit: str) -> NDArray[np.int64]:
        values = view.responses("num_tokens" if unit == "tokens" else "response")[side]
        if unit == "tokens":
            if values.null_count:
                raise InputError(
                    "the filter length cannot count tokens",
                    why="some responses were given, not sampled, and have no token count",
                    next_step="give bounds in words or characters instead",
                )
            result = values
        elif unit == "chars":
            result = pc.utf8_length(values)
        else:
            trimmed = pc.utf8_trim_whitespace(values)
            result = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
            result = pc.if_else(pc.equal(pc.binary_length(trimmed), 0), 0, result)
        lengths: NDArray[np.int64] = pc.fill_null(result, 0).to_numpy(zero_copy_only=False)
        return lengths.astype(np.int64)

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say the length and its bound."""
        unit, low, high = self._bounds[code]
        name = "characters" if unit == "chars" else unit
        bound = f"fewer than {low}" if low is not None and value < low else f"more than {high}"
        return f"a response of {value:.0f} {name}, {bound}"


class FinishReasonStep:
    """`finish_reason`."""

    needs = Needs(candidate_columns=("finish_reason",))

    def __init__(self, settings: FinishReason) -> None:
        self._settings = settings

    def judge(self, view: View) -> Verdict:
        """Pass responses whose finish reason is one of those kept, or unknown."""
        return either_fails([self._judge(v) for v in view.responses("finish_reason")])

    def _judge(self, reasons: pa.Array) -> Verdict:
        kept = pc.is_in(reasons, pa.array(self._settings.keep, pa.string()))
        unknown = np.asarray(pc.is_null(reasons))
        passes_U = np.where(unknown, self._settings.keep_unknown, np.asarray(kept))
        return Verdict(passes_U, np.zeros(len(reasons)), unknown.astype(np.uint8))

    def detail(self, code: int, value: float, units: Units) -> str:
        """Say that it ended in another way."""
        what = "unknown" if code else "another"
        return f"its finish reason is {what}, not one of {', '.join(self._settings.keep)}"
