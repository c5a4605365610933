"""Files of rows: Parquet, JSON lines (plain, gzip, zstd) and CSV, written in groups of rows."""

from __future__ import annotations

import base64
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bon.durable import PARQUET_OPTIONS
from bon.exports.features import with_features
from bon.places import Place

__all__ = ["SUFFIXES", "RowFile", "open_rows", "suffix_of"]

_COMPRESSION = {".jsonl": None, ".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
SUFFIXES = (".parquet", *_COMPRESSION, ".csv")
"""Every file type that can be written."""
_LINES = 4096
_FORMULA = "^(?:[\t\r]|[\\s\u00a0\ufeff]*[=+@\uff1d\uff0b\uff0d\uff20-])"
"""The last four are the wide forms, which spreadsheets take for the plain ones."""
_NUMBER = r"^\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*$"


def suffix_of(path: Place) -> str | None:
    """Return which of `SUFFIXES` the path ends in, longest first."""
    return next((s for s in sorted(SUFFIXES, key=len)[::-1] if path.name.endswith(s)), None)


class RowFile(ABC):
    """A file of rows that is being written; each table becomes one row group, where it has any."""

    def __init__(self, path: Path) -> None:
        self._raw = pa.OSFile(str(path), "wb")

    @property
    def num_bytes(self) -> int:
        """Bytes on disk so far."""
        return int(self._raw.tell())

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """Append rows; the file must not stay without any table."""

    def close(self) -> None:
        """Finish the file."""
        self._raw.close()


def open_rows(path: Path, suffix: str, schema: pa.Schema) -> RowFile:
    """Open a new file of the type that the suffix names."""
    if suffix == ".parquet":
        return _Parquet(path, schema)
    return _Csv(path, schema) if suffix == ".csv" else _JsonLines(path, _COMPRESSION[suffix])


class _Parquet(RowFile):
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        super().__init__(path)
        self._writer = pq.ParquetWriter(self._raw, with_features(schema), **PARQUET_OPTIONS)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def close(self) -> None:
        self._writer.close()
        super().close()


class _JsonLines(RowFile):
    def __init__(self, path: Path, compression: str | None) -> None:
        super().__init__(path)
        self._sink = pa.CompressedOutputStream(self._raw, compression) if compression else self._raw

    def write(self, table: pa.Table) -> None:
        for lines in _json_lines(table):
            self._sink.write(lines)

    def close(self) -> None:
        self._sink.close()
        super().close()


class _Csv(RowFile):
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        super().__init__(path)
        self._writer = pa_csv.CSVWriter(self._raw, _flat(schema.empty_table()).schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(_flat(table))

    def close(self) -> None:
        self._writer.close()
        super().close()


def _json_lines(table: pa.Table) -> Iterator[bytes]:
    names = table.column_names
    for start in range(0, table.num_rows, _LINES):
        columns = [_values(column) for column in table.slice(start, _LINES).columns]
        rows = zip(*columns, strict=True)
        yield "".join(f"{_json(dict(zip(names, row, strict=True)))}\n" for row in rows).encode()


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return Python values; a float32 is the shortest number that reads back as itself."""
    kind = column.type
    if pa.types.is_float32(kind):
        return list(_shortest(column).to_pylist())
    if pa.types.is_list(kind) and pa.types.is_float32(kind.value_type):
        lists = column.combine_chunks()
        first, last = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        inside = _shortest(lists.values.slice(first, last - first))
        values = pa.ListArray.from_arrays(offsets, inside, mask=lists.is_null())
        return list(values.to_pylist())
    return list(column.to_pylist())


def _shortest(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.cast(pc.cast(values, pa.string()), pa.float64())


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:  # JSON has no NaN and no infinity
        return json.dumps(_finite(value), ensure_ascii=False, default=_plain)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _flat(table: pa.Table) -> pa.Table:
    """Return the table with nested values as JSON text, null where they are null, and with no text
    that a spreadsheet would run as a formula."""
    columns = []
    for column in table.columns:
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
            texts = [None if value is None else _json(value) for value in _values(column)]
            column = pa.array(texts, pa.string())
        columns.append(_without_formulas(column) if _is_text(column.type) else column)
    names = _without_formulas(pa.array(table.column_names, pa.string())).to_pylist()
    return pa.table(columns, names=names)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _without_formulas(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Put `'` before what a spreadsheet takes for a formula (OWASP, CSV injection)."""
    texts = pc.cast(texts, pa.large_string())
    is_formula = pc.and_not(
        pc.match_substring_regex(texts, _FORMULA), pc.match_substring_regex(texts, _NUMBER)
    )
    if not pc.any(is_formula).as_py():
        return texts
    quote, nothing = (pa.scalar(text, pa.large_string()) for text in ("'", ""))
    return pc.if_else(is_formula, pc.binary_join_element_wise(quote, texts, nothing), texts)
