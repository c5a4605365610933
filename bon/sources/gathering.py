"""Rows of one prompt brought together, wherever they stand: sorted on disk, in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from bon.durable import scratch_folder
from bon.errors import BonError, OutputError
from bon.records import Drop, GivenResponse
from bon.sources.groups import ReadRow
from bon.sources.ids import content_id
from bon.sources.rows import Fault
from bon.system_faults import advice, reason

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["gather_rows"]

_BATCH_ROWS = 4096
_MEMORY_LIMIT = "384MiB"
_SCHEMA = pa.schema(
    [
        ("place", pa.int64()),
        ("key", pa.int64()),
        ("is_row", pa.bool_()),
        ("start", pa.int64()),
        ("num_bytes", pa.int64()),
    ]
)
_TYPES = {pa.int64(): "BIGINT", pa.bool_(): "BOOLEAN"}
_IN_ORDER = """
    SELECT is_row, start, num_bytes
    FROM rows JOIN (SELECT key, min(place) AS first FROM rows GROUP BY key) USING (key)
    ORDER BY first, place
"""


def gather_rows(rows: Iterable[ReadRow | Drop], beside: Path) -> Iterator[ReadRow | Drop]:
    """Yield the rows so that those of one prompt follow each other.

    Prompts come in the order of their first rows, a prompt's rows in their own; a drop stays behind
    the row before it. So rows that follow each other already come as they are. All rows are read
    before the first one is yielded. They wait in a scratch folder next to `beside`, which takes
    about as much room as the input; duckdb sorts where they lie, and spills to it.

    Raises:
        OutputError: the disk is full, too few open files, too little memory, …
    """
    import duckdb

    with scratch_folder(beside) as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": str(folder / "spill"),
            "threads": 2,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            with (
                duckdb.connect(str(folder / "order.duckdb"), config=config) as connection,
                (folder / "rows.jsonl").open("w+b") as file,
            ):
                _store(connection, file, rows)
                yield from _read_in_order(connection, file)
        except (duckdb.Error, OSError) as error:
            if isinstance(error, BonError):  # of the reading: some of these are OSErrors too
                raise
            raise OutputError(
                "cannot bring the responses to each prompt together",
                where=str(beside),
                why=reason(error),
                next_step=f"{advice(error, 'sort the input by its prompts')}, and run the same "
                "command again",
            ) from error


def _store(connection: DuckDBPyConnection, file: BinaryIO, rows: Iterable[ReadRow | Drop]) -> None:
    """Write the rows to the file; only where they lie is sorted: long ones need no memory."""
    columns = ", ".join(f"{item.name} {_TYPES[item.type]}" for item in _SCHEMA)
    connection.execute(f"CREATE TABLE rows ({columns})")
    placed = _written(file, rows)
    while batch := list(islice(placed, _BATCH_ROWS)):
        values = zip(zip(*batch, strict=True), _SCHEMA, strict=True)
        arrays = [pa.array(column, item.type) for column, item in values]
        connection.register("batch", pa.Table.from_arrays(arrays, schema=_SCHEMA))
        connection.execute("INSERT INTO rows SELECT * FROM batch")
        connection.unregister("batch")
    file.flush()


def _written(
    file: BinaryIO, rows: Iterable[ReadRow | Drop]
) -> Iterator[tuple[int, int, bool, int, int]]:
    key = start = 0  # the key of drops before the first row
    for place, row in enumerate(rows):
        if isinstance(row, Drop):
            text = json.dumps(asdict(row))
        else:
            key, text = _key(row), _as_text(row)
        num_bytes = file.write(text.encode())
        yield place, key, isinstance(row, ReadRow), start, num_bytes
        start += num_bytes


def _key(row: ReadRow) -> int:
    """Return 64 bits of what the row's prompt is known by."""
    known = f"id {row.own_id}" if row.own_id is not None else f"content {content_id(row.messages)}"
    digest = hashlib.blake2b(known.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _as_text(row: ReadRow) -> str:
    said = {item.name: getattr(row, item.name) for item in fields(ReadRow)}
    said["responses"] = [asdict(one) for one in row.responses]
    said["faults"] = [asdict(one) for one in row.faults]
    return json.dumps(said)


def _read_in_order(connection: DuckDBPyConnection, file: BinaryIO) -> Iterator[ReadRow | Drop]:
    result = connection.execute(_IN_ORDER)
    while places := result.fetchmany(_BATCH_ROWS):
        for is_row, start, num_bytes in places:
            said = json.loads(os.pread(file.fileno(), num_bytes, start))
            yield _from_json(said) if is_row else Drop(**said)


def _from_json(said: dict[str, Any]) -> ReadRow:
    return ReadRow(
        **said
        | {
            "messages": tuple(said["messages"]),
            "responses": tuple(GivenResponse(**one) for one in said["responses"]),
            "faults": tuple(Fault(**one) for one in said["faults"]),
        }
    )
