"""The rows of a filtered set as native tables: those that stay, and those that do not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.pipeline.columns import ExtraColumns
from bon.pipeline.filtering.plan import Decision
from bon.pipeline.filtering.texts import as_array, last_user_turn
from bon.pipeline.filtering.units import Kind, View, units_in
from bon.pipeline.frames import frames
from bon.pipeline.ranked import scorer_names
from bon.pool.pool import PROMPTS, Pool
from bon.records import GIVEN_ID, MESSAGES_TYPE, PAIR_FIELDS, RESPONSE_FIELDS

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


class OutputColumns:
    """The output's columns: ours, then the input's others with one type over all rows."""

    def __init__(self, pool: Pool, kind: Kind, limit: int | None, *, dropped: bool = False) -> None:
        self._kind = kind
        ours = _FIELDS[kind] + (_DROPPED_FIELDS if dropped else ())
        self._own_numbers = _own_numbers(pool, kind, limit)
        self._has_margins = kind == "pairs" and _has_margins(pool, limit)
        self._columns = ExtraColumns([field.name for field in ours])
        for extras in _extras_of_parts(pool, limit):
            self._columns.learn([self._others(extra) for extra in extras])
        self.schema = pa.schema([*ours, *self._columns.fields])

    def _others(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        left_out = {GIVEN_ID, *self._own_numbers, *([_MARGIN] if self._has_margins else [])}
        return {name: value for name, value in extra.items() if name not in left_out}

    def table(self, view: View, scorer: str | None, further: Mapping[str, pa.Array]) -> pa.Table:
        """Return the rows of a view; `further` are our columns that are made elsewhere."""
        prompts = view.frame.prompts
        used_P, place_U = np.unique(view.prompt_U, return_inverse=True)
        texts = as_array(prompts.column("extra")).take(pa.array(used_P))
        extras = _parse(texts)
        ours = (_candidate_columns if self._kind == "candidates" else _pair_columns)(view, scorer)
        ours |= dict(further)
        repeat = pa.array(place_U)
        if any(GIVEN_ID in extra for extra in extras):
            own = prompts.column("prompt_id").take(pa.array(used_P)).to_pylist()
            ids = [extra.get(GIVEN_ID, said) for extra, said in zip(extras, own, strict=True)]
            ours["prompt_id"] = pa.array(ids, pa.string()).take(repeat)
        if self._has_margins:
            said = [extra.get(_MARGIN) for extra in extras]
            margins = [None if margin is None else float(margin) for margin in said]
            ours[_MARGIN] = pa.array(margins, pa.float32()).take(repeat)
        own_numbers = self._own_numbers
        if own_numbers and view.flip_U.any():  # chosen and rejected have changed places
            ours |= _numbers(extras, own_numbers, repeat, view.flip_U)
        elif own_numbers:
            ours |= _numbers(extras, own_numbers, repeat, None)
        others = self._columns.arrays([self._others(extra) for extra in extras])
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


def _own_numbers(pool: Pool, kind: Kind, limit: int | None) -> tuple[str, ...]:
    """Return the numbers of candidates that the input brings, where every row brings them."""
    names = _NUMBERS[kind]
    found = False
    for extras in _extras_of_parts(pool, limit):
        for extra in extras:
            found = True
            if not all(_is_number(extra.get(name)) for name in names):
                return ()
    return names if found else ()


def _has_margins(pool: Pool, limit: int | None) -> bool:
    """Tell whether margins are all that the input says of how far its pairs are apart."""
    if scorer_names(pool):
        return False
    margins = [e.get(_MARGIN) for extras in _extras_of_parts(pool, limit) for e in extras]
    return any(margins) and all(m is None or type(m) in (int, float) for m in margins)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _extras_of_parts(pool: Pool, limit: int | None) -> Iterator[list[dict[str, Any]]]:
    for part in pool.parts(limit):
        table = pool.read(PROMPTS, part, ["row", "extra"])
        if limit is not None:
            table = table.filter(pc.less(table.column("row"), limit))
        yield _parse(as_array(table.column("extra")))


def _parse(texts: pa.Array) -> list[dict[str, Any]]:
    # One call for all of them is several times as fast as one for each.
    extras: list[dict[str, Any]] = json.loads(f"[{','.join(texts.to_pylist())}]")
    return extras


def kept_tables(pool: Pool, decision: Decision, columns: OutputColumns) -> Iterator[pa.Table]:
    """Yield the rows that stay, in the pool's order, a table for each part that has any."""
    for view in _views(pool, decision, kept=True):
        yield columns.table(view, decision.scorer, {})


def dropped_tables(pool: Pool, decision: Decision, columns: OutputColumns) -> Iterator[pa.Table]:
    """Yield the rows that filters dropped, with the filter's name and the reason.

    `columns` must have been made with `dropped=True`.
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
        yield columns.table(view, decision.scorer, further)


def _views(pool: Pool, decision: Decision, *, kept: bool) -> Iterator[View]:
    units = decision.units
    wanted_U = units.alive_U if kept else ~units.alive_U
    first_unit = 0
    for frame in frames(
        pool,
        scorers=[] if decision.scorer is None else [decision.scorer],
        limit=decision.limit,
        prompt_columns=["prompt", "extra"],
        candidate_columns=["response", "finish_reason", "num_tokens"],
    ):
        end = first_unit + units_in(frame, units.kind)
        unit_U = np.flatnonzero(wanted_U[first_unit:end])
        if len(unit_U):
            flip_U = units.flip_U[first_unit + unit_U]
            yield View(frame, units.kind, first_unit, units.numbers, unit_U, flip_U)
        first_unit = end


def _rewards(values: NDArray[np.float32]) -> pa.Array:
    return pa.array(values, pa.float32(), mask=np.isnan(values))


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
        "messages": _conversations(prompts, view.prompt_U, response),
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
        "chosen": _single_turns(chosen),
        "rejected": _single_turns(rejected),
        "score_chosen": _rewards(scores[0]),
        "score_rejected": _rewards(scores[1]),
        "margin": _rewards(scores[0] - scores[1]),
        "prompt_id": view.prompt_column("prompt_id"),
        "candidate_chosen": candidates[0],
        "candidate_rejected": candidates[1],
        "num_tokens_chosen": num_tokens[0],
        "num_tokens_rejected": num_tokens[1],
    }


def _assistant(responses: pa.Array) -> pa.Array:
    roles = pa.repeat("assistant", len(responses))
    return pa.StructArray.from_arrays([roles, responses], fields=list(MESSAGES_TYPE.value_type))


def _single_turns(responses: pa.Array) -> pa.Array:
    offsets = pa.array(np.arange(len(responses) + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, _assistant(responses), type=MESSAGES_TYPE)


def _conversations(prompts: pa.Array, prompt_U: NDArray[np.int64], responses: pa.Array) -> pa.Array:
    """Return each unit's prompt with its response as the last turn."""
    turns = prompts.flatten()
    length_P = pc.list_value_length(prompts).to_numpy()
    start_P = np.cumsum(length_P) - length_P
    length_U = length_P[prompt_U] + 1
    end_U = np.cumsum(length_U)
    row_T = np.repeat(np.arange(len(prompt_U)), length_U)
    place_T = np.arange(len(row_T)) - (end_U - length_U)[row_T]
    source_T = start_P[prompt_U][row_T] + place_T
    source_T[end_U - 1] = len(turns) + np.arange(len(prompt_U))
    turns = pa.StructArray.from_arrays(
        [turns.field("role"), turns.field("content")], fields=list(MESSAGES_TYPE.value_type)
    )
    both = pa.concat_arrays([turns, _assistant(responses)])
    offsets = pa.array(np.r_[0, end_U].astype(np.int32))
    return pa.ListArray.from_arrays(offsets, both.take(pa.array(source_T)), type=MESSAGES_TYPE)
