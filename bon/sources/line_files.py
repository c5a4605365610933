"""Rows of plain text and of comma- or tab-separated files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from bon.errors import InputError
from bon.sources.json_values import JsonDecoder
from bon.sources.locate import InputFile
from bon.sources.rows import RowFault, SourceRow, read_row, refuse_repeated_columns
from bon.sources.streams import decode_line, numbered_lines, open_text, refuse_broken_utf8

__all__ = ["read_delimited", "read_text"]

_MAX_FIELD_CHARS = 1 << 24
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MESSAGE_KEYS = ({"role", "content"}, {"from", "value"})


def read_text(file: InputFile) -> Iterator[SourceRow]:
    """Yield each line as a `prompt`.

    A blank line between others is a row too, whose prompt is empty (it becomes the drop
    `empty_prompt`), so rows and lines stay in step; blank lines at the end are no rows.
    """
    blanks = 0
    for number, line in numbered_lines(file):
        if not line.strip():
            blanks += 1
            continue
        for blank in range(number - blanks, number):
            yield SourceRow(f"{file.path.name}:{blank}", {"prompt": ""})
        blanks = 0
        yield read_row(f"{file.path.name}:{number}", _read_line, line)


def _read_line(line: bytes) -> dict[str, Any]:
    return {"prompt": decode_line(line)}


def read_delimited(file: InputFile) -> Iterator[SourceRow]:
    """Yield the records of a `.csv` or `.tsv` file with a header; blank lines are no rows.

    Quoting is strict: a record with text after a closing quote, or whose quote never closes, is
    the fault `malformed_csv`; one with more or fewer fields than the header `wrong_field_count`.
    A cell is a text, or a list of messages that is written as JSON.

    Raises:
        InputError: the header is not UTF-8, not CSV, or names a column twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARS))
    with open_text(file) as text:
        reader = csv.reader(text, delimiter=_DELIMITERS[file.format], strict=True)
        header = _read_header(reader, file)
        ended = not header
        while not ended:
            where = f"{file.path.name}:{reader.line_num + 1}"
            try:
                row = read_row(where, _read_record, reader, header)
            except StopIteration:
                ended = True
            else:
                if row.values != {}:
                    yield row


def _read_header(reader: Any, file: InputFile) -> list[str]:
    header: list[str] = []
    try:
        while not header:
            header = next(reader)
        refuse_broken_utf8("".join(header))
    except StopIteration:
        return []
    except (csv.Error, RowFault) as error:
        why = error.fault.detail if isinstance(error, RowFault) else str(error)
        raise InputError(
            f"cannot read the header of {file.path.name}",
            where=f"{file.path}:{reader.line_num}",
            why=why,
            next_step="write the file as UTF-8 with the columns' names in its first line",
        ) from None
    refuse_repeated_columns(header, f"{file.path}:1")
    return header


def _read_record(reader: Any, header: list[str]) -> dict[str, Any]:
    try:
        fields = next(reader)
    except csv.Error as error:
        raise RowFault("malformed_csv", str(error)) from None
    if not fields:
        return {}
    refuse_broken_utf8("".join(fields))
    if len(fields) != len(header):
        raise RowFault(
            "wrong_field_count", f"{len(fields)} fields, but the header has {len(header)}"
        )
    return {name: _read_cell(text) for name, text in zip(header, fields, strict=True)}


def _read_cell(text: str) -> Any:
    """Return a cell's text, or the messages that a cell holds as JSON, as `bon` writes them."""
    if not text.startswith("[{") or not text.endswith("}]"):
        return text
    try:
        value = JsonDecoder().line(f'{{"cell":{text}}}')["cell"]
    except RowFault:
        return text
    is_messages = all(isinstance(one, dict) and set(one) in _MESSAGE_KEYS for one in value)
    return value if is_messages else text
