"""Read an input that has responses or pairs: each prompt with its responses, or why not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bon.config import InputSettings, ResponseSettings
from bon.errors import InputError, UnknownLayoutError, listed
from bon.records import GIVEN_ID, Drop, GivenResponses, Prompt
from bon.sources.files import read_rows
from bon.sources.gathering import gather_rows
from bon.sources.groups import ReadRow, join_rows
from bon.sources.ids import (
    IdColumn,
    Ids,
    choose_id_column,
    content_id,
    free_given_id,
    id_columns_gone,
    read_id,
)
from bon.sources.layouts import Layout, named_layout, refuse_unknown_column
from bon.sources.pairs import recognise_pairs
from bon.sources.response_layouts import recognise_responses
from bon.sources.response_prompts import choose_prompt, read_prompt_before
from bon.sources.rows import RowFault, SourceRow
from bon.sources.shapes import Shape

__all__ = ["ResponseReader", "has_answers", "recognise_kind"]

Kind: TypeAlias = Literal["prompts", "responses", "pairs"]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the first good row decided for all."""

    shape: Shape
    layout: Layout | None
    """Where the prompt is; none where only the responses' conversations say it."""
    id_column: IdColumn | None
    others: tuple[str, ...]


class ResponseReader:
    """The rows of a source as prompts with responses, and drops, in input order.

    It can be iterated again. The first row that can be parsed decides how all are read; the first
    that has a score (verdict, length) anywhere decides where all have it. A single
    response that cannot be read is a drop with a candidate number (after those of the readable
    ones) that follows its prompt; all other drops are whole rows.

    With `group`, consecutive rows of one response each that answer the same prompt are one
    prompt; `Prompt.row` and `InputSettings.limit` then count such groups and the faulty rows.
    Where such rows stand apart, `is_scattered` says so, and after `gather` they are one prompt too.
    Pairs are never grouped. Without `group`, ids may repeat: a prompt's id is its row's number and
    `extra[GIVEN_ID]` the row's own (or content-made) id.

    Raises:
        SettingsError: an unknown layout, or a layout and a prompt column at once; on iteration, a
            named column that the input does not have.
        InputError: on iteration, the input as a whole cannot be used.
    """

    def __init__(
        self, source: str, inputs: InputSettings, responses: ResponseSettings, *, group: bool
    ) -> None:
        self._source, self._inputs, self._responses = source, inputs, responses
        self._group = group
        self._plan: _Plan | None = None
        self._num_rows = self._num_items = 0
        self._beside: Path | None = None
        self._is_scattered = self._is_read = False
        self._layout = named_layout(inputs)
        self._is_named = inputs.layout is not None or inputs.prompt_column is not None

    @property
    def kind(self) -> Literal["responses", "pairs"] | None:
        """What a row is, once the first good row has been read."""
        return self._plan.shape.kind if self._plan else None

    @property
    def id_column(self) -> str | None:
        """The id column, once the first good row has been read; none: ids come from content."""
        column = self._plan.id_column if self._plan else None
        return column.name if column else None

    @property
    def is_scattered(self) -> bool:
        """Whether rows so far answer a prompt of rows before, with others between them."""
        return self._is_scattered

    def gather(self, beside: Path) -> None:
        """From the next reading on, make one prompt of all rows that answer it, wherever they are.

        All rows are then read before the first prompt comes, and wait in a folder next to `beside`.
        """
        self._beside = beside

    def describe(self) -> str:
        """Return a line that says how the input is read, once a row of it has been.

        How many rows were joined is said once all have been read.
        """
        if self._plan is None:
            return f"no row of {self._source} could be read"
        plan = self._plan
        prompt = plan.layout.prompt_from if plan.layout else "the turns before the responses"
        ids = f"ids from `{self.id_column}`" if self.id_column else "ids made from content"
        columns = ", ".join(f"`{column}`" for column in plan.shape.columns)
        scores = plan.shape.notes.describe()
        scored = f"scores from {scores}, " if scores else ""
        apart = ", those that stood apart too" if self._beside is not None else ""
        joined = (
            f"; {self._num_rows:,} rows joined by prompt into {self._num_items:,}{apart}"
            if self._joins and self._is_read
            else ""
        )
        return (
            f"read as {plan.shape.kind} ({plan.shape.name}): prompt from {prompt}, "
            f"responses from {columns}, {scored}{ids}, "
            f"other columns kept: {listed(plan.others) or 'none'}{joined}"
        )

    def __iter__(self) -> Iterator[GivenResponses | Drop]:
        self._plan = None
        self._num_rows = self._num_items = 0
        self._is_scattered = self._is_read = False
        rows: Iterator[ReadRow | Drop] = (
            self._read(row) for row in read_rows(self._source, self._inputs.split)
        )
        if self._beside is not None:
            rows = gather_rows(rows, self._beside)
        items = join_rows(rows) if self._group else rows
        ids = Ids()
        for number, item in enumerate(islice(items, self._inputs.limit)):
            self._num_items += 1
            self._num_rows += 1 if isinstance(item, Drop) else item.num_rows
            yield from self._finish(item, number, ids)
            self._is_scattered |= ids.num_repeats > 0 and self._joins
        self._is_read = True

    def _read(self, row: SourceRow) -> ReadRow | Drop:
        if row.values is None:
            reason, detail = "malformed", "the row is empty"
            if row.fault is not None:
                reason, detail = row.fault.reason, row.fault.detail
            return Drop(reason, detail, where=row.where)
        if self._plan is None:
            self._plan = self._make_plan(row.values, row.where)
        plan, own_id = self._plan, None
        try:
            if plan.id_column is not None:
                own_id = read_id(row.values, plan.id_column)
            given = plan.shape.read(row.values)
            messages, said = read_prompt_before(row.values, given, plan.layout, self._is_named)
        except RowFault as error:
            return Drop(error.fault.reason, error.fault.detail, where=row.where, id=own_id or "")
        gone = said | id_columns_gone(row.values, plan.id_column, own_id)
        extra = {name: value for name, value in row.values.items() if name not in gone}
        extra |= {name: value for name, value in given.rest.items() if name not in extra}
        extra = free_given_id(extra)
        can_join = self._group and plan.shape.is_single
        return ReadRow(own_id, messages, given.responses, extra, row.where, can_join, given.faults)

    def _finish(
        self, item: ReadRow | Drop, number: int, ids: Ids
    ) -> Iterator[GivenResponses | Drop]:
        """Give an item its number and id; responses that could not be read come after it."""
        if isinstance(item, Drop):
            yield replace(item, row=number)
            return
        extra = item.extra
        if not self._group or self.kind == "pairs":
            prompt_id = str(number)
            extra = {**extra, GIVEN_ID: item.own_id or content_id(item.messages)}
        elif item.own_id is None:
            prompt_id = ids.make(item.messages)
        else:
            prompt_id = item.own_id
            try:
                ids.claim(prompt_id)
            except RowFault as error:
                fault = error.fault
                yield Drop(fault.reason, fault.detail, item.where, prompt_id, number)
                return
        prompt = Prompt(prompt_id, item.messages, extra, number, item.where)
        yield GivenResponses(prompt, item.responses)
        for candidate, fault in enumerate(item.faults, start=len(item.responses)):
            yield Drop(fault.reason, fault.detail, item.where, prompt_id, number, candidate)

    @property
    def _joins(self) -> bool:
        return self._group and self._plan is not None and self._plan.shape.is_single

    def _make_plan(self, values: dict[str, Any], where: str) -> _Plan:
        shape = _choose_shape(values, self._responses, where)
        column = self._inputs.prompt_column
        layout = choose_prompt(values, shape, self._layout, column, where)
        consumes = layout.consumes if layout is not None else frozenset()
        taken = consumes | set(shape.columns)
        with suppress(RowFault):
            taken |= shape.read(values).consumed
        id_column = choose_id_column(values, self._inputs.id_column, taken)
        gone = taken | ({id_column.name} if id_column else set())
        others = tuple(name for name in values if name not in gone)
        return _Plan(shape, layout, id_column, others)


def recognise_kind(source: str, inputs: InputSettings, responses: ResponseSettings) -> Kind:
    """Tell what a row of the source is, by the columns of the first row that can be parsed.

    Rows that are whole conversations or alpaca's are prompts, unless `source_kind` says otherwise.

    Raises:
        InputError: the input cannot be read.
    """
    if responses.source_kind != "auto":
        return responses.source_kind
    if responses.response_column is not None:
        return "responses"
    for row in read_rows(source, inputs.split):
        if row.values is not None:
            shape = _recognise(row.values, responses)
            return shape.kind if shape is not None else "prompts"
    return "prompts"


def has_answers(source: str, inputs: InputSettings, responses: ResponseSettings) -> bool:
    """Tell whether rows that may be prompts end with an answer, by the first that can be parsed.

    Raises:
        InputError: no row can be read.
    """
    asked = responses.model_copy(update={"source_kind": "responses"})
    where = why = ""
    for row in read_rows(source, inputs.split):
        if row.values is None:
            where, why = row.where, row.fault.detail if row.fault is not None else why
            continue
        shape = _recognise(row.values, asked)
        with suppress(RowFault):
            return shape is not None and any(
                one.response.strip() for one in shape.read(row.values).responses
            )
        return False
    raise InputError(
        f"no row of {source} can be read",
        where=where,
        why=why,
        next_step="check that the file holds what its name says",
    )


def _recognise(values: Mapping[str, Any], settings: ResponseSettings) -> Shape | None:
    kind = settings.source_kind
    if settings.response_column is None and kind in ("auto", "pairs"):
        shape = recognise_pairs(values, settings)
        if shape is not None or kind == "pairs":
            return shape
    return recognise_responses(values, settings, asked=kind == "responses")


def _choose_shape(values: Mapping[str, Any], settings: ResponseSettings, where: str) -> Shape:
    if settings.response_column is not None:
        place = f"--response-column; {where}"
        refuse_unknown_column(values, settings.response_column, place)
    shape = _recognise(values, settings)
    if shape is None:
        raise UnknownLayoutError(
            f"no column holds {'pairs' if settings.source_kind == 'pairs' else 'responses'}",
            where=where,
            why=f"the columns are {listed(sorted(values)) or '(none)'}",
            next_step="name the column of the responses with --response-column NAME; docs/"
            "responses.md lists what is recognised",
        )
    score = settings.score_column
    if score is not None and not any(score in _keys(values[name]) for name in shape.columns):
        refuse_unknown_column(values, score, f"--score-column; {where}")
    return shape


def _keys(value: Any) -> Collection[str]:
    """Return the keys of an object, or of the first object in a list."""
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, dict) else ()
