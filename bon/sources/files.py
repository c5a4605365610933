"""Read the rows of any input: a file, a folder, a pattern or a Hub dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from bon.errors import BonError, InputError
from bon.sources.json_files import read_json, read_json_lines
from bon.sources.line_files import read_delimited, read_text
from bon.sources.locate import InputFile, find_files
from bon.sources.rows import SourceRow
from bon.sources.tables import read_hub_dataset, read_parquet
from bon.system_faults import advice, reason

__all__ = ["read_rows"]

_READERS: dict[str, Callable[[InputFile], Iterator[SourceRow]]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".txt": read_text,
    ".parquet": read_parquet,
}


def read_rows(source: str, split: str) -> Iterator[SourceRow]:
    """Yield every row of `source`, good and bad, holding one row (or small batch) at a time.

    `split` is used for Hub datasets only. The files are looked up at the call, read on iteration.

    Raises:
        InputNotFoundError: there is no such input.
        InputError: its format is not known, it cannot be read on, or it has no rows.
    """
    files = find_files(source)
    if files is None:
        return _at_least_one(read_hub_dataset(source, split), source)
    return _at_least_one((row for file in files for row in _read_file(file)), source)


def _read_file(file: InputFile) -> Iterator[SourceRow]:
    row = 0
    try:
        for item in _READERS[file.format](file):
            yield item
            row += 1
    except BonError:
        raise
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(
            f"{file.path.name} cannot be read on after row {row}",
            where=f"{file.path}: after row {row}",
            why=reason(error),
            next_step=advice(
                error,
                "the file is damaged, cut off, closed to you or not what its name says: fetch or "
                "write it again",
            ),
        ) from error


def _at_least_one(rows: Iterable[SourceRow], source: str) -> Iterator[SourceRow]:
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise InputError(
            f"{source} has no rows",
            where=source,
            why="it is empty, or has only a header or blank lines",
            next_step="check that it was written to its end",
        )
