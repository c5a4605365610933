from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rules import ASK, rewards, scorer_of

from bon.records import CandidateGroup
from bon.scorers.rules.json import json_text

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@pytest.fixture
def person(tmp_path: Path) -> str:
    return said(tmp_path, PERSON)


def said(folder: Path, schema: Any) -> str:
    pytest.importorskip("jsonschema", reason="needs bon-cli[curation]")
    path = folder / "schema.json"
    path.write_text(json.dumps(schema))
    return f"rule:json?schema={path}"


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ('{"a": [1, 2.5e3, null, true, "é"]}', True),
        (' \n"text"\n', True),
        ("7", True),
        ('```json\n{"a": 1}\n```', True),
        ('Here it is:\n\n```JSON\n{"a":\n 1}\n```\nDone.', True),
        ('```\n{"a": 1}\n```', True),
        ('```python\nx = 1\n```\nand\n```json\n{"a": 1}\n```', True),
        ('  ~~~~json\n{"a": "```"}\n~~~~', True),
        ('{"code": "```json 1 ```"}', True),
        ('```json\n{"a": 1}\n```\n```json\n{"b": 1}\n```', False),
        ("```json\n{'a': 1}\n```", False),
        ('```json\n{"a": 1}', False),
        ("```python\n1\n```", False),
        ("```\n1\n```\n```\n2\n```", False),
        ('Here: {"a": 1}', False),
        ('{"a": 1} {"b": 2}', False),
        ('{"a": 1,}', False),
        ('{"a": NaN}', False),
        ("-Infinity", False),
        ("", False),
        ("\ud800", False),
        ("[" * 200_000, False),
        ("[" * 200_000 + "]" * 200_000, False),
        ("9" * 10_000, False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_without_a_schema_any_json_is_right(response: str, right: bool) -> None:
    assert rewards("rule:json", response) == [float(right)]


def test_the_schema_decides(person: str) -> None:
    found = rewards(
        person,
        '{"name": "Ann", "age": 3}',
        '```json\n{"name": "Ann"}\n```',
        '{"name": "Ann", "age": -3}',
        '{"name": "Ann", "size": 3}',
        '{"age": 3}',
        "[]",
        "Ann",
    )
    assert found == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_a_schema_of_an_older_draft_is_read_as_such(tmp_path: Path) -> None:
    # up to draft 4 exclusiveMinimum was a flag
    draft4 = "http://json-schema.org/draft-04/schema#"
    schema = {"$schema": draft4, "minimum": 3, "exclusiveMinimum": True}
    assert rewards(said(tmp_path, schema), "3", "4") == [0.0, 1.0]


@pytest.mark.parametrize(("schema", "reward"), [(True, 1.0), (False, 0.0), ({}, 1.0)])
def test_the_smallest_schemas(tmp_path: Path, schema: Any, reward: float) -> None:
    assert rewards(said(tmp_path, schema), "[1]") == [reward]


def test_a_schema_that_never_ends_or_explodes_costs_its_candidate(tmp_path: Path) -> None:
    started = time.monotonic()
    evil = {"anyOf": [{"type": "integer"}, {"pattern": r"^(\w+\s?)*$"}]}
    spec = said(tmp_path, evil)
    assert rewards(spec, "1", '"a b"') == [1.0, 1.0]
    with scorer_of(spec, rule_timeout_s=0.3) as scorer:
        (one,) = scorer.score([CandidateGroup("p", ASK, (json.dumps("word " * 20 + "!"), "2"))])
    assert one.scores == (None, 1.0)
    assert one.reasons[0].reason == "rule_timeout"
    assert time.monotonic() - started < 15
    circle = said(tmp_path, {"$ref": "#"})
    assert rewards(circle, "1") == ["schema_failed"]


@settings(max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_what_is_written_in_a_block_is_found_in_it(value: Any) -> None:
    text = json.dumps(value)
    assert json_text(text) == text
    block = json_text(f"So:\n```json\n{text}\n```\nThat is it.")
    assert block is not None
    assert json.loads(block) == value
