"""The input's other columns, from JSON back to one typed Arrow column each."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["ExtraColumns"]

_TAKEN_PREFIX = "input_"


class ExtraColumns:
    """Decides one explicit type per column over all rows, then casts batches to it.

    A column whose values have no common type (numbers and texts, say) becomes JSON text. A column
    whose name is taken by the output is kept as `input_NAME`.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)
        self._types: dict[str, pa.DataType | None] = {}  # none: mixed, kept as JSON text

    def learn(self, extras: Sequence[dict[str, Any]]) -> None:
        """Widen the types to hold these rows too."""
        names = dict.fromkeys(name for extra in extras for name in extra)
        for name in names:
            found = _infer([extra.get(name) for extra in extras])
            old = self._types.get(name, pa.null())
            self._types[name] = None if old is None or found is None else _widen(old, found)

    @property
    def fields(self) -> list[pa.Field]:
        """The output's fields for these columns, in the input's order."""
        return [pa.field(self._output_name(name), self._type(name)) for name in self._types]

    def arrays(self, extras: Sequence[dict[str, Any]]) -> list[pa.Array]:
        """Return one array per field for a batch of rows."""
        return [self._array(name, [extra.get(name) for extra in extras]) for name in self._types]

    def _output_name(self, name: str) -> str:
        while name in self._taken:
            name = _TAKEN_PREFIX + name
        return name

    def _type(self, name: str) -> pa.DataType:
        found = self._types[name]
        return found if found is not None and _storable(found) else pa.string()

    def _array(self, name: str, values: list[Any]) -> pa.Array:
        kind = self._type(name)
        if kind == pa.string():
            values = [None if v is None else _as_text(v) for v in values]
        elif pa.types.is_floating(kind):
            values = [None if v is None else float(v) for v in values]
        return pa.array(values, kind)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _infer(values: Iterable[Any]) -> pa.DataType | None:
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None


def _widen(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    schemas = [pa.schema([("value", one)]), pa.schema([("value", other)])]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("value").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _storable(kind: pa.DataType) -> bool:
    """Tell whether every leaf has a type: Parquet has no struct without fields, nor typed nulls."""
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(
            _storable(kind.field(index).type) for index in range(kind.num_fields)
        )
    if pa.types.is_list(kind):
        return _storable(kind.value_type)
    return not pa.types.is_null(kind)
