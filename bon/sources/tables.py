"""Rows of Parquet files and Hub datasets, their values turned into JSON values."""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bon.errors import InputError, InputNotFoundError
from bon.sources.limits import MAX_ROW_BYTES, row_too_large
from bon.sources.locate import InputFile
from bon.sources.rows import Bytes, RowFault, SourceRow, read_row, refuse_repeated_columns

__all__ = ["read_hub_dataset", "read_parquet", "to_json_value"]

_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 26
_DENSE_CHUNK_BYTES, _DENSE_RATIO = 1 << 22, 50


def read_parquet(file: InputFile) -> Iterator[SourceRow]:
    """Yield the rows of one Parquet file, batch by batch; page checksums are verified.

    Batches are small enough not to exhaust the memory, as far as the file's own metadata tell; a
    row above `MAX_ROW_BYTES` is the fault `row_too_large`.
    """
    options = {"pre_buffer": False, "buffer_size": 1 << 20, "page_checksum_verification": True}
    with pq.ParquetFile(str(file.path), **options) as parquet:
        refuse_repeated_columns(parquet.schema_arrow.names, str(file.path))
        number = 0
        for batch in parquet.iter_batches(batch_size=_batch_rows(parquet.metadata)):
            narrow = _without_nanoseconds(batch)
            # a batch is seldom so large: then no row has to be measured
            parse = _read_measured if narrow.nbytes > MAX_ROW_BYTES else _read_record
            for row in range(narrow.num_rows):
                number += 1
                yield read_row(f"{file.path.name}:row {number}", parse, narrow.slice(row, 1))


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Return how many rows fit into `_BATCH_BYTES`, judged by the widest row group."""
    rows = _BATCH_ROWS
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.num_rows:
            rows = min(rows, _BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1))
        if group.total_byte_size > _DENSE_CHUNK_BYTES and _is_dense(group):
            return 1
    return max(rows, 1)


def _is_dense(group: pq.RowGroupMetaData) -> bool:
    """Tell whether few bytes may stand for many: a long text in a dictionary, named by each row."""
    chunks = map(group.column, range(group.num_columns))
    return any(
        chunk.has_dictionary_page
        and chunk.total_uncompressed_size > _DENSE_CHUNK_BYTES
        and chunk.total_uncompressed_size > _DENSE_RATIO * chunk.total_compressed_size
        for chunk in chunks
    )


def _without_nanoseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cut timestamps to microseconds, all that Python's `datetime` holds."""
    columns, fields = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            column = column.cast(pa.timestamp("us", field.type.tz), safe=False)
        columns.append(column)
        fields.append(pa.field(field.name, column.type))
    if not columns:
        return batch
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _read_measured(batch: pa.RecordBatch) -> dict[str, Any]:
    if batch.nbytes > MAX_ROW_BYTES:
        raise row_too_large()
    return _read_record(batch)


def _read_record(batch: pa.RecordBatch) -> dict[str, Any]:
    try:
        (values,) = batch.to_pylist()
    except UnicodeDecodeError as error:
        raise RowFault("invalid_utf8", f"a string is not UTF-8: {error.reason}") from None
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise RowFault("unsupported_value", f"a value has no Python counterpart: {error}") from None
    return _json_columns(values)


def _json_columns(values: dict[str, Any]) -> dict[str, Any]:
    return {str(name): to_json_value(value) for name, value in values.items()}


def to_json_value(value: Any) -> Any:
    """Return the JSON value that stands for a Parquet value.

    Dates, times and timestamps become ISO 8601 strings, durations seconds, bytes base64 strings,
    decimals and UUIDs strings, and NaN and the infinities null.

    Raises:
        RowFault: `unsupported_value`, for what has no such form (a decoded image).
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return _json_columns(value)
        case list() | tuple():
            return [to_json_value(item) for item in value]
        case datetime.date() | datetime.time():  # a datetime is a date
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case bytes():
            return Bytes(base64.b64encode(value).decode())
        case decimal.Decimal() | uuid.UUID():
            return str(value)
    raise RowFault("unsupported_value", f"JSON cannot hold a {type(value).__name__}")


def read_hub_dataset(source: str, split: str) -> Iterator[SourceRow]:
    """Yield the rows of `org/name` or `org/name:config` as they are downloaded.

    Raises:
        InputNotFoundError: the Hub has no such dataset, or it needs a login.
        InputError: no such config or split, or the connection broke; says after which row.
    """
    rows = iter(_open_hub_dataset(source, split))
    number = 0
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except Exception as error:  # whatever the network and the dataset's reader raise
            raise _hub_error(source, error, f"stopped after row {number}") from error
        number += 1
        yield read_row(f"{source}:row {number}", _json_columns, values)


def _open_hub_dataset(source: str, split: str) -> Iterable[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"reading {source} from the Hub needs the package datasets",
            where=source,
            why="it is not installed, and there is no such path on disk",
            next_step="pip install datasets, or check the path",
        ) from None
    name, _, config = source.partition(":")
    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(
            name, config or None, split=split, streaming=True
        )
    except Exception as error:  # its own errors, the network's, the file system's
        raise _hub_error(source, error, f"split {split!r}") from error
    return rows


def _hub_error(source: str, error: Exception, where: str) -> InputError:
    kind = InputNotFoundError if isinstance(error, FileNotFoundError) else InputError
    return kind(
        f"cannot read the dataset {source} from the Hub",
        where=f"{source}, {where}",
        why=f"{type(error).__name__}: {error}",
        next_step="check the name (org/name, or org/name:config), --split, the network and "
        "`hf auth login`; it is not a path on disk either",
    )
