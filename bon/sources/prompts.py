"""Read an input of any known shape as prompts, one for each row, or a drop that says why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bon.config import InputSettings
from bon.errors import InputError, listed
from bon.records import Drop, Prompt
from bon.sources.files import read_rows
from bon.sources.ids import IdColumn, Ids, choose_id_column, free_given_id, id_columns_gone, read_id
from bon.sources.layouts import Layout, choose_layout, named_layout
from bon.sources.locate import find_files
from bon.sources.rows import Fault, RowFault, SourceRow

__all__ = ["PromptReader", "input_digest"]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the first good row decided for all."""

    layout: Layout
    id_column: IdColumn | None
    others: tuple[str, ...]


class PromptReader:
    """The rows of a source as prompts and drops, in input order; can be iterated again.

    The first row that can be parsed decides the layout and the id column for all rows.

    Raises:
        SettingsError: an unknown layout, or a layout and a prompt column at once; on iteration, a
            named column that the input does not have.
        InputError: on iteration, the input as a whole cannot be used.
    """

    def __init__(self, source: str, settings: InputSettings) -> None:
        self._source, self._settings = source, settings
        self._plan: _Plan | None = None
        self._layout = named_layout(settings)

    @property
    def layout_name(self) -> str | None:
        """Name of the layout, once the first good row has been read."""
        return self._plan.layout.name if self._plan else None

    @property
    def id_column(self) -> str | None:
        """The id column, once the first good row has been read; none: ids come from content."""
        column = self._plan.id_column if self._plan else None
        return column.name if column else None

    def describe(self) -> str:
        """Return a line that says how the input is read, once the first good row has been."""
        if self._plan is None:
            return f"no row of {self._source} could be read"
        plan = self._plan
        ids = f"ids from `{self.id_column}`" if self.id_column else "ids made from content"
        others = listed(plan.others) or "none"
        return (
            f"read as {plan.layout.name}: prompt from {plan.layout.prompt_from}, {ids}, "
            f"other columns kept: {others}"
        )

    def __iter__(self) -> Iterator[Prompt | Drop]:
        self._plan = None
        ids = Ids()
        rows = read_rows(self._source, self._settings.split)
        for number, row in enumerate(islice(rows, self._settings.limit)):
            yield self._convert(row, number, ids)

    def _convert(self, row: SourceRow, number: int, ids: Ids) -> Prompt | Drop:
        if row.values is None:
            return _drop(row.fault or Fault("malformed", "the row is empty"), row, number)
        if self._plan is None:
            self._plan = self._make_plan(row.values, row.where)
        plan, own_id = self._plan, None
        try:
            if plan.id_column is not None:
                own_id = read_id(row.values, plan.id_column)
            conversation = plan.layout.read(row.values)
            if own_id is not None:
                ids.claim(own_id)
        except RowFault as error:
            return _drop(error.fault, row, number, own_id or "")
        prompt_id = ids.make(conversation.messages) if own_id is None else own_id
        gone = id_columns_gone(row.values, plan.id_column, own_id)
        if conversation.is_whole:
            gone |= plan.layout.consumes
        extra = {name: value for name, value in row.values.items() if name not in gone}
        extra = free_given_id(extra)
        return Prompt(prompt_id, conversation.messages, extra, number, row.where)

    def _make_plan(self, values: dict[str, Any], where: str) -> _Plan:
        settings = self._settings
        layout = choose_layout(values, self._layout, settings.prompt_column, where)
        id_column = choose_id_column(values, settings.id_column, layout.consumes)
        gone = layout.consumes | ({id_column.name} if id_column else set())
        return _Plan(layout, id_column, tuple(name for name in values if name not in gone))


def _drop(fault: Fault, row: SourceRow, number: int, prompt_id: str = "") -> Drop:
    return Drop(fault.reason, fault.detail, where=row.where, id=prompt_id, row=number)


def input_digest(source: str) -> str | None:
    """Return the SHA-256 of the source's bytes as they lie on disk, or none for a Hub dataset.

    That of several files, in reading order, is the SHA-256 of their digests; names do not count.

    Raises:
        InputError: as `find_files`, or a file cannot be read.
    """
    files = find_files(source)
    if files is None:
        return None
    digests = []
    for file in files:
        try:
            with file.path.open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256"))
        except OSError as error:
            raise InputError(
                f"cannot read {file.path.name}",
                where=str(file.path),
                why=error.strerror or str(error),
                next_step="check that the file is there and open to you",
            ) from None
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
