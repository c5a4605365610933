"""The rows of a filtered set as native tables: those that stay, and those that do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.pipeline.columns import ExtraColumns
from bon.pipeline.conversations import after_prompts, as_array, last_user_turn, single_turns
from bon.pipeline.filtering.plan import Decision
from bon.pipeline.filtering.units import Kind, View, units_in
from bon.pipeline.passthrough import extras_of_parts, given_ids, read_extras
from bon.pipeline.ranked import scorer_names
from bon.pipeline.rewards import ranked_reading
from bon.pool.pool import Pool
from bon.records import PAIR_FIELDS, RESPONSE_FIELDS

__all__ = ["OutputColumns", "dropped_tables", "kept_tables"]

_FIELDS: dict[Kind, tuple[pa.Field, ...]] = {
    "candidates": tuple(field for field in RESPONSE_FIELDS if field.name != "rewards"),
    "pairs": PAIR_FIELDS,
}
_NUMBERS: dict[Kind, tuple[str, ...]] = {
    "candidates": ("candidate", "num_candidates"),
    "pairs": ("candidate_chosen", "candidate_rejected"),
}
"""Columns whose values a set that bon wrote keeps: a candidate's number is that in its first
pool."""
_MARGIN = "margin"
_DROPPED_FIELDS = (pa.field("dropped_by", pa.string()), pa.field("detail", pa.string()))


@dataclass(frozen=True)
class _Own:
    """What of the input's columns are values of ours."""

    numbers: tuple[str, ...]
    """The candidates' numbers in their first pool, where every row brings them."""
    has_margins: bool
    """Whether margins are all that the input says of how far its pairs are apart."""

    @property
    def names(self) -> frozenset[str]:
        """Their names."""
        return frozenset({*self.numbers, *([_MARGIN] if self.has_margins else [])})


class OutputColumns:
    """The output's columns: ours, then the input's others with one type over all rows."""

    def __init__(self, pool: Pool, decision: Decision) -> None:
        self._kind = decision.kind
        self._further: tuple[pa.Field, ...] = ()
        self._own, columns = _scan(pool, decision)
        self._settle(columns)

    def with_reasons(self) -> OutputColumns:
        """Return the columns for rows that were dropped, which say by what and why."""
        other = copy(self)
        other._further = _DROPPED_FIELDS
        other._settle(self._columns)
        return other

    def _settle(self, columns: ExtraColumns) -> None:
        ours = _FIELDS[self._kind] + self._further
        self._columns = columns.beside([field.name for field in ours])
        self.schema = pa.schema([*ours, *self._columns.fields])

    def table(self, view: View, scorer: str | None, further: Mapping[str, pa.Array]) -> pa.Table:
        """Return the rows of a view; `further` are our columns that are made elsewhere."""
        prompts = view.frame.prompts
        used_P, place_U = np.unique(view.prompt_U, return_inverse=True)
        used = prompts.select(["prompt_id", "extra"]).take(pa.array(used_P))
        extras = read_extras(used)
        ours = (_candidate_columns if self._kind == "candidates" else _pair_columns)(view, scorer)
        ours |= dict(further)
        repeat = pa.array(place_U)
        ours["prompt_id"] = as_array(given_ids(used)).take(repeat)
        if self._own.has_margins:
            said = [extra.get(_MARGIN) for extra in extras]
            margins = [None if margin is None else float(margin) for margin in said]
            ours[_MARGIN] = pa.array(margins, pa.float32()).take(repeat)
        own_numbers = self._own.numbers
        if own_numbers and view.flip_U.any():  # chosen and rejected have changed places
            ours |= _numbers(extras, own_numbers, repeat, view.flip_U)
        elif own_numbers:
            ours |= _numbers(extras, own_numbers, repeat, None)
        others = self._columns.arrays(extras)
        arrays = [ours[name] for name in self.schema.names[: len(ours)]]
        return pa.Table.from_arrays(
            [*arrays, *(array.take(repeat) for array in others)], schema=self.schema
        )


def _numbers(
    extras: list[dict[str, Any]],
    names: tuple[str, ...],
    repeat: pa.Array,
    flip_U: NDArray[np.bool_] | None,
) -> dict[str, pa.Array]:
    values = [
        pa.array([extra[name] for extra in extras], pa.int32()).take(repeat) for name in names
    ]
    if flip_U is not None:
        flips = pa.array(flip_U)
        values = [
            pc.if_else(flips, values[1], values[0]),
            pc.if_else(flips, values[0], values[1]),
        ]
    return dict(zip(names, values, strict=True))


def _scan(pool: Pool, decision: Decision) -> tuple[_Own, ExtraColumns]:
    """Read the input's columns once: their types, and which of them are ours.

    Of candidates, a number belongs to a prompt's only one: to none of several.
    """
    names = _NUMBERS[decision.kind]
    has_numbers = decision.kind == "pairs" or bool((decision.units.count_P == 1).all())
    may_have_margins = decision.kind == "pairs" and not scorer_names(pool)
    found_margin = False
    columns = ExtraColumns([])
    for extras in extras_of_parts(pool, pool.parts(decision.limit), decision.limit):
        columns.learn(extras)
        for extra in extras:
            has_numbers = has_numbers and all(_is_number(extra.get(name)) for name in names)
            margin = extra.get(_MARGIN)
            found_margin |= margin is not None
            may_have_margins &= margin is None or type(margin) in (int, float)
    own = _Own(names if has_numbers else (), may_have_margins and found_margin)
    return own, columns.beside([], without=own.names)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def kept_tables(pool: Pool, decision: Decision, columns: OutputColumns) -> Iterator[pa.Table]:
    """Yield the rows that stay, in the pool's order, a table for each part that has any."""
    for view in _views(pool, decision, kept=True):
        yield columns.table(view, _name(decision), {})


def dropped_tables(pool: Pool, decision: Decision, columns: OutputColumns) -> Iterator[pa.Table]:
    """Yield the rows that filters dropped, with the filter's name and the reason.

    `columns` must be those `with_reasons`.
    """
    labels = np.array(["", *decision.labels], object)
    for view in _views(pool, decision, kept=False):
        numbers = view.first_unit + view.unit_U
        reasons = labels[decision.units.reason_U[numbers]]
        details = [decision.detail(unit) for unit in numbers.tolist()]
        further = {
            "dropped_by": pa.array(reasons, pa.string()),
            "detail": pa.array(details, pa.string()),
        }
        yield columns.table(view, _name(decision), further)


def _name(decision: Decision) -> str | None:
    return None if decision.ranking is None else decision.ranking.name


def _views(pool: Pool, decision: Decision, *, kept: bool) -> Iterator[View]:
    units = decision.units
    wanted_U = units.alive_U if kept else ~units.alive_U
    first_unit = 0
    for frame in ranked_reading(
        pool,
        decision.ranking,
        limit=decision.limit,
        prompt_columns=["prompt", "extra"],
        candidate_columns=["response", "finish_reason", "num_tokens"],
    ).frames():
        end = first_unit + units_in(frame, units.kind)
        unit_U = np.flatnonzero(wanted_U[first_unit:end])
        if len(unit_U):
            flip_U = units.flip_U[first_unit + unit_U]
            yield View(frame, units.kind, first_unit, units.numbers, unit_U, flip_U)
        first_unit = end


def _rewards(values: NDArray[np.floating]) -> pa.Array:
    return pa.array(values.astype(np.float32), pa.float32(), mask=np.isnan(values))


def _candidate_columns(view: View, scorer: str | None) -> dict[str, pa.Array]:
    (response,), (finish_reason,), (num_tokens,) = map(
        view.responses, ("response", "finish_reason", "num_tokens")
    )
    prompts = as_array(view.frame.prompts.column("prompt"))
    (candidate,) = view.responses("candidate")
    used_P, place_U = np.unique(view.prompt_U, return_inverse=True)
    last = last_user_turn(prompts.take(pa.array(used_P)))
    return {
        "prompt_id": view.prompt_column("prompt_id"),
        "prompt": last.take(pa.array(place_U)),
        "response": response,
        "messages": after_prompts(prompts, view.prompt_U, response),
        "reward": _rewards(view.rank(scorer)),
        "candidate": candidate,
        "num_candidates": pa.array(view.frame.count_P[view.prompt_U].astype(np.int32)),
        "finish_reason": finish_reason,
        "num_tokens": num_tokens,
    }


def _pair_columns(view: View, scorer: str | None) -> dict[str, pa.Array]:
    chosen, rejected = view.responses()
    nothing = np.full(len(view), np.nan, np.float32)
    scores = (nothing, nothing) if scorer is None else view.scores(scorer)
    candidates = view.responses("candidate")
    num_tokens = view.responses("num_tokens")
    return {
        "prompt": view.prompt_column("prompt"),
        "chosen": single_turns(chosen),
        "rejected": single_turns(rejected),
        "score_chosen": _rewards(scores[0]),
        "score_rejected": _rewards(scores[1]),
        "margin": _rewards(scores[0] - scores[1]),
        "prompt_id": view.prompt_column("prompt_id"),
        "candidate_chosen": candidates[0],
        "candidate_rejected": candidates[1],
        "num_tokens_chosen": num_tokens[0],
        "num_tokens_rejected": num_tokens[1],
    }
