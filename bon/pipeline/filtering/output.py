"""The rows of a filtered set as native tables: those that stay, and those that do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.pipeline.columns import ExtraColumns
from bon.pipeline.conversations import after_prompts, as_array, last_user_turn, single_turns
from bon.pipeline.filtering.plan import Decision
from bon.pipeline.filtering.units import Kind, View, units_in
from bon.pipeline.frames import Frame, frame_groups
from bon.pipeline.mapping import map_groups, map_parts
from bon.pipeline.passthrough import extras_of_parts, given_ids, read_extras
from bon.pipeline.ranked import scorer_names
from bon.pipeline.rewards import ranked_reading
from bon.pool.pool import Pool
from bon.protocols import Mapper
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

    def __init__(self, pool: Pool, decision: Decision, mapper: Mapper | None = None) -> None:
        self._kind = decision.kind
        self._further: tuple[pa.Field, ...] = ()
        self._own, columns = _scan(pool, decision, mapper)
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


@dataclass
class _Scanned:
    """What some rows of the input say of its columns."""

    columns: ExtraColumns = field(default_factory=lambda: ExtraColumns([]))
    has_numbers: bool = True
    has_margin: bool = False
    may_have_margins: bool = True

    def add(self, later: _Scanned) -> None:
        """Take in what the next rows say."""
        self.columns.merge(later.columns)
        self.has_numbers &= later.has_numbers
        self.has_margin |= later.has_margin
        self.may_have_margins &= later.may_have_margins


@dataclass(frozen=True, slots=True)
class _Scan:
    """Reads the input's columns in some parts."""

    pool: Pool
    limit: int | None
    names: tuple[str, ...]

    def __call__(self, parts: Sequence[int]) -> _Scanned:
        found = _Scanned()
        for extras in extras_of_parts(self.pool, parts, self.limit):
            found.columns.learn(extras)
            for extra in extras:
                if found.has_numbers:
                    found.has_numbers = all(_is_number(extra.get(name)) for name in self.names)
                margin = extra.get(_MARGIN)
                found.has_margin |= margin is not None
                found.may_have_margins &= margin is None or type(margin) in (int, float)
        return found


def _scan(pool: Pool, decision: Decision, mapper: Mapper | None) -> tuple[_Own, ExtraColumns]:
    """Read the input's columns once: their types, and which of them are ours.

    Of candidates, a number belongs to a prompt's only one: to none of several.
    """
    names = _NUMBERS[decision.kind]
    may_have_numbers = decision.kind == "pairs" or bool((decision.units.count_P == 1).all())
    all_rows = _Scanned()
    for found in map_parts(mapper, pool, decision.limit, _Scan(pool, decision.limit, names)):
        all_rows.add(found)
    has_margins = decision.kind == "pairs" and not scorer_names(pool)
    has_margins &= all_rows.may_have_margins and all_rows.has_margin
    own = _Own(names if may_have_numbers and all_rows.has_numbers else (), has_margins)
    return own, all_rows.columns.beside([], without=own.names)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def kept_tables(
    pool: Pool, decision: Decision, columns: OutputColumns, mapper: Mapper | None = None
) -> Iterator[pa.Table]:
    """Yield the rows that stay, in the pool's order, a table for each frame that has any."""
    return _tables(pool, decision, columns, mapper, decision.units.alive_U, with_reasons=False)


def dropped_tables(
    pool: Pool, decision: Decision, columns: OutputColumns, mapper: Mapper | None = None
) -> Iterator[pa.Table]:
    """Yield the rows that filters dropped, with the filter's name and the reason.

    `columns` must be those `with_reasons`.
    """
    return _tables(pool, decision, columns, mapper, ~decision.units.alive_U, with_reasons=True)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which units of a group of parts are written, and what is said of them."""

    unit_U: NDArray[np.int64]
    """Their places among the group's."""
    flip_U: NDArray[np.bool_]
    further: dict[str, pa.Array]


@dataclass(frozen=True, slots=True)
class _Writing:
    """Makes the tables of a group of parts; can be pickled, and changes nothing."""

    kind: Kind
    scorer: str | None
    columns: OutputColumns

    def __call__(self, frames: Iterator[Frame], given: _Wanted) -> Iterator[pa.Table]:
        start = 0
        for frame in frames:
            end = start + units_in(frame, self.kind)
            first, last = np.searchsorted(given.unit_U, [start, end])
            if last > first:
                unit_U, flip_U = given.unit_U[first:last] - start, given.flip_U[first:last]
                view = View(frame, self.kind, unit_U, flip_U)
                further = {name: one[first:last] for name, one in given.further.items()}
                yield self.columns.table(view, self.scorer, further)
            start = end


def _tables(
    pool: Pool,
    decision: Decision,
    columns: OutputColumns,
    mapper: Mapper | None,
    wanted_U: NDArray[np.bool_],
    *,
    with_reasons: bool,
) -> Iterator[pa.Table]:
    scorer = None if decision.ranking is None else decision.ranking.name
    reading = ranked_reading(
        pool,
        decision.ranking,
        limit=decision.limit,
        prompt_columns=["prompt", "extra"],
        candidate_columns=["response", "finish_reason", "num_tokens"],
    )
    groups = frame_groups(pool, decision.limit)
    given = (_wanted(decision, place, wanted_U, with_reasons) for place in decision.units.of_groups)
    return map_groups(mapper, reading, groups, _Writing(decision.kind, scorer, columns), given)


def _wanted(
    decision: Decision, place: slice, wanted_U: NDArray[np.bool_], with_reasons: bool
) -> _Wanted:
    units = decision.units
    unit_U = np.flatnonzero(wanted_U[place])
    numbers = place.start + unit_U
    further = {}
    if with_reasons:
        labels = np.array(["", *decision.labels], object)
        details = [decision.detail(unit) for unit in numbers.tolist()]
        further = {
            "dropped_by": pa.array(labels[units.reason_U[numbers]], pa.string()),
            "detail": pa.array(details, pa.string()),
        }
    return _Wanted(unit_U, units.flip_U[numbers], further)


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
