"""Rows and archives too large to be held: a row is a drop, a bomb an error, the memory small."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import bon

from bon.config import InputSettings
from bon.errors import InputError
from bon.records import Drop, Prompt
from bon.sources import json_values, limits, line_files, streams, tables
from bon.sources.json_skip import ValueSkipper
from bon.sources.prompts import PromptReader

MIB = 1 << 20
READ = """
import collections, json, pathlib, sys
from bon.config import InputSettings
from bon.errors import BonError
from bon.records import Drop
from bon.sources.prompts import PromptReader
reasons, where, error = collections.Counter(), [], ""
try:
    for item in PromptReader(sys.argv[1], InputSettings()):
        reasons[item.reason if isinstance(item, Drop) else "good"] += 1
        where.append(item.where)
except BonError as caught:
    error = str(caught)
# ru_maxrss would count the process that started this one
status = pathlib.Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
print(json.dumps({"rows": reasons, "where": where[:9], "error": error, "peak_mib": peak}))
"""
PEAK_MIB = 500


def read_in_a_process(path: Path) -> dict[str, object]:
    """Read a file in a process of its own, and return what came and its peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def pack(data: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(data, 1)
    return bytes(pa.Codec("zstd").compress(data)) if name.endswith(".zst") else data


def items_of(path: Path) -> list[Prompt | Drop]:
    return list(PromptReader(str(path), InputSettings()))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make 1000 bytes the largest row, in all readers, and 64 characters a piece."""
    for module in (streams, json_values, line_files, tables):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 1000)
    for module, name in ((json_values, "_CHUNK_CHARS"), (line_files, "_PIECE_CHARS")):
        monkeypatch.setattr(module, name, 64)
    monkeypatch.setattr(streams, "_BUFFER_BYTES", 64)
    monkeypatch.setattr(line_files, "_MAX_FIELDS", 500)
    return 1000


ROWS = ('{"prompt": "first"}', '{"prompt": "%s"}', '{"prompt": "last"}')
FORMS = {
    "a.jsonl": "\n".join(ROWS) + "\n",
    "a.json": "[" + ", ".join(ROWS) + "]",
    "objects.json": "\n".join(ROWS).replace("{", "{\n"),
    "a.csv": "prompt\nfirst\n%s\nlast\n",
    "quoted.csv": 'prompt\nfirst\n"%s"\nlast\n',
    "a.tsv": "prompt\nfirst\n%s\nlast",
    "a.txt": "first\n%s\nlast\n",
}


@pytest.mark.parametrize("length", [900, 1000, 1100, 5000, 5001])
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FORMS)
def test_a_row_that_is_too_large_is_a_drop(
    tmp_path: Path, small: int, name: str, ending: str, length: int
) -> None:
    path = tmp_path / (name + ending)
    path.write_bytes(pack((FORMS[name] % ("x" * length)).encode(), ending))
    first, middle, last = items_of(path)
    assert [one.messages[0]["content"] for one in (first, last)] == ["first", "last"]  # type: ignore[union-attr]
    if length == 900:
        assert isinstance(middle, Prompt)
    elif length > small + 100:
        assert isinstance(middle, Drop)
        assert middle.reason == "row_too_large"
        assert [one.row for one in (first, middle, last)] == [0, 1, 2]
        assert middle.where.startswith(path.name + ":")


@pytest.mark.parametrize("over", range(-3, 4))
def test_where_the_limit_falls_no_other_row_is_lost(tmp_path: Path, small: int, over: int) -> None:
    text = "x" * (small + over)
    for name in FORMS:
        (tmp_path / name).write_text(FORMS[name] % text)
        first, _, last = items_of(tmp_path / name)
        assert isinstance(first, Prompt)
        assert isinstance(last, Prompt)


def test_a_quote_that_is_never_closed_takes_one_row_at_most(tmp_path: Path, small: int) -> None:
    (tmp_path / "a.csv").write_text('prompt,n\n"lost,1\n' + "kept,2\n" * 1000)
    first, *others = items_of(tmp_path / "a.csv")
    assert isinstance(first, Drop)
    assert (first.reason, first.where) == ("row_too_large", "a.csv:2")
    assert "lines 2 to 144 are one record" in first.detail
    assert len(others) == 1000 - 142
    assert all(isinstance(one, Prompt) for one in others)


def test_a_quote_that_is_closed_nowhere_says_which_lines_it_took(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,n\nkept,1\n"lost,2\nlost,3\n')
    kept, lost = items_of(tmp_path / "a.csv")
    assert isinstance(kept, Prompt)
    assert isinstance(lost, Drop)
    assert lost.reason == "malformed_csv"
    assert "lines 3 to 4 are one record" in lost.detail


def test_more_fields_than_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_files, "_MAX_FIELDS", 100)
    rows = ["a,b", "," * 99, "," * 500, "c,d", '"\n",' * 300 + "x"]
    (tmp_path / "a.csv").write_text("prompt,n\n" + "\n".join(rows))
    items = items_of(tmp_path / "a.csv")
    reasons = [getattr(item, "reason", "good") for item in items]
    assert reasons[:4] == ["good", "wrong_field_count", "row_too_large", "good"]
    assert "row_too_large" in reasons[4:]


JSON = st.recursive(
    st.one_of(st.integers(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    value=st.one_of(st.lists(JSON), st.dictionaries(st.text(), JSON), st.text()),
    ascii_only=st.booleans(),
    size=st.integers(1, 9),
    after=st.sampled_from(["", ",", " ]", '{"']),
)
@settings(max_examples=200, deadline=None)
def test_the_skipper_finds_where_any_value_ends(
    value: object, ascii_only: bool, size: int, after: str
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    skipper, whole = ValueSkipper(), text + after
    for start in range(0, len(whole), size):
        end = skipper.end_in(whole[start : start + size], 0)
        if end is not None:
            assert start + end == len(text)
            return
    raise AssertionError("it found no end")


def test_more_lists_than_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_SMALL_CHARS", 100)
    monkeypatch.setattr(limits, "_MAX_VALUES", 103)
    monkeypatch.setattr(json_values, "_CHUNK_CHARS", 64)
    rows = [f'{{"prompt": "{k}", "x": [{",".join(["[]"] * k)}]}}' for k in (3, 48, 49, 90, 4000, 5)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "a.json").write_text("[" + ",".join(rows) + "]")
    for name in ("a.jsonl", "a.json"):
        reasons = [getattr(item, "reason", "good") for item in items_of(tmp_path / name)]
        assert reasons[:2] + reasons[4:] == ["good", "good", "row_too_large", "good"]


@pytest.mark.parametrize("value", ["[]", "{}", '"ab"', "1.5", '{"k":0}'])
def test_more_values_than_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr(limits, "_SMALL_CHARS", 100)
    monkeypatch.setattr(limits, "_MAX_VALUES", 100)
    monkeypatch.setattr(json_values, "_CHUNK_CHARS", 64)
    prose = json.dumps(',:[{"\\' * 500)
    lists = [[value] * 20, [value] * 200, [prose] * 3, [value] * 2000, []]
    rows = [f'{{"prompt": "a", "x": [{",".join(one)}]}}' for one in lists]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "a.json").write_text("[" + ",".join(rows) + "]")
    for name in ("a.jsonl", "a.json"):
        reasons = [getattr(item, "reason", "good") for item in items_of(tmp_path / name)]
        assert reasons == ["good", "row_too_large", "good", "row_too_large", "good"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.zst", "a.csv.gz", "a.txt.zst"])
def test_an_archive_may_unpack_to_so_much_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 100_000)
    for length, is_bomb in ((90_000, False), (1_000_000, True)):
        text = FORMS[name[: name.rindex(".")]] % ("x" * length)
        (tmp_path / name).write_bytes(pack(text.encode(), name))
        if not is_bomb:
            assert len(items_of(tmp_path / name)) == 3
            continue
        with pytest.raises(InputError, match="unpacks to more than 200 times its size") as caught:
            items_of(tmp_path / name)
        assert name in caught.value.where
        assert "unpack it yourself" in caught.value.next_step
    monkeypatch.setattr(limits, "MAX_RATIO", 1_000_000)
    assert len(items_of(tmp_path / name)) == 3


def test_a_parquet_row_that_is_too_large_is_a_drop(tmp_path: Path, small: int) -> None:
    texts = ["first", "x" * 5000, "last"]
    pq.write_table(pa.table({"prompt": texts, "list": [[1], [2], None]}), tmp_path / "a.parquet")
    first, middle, last = items_of(tmp_path / "a.parquet")
    assert isinstance(first, Prompt)
    assert isinstance(last, Prompt)
    assert isinstance(middle, Drop)
    assert (middle.reason, middle.where) == ("row_too_large", "a.parquet:row 2")


def bomb(name: str, begin: bytes, unit: bytes) -> bytes:
    """An archive of some MiB at most whose members together unpack to 1.2 GiB."""
    member = (
        pack(unit * (16 * MIB // len(unit)), name)
        if name.endswith(".zst")
        else gzip.compress(unit * (16 * MIB // len(unit)), 9)
    )
    return pack(begin, name) + member * 77


BOMBS = {
    "one_line_gz": ("a.jsonl.gz", b"", b"x"),
    "one_line_zst": ("a.txt.zst", b"", b"x"),
    "blank_lines": ("a.jsonl.zst", b"", b" " * 1023 + b"\n"),
    "one_string": ("a.json.zst", b'[{"prompt": "', b"x"),
    "brackets": ("a.json.gz", b'[{"prompt": [', b"[],"),
    "one_record": ("a.csv.zst", b'prompt,n\n"', b"x" * 999 + b"\n"),
    "commas": ("a.csv.gz", b"prompt,n\n", b","),
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", BOMBS)
def test_a_real_bomb_is_stopped_with_little_memory(tmp_path: Path, kind: str) -> None:
    name, begin, unit = BOMBS[kind]
    path = tmp_path / name
    path.write_bytes(bomb(name, begin, unit))
    assert path.stat().st_size < 4 * MIB
    result = read_in_a_process(path)
    assert "unpacks to more than 200 times its size" in str(result["error"])
    assert int(str(result["peak_mib"])) < PEAK_MIB


@pytest.mark.faults
def test_the_command_stops_at_a_bomb(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(bomb("a.jsonl.gz", b"", b"x"))
    done = bon("convert", "a.jsonl.gz", "-o", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    for said in ("unpacks to more than 200 times", "decompression bomb", "next:  if it is what"):
        assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.gz"]


@pytest.mark.faults
@pytest.mark.parametrize("name", FORMS)
def test_a_row_of_100_mb_is_never_held(tmp_path: Path, name: str) -> None:
    before, after = FORMS[name].split("%s")
    with (tmp_path / name).open("w") as file:
        file.write(before)
        for _ in range(100):
            file.write("x" * MIB)
        file.write(after)
    result = read_in_a_process(tmp_path / name)
    assert (result["rows"], result["error"]) == ({"good": 2, "row_too_large": 1}, "")
    assert int(str(result["peak_mib"])) < PEAK_MIB


DENSE = {
    "commas": ("a.csv", "", ",", ""),
    "lists": ("a.jsonl", '", "x": [', "[],", '0], "y": "'),
    "objects": ("a.json", '", "x": [', "{},", '0], "y": "'),
    "strings": ("a.jsonl", '", "x": [', '"ab",', '0], "y": "'),
    "numbers": ("a.jsonl", '", "x": [', "1.5,", '0], "y": "'),
    "numbers_in_an_array": ("a.json", '", "x": [', "1.5,", '0], "y": "'),
    "small_objects": ("a.jsonl", '", "x": [', '{"a":0},', '0], "y": "'),
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", DENSE)
def test_a_row_of_millions_of_values_is_never_held(tmp_path: Path, kind: str) -> None:
    name, begin, unit, end = DENSE[kind]
    text = FORMS[name] % (begin + unit * (60 * MIB // len(unit)) + end)
    (tmp_path / name).write_text(text)
    result = read_in_a_process(tmp_path / name)
    assert (result["rows"], result["error"]) == ({"good": 2, "row_too_large": 1}, "")
    assert int(str(result["peak_mib"])) < PEAK_MIB


WITHIN = {
    "strings": ('["0"', ',"0123456789abcdefghijklm"', (1 << 21) - 9, "]", 500),
    "lists": ("[0", ",[1.25]", (1 << 20) - 9, "]", 500),
    "keys": ('{"":0', ',"%036d":1.5', (1 << 20) - 9, "}", 500),
    "wide_characters": ('"😀', "x", 60 * MIB, '"', 1000),  # four bytes each in memory
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", [*WITHIN, "too_many_keys"])
def test_a_row_just_within_the_limits_takes_bounded_memory(tmp_path: Path, kind: str) -> None:
    begin, unit, number, end, peak_mib = WITHIN[kind.removeprefix("too_many_")]
    number += 10 if kind not in WITHIN else 0
    inside = "".join(unit % one for one in range(number)) if "%" in unit else unit * number
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "a", "x": {begin}{inside}{end}}}\n')
    result = read_in_a_process(tmp_path / "a.jsonl")
    assert result["rows"] == {"good" if kind in WITHIN else "row_too_large": 1}
    assert int(str(result["peak_mib"])) < peak_mib


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["one_row_group", "dictionary", "one_huge_row"])
def test_parquet_is_read_in_batches_that_fit(tmp_path: Path, kind: str) -> None:
    if kind == "one_row_group":
        size, texts = 250, pa.array([f"{i:04}" + "y" * (2 * MIB) for i in range(250)])
    elif kind == "dictionary":  # 100 rows that name one text of 8 MiB
        size, indices = 100, pa.array([0] * 100, pa.int8())
        texts = pa.DictionaryArray.from_arrays(indices, ["z" * (8 * MIB)])
    else:
        size, texts = 3, pa.array(["a", "x" * (100 * MIB), "b"])
    pq.write_table(
        pa.table({"prompt": texts}), tmp_path / "a.parquet", row_group_size=size,
        use_dictionary=kind == "dictionary", compression="zstd", store_schema=False,
        write_batch_size=8,  # of rows in a page, which has to be unpacked as a whole
    )  # fmt: skip
    del texts
    result = read_in_a_process(tmp_path / "a.parquet")
    expected = {"good": 2, "row_too_large": 1} if kind == "one_huge_row" else {"good": size}
    assert (result["rows"], result["error"]) == (expected, "")
    assert int(str(result["peak_mib"])) < PEAK_MIB
