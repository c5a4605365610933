"""Every fault that a row can have: it is a drop with its place, id and reason, and no other row is.

Each goes through both readers, in every form of JSON in which it can be written; through the real
command goes one file that has them all.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from support.commands import bon

from bon.config import InputSettings, ResponseSettings
from bon.records import Drop
from bon.sources.prompts import PromptReader
from bon.sources.responses import ResponseReader

FIRST = {"id": "first", "prompt": "Q", "response": "R"}
LAST = {"id": "last", "prompt": "Q", "response": "R"}


def row(**columns: object) -> bytes:
    """A row with an id, and otherwise what is said."""
    return json.dumps({"id": "bad", "prompt": "Q", "response": "R", **columns}).encode()


def asks(*turns: tuple[object, object]) -> bytes:
    return row(prompt=[{"role": role, "content": content} for role, content in turns])


TEXT_FAULTS: dict[str, tuple[bytes, str]] = {
    "cut_off": (row()[:20], "malformed_json"),
    "raw_nul": (b'{"prompt": "a\0b", "response": "R"}', "malformed_json"),
    "line_of_nuls": (b"\0" * 9, "malformed_json"),
    "nan": (b'{"id": 1, "prompt": "Q", "response": "R", "x": NaN}', "malformed_json"),
    "infinity": (b'{"id": 1, "prompt": "Q", "response": "R", "x": -Infinity}', "malformed_json"),
    "number_too_large": (b'{"prompt": "Q", "response": "R", "x": 1e400}', "malformed_json"),
    "integer_too_long": (b'{"prompt": "Q", "x": ' + b"7" * 5000 + b"}", "malformed_json"),
    "too_deep": (b'{"prompt": "Q", "x": ' + b"[" * 101 + b"]" * 101 + b"}", "malformed_json"),
    "endlessly_deep": (b"[" * 100_000, "malformed_json"),
    "two_on_a_line": (row() + row(), "malformed_json"),
    "two_with_a_lone_cr": (row() + b"\r" + row(), "malformed_json"),
    "single_quotes": (b"{'prompt': 'Q'}", "malformed_json"),
    "invalid_utf8": (b'{"prompt": "\xff\xfe", "response": "R"}', "invalid_utf8"),
    "raw_surrogate": (b'{"prompt": "\xed\xa0\x80", "response": "R"}', "invalid_utf8"),
    "latin_1": ('{"prompt": "Grüße", "response": "R"}'.encode("latin-1"), "invalid_utf8"),
    "escaped_surrogate": (rb'{"prompt": "\ud800", "response": "R"}', "invalid_unicode"),
    "key_twice": (b'{"prompt": "Q", "response": "R", "prompt": "P"}', "duplicate_key"),
    "key_twice_within": (b'{"prompt": "Q", "response": "R", "x": [{"k": 1, "k": 1}]}',
                         "duplicate_key"),
    "list": (b'["Q", "R"]', "not_an_object"),
    "null": (b"null", "not_an_object"),
    "string": (b'"Q"', "not_an_object"),
}  # fmt: skip
VALUE_FAULTS: dict[str, tuple[bytes, str]] = {
    "same_id": (row(id="first"), "duplicate_id"),
    "no_prompt": (b'{"id": "bad", "response": "R"}', "missing_prompt"),
    "null_prompt": (row(prompt=None), "missing_prompt"),
    "empty_prompt": (row(prompt=""), "empty_prompt"),
    "blank_prompt": (row(prompt=" \n\t"), "empty_prompt"),
    "number_for_prompt": (row(prompt=3), "wrong_type"),
    "object_for_prompt": (row(prompt={"a": 1}), "wrong_type"),
    "text_among_messages": (row(prompt=["Q"]), "wrong_type"),
    "no_messages": (row(prompt=[]), "no_user_turn"),
    "unknown_role": (asks(("wizard", "Q")), "unknown_role"),
    "number_for_role": (asks((1, "Q")), "unknown_role"),
    "only_system": (asks(("system", "S")), "no_user_turn"),
    "blank_last_turn": (asks(("user", " ")), "empty_prompt"),
    "null_content": (asks(("user", None)), "unsupported_content"),
    "image": (asks(("user", [{"type": "image_url", "image_url": "x"}])), "unsupported_content"),
}
RESPONSE_FAULTS: dict[str, tuple[bytes, str]] = {
    "no_response": (b'{"id": "bad", "prompt": "Q"}', "missing_response"),
    "null_response": (row(response=None), "missing_response"),
    "number_for_response": (row(response=1), "wrong_type"),
    "last_turn_from_user": (row(response=[{"role": "user", "content": "R"}]), "missing_response"),
}
BEHIND_LINES = {"cut_off", "raw_nul", "line_of_nuls", "endlessly_deep", "two_on_a_line",
                "two_with_a_lone_cr", "single_quotes", "integer_too_long"}  # fmt: skip
"""Faults that leave no next row where rows are no lines: there the file is an error."""
NO_ID = set(TEXT_FAULTS)


def write(folder: Path, name: str, rows: list[bytes]) -> str:
    array = name.startswith("array")
    data = b"[" + b",\n".join(rows) + b"]" if array else b"\n".join(rows) + b"\n"
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    (folder / name).write_bytes(data)
    return str(folder / name)


def readers(path: str) -> list[PromptReader | ResponseReader]:
    given = ResponseSettings(source_kind="responses")
    return [
        PromptReader(path, InputSettings()),
        *(ResponseReader(path, InputSettings(), given, group=group) for group in (True, False)),
    ]


def check_drop(path: str, reader: PromptReader | ResponseReader, reason: str, fault: str) -> None:
    items = list(reader)
    drops = [item for item in items if isinstance(item, Drop)]
    assert [drop.reason for drop in drops] == [reason]
    assert len(items) == 3
    name, place = Path(path).name, "row 2" if "array" in path else "2"
    assert drops[0].where == f"{name}:{place}"
    assert drops[0].detail
    assert drops[0].candidate is None
    assert drops[0].id == ("" if fault in NO_ID else "first" if fault == "same_id" else "bad")
    assert list(reader) == items


FORMS = ("lines.jsonl", "lines.jsonl.gz", "lines.ndjson.zst", "array.json")


@pytest.mark.parametrize(
    ("fault", "form"),
    [
        (fault, form)
        for fault in (*TEXT_FAULTS, *VALUE_FAULTS)
        for form in FORMS
        if form != "array.json" or fault not in BEHIND_LINES
    ],
)
def test_a_bad_row_is_a_drop(tmp_path: Path, fault: str, form: str) -> None:
    bad, reason = (TEXT_FAULTS | VALUE_FAULTS)[fault]
    path = write(tmp_path, form, [json.dumps(FIRST).encode(), bad, json.dumps(LAST).encode()])
    prompts, grouped, single = readers(path)
    check_drop(path, prompts, reason, fault)
    if fault != "same_id":  # ids of responses may repeat, for they say which belong together
        check_drop(path, grouped, reason, fault)
        check_drop(path, single, reason, fault)


@pytest.mark.parametrize("fault", RESPONSE_FAULTS)
def test_a_bad_response_is_a_drop(tmp_path: Path, fault: str) -> None:
    bad, reason = RESPONSE_FAULTS[fault]
    path = write(
        tmp_path, "lines.jsonl", [json.dumps(FIRST).encode(), bad, json.dumps(LAST).encode()]
    )
    for reader in readers(path)[1:]:
        check_drop(path, reader, reason, fault)


GOOD_ODDITIES = {
    "crlf": b'{"prompt": "A"}\r\n{"prompt": "B"}\r\n',
    "no_line_end": b'{"prompt": "A"}\n{"prompt": "B"}',
    "bom": b'\xef\xbb\xbf{"prompt": "A"}\n{"prompt": "B"}\n',
    "bom_within": b'{"prompt": "A"}\n\xef\xbb\xbf{"prompt": "B"}\n',
    "blank_lines": b'\n{"prompt": "A"}\n \t\r\n\n{"prompt": "B"}\n\n',
    "cr_as_a_blank": b'{"prompt":\r"A"}\n\r{"prompt": "B"}\r\n',
}


@pytest.mark.parametrize("oddity", GOOD_ODDITIES)
def test_what_is_odd_but_clear_loses_nothing(tmp_path: Path, oddity: str) -> None:
    for name in ("a.jsonl", "a.json"):
        if oddity == "bom_within" and name == "a.json":
            continue
        (tmp_path / name).write_bytes(GOOD_ODDITIES[oddity])
        items = list(PromptReader(str(tmp_path / name), InputSettings()))
        assert [item.messages[0]["content"] for item in items] == ["A", "B"]  # type: ignore[union-attr]


def test_an_escaped_nul_and_a_huge_integer_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", [rb'{"prompt": "a\u0000b", "n": ' + b"9" * 400 + b"}"])
    (prompt,) = PromptReader(path, InputSettings())
    assert prompt.messages[0]["content"] == "a\0b"  # type: ignore[union-attr]
    assert prompt.extra == {"n": int("9" * 400)}  # type: ignore[union-attr]


def test_schemas_that_differ_between_files(tmp_path: Path) -> None:
    write(tmp_path, "1.jsonl", [b'{"id": 1, "prompt": "A", "n": 1}'])
    write(tmp_path, "2.jsonl", [b'{"prompt": "B", "n": "one", "more": null}'])
    write(tmp_path, "3.jsonl", [b'{"question": "C"}'])
    items = list(PromptReader(str(tmp_path / "*.jsonl"), InputSettings()))
    assert [getattr(item, "extra", None) for item in items] == [
        {"n": 1},
        {"n": "one", "more": None},
        None,
    ]
    assert (items[2].reason, items[2].where) == ("missing_prompt", "3.jsonl:1")  # type: ignore[union-attr]


def test_all_at_once_through_the_command(tmp_path: Path) -> None:
    name = "all.jsonl.gz"
    faults = TEXT_FAULTS | VALUE_FAULTS
    lines = [json.dumps(FIRST).encode()]
    for bad, _ in faults.values():
        lines += [bad, json.dumps({**LAST, "id": f"good-{len(lines)}"}).encode()]
    write(tmp_path, name, lines)
    expected = Counter(reason for _, reason in faults.values())

    done = bon("convert", name, "-o", "out.jsonl", "--source-kind", "prompts", "--json",
               "--max-drops", sum(expected.values()), cwd=tmp_path)  # fmt: skip

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["drops"] == dict(sorted(expected.items()))
    assert result["kept_rows"] == len(faults) + 1
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(faults) + 1
    few = bon("convert", name, "-o", "few.jsonl", "--source-kind", "prompts",
              "--max-drops", sum(expected.values()) - 1, cwd=tmp_path)  # fmt: skip
    assert few.returncode == 3
    assert "more than --max-drops allows" in few.stderr
    assert (tmp_path / "few.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    shown = {drop["reason"]: drop for drop in result["drop_examples"]}
    for drop in shown.values():
        assert drop["where"].startswith(f"{name}:")
        assert f"dropped {drop['where']}" in few.stderr
