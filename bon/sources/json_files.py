"""Rows of JSON files: lines, one array, or objects one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bon.errors import InputError
from bon.sources.json_values import JsonDecoder, JsonStream
from bon.sources.limits import row_too_large
from bon.sources.locate import InputFile
from bon.sources.rows import RowFault, SourceRow, read_row
from bon.sources.streams import decode_line, numbered_lines, open_text

__all__ = ["read_json", "read_json_lines"]

_BLANK = b" \t\r\n"
"""What JSON takes for blank, and `JsonStream` too: a form feed, say, is not."""


def read_json_lines(file: InputFile) -> Iterator[SourceRow]:
    """Yield a row for each line; blank lines are no rows (files often end in one)."""
    decoder = JsonDecoder()
    for number, line in numbered_lines(file):
        if line is None or line.strip(_BLANK):
            yield read_row(f"{file.path.name}:{number}", _parse_line, decoder, line)


def _parse_line(decoder: JsonDecoder, line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise row_too_large()
    # files put together with cat have byte order marks in the middle
    return decoder.line(decode_line(line).removeprefix("\ufeff"))


def read_json(file: InputFile) -> Iterator[SourceRow]:
    """Yield the objects of a `.json` file, whichever of three shapes it has.

    An array of objects; where it does not begin with `[`, JSON lines, if its first line is a whole
    value; else objects one after the other, over as many lines as they like.

    Raises:
        InputError: an array, or objects over several lines, stop being JSON: without lines there
            is no next row to go on from.
    """
    with open_text(file) as text:
        opening = JsonStream(text).peek()
    if opening == "[":
        yield from _read_array(file)
    elif opening:
        yield from read_json_lines(file) if _is_json_lines(file) else _read_objects(file)


def _is_json_lines(file: InputFile) -> bool:
    first = next(line for _, line in numbered_lines(file) if line is None or line.strip(_BLANK))
    try:
        _parse_line(JsonDecoder(), first)
    except RowFault as error:
        return error.fault.reason != "malformed_json"
    return True


def _read_array(file: InputFile) -> Iterator[SourceRow]:
    with open_text(file) as text:
        stream, row = JsonStream(text), 0
        stream.peek()
        stream.skip()
        separator = "]" if stream.peek() == "]" else ","
        while separator == ",":
            yield _next_row(stream, file, row)
            row += 1
            separator = stream.peek()
            if separator not in ("]", ","):
                raise _broken(file, row, f"',' or ']' expected, found {separator or 'the end'!r}")
            if separator == ",":
                stream.skip()
        stream.skip()
        if after := stream.peek():
            raise _broken(file, row, f"the array is closed, but {after!r} follows it")


def _read_objects(file: InputFile) -> Iterator[SourceRow]:
    with open_text(file) as text:
        stream, row = JsonStream(text), 0
        while stream.peek():
            yield _next_row(stream, file, row)
            row += 1


def _next_row(stream: JsonStream, file: InputFile, row: int) -> SourceRow:
    try:
        return read_row(f"{file.path.name}:row {row + 1}", stream.next_row)
    except InputError:
        raise
    except ValueError as error:
        raise _broken(file, row, str(error)) from None
    except RecursionError:
        raise _broken(file, row, "the next row is nested too deeply to be read") from None


def _broken(file: InputFile, row: int, why: str) -> InputError:
    return InputError(
        f"{file.path.name} stops being JSON after row {row}",
        where=f"{file.path}: after row {row}",
        why=why,
        next_step="mend it there, or write it as JSON lines (.jsonl, an object a line), "
        "where a bad row is only a drop",
    )
