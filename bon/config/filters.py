"""The filters of `bon filter` by name, and how one is said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from bon.config.base import reason
from bon.config.filter_models import (
    Agreement,
    Decontaminate,
    Difficulty,
    Diversity,
    ExactDedup,
    FilterSettings,
    FinishReason,
    Language,
    Length,
    Margin,
    NearDedup,
    Refusal,
    Regex,
    Repetition,
    Reward,
)
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean

__all__ = [
    "FILTERS",
    "Agreement",
    "Decontaminate",
    "Difficulty",
    "Diversity",
    "ExactDedup",
    "FilterSettings",
    "FinishReason",
    "Language",
    "Length",
    "Margin",
    "NearDedup",
    "Refusal",
    "Regex",
    "Repetition",
    "Reward",
    "parse_filter",
]

FILTERS: dict[str, type[FilterSettings]] = {
    filter.name: filter
    for filter in (
        Reward,
        Difficulty,
        Length,
        FinishReason,
        Language,
        Repetition,
        Refusal,
        Regex,
        Margin,
        Agreement,
        ExactDedup,
        NearDedup,
        Diversity,
        Decontaminate,
    )
}
"""Every filter by its name."""


def parse_filter(spec: str | Mapping[str, Any]) -> FilterSettings:
    """Return the filter that `name:key=value,key=value` or a table with a `name` says.

    In a text, values are JSON where they are JSON and plain text otherwise; a value with a comma
    is quoted as JSON (`keep=["stop","length"]`, `pattern="a,b"`). `-` and `_` are the same.

    Raises:
        UnknownChoiceError: no such filter or key.
        SettingsError: a value is out of range or of the wrong type, or a key is there twice.
    """
    name, values = _split(spec) if isinstance(spec, str) else _from_table(spec)
    if name not in FILTERS:
        raise UnknownChoiceError(
            f"unknown filter {name!r}", where="--filter", next_step=did_you_mean(name, FILTERS)
        )
    model = FILTERS[name]
    for key in values:
        if key not in model.model_fields:
            raise UnknownChoiceError(
                f"unknown key {key!r} of the filter {name}",
                where="--filter",
                next_step=did_you_mean(key, model.model_fields),
            )
    if isinstance(spec, str):
        values = {key: _value(model, key, text) for key, text in values.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _refused(name, error) from None


def _refused(name: str, error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    missing = first["type"] == "missing"
    given = "" if missing or not key else f": {first.get('input')!r}"
    what = f"the filter {name} needs {key}" if missing else f"bad value for {key} of filter {name}"
    return SettingsError(
        what + given if key else f"the filter {name} cannot be used as given",
        where="--filter",
        why=reason(first),
        next_step=f"its keys: {', '.join(FILTERS[name].model_fields)}",
    )


def _from_table(spec: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    values = _distinct((str(key), value) for key, value in spec.items())
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise SettingsError(
            "a filter has no name",
            where="[[filter]]",
            next_step=f'write name = "…" into its table; known: {", ".join(FILTERS)}',
        )
    return name.replace("-", "_"), values


def _split(spec: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = spec.partition(":")
    pairs = []
    for item in _items(rest):
        key, equals, value = item.partition("=")
        if not equals:
            raise SettingsError(
                f"cannot read the filter {spec!r}",
                where="--filter",
                why=f"{item!r} is not KEY=VALUE",
                next_step="write name:key=value,key=value; quote a value that has a comma as JSON",
            )
        pairs.append((key.strip(), value.strip()))
    return name.strip().replace("-", "_"), _distinct(pairs)


def _distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for said, value in pairs:
        key = said.replace("-", "_")
        if key in values:
            raise SettingsError(
                f"the key {key!r} of a filter is there twice",
                where="--filter",
                why=f"first {values[key]!r}, then {value!r}",
                next_step="keep one; where both are wanted, give two filters",
            )
        values[key] = value
    return values


def _items(text: str) -> Iterator[str]:
    """Cut at the commas that are in no JSON string, list or object."""
    position = 0
    decoder = json.JSONDecoder()
    while position < len(text):
        equals = text.find("=", position)
        end = text.find(",", position)
        if equals >= 0 and text[equals + 1 : equals + 2] in ('"', "[", "{"):
            try:
                _, end = decoder.raw_decode(text, equals + 1)
                end = text.find(",", end)
            except json.JSONDecodeError:
                end = text.find(",", equals)
        end = len(text) if end < 0 else end
        yield text[position:end]
        position = end + 1


def _value(model: type[FilterSettings], key: str, text: str) -> Any:
    """Read JSON, but take a number for what it looks like where only a text can be meant."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    annotation = model.model_fields[key].annotation
    if get_origin(annotation) is tuple:
        return value if isinstance(value, str | list) else text
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    wants_text = annotation in (str, str | None, Path | None) or any(choices)
    return text if wants_text and not isinstance(value, str) else value
