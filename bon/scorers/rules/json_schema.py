"""The schema of `rule:json`: read and checked before any work."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bon.config import ScorerSettings
from bon.errors import EngineError, SettingsError, first_line
from bon.scorers.rules.options import read_option_file, where

__all__ = ["read_schema"]


def read_schema(path: Path, settings: ScorerSettings) -> Any:
    """Read a JSON schema that can be applied without fetching anything.

    Raises:
        SettingsError: there is no such file, or what it holds is no schema.
        EngineError: jsonschema is not installed.
    """
    if find_spec("jsonschema") is None:
        raise EngineError(
            "rule:json with a schema needs jsonschema, which is not installed",
            next_step="pip install 'bon-cli[curation]', or take rule:json without schema",
        )
    text = read_option_file(path, "schema", settings)
    try:
        schema = json.loads(text)
        fault = _fault(schema)
    except ValueError as error:
        fault = f"not JSON: {error}"
    except RecursionError:
        fault = "it is nested too deeply"
    if fault is not None:
        raise SettingsError(
            "bad schema",
            where=f"{where(settings)}: {path}",
            why=fault,
            next_step="see json-schema.org; a $ref may only lead to a place in the file itself",
        )
    return schema


def _fault(schema: Any) -> str | None:
    """Say what is wrong with a schema, none where nothing is."""
    from jsonschema import Draft202012Validator, SchemaError, validators
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012

    if not isinstance(schema, dict | bool):
        return f"a schema is an object, true or false, not {json.dumps(schema):.40}"
    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        return f"{error.json_path}: {first_line(error)}"
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    return _lost_reference(resource, REGISTRY.resolver_with_root(resource))


def _lost_reference(resource: Any, resolver: Any) -> str | None:
    """Say which `$ref` of a schema or of one within it leads nowhere."""
    from referencing.exceptions import Unresolvable

    schema = resource.contents
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        try:
            resolver.lookup(schema["$ref"])
        except Unresolvable:
            return f"there is no {schema['$ref']!r}, and nothing is fetched"
    found = (
        _lost_reference(part, resolver.in_subresource(part)) for part in resource.subresources()
    )
    return next(filter(None, found), None)
