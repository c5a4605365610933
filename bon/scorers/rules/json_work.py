"""What the process of `rule:json` does: `json` and jsonschema; imports nothing of `bon`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["prepare"]


def prepare(setup: Any) -> Callable[[str], bool | str]:
    """Return a function that tells whether a text is JSON that the setup's `schema` allows.

    It returns a text that says why, where the schema cannot tell.
    """
    validator = None
    if setup["schema"] is not None:
        from jsonschema import Draft202012Validator, validators
        from jsonschema_specifications import REGISTRY

        kind = validators.validator_for(setup["schema"], default=Draft202012Validator)
        # with this registry it fetches nothing from the network
        validator = kind(setup["schema"], registry=REGISTRY)

    def allows(text: str) -> bool | str:
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        try:
            return validator is None or bool(validator.is_valid(value))
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    return allows


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(constant)
