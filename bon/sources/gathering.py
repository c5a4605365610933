"""Rows of one prompt brought together, wherever they stand: sorted on disk, in bounded memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bon.durable import scratch_folder
from bon.errors import InputError, OutputError, first_line
from bon.records import Drop, GivenResponse
from bon.sources.groups import ReadRow
from bon.sources.ids import content_id
from bon.sources.rows import Fault

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["gather_rows"]

_BATCH_ROWS = 1024
_MEMORY_LIMIT = "384MiB"
_SCHEMA = pa.schema(
    [("place", pa.int64()), ("is_row", pa.bool_()), ("key", pa.string()), ("row", pa.string())]
)
_IN_ORDER = """
    SELECT is_row, rows.row
    FROM rows JOIN (SELECT key, min(place) AS first FROM rows GROUP BY key) USING (key)
    ORDER BY first, place
"""


def gather_rows(rows: Iterable[ReadRow | Drop], beside: Path) -> Iterator[ReadRow | Drop]:
    """Yield the rows so that those of one prompt follow each other.

    Prompts come in the order of their first rows, a prompt's rows in their own; a drop stays behind
    the row before it. So rows that follow each other already come as they are. All rows are read
    before the first one is yielded. They wait in a scratch folder next to `beside`, which takes
    about as much room as the input, and are sorted by duckdb, which spills to it.

    Raises:
        InputError: duckdb is not installed.
        OutputError: the disk is full.
    """
    import_error = InputError(
        "the responses to a prompt do not follow each other in this input",
        why="bringing them together takes the package duckdb, which is not installed",
        next_step="pip install 'bon-cli[curation]', or sort the input by its prompts",
    )
    try:
        import duckdb
    except ImportError:
        raise import_error from None
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
            with duckdb.connect(str(folder / "rows.duckdb"), config=config) as connection:
                _store(connection, rows)
                yield from _read_in_order(connection)
        except duckdb.Error as error:
            raise OutputError(
                "cannot bring the responses to each prompt together",
                where=str(folder),
                why=first_line(error),
                next_step="make room there, or sort the input by its prompts",
            ) from error


def _store(connection: DuckDBPyConnection, rows: Iterable[ReadRow | Drop]) -> None:
    connection.execute("CREATE TABLE rows (place BIGINT, is_row BOOLEAN, key VARCHAR, row VARCHAR)")
    keyed = _keyed(rows)
    while batch := list(islice(keyed, _BATCH_ROWS)):
        columns = [
            pa.array(values, item.type)
            for values, item in zip(zip(*batch, strict=True), _SCHEMA, strict=True)
        ]
        connection.register("batch", pa.Table.from_arrays(columns, schema=_SCHEMA))
        connection.execute("INSERT INTO rows SELECT * FROM batch")
        connection.unregister("batch")


def _keyed(rows: Iterable[ReadRow | Drop]) -> Iterator[tuple[int, bool, str, str]]:
    key = ""  # of the drops before the first row
    for place, row in enumerate(rows):
        if isinstance(row, Drop):
            yield place, False, key, json.dumps(asdict(row))
        else:
            key = _key(row)
            yield place, True, key, _as_text(row)


def _key(row: ReadRow) -> str:
    if row.own_id is None:
        return content_id(row.messages)
    return hashlib.blake2b(row.own_id.encode(), digest_size=16).hexdigest()


def _as_text(row: ReadRow) -> str:
    said = {item.name: getattr(row, item.name) for item in fields(ReadRow)}
    said["responses"] = [asdict(one) for one in row.responses]
    said["faults"] = [asdict(one) for one in row.faults]
    return json.dumps(said)


def _read_in_order(connection: DuckDBPyConnection) -> Iterator[ReadRow | Drop]:
    result = connection.execute(_IN_ORDER)
    while rows := result.fetchmany(_BATCH_ROWS):
        for is_row, text in rows:
            yield _from_json(json.loads(text)) if is_row else Drop(**json.loads(text))


def _from_json(said: dict[str, Any]) -> ReadRow:
    return ReadRow(
        **said
        | {
            "messages": tuple(said["messages"]),
            "responses": tuple(GivenResponse(**one) for one in said["responses"]),
            "faults": tuple(Fault(**one) for one in said["faults"]),
        }
    )
