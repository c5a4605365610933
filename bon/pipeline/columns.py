"""The input's other columns, from JSON back to one typed Arrow column each."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

__all__ = ["ExtraColumns"]

_TAKEN_PREFIX = "input_"

_Kind: TypeAlias = "str | list[_Kind] | dict[str, _Kind]"
"""What a column holds: a scalar's name, a list's one item, a struct's fields; or `mixed`."""
_SCALARS = {
    "bool": pa.bool_(),
    "int": pa.int64(),  # every value is one of float64 too
    "large_int": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
}
_SIMPLE: dict[type, _Kind] = {str: "string", bool: "bool", float: "float", type(None): "null"}
_LARGEST_EXACT = 1 << 53


class ExtraColumns:
    """Decides one explicit type per column over all rows, then casts batches to it.

    A column whose values have no common type (numbers and texts, say) becomes JSON text, and so
    does one that mixes fractions with integers that float64 cannot hold. A column whose name is
    taken by the output is kept as `input_NAME`.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = frozenset(taken)
        self._kinds: dict[str, _Kind] = {}

    def learn(self, extras: Sequence[dict[str, Any]]) -> None:
        """Widen the types to hold these rows too; how rows are cut into batches is no matter."""
        for extra in extras:
            for name, value in extra.items():
                kind = _SIMPLE.get(type(value)) or _kind(value)
                self._widen(name, kind)

    def merge(self, later: ExtraColumns) -> None:
        """Widen the types to hold rows that were learnt elsewhere, and come after these."""
        for name, kind in later._kinds.items():
            self._widen(name, kind)

    def _widen(self, name: str, kind: _Kind) -> None:
        known = self._kinds.get(name)
        if known is None or known != kind:
            self._kinds[name] = _join("null" if known is None else known, kind)

    def beside(self, taken: Collection[str], without: Collection[str] = ()) -> ExtraColumns:
        """Return what was learnt, without some columns, for an output that takes other names."""
        other = ExtraColumns(taken)
        other._kinds = {name: kind for name, kind in self._kinds.items() if name not in without}
        return other

    @property
    def names(self) -> list[str]:
        """The columns' names in the input, in its order."""
        return list(self._kinds)

    @property
    def fields(self) -> list[pa.Field]:
        """The output's fields for these columns, in the input's order."""
        used = self._taken | self._kinds.keys()
        fields = []
        for name, kind in self._kinds.items():
            said = name
            if name in self._taken:
                while said in used:
                    said = _TAKEN_PREFIX + said
                used |= {said}
            fields.append(pa.field(said, _column_type(kind)))
        return fields

    def arrays(self, extras: Sequence[dict[str, Any]]) -> list[pa.Array]:
        """Return one array per field for a batch of rows."""
        return [
            _array([extra.get(name) for extra in extras], _column_type(kind))
            for name, kind in self._kinds.items()
        ]


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.string() and not set(map(type, values)) <= {str, type(None)}:
        values = [None if v is None else _as_text(v) for v in values]
    return pa.array(values, kind)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> _Kind:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            if abs(value) <= _LARGEST_EXACT:
                return "int"
            return "large_int" if -(1 << 63) <= value < 1 << 63 else "mixed"
        case float():
            return "float"
        case str():
            return "string"
        case list():
            item: _Kind = "null"
            for one in value:
                item = _join(item, _kind(one))
            return "mixed" if item == "mixed" else [item]
        case dict():
            return _struct({name: _kind(one) for name, one in value.items()})
    return "mixed"


def _join(one: _Kind, other: _Kind) -> _Kind:
    """Return the kind that holds both; in any order and grouping the same but for field order."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if isinstance(one, list) and isinstance(other, list):
        item = _join(one[0], other[0])
        return "mixed" if item == "mixed" else [item]
    if isinstance(one, dict) and isinstance(other, dict):
        names = {**one, **other}
        return _struct({n: _join(one.get(n, "null"), other.get(n, "null")) for n in names})
    if isinstance(one, str) and isinstance(other, str):
        pair = {one, other}
        return next((k for k in ("float", "large_int") if pair == {"int", k}), "mixed")
    return "mixed"


def _struct(fields: dict[str, _Kind]) -> _Kind:
    return "mixed" if "mixed" in fields.values() else fields


def _column_type(kind: _Kind) -> pa.DataType:
    return _arrow_type(kind) or pa.string()


def _arrow_type(kind: _Kind) -> pa.DataType | None:
    """Return none where a leaf has no type, or a struct no fields: Parquet has neither."""
    if isinstance(kind, str):
        return _SCALARS.get(kind)
    if isinstance(kind, list):
        item = _arrow_type(kind[0])
        return None if item is None else pa.list_(item)
    fields = {name: _arrow_type(one) for name, one in kind.items()}
    return pa.struct(fields.items()) if fields and None not in fields.values() else None
