"""Arrow types as Hugging Face `datasets` writes them into Parquet files and dataset cards."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

__all__ = ["features", "type_name", "with_features"]

_METADATA_KEY = b"huggingface"
_NAMES = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date32",
    "date64[ms]": "date64",
}


def with_features(schema: pa.Schema) -> pa.Schema:
    """Return the schema with its features in the metadata, so that `load_dataset` need not guess.

    Where a column has a type that `datasets` has no word for, none are written.
    """
    found = features(schema)
    if found is None:
        return schema
    text = json.dumps({"info": {"features": found}}, ensure_ascii=False)
    return schema.with_metadata({**(schema.metadata or {}), _METADATA_KEY: text.encode()})


def features(schema: pa.Schema) -> dict[str, Any] | None:
    """Return the JSON form of `datasets.Features`, none where a type has no word there."""
    found = {item.name: _feature(item.type) for item in schema}
    return None if None in found.values() else found


def type_name(kind: pa.DataType) -> str:
    """Return a type in few words, for a person."""
    if pa.types.is_struct(kind):
        inside = ", ".join(f"{item.name}: {type_name(item.type)}" for item in kind)
        return f"{{{inside}}}"
    if _is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    return _NAMES.get(str(kind), str(kind))


def _feature(kind: pa.DataType) -> dict[str, Any] | None:
    if pa.types.is_struct(kind):
        inside = {item.name: _feature(item.type) for item in kind}
        return None if None in inside.values() else inside
    if _is_list(kind):
        item = _feature(kind.value_type)
        if item is None:
            return None
        if pa.types.is_large_list(kind):
            return {"feature": item, "_type": "LargeList"}
        size = {"length": kind.list_size} if pa.types.is_fixed_size_list(kind) else {}
        return {"feature": item, **size, "_type": "List"}
    if pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
        return None
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_fixed_size_binary(kind):
        return None
    return {"dtype": _NAMES.get(str(kind), str(kind)), "_type": "Value"}


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
