"""The forms in which rows have a chosen and a rejected response, recognised by their columns.

To add one, write a function from a row's columns to a `Shape` or none, and put it in
`_RECOGNISERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bon.config import ResponseSettings
from bon.sources.notes import Convert, Notes
from bon.sources.response_layouts import numbered_columns
from bon.sources.response_values import Found, read_response
from bon.sources.rows import RowFault
from bon.sources.scalars import is_empty, to_count, to_score
from bon.sources.shapes import Given, Shape, gather, note_columns

__all__ = ["recognise_pairs"]

_COLUMNS = (("chosen", "rejected"), ("chosen_response", "rejected_response"))
_SCORE_COLUMNS = tuple(
    pair
    for word in ("score", "rating", "reward", "avg_rating")
    for pair in (
        (f"{word}_chosen", f"{word}_rejected"),
        (f"chosen_{word}", f"rejected_{word}"),
        (f"chosen-{word}", f"rejected-{word}"),
    )
)
_LENGTH_COLUMNS = ("num_tokens_chosen", "num_tokens_rejected")
_PREFERENCES = ("preference_strength", "overall_preference")
_DIALOGUE = re.compile(r"\s*Human:.*\n\nAssistant:", re.DOTALL)
_SPEAKER = re.compile(r"(?:^\s*|\n\n)(Human|Assistant):")


def recognise_pairs(values: Mapping[str, Any], settings: ResponseSettings) -> Shape | None:
    """Return the shape of rows that have these columns, none where they are no pairs."""
    notes = Notes(settings.score_column)
    for recognise in _RECOGNISERS:
        shape = recognise(values, notes)
        if shape is not None:
            return shape
    return None


def _chosen_rejected(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    columns = next((pair for pair in _COLUMNS if set(pair) <= values.keys()), None)
    if columns is None:
        return None

    def read(row: Mapping[str, Any]) -> Given:
        return _pair([row.get(column) for column in columns], columns, row, notes)

    return Shape("chosen and rejected", "pairs", read, columns, notes)


def _rejected_beside_messages(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    columns = ("messages", "rejected_response")
    if not set(columns) <= values.keys():
        return None

    def read(row: Mapping[str, Any]) -> Given:
        return _pair([row.get(column) for column in columns], columns, row, notes)

    return Shape("messages and rejected_response", "pairs", read, columns, notes)


def _ranked(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    items = values.get("completions")
    if not isinstance(items, list) or not items:
        return None
    if not all(isinstance(item, dict) and {"rank", "completion"} <= item.keys() for item in items):
        return None

    def read(row: Mapping[str, Any]) -> Given:
        best, worst = _by_rank(row.get("completions"))
        return _pair([best, worst], ("completions", "completions"), row, notes)

    return Shape("completions with ranks", "pairs", read, ("completions",), notes, False, "context")


def _by_rank(items: Any) -> list[dict[str, Any]]:
    """Return the two completions, best first and without their ranks."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise RowFault("wrong_type", "'completions' must be a list of objects")
    if len(items) != 2:
        raise RowFault("not_a_pair", f"'completions' has {len(items)} of them, a pair is two")
    ranks = [to_score(item.get("rank")) for item in items]
    if ranks[0] is None or ranks[1] is None:
        raise RowFault("wrong_type", "the rank of a completion must be a number")
    if ranks[0] == ranks[1]:
        raise RowFault("no_preference", "both completions have the same rank")
    ordered = items if ranks[0] < ranks[1] else items[::-1]
    return [{key: item for key, item in one.items() if key != "rank"} for one in ordered]


def _preference(values: Mapping[str, Any], notes: Notes) -> Shape | None:
    columns = numbered_columns(values)
    name = next((name for name in _PREFERENCES if name in values), None)
    if name is None or len(columns) != 2:
        return None

    def read(row: Mapping[str, Any]) -> Given:
        strength = row.get(name)
        if strength is not None and to_score(strength) is None:
            raise RowFault("wrong_type", f"{name!r} must be a number")
        preference = to_score(strength)
        if not preference:
            state = "is null" if preference is None else "prefers neither"
            raise RowFault("no_preference", f"{name!r} {state}")
        ordered = columns if preference < 0 else columns[::-1]
        return _pair([row.get(column) for column in ordered], ordered, row, notes)

    said = f"numbered columns and {name}"
    return Shape(said, "pairs", read, columns, notes, False, "context")


_RECOGNISERS: tuple[Callable[[Mapping[str, Any], Notes], Shape | None], ...] = (
    _chosen_rejected,
    _rejected_beside_messages,
    _ranked,
    _preference,
)
"""Every known form, in the order in which they are tried."""


def _pair(
    items: list[Any],
    columns: tuple[str, ...],
    values: Mapping[str, Any],
    notes: Notes,
) -> Given:
    """Read chosen and rejected; what both have before their last turn is the prompt."""
    turned = [_parse_dialogue(item) for item in items]
    if None not in turned:
        items = turned
    found = [
        read_response(item, repr(column), notes)
        for item, column in zip(items, columns, strict=True)
    ]
    _refuse_incomparable(found)
    given = gather(found, columns, values)
    if notes.score_name in values:
        return note_columns(given, values, notes, (0, 1), 2)
    return _with_margin(_with_pair_columns(given, values, notes), values)


def _parse_dialogue(value: Any) -> list[dict[str, str]] | None:
    """Return the messages of `Human: …` and `Assistant: …` paragraphs, none where it is no such."""
    if not isinstance(value, str) or not _DIALOGUE.match(value):
        return None
    pieces = _SPEAKER.split(value)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": text.removeprefix(" ")}
        for speaker, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _refuse_incomparable(found: list[Found]) -> None:
    chosen, rejected = found
    if chosen.before and rejected.before and chosen.before != rejected.before:
        raise RowFault(
            "diverges_before_last_turn",
            "chosen and rejected differ before their last turn: they answer different prompts",
        )


def _with_pair_columns(given: Given, values: Mapping[str, Any], notes: Notes) -> Given:
    """Take scores and lengths from columns for chosen and rejected, where both are numbers."""
    scores = _SCORE_COLUMNS if notes.score_name is None else ()
    for said, pairs, convert in (
        ("score", scores, to_score),
        ("num_tokens", (_LENGTH_COLUMNS,), to_count),
    ):
        for names in pairs:
            numbers = _numbers(names, convert, values)
            if numbers is not None and notes.take_pair(said, names):
                given = _with_numbers(given, said, names, numbers, values)
                break
    return given


def _numbers(
    names: tuple[str, str], convert: Convert, values: Mapping[str, Any]
) -> list[Any] | None:
    """Return what two columns say, none where they are not there or hold anything else."""
    raw = [values.get(name) for name in names]
    items = [convert(item) for item in raw]
    fit = all(item is not None or is_empty(one) for item, one in zip(items, raw, strict=True))
    return items if fit and values.keys() & set(names) else None


def _with_numbers(
    given: Given, said: str, names: tuple[str, str], numbers: list[Any], values: Mapping[str, Any]
) -> Given:
    responses = [
        replace(response, **{said: number})
        for response, number in zip(given.responses, numbers, strict=True)
    ]
    is_ours = names in (_SCORE_COLUMNS[0], _LENGTH_COLUMNS)
    gone = values.keys() & set(names) if is_ours else set()
    return replace(given, responses=tuple(responses), consumed=given.consumed | gone)


def _with_margin(given: Given, values: Mapping[str, Any]) -> Given:
    """Leave out a margin that is empty or just the difference of the scores: it is made anew."""
    if values.get("margin", 0) in (None, ""):
        return replace(given, consumed=given.consumed | {"margin"})
    margin = to_score(values.get("margin"))
    chosen, rejected = (response.score for response in given.responses)
    if margin is None or chosen is None or rejected is None:
        return given
    tolerance = 1e-6 * max(1.0, abs(chosen), abs(rejected))
    if abs(chosen - rejected - margin) > tolerance:
        return given
    return replace(given, consumed=given.consumed | {"margin"})
