"""The forms in which rows have one or several responses, recognised by their columns.

To add one, write a function from a row's columns to a `Shape` or none, and put it in
`_RECOGNISERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bon.config import ResponseSettings
from bon.sources.notes import Notes
from bon.sources.response_values import Found, is_conversation, read_response
from bon.sources.rows import Fault, RowFault
from bon.sources.shapes import Given, Shape, gather, note_columns

__all__ = ["RESPONSE_COLUMNS", "numbered_columns", "recognise_responses"]

RESPONSE_COLUMNS = "response_columns"
"""Key in `extra` for the columns that the responses came from, where their names say which model
gave them; one name a response."""
_SEVERAL = ("responses", "completions", "generations", "outputs", "candidates")
_ONE = ("response", "completion", "output")
_CONVERSATIONS = ("messages", "conversations")
_NUMBERED = re.compile(r"response_?(\d+)")


def recognise_responses(
    values: Mapping[str, Any], settings: ResponseSettings, *, asked: bool
) -> Shape | None:
    """Return the shape of rows that have these columns, none where there is no response.

    Whole conversations and alpaca's `output` are responses only where they are `asked` for: such
    files are as often prompts.
    """
    notes = Notes(settings.score_column)
    if settings.response_column is not None:
        value = values.get(settings.response_column)
        several = isinstance(value, list) and not _is_one_conversation(
            value, is_single=len(value) == 1
        )
        return _column_shape(settings.response_column, notes, is_single=not several)
    for recognise in _RECOGNISERS:
        shape = recognise(values, notes)
        if shape is not None:
            return shape
    if not asked:
        return None
    name = next((name for name in ("output", *_CONVERSATIONS) if name in values), None)
    return None if name is None else _column_shape(name, notes, is_single=True)


def _several(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    names = [name for name in _SEVERAL if name in values]
    names += ["output"] if isinstance(values.get("output"), list) else []
    return _column_shape(names[0], notes, is_single=False) if names else None


def _numbered(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    columns = numbered_columns(values)
    return _columns_shape("numbered columns", columns, notes) if len(columns) > 1 else None


def numbered_columns(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns `response_1`, `response_2`, … (or `response1`, …) in their order."""
    matches = [match for match in map(_NUMBERED.fullmatch, values) if match]
    return tuple(match[0] for match in sorted(matches, key=lambda match: int(match[1])))


def _models(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    columns = tuple(
        name
        for name, value in values.items()
        if isinstance(value, dict)
        and isinstance(value.get("solution"), str)
        and isinstance(value.get("is_correct"), bool)
    )
    if len(columns) < 2:
        return None
    return _columns_shape("a column a model", columns, notes, with_names=True)


def _single(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    name = next((name for name in _ONE if name in values), None)
    if name is None or (name == "output" and "instruction" in values):
        return None
    return _column_shape(name, notes, is_single=True)


_RECOGNISERS: tuple[Callable[[Mapping[str, Any], Notes], Shape | None], ...] = (
    _several,
    _numbered,
    _single,
    _models,
)
"""Every known form, in the order in which they are tried: what names say, then what values do."""


def _column_shape(column: str, notes: Notes, *, is_single: bool) -> Shape:
    """Make the shape of rows whose responses are in one column: a value, or a list of values."""

    def read(values: Mapping[str, Any]) -> Given:
        value = values.get(column)
        if isinstance(value, list) and not _is_one_conversation(value, is_single=is_single):
            if not value:
                raise RowFault("no_responses", f"the list in {column!r} is empty")
            labels = [f"response {number} of {column!r}" for number in range(1, len(value) + 1)]
            return _read_all(value, [column] * len(value), labels, values, notes)
        found = read_response(value, repr(column), notes)
        given = _with_conversation(gather([found], [column], values), values)
        return note_columns(given, values, notes, None, 1)

    name = "one response a row" if is_single else "several responses a row"
    return Shape(name, "responses", read, (column,), notes, is_single)


def _is_one_conversation(value: list[Any], *, is_single: bool) -> bool:
    """Tell one conversation from a list of assistant messages, each a response of its own.

    Where nobody but the assistant speaks, only the shape of the other rows can tell.
    """
    if not is_conversation(value):
        return False
    speakers = [
        item.get("role", item.get("from")) if isinstance(item, dict) else None for item in value
    ]
    return is_single or any(speaker not in ("assistant", "gpt") for speaker in speakers)


def _columns_shape(
    name: str, columns: tuple[str, ...], notes: Notes, *, with_names: bool = False
) -> Shape:
    """Make the shape of rows that have a column for each response."""

    def read(values: Mapping[str, Any]) -> Given:
        items = [values.get(column) for column in columns]
        labels = [repr(column) for column in columns]
        given = _read_all(items, columns, labels, values, notes, with_names=with_names)
        absent = {column for column in columns if column in values and values[column] is None}
        return replace(given, consumed=given.consumed | absent)

    return Shape(name, "responses", read, columns, notes)


def _read_all(
    items: Sequence[Any],
    columns: Sequence[str],
    labels: Sequence[str],
    values: Mapping[str, Any],
    notes: Notes,
    *,
    with_names: bool = False,
) -> Given:
    """Read the responses of one row; a bad one is a fault of its own while there are good ones."""
    found: list[Found] = []
    kept: list[int] = []
    faults: list[Fault] = []
    for index, (item, label) in enumerate(zip(items, labels, strict=True)):
        try:
            found.append(read_response(item, label, notes))
            kept.append(index)
        except RowFault as error:
            faults.append(error.fault)
    if not found:
        raise RowFault(faults[0].reason, f"it has no response that can be read: {faults[0].detail}")
    sources = [columns[index] for index in kept]
    given = replace(gather(found, sources, values), faults=tuple(faults))
    if with_names:
        key = RESPONSE_COLUMNS
        while key in values:
            key = f"_{key}"
        given = replace(given, rest={**given.rest, key: sources})
    return note_columns(given, values, notes, kept, len(items))


def _with_conversation(given: Given, values: Mapping[str, Any]) -> Given:
    """Take the prompt from `messages`, where that is the whole conversation with the response."""
    messages = values.get("messages")
    if given.before or "messages" in given.consumed or not is_conversation(messages):
        return given
    try:
        found = read_response(messages, "'messages'")
    except RowFault:
        return given
    if found.response.response != given.responses[0].response:
        return given
    both = {"messages"} if found.is_whole else set()
    return replace(
        given,
        before=found.before,
        consumed=given.consumed | both,
        carriers=given.carriers | {"messages"},
    )
