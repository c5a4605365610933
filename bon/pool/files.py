"""Parquet files written durably and read back with their checksums verified."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bon.durable import PARQUET_OPTIONS, replace_file
from bon.errors import PoolCorruptError, first_line
from bon.records import YOUNGER_COLUMNS

__all__ = ["read_table", "write_table"]


def write_table(
    table: pa.Table, final: Path, staging: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write one Parquet file durably; `metadata` goes into its footer."""
    if metadata:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    with replace_file(final, staging) as path:
        pq.write_table(table, path, **PARQUET_OPTIONS)


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file back and verify its page checksums and its schema.

    Columns that are younger than the file are null.

    Raises:
        PoolCorruptError: the file is missing, damaged or has other columns.
    """
    try:
        # pq.read_table makes a dataset of the file first, which takes longer than a part's reading.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            younger = _younger(file.schema_arrow.names, schema)
            table = file.read(None if columns is None else [c for c in columns if c not in younger])
            for name in younger:
                nulls = pa.nulls(file.metadata.num_rows, schema.field(name).type)
                table = table.append_column(schema.field(name), nulls)
        expected = schema if columns is None else pa.schema([schema.field(c) for c in columns])
        table = table if columns is None else table.select(columns)
        if not table.schema.equals(expected):
            raise pa.ArrowInvalid(f"columns are {table.schema.names}, not {expected.names}")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        # ValueError: names not in UTF-8; KeyError: a column that is not there
        raise PoolCorruptError(
            f"cannot read {path.name} back",
            where=str(path),
            why=first_line(error),
            next_step="delete this file and run the same command again: only this part is redone",
        ) from error
    return table


def _younger(names: list[str], schema: pa.Schema) -> list[str]:
    """List the columns that a whole file lacks only because they are younger than it."""
    if not set(names) <= set(schema.names):
        return []  # a damaged name may be that of the column
    return [name for name in schema.names if name in YOUNGER_COLUMNS and name not in names]
