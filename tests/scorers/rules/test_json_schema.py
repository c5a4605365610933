from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.rules import fingerprint, scorer_of

from bon.errors import EngineError, SettingsError
from bon.scorers.rules import json_schema

pytest.importorskip("jsonschema", reason="needs bon-cli[curation]")


def spec(folder: Path, text: str, name: str = "schema.json") -> str:
    path = folder / name
    path.write_text(text)
    return f"rule:json?schema={path}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "an object, true or false, not []"),
        ('"object"', "an object, true or false"),
        ('{"type": "objekt"}', "$.type: 'objekt' is not valid"),
        ('{"properties": {"a": {"minimum": "3"}}}', "$.properties.a.minimum"),
        ('{"pattern": "("}', "$.pattern"),
        ('{"$ref": "#/$defs/a"}', "there is no '#/$defs/a'"),
        ('{"items": {"anyOf": [{"$ref": "other.json"}]}}', "there is no 'other.json'"),
        ('{"$ref": "https://example.org/x.json"}', "nothing is fetched"),
    ],
)
def test_a_bad_schema_is_refused_before_any_work(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SettingsError, match="bad schema") as caught:
        scorer_of(spec(tmp_path, text))
    assert why in caught.value.why
    assert "schema.json" in caught.value.where


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"$id": "https://example.org/s", "$ref": "/t", "$defs": {"t": {"$id": "/t"}}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"enum": [{"$ref": "#/nowhere"}]},  # a value, not a reference
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_references_that_lead_somewhere_are_taken(tmp_path: Path, schema: Any) -> None:
    assert scorer_of(spec(tmp_path, json.dumps(schema))).rule.is_verdict


def test_the_content_is_in_the_fingerprint_and_the_place_is_not(tmp_path: Path) -> None:
    one = fingerprint(spec(tmp_path, '{"type": "object", "required": ["a"]}'))
    assert one == fingerprint(spec(tmp_path, '{"required":["a"],\n"type":"object"}', "b.json"))
    assert one != fingerprint(spec(tmp_path, '{"type": "object", "required": ["b"]}', "c.json"))
    assert one != fingerprint("rule:json")
    assert "schema" not in one


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot read the file of the option 'schema'"):
        scorer_of("rule:json?schema=/no/schema.json")


def test_without_jsonschema_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_schema, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="needs jsonschema") as caught:
        scorer_of(spec(tmp_path, "{}"))
    assert "bon-cli[curation]" in caught.value.next_step
    assert scorer_of("rule:json").rule.is_verdict
