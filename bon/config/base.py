"""What all settings share: the base class, the config file, the order defaults < file < flags."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.object_store import ObjectPath
from bon.places import place

__all__ = [
    "Flag",
    "PlaceSetting",
    "Settings",
    "bad_values",
    "number_as_text",
    "read_config_file",
    "reason",
    "resolve",
]


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is said on the command line, where it differs from `--its-name`."""

    short: str = ""
    env: str = ""


def _as_place(value: Any) -> Any:
    try:
        return place(value) if isinstance(value, str) else value
    except SettingsError as error:
        raise ValueError(
            "; ".join(filter(None, [error.what, error.why, error.next_step]))
        ) from None


PlaceSetting: TypeAlias = Annotated[
    Path | ObjectPath,
    BeforeValidator(_as_place),
    PlainSerializer(str, return_type=str, when_used="json"),
]
"""A place to write to: a path, or an address on an object store."""


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )
    panel: ClassVar[str] = "Settings"
    runtime_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how fast or where, never what comes out."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise ValueError(f"give a number, not {str(value).lower()}")
        return value

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the content: a pool made with other values is another pool."""
        return self.model_dump(mode="json", exclude=set(self.runtime_fields))


def number_as_text(value: Any) -> Any:
    """Return a number as the text that says it, anything else as it is.

    For settings that are texts because a share (`10%`) can be said as well.
    """
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def reason(error: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors says, in our words where a validator of ours spoke."""
    return str(error["msg"]).removeprefix("Value error, ")


S = TypeVar("S", bound=Settings)


def read_config_file(
    path: Path, command: str, known: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Read a TOML file of settings, keys with `-` or `_`.

    One file serves every command: each takes the keys that are its own. A table named after a
    command (`[build-dpo]`) holds what is meant for it alone, and wins. `known` holds the keys of
    each command.

    Raises:
        SettingsError: no such file, not TOML, a key that no command (the table's command) knows,
            or the same key with `-` and with `_`.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            "cannot read the config file", where=str(path), why=error.strerror or str(error)
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(
            "the config file is not TOML", where=str(path), why=str(error)
        ) from None
    tables = {name: values.pop(name) for name in known if isinstance(values.get(name), dict)}
    every = {key for keys in known.values() for key in keys}
    result = _checked(values, every, str(path))
    for name, table in tables.items():
        own = _checked(table, known[name], f"{path}: [{name}]")
        result |= own if name == command else {}
    return result


def _checked(values: Mapping[str, Any], known: Collection[str], where: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for said, value in values.items():
        key = said.replace("-", "_")
        if key in result:
            raise SettingsError(
                f"the key {key!r} is there twice in the config file",
                where=where,
                why="`-` and `_` are the same in keys",
                next_step="keep one of them",
            )
        result[key] = value
        if key not in known:
            raise UnknownChoiceError(
                f"unknown key {key!r} in the config file",
                where=where,
                next_step=did_you_mean(key, known),
            )
    return result


def resolve(group: type[S], file_values: Mapping[str, Any], flags: Mapping[str, Any]) -> S:
    """Merge defaults, config file and flags (those that were given) into one settings object.

    Raises:
        SettingsError: a value is out of range or of the wrong type; names its flag.
    """
    try:
        return group.model_validate(_merged(group, file_values, flags))
    except ValidationError as error:
        raise _bad_value(error.errors()[0]) from None


def bad_values(
    group: type[Settings], file_values: Mapping[str, Any], flags: Mapping[str, Any]
) -> list[SettingsError]:
    """Return what is wrong with each value, where `resolve` raises the first."""
    try:
        group.model_validate(_merged(group, file_values, flags))
    except ValidationError as error:
        return [_bad_value(one) for one in error.errors()]
    return []


def _merged(
    group: type[Settings], file_values: Mapping[str, Any], flags: Mapping[str, Any]
) -> dict[str, Any]:
    values = {name: file_values[name] for name in group.model_fields if name in file_values}
    return values | {
        name: flags[name] for name in group.model_fields if flags.get(name) is not None
    }


def _bad_value(found: Mapping[str, Any]) -> SettingsError:
    name = str(found["loc"][0])
    return SettingsError(
        f"bad value for --{name.replace('_', '-')}: {found.get('input')!r}",
        why=reason(found),
        next_step="see --help for what it takes",
    )
