"""Parquet files written durably and read back with every byte that matters verified.

Pages have checksums of their own; Parquet's footer has none, so a flipped bit in it could change
names, types or numbers of rows. Between the last page and the footer, where readers do not look,
lies a record of 12 bytes: `bon1`, the CRC-32 of all bytes before it, and that of all bytes behind.
The second is verified on every read, the first where a whole file is checked.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from bon.durable import PARQUET_OPTIONS, replace_file
from bon.errors import PoolCorruptError, SystemFaultError, first_line
from bon.object_store import ObjectPath
from bon.places import Place, is_local
from bon.records import YOUNGER_COLUMNS
from bon.system_faults import refuse_system_fault

__all__ = ["REDO", "SEALED", "check_whole", "read_footer", "read_table", "write_table"]

REDO = (
    "run the command that makes the pool again with --repair: only this part is redone, and the "
    "damaged file is kept in .bon/damaged"
)
SEALED = b"bon.sealed"
"""Key in the footer of a file that has the record; without it, a lost record would be unseen."""

_MARK = b"bon1"
_RECORD = struct.Struct("<4sII")
_END = struct.Struct("<I4s")
"""Length of the footer, and Parquet's magic number."""
_TAIL_BYTES = 1 << 14
_CHUNK_BYTES = 1 << 22
_T = TypeVar("_T")


def write_table(
    table: pa.Table, final: Place, staging: Place, metadata: dict[str, str] | None = None
) -> None:
    """Write one Parquet file durably; `metadata` goes into its footer."""
    said = {**(table.schema.metadata or {}), **(metadata or {}), SEALED.decode(): "1"}
    with replace_file(final, staging) as path:
        pq.write_table(table.replace_schema_metadata(said), path, **PARQUET_OPTIONS)
        _seal(path)


def read_footer(path: Place) -> pq.FileMetaData:
    """Read a file's footer and verify its checksum.

    Raises:
        PoolCorruptError: the file is missing or damaged.
        SystemFaultError: the system does not let it be read.
    """
    try:
        return _verified_footer(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        refuse_system_fault(error, path)
        raise PoolCorruptError(
            f"cannot read the footer of {path.name}",
            where=str(path),
            why=_reason(error),
            next_step=REDO,
        ) from error


def read_table(path: Place, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file back and verify its footer, its page checksums and its schema.

    Columns that are younger than the file are null.

    Raises:
        PoolCorruptError: the file is missing, damaged or has other columns.
        SystemFaultError: the system does not let it be read.
    """
    try:
        table = _through(path, lambda content: _read_content(path, content, schema, columns))
        expected = schema if columns is None else pa.schema([schema.field(c) for c in columns])
        table = table if columns is None else table.select(columns)
        if not table.schema.equals(expected):
            raise pa.ArrowInvalid(f"columns are {table.schema.names}, not {expected.names}")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        # ValueError: names not in UTF-8; KeyError: a column that is not there
        refuse_system_fault(error, path)
        raise PoolCorruptError(
            f"cannot read {path.name} back", where=str(path), why=_reason(error), next_step=REDO
        ) from error
    return table


def check_whole(path: Place) -> None:
    """Verify every byte of a file; older ones have no checksum for that, only those of pages.

    Raises:
        PoolCorruptError: the file is missing or damaged.
        SystemFaultError: the system does not let it be read.
    """
    try:
        _through(path, _check_content)
    except (OSError, ValueError) as error:
        refuse_system_fault(error, path)
        raise PoolCorruptError(
            f"cannot read {path.name} back", where=str(path), why=_reason(error), next_step=REDO
        ) from error


def _through(path: Place, read: Callable[[BinaryIO], _T]) -> _T:
    """Return what `read` makes of a file's content.

    Of an object on a store, what fails is done again with all of it fetched before: the words of
    Arrow do not tell a store that fails from content that is damaged.
    """
    try:
        with path.open("rb") as file:
            return read(file)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        if not isinstance(path, ObjectPath) or isinstance(error, SystemFaultError):
            raise
    with path.open("rb", is_whole=True) as file:
        return read(file)


def _read_content(
    path: Place, content: BinaryIO, schema: pa.Schema, columns: list[str] | None
) -> pa.Table:
    tail, record = _split(content)
    with _parquet_file(path, content, tail) as file:
        _refuse_unsealed(file.metadata, record)
        return _read_columns(file, schema, columns)


def _check_content(file: BinaryIO) -> None:
    _, record = _split(file)
    if record is None:
        return
    end, expected = record
    file.seek(0)
    found = 0
    while chunk := file.read(min(_CHUNK_BYTES, end - file.tell())):
        found = zlib.crc32(chunk, found)
    if found != expected:
        raise ValueError("the checksum of its pages does not fit")


def _seal(path: Path) -> None:
    """Put the record between a new file's pages and its footer."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        tail, _ = _tail(file, size)
        end = size - len(tail)
        file.seek(0)
        checksum = 0
        while chunk := file.read(min(_CHUNK_BYTES, end - file.tell())):
            checksum = zlib.crc32(chunk, checksum)
        file.seek(end)
        file.write(_RECORD.pack(_MARK, checksum, zlib.crc32(tail)) + tail)


def _parquet_file(path: Place, content: BinaryIO, tail: bytes) -> pq.ParquetFile:
    # pq.read_table makes a dataset of the file first, which takes longer than a part's reading.
    if is_local(path):
        return pq.ParquetFile(path, page_checksum_verification=True)
    # each reading is a request: the footer is here already, and columns are fetched together
    return pq.ParquetFile(
        content, metadata=_parsed(tail), page_checksum_verification=True, pre_buffer=True
    )


def _read_columns(file: pq.ParquetFile, schema: pa.Schema, columns: list[str] | None) -> pa.Table:
    younger = _younger(file.schema_arrow.names, schema)
    table = file.read(None if columns is None else [c for c in columns if c not in younger])
    for name in younger:
        nulls = pa.nulls(file.metadata.num_rows, schema.field(name).type)
        table = table.append_column(schema.field(name), nulls)
    return table


def _tail(file: BinaryIO, size: int) -> tuple[bytes, bytes]:
    """Return the footer, its length and the magic number behind it; and what the record may be."""
    if size < _END.size:
        raise ValueError(f"it has only {size} bytes")
    file.seek(max(0, size - _TAIL_BYTES))
    end = file.read()
    num_bytes, magic = _END.unpack(end[-_END.size :])
    length = num_bytes + _END.size
    if magic != b"PAR1" or length > size:
        raise ValueError("it does not end as a Parquet file does")
    wanted = min(size, length + _RECORD.size)
    if wanted > len(end):
        file.seek(size - wanted)
        end = file.read()
    return end[-length:], end[-wanted:-length]


def _split(file: BinaryIO) -> tuple[bytes, tuple[int, int] | None]:
    """Return a file's tail, verified, and where its pages end with their checksum, if known."""
    size = file.seek(0, os.SEEK_END)
    tail, before = _tail(file, size)
    if len(before) == _RECORD.size:
        end = size - len(tail) - _RECORD.size
        mark, of_pages, of_tail = _RECORD.unpack(before)
        if mark == _MARK:
            if zlib.crc32(tail) != of_tail:
                raise ValueError("the checksum of its footer does not fit")
            return tail, (end, of_pages)
    return tail, None


def _verified_footer(path: Place) -> pq.FileMetaData:
    tail, record = _through(path, _split)
    footer = _parsed(tail)
    _refuse_unsealed(footer, record)
    return footer


def _parsed(tail: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(b"PAR1" + tail))


def _refuse_unsealed(footer: pq.FileMetaData, record: tuple[int, int] | None) -> None:
    if record is None and SEALED in (footer.metadata or {}):
        raise ValueError("the checksum before its footer is gone")


def _reason(error: Exception) -> str:
    """Return what an error says, without the path that stands in ours already."""
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


def _younger(names: list[str], schema: pa.Schema) -> list[str]:
    """List the columns that a whole file lacks only because they are younger than it."""
    if not set(names) <= set(schema.names):
        return []  # a damaged name may be that of the column
    return [name for name in schema.names if name in YOUNGER_COLUMNS and name not in names]
