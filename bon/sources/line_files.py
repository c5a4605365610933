"""Rows of plain text and of comma- or tab-separated files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, TextIO, cast

from bon.errors import InputError
from bon.sources.json_values import JsonDecoder
from bon.sources.limits import MAX_ROW_BYTES, row_too_large
from bon.sources.locate import InputFile
from bon.sources.rows import Fault, RowFault, SourceRow, read_row, refuse_repeated_columns
from bon.sources.streams import decode_line, numbered_lines, open_text, refuse_broken_utf8

__all__ = ["read_delimited", "read_text"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PIECE_CHARS = 1 << 18
_MAX_FIELDS = 1 << 22
_MESSAGE_KEYS = ({"role", "content"}, {"from", "value"})


def read_text(file: InputFile) -> Iterator[SourceRow]:
    """Yield each line as a `prompt`.

    A blank line between others is a row too, whose prompt is empty (it becomes the drop
    `empty_prompt`), so rows and lines stay in step; blank lines at the end are no rows.
    """
    blanks = 0
    for number, line in numbered_lines(file):
        if line is not None and not line.strip():
            blanks += 1
            continue
        for blank in range(number - blanks, number):
            yield SourceRow(f"{file.path.name}:{blank}", {"prompt": ""})
        blanks = 0
        yield read_row(f"{file.path.name}:{number}", _read_line, line)


def _read_line(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise row_too_large()
    text = decode_line(line)
    _refuse_nul(text)
    return {"prompt": text}


def _refuse_nul(text: str) -> None:
    if "\0" in text:
        raise RowFault("nul_character", "the row has a NUL, which no text has")


def read_delimited(file: InputFile) -> Iterator[SourceRow]:
    """Yield the records of a `.csv` or `.tsv` file with a header; blank lines are no rows.

    Quoting is strict: a record with text after a closing quote, or whose quote never closes, is
    the fault `malformed_csv`; one with more or fewer fields than the header `wrong_field_count`.
    A quote that is never closed ends with the file, or with the largest row that is read.
    A cell is a text, or a list of messages that is written as JSON.

    Raises:
        InputError: the header is not UTF-8, not CSV, or names a column twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    with open_text(file) as text:
        lines = _Lines(text, _DELIMITERS[file.format])
        reader = csv.reader(lines, delimiter=_DELIMITERS[file.format], strict=True)
        header = _read_header(reader, file, lines)
        ended = not header
        while not ended:
            where = f"{file.path.name}:{lines.number + 1}"
            try:
                row = read_row(where, _read_record, reader, header, lines)
            except StopIteration:
                ended = True
            else:
                if row.values != {}:
                    yield row


class _Lines:
    """The lines of a table, counted; those of one record are not too large to be held together."""

    def __init__(self, text: TextIO, delimiter: str) -> None:
        self._text, self._delimiter = text, delimiter
        self._num_delimiters = 0
        self.number = 0
        self.num_chars = 0
        """Of the record that is being read."""
        self.is_too_large = False

    def __iter__(self) -> Iterator[str]:
        read = self._text.readline
        while line := read(MAX_ROW_BYTES):
            self.number += 1
            self.num_chars += len(line)
            if self.num_chars <= _MAX_FIELDS or not self._takes_too_much(line):
                yield line
                continue
            piece = line
            while piece and piece[-1] not in "\r\n":
                piece = read(_PIECE_CHARS)
            self.is_too_large = True
            # no text: the reader stops here with its own error, and can go on with the next line
            yield cast(str, None)

    def _takes_too_much(self, line: str) -> bool:
        """Tell a record that is too long, or of too many fields: each is eight times its comma."""
        if self.num_chars - len(line) <= _MAX_FIELDS:  # so far there was no reason to count
            self._num_delimiters = 0
        self._num_delimiters += line.count(self._delimiter)
        return self.num_chars >= MAX_ROW_BYTES or self._num_delimiters > _MAX_FIELDS


def _read_header(reader: Any, file: InputFile, lines: _Lines) -> list[str]:
    header: list[str] = []
    try:
        while not header:
            header = next(reader)
        refuse_broken_utf8("".join(header))
    except StopIteration:
        return []
    except (csv.Error, RowFault) as error:
        why = error.fault.detail if isinstance(error, RowFault) else str(error)
        why = "it is too large" if lines.is_too_large else why
        raise InputError(
            f"cannot read the header of {file.path.name}",
            where=f"{file.path}:{reader.line_num}",
            why=why,
            next_step="write the file as UTF-8 with the columns' names in its first line",
        ) from None
    refuse_repeated_columns(header, f"{file.path}:1")
    return header


def _read_record(reader: Any, header: list[str], lines: _Lines) -> dict[str, Any]:
    first, lines.num_chars, lines.is_too_large = lines.number + 1, 0, False
    try:
        fields = next(reader)
    except csv.Error as error:
        fault = row_too_large().fault if lines.is_too_large else Fault("malformed_csv", str(error))
        spans = (
            f"; lines {first} to {lines.number} are one record: is a quote not closed?"
            if lines.number > first
            else ""
        )
        raise RowFault(fault.reason, fault.detail + spans) from None
    if not fields:
        return {}
    text = "".join(fields)
    refuse_broken_utf8(text)
    _refuse_nul(text)
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
