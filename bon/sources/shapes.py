"""What a row with responses gives, and the seam that every shape of such rows fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bon.records import GivenResponse, Message
from bon.sources.notes import Convert, Notes
from bon.sources.response_values import Found
from bon.sources.rows import Fault, RowFault
from bon.sources.scalars import is_empty

__all__ = ["Given", "Shape", "gather", "note_columns"]

_TAKEN = frozenset({"reward", "finish_reason", "num_tokens"})
"""Columns that every output has under the same name: they need not be kept a second time."""


@dataclass(frozen=True, slots=True)
class Given:
    """The responses of one row."""

    responses: tuple[GivenResponse, ...]
    before: tuple[Message, ...] = ()
    """Turns before the responses, where they came as whole conversations."""
    consumed: frozenset[str] = frozenset()
    """Columns that are in the responses (and `before` and `rest`) with all that they said."""
    carriers: frozenset[str] = frozenset()
    """Those of them that are so only if `before` is the prompt or its end."""
    rest: dict[str, Any] = field(default_factory=dict)
    """What is left of consumed columns."""
    faults: tuple[Fault, ...] = ()
    """Why single responses are missing."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows of one form give their responses."""

    name: str
    kind: Literal["responses", "pairs"]
    read: Callable[[Mapping[str, Any]], Given]
    """From a row to its responses; raises `RowFault`."""
    columns: tuple[str, ...]
    """Columns that the responses come from."""
    notes: Notes
    """Where what is said of the responses comes from, as far as rows were read."""
    is_single: bool = False
    """Whether a row has one response, so that a prompt may go on in the next row."""
    prompt_column: str | None = None
    """Where the prompt is, if no known layout fits."""


def gather(found: Sequence[Found], entries: Sequence[str], raw: Mapping[str, Any]) -> Given:
    """Put the responses of a row together; `entries` names each one's column, `raw` the columns.

    What is left of the objects in one column becomes that column: a list, one item a response, or
    the object itself where the column holds just one.
    """
    befores = {tuple((m["role"], m["content"]) for m in one.before) for one in found if one.before}
    common = next((one.before for one in found if one.before), ()) if len(befores) == 1 else ()
    whole = len(befores) <= 1
    rest: dict[str, Any] = {}
    for column in dict.fromkeys(entries):
        own = [one for one, entry in zip(found, entries, strict=True) if entry == column]
        if not all(one.is_whole and (whole or not one.before) for one in own):
            rest[column] = raw[column]
        elif any(one.rest for one in own):
            is_list = isinstance(raw[column], list)
            rest[column] = [one.rest for one in own] if is_list else own[0].rest
    carriers = {e for one, e in zip(found, entries, strict=True) if one.before}
    return Given(
        tuple(one.response for one in found),
        common,
        frozenset(entries),
        frozenset(carriers),
        rest,
    )


def note_columns(
    given: Given,
    values: Mapping[str, Any],
    notes: Notes,
    kept: Sequence[int] | None,
    count: int,
) -> Given:
    """Add what other columns say of the responses: scores, verdicts, finish reasons, lengths.

    With `kept` none there is one response a row and the columns hold its values; otherwise they
    hold lists for all `count` responses, of which those at `kept` are left. A column that holds
    anything else says nothing of them and stays a column, unless it was named with
    `--score-column`.

    Raises:
        RowFault: `wrong_type` or `wrong_length`, for the named score column only.
    """
    responses, consumed = list(given.responses), set(given.consumed)
    done = set()
    for said, name, convert in notes.columns(values):
        if said in done or name in given.consumed:
            continue
        try:
            items = _one_each([values[name]] if kept is None else values[name], count, convert)
        except RowFault as error:
            if said == "score" and name == notes.score_name:
                raise RowFault(error.fault.reason, f"{name!r} {error.fault.detail}") from None
            continue
        if notes.take_column(said, name):
            done.add(said)
            consumed |= _TAKEN & {name}
            responses = [
                replace(response, **{said: items[index]})
                for response, index in zip(responses, kept or (0,), strict=True)
            ]
    return replace(given, responses=tuple(responses), consumed=frozenset(consumed))


def _one_each(listed: Any, count: int, convert: Convert) -> list[Any]:
    if not isinstance(listed, list):
        raise RowFault("wrong_type", "must be a list, one value a response")
    if len(listed) != count:
        raise RowFault("wrong_length", f"has {len(listed)} values for {count} responses")
    items = [convert(item) for item in listed]
    if any(i is None and not is_empty(raw) for i, raw in zip(items, listed, strict=True)):
        raise RowFault("wrong_type", "holds a value that is no such value (a score is a number)")
    return items
