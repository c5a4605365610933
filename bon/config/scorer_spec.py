"""What `-r` says: `[NAME=]SPEC`, and behind the spec of a rule, server or judge its options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bon.config.base import Settings, reason
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean

__all__ = ["ScorerSpec", "parse_options", "parse_scorer_spec"]

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_PASSWORD = re.compile(r"(?<=server:).*@", re.DOTALL)
"""What of a URL is never shown."""
_MARKS = {"%26": "&", "%25": "%"}
_ESCAPED = re.compile("|".join(_MARKS))

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class ScorerSpec:
    """A scorer as it was said, taken apart."""

    name: str
    """Its own name, or its kind and the last part of its spec; where that is a URL, its kind."""
    spec: str
    """A hub id, a folder, or `KIND:WHAT`."""
    options: dict[str, str] = field(default_factory=dict)
    """`?KEY=VALUE&KEY=VALUE` behind a spec that begins with a kind."""


def parse_scorer_spec(said: str, *, kinds: tuple[str, ...] = (), flag: str = "-r") -> ScorerSpec:
    """Take `[NAME=]SPEC[?KEY=VALUE&…]` apart, which `flag` has said.

    Only specs that begin with one of `kinds` (`rule:`) have options. `%26` is `&` in a value, `%25`
    is `%`; all else stands for itself.

    Raises:
        SettingsError: an option without a value, or one that is there twice.
    """
    named = _NAMED.fullmatch(said)
    spec = named[2] if named else said
    options: dict[str, str] = {}
    if spec.startswith(kinds):
        spec, mark, text = spec.partition("?")
        for item in text.split("&") if mark else ():
            key, equals, value = item.partition("=")
            if not key or not equals or key in options:
                shown = _PASSWORD.sub("***@", said)
                bad = f"bad option {item!r}" if item in shown else "bad option"
                raise SettingsError(
                    f"{key!r} is there twice" if key in options else bad,
                    where=f"{flag} {shown}",
                    next_step="give ?KEY=VALUE&KEY=VALUE, with %26 for & in a value, %25 for %",
                )
            options[key] = _ESCAPED.sub(lambda mark: _MARKS[mark[0]], value)
    kind, _, what = spec.partition(":") if spec.startswith(kinds) else ("", "", spec)
    # where a server is now says nothing of what it scores
    last = "" if "://" in what else Path(what).resolve().name
    place = "-".join(part for part in (kind, last) if part)
    default = re.sub(r"[^A-Za-z0-9._-]+", "-", place).strip("-.")
    return ScorerSpec(named[1] if named else default or "reward", spec, options)


def parse_options(group: type[S], options: Mapping[str, str], where: str) -> S:
    """Return the options as settings of their own.

    Raises:
        UnknownChoiceError: an option that the group has not.
        SettingsError: one that is missing, or whose value does not fit.
    """
    for key in options:
        if key not in group.model_fields:
            raise UnknownChoiceError(
                f"unknown option {key!r}",
                where=where,
                next_step=did_you_mean(key, group.model_fields)
                if group.model_fields
                else "it takes none",
            )
    try:
        return group.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        missing = first["type"] == "missing"
        raise SettingsError(
            f"the option {name!r} is missing"
            if missing
            else f"bad value for the option {name!r}: {options.get(name)!r}"
            if name
            else "these options do not go together",
            where=where,
            why=str(group.model_fields[name].description) if missing else reason(first),
            next_step="give ?KEY=VALUE&KEY=VALUE behind it",
        ) from None
