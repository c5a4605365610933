"""Every format and packing, what bad rows and bad files do, and that nothing piles up in memory."""

import csv
import datetime
import decimal
import gzip
import io
import json
import sys
import tracemalloc
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.errors import BonError, InputError, InputNotFoundError
from bon.sources import json_values
from bon.sources.files import read_rows
from bon.sources.rows import RowFault
from bon.sources.tables import read_hub_dataset, to_json_value

ROWS = [
    {"id": "a", "prompt": "What is 2+2?"},
    {"id": "b", "prompt": 'Ein "Zitat", Komma\nund Zeile: ü 🙂'},
    {"id": "c", "prompt": "last"},
]


def pack(data: bytes, ending: str) -> bytes:
    if ending == ".gz":
        return gzip.compress(data)
    return pa.Codec("zstd").compress(data, asbytes=True) if ending == ".zst" else data


def as_delimited(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "prompt"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


TOKENS = [bytes([byte]) for byte in b'{}[]:,1\n\r"\t \x00x\xff']
CONTENTS = {
    "array.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "lines.json": as_lines(ROWS),
    "objects.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "lines.jsonl": as_lines(ROWS),
    "lines.NDJSON": as_lines(ROWS).replace(b"\n", b"\r\n"),
    "commas.csv": as_delimited(","),
    "tabs.tsv": as_delimited("\t"),
}


def write(folder, name, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def read(source) -> list:
    return list(read_rows(str(source), "train"))


def values(source) -> list:
    return [row.values for row in read(source)]


def faults(source) -> list:
    return [row.fault.reason if row.fault else None for row in read(source)]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", CONTENTS)
def test_every_text_format_gives_the_same_rows(tmp_path, name, ending, bom):
    assert values(write(tmp_path, name + ending, pack(bom + CONTENTS[name], ending))) == ROWS


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_text_is_a_prompt_a_line(tmp_path, ending):
    data = b"\xef\xbb\xbffirst\r\n\nthird\n  \n\n"
    rows = read(write(tmp_path, "p.txt" + ending, pack(data, ending)))
    assert [row.values for row in rows] == [
        {"prompt": "first"},
        {"prompt": ""},
        {"prompt": "third"},
    ]
    assert [row.where.split(":")[1] for row in rows] == ["1", "2", "3"]


def test_where_is_the_line_or_the_row(tmp_path):
    lines = write(tmp_path, "a.jsonl", b'{"a":1}\n\n{"a":2}\n')
    assert [row.where for row in read(lines)] == ["a.jsonl:1", "a.jsonl:3"]
    table = write(tmp_path, "a.csv", b'a,b\n"x\ny",2\n\n3,4\n')
    assert [row.where for row in read(table)] == ["a.csv:2", "a.csv:5"]
    array = write(tmp_path, "a.json", b'[{"a":1},\n{"a":2}]')
    assert [row.where for row in read(array)] == ["a.json:row 1", "a.json:row 2"]


def test_parquet_file_folder_and_pattern(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / ".cache").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), tmp_path / "data" / "a.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[1:]), tmp_path / "data" / "deep" / "b.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data" / ".cache" / "c.parquet")
    write(tmp_path, "data/c.jsonl", as_lines(ROWS))
    assert values(tmp_path / "data" / "a.parquet") == ROWS[:1]
    assert values(tmp_path / "data") == ROWS
    assert read(tmp_path / "data")[2].where == "b.parquet:row 2"
    assert values(tmp_path / "data" / "[ac].*") == ROWS[:1] + ROWS
    assert values(tmp_path / "**" / "b.parquet") == ROWS[1:]


def test_parquet_values_become_json_values(tmp_path):
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9)
    table = pa.table(
        {
            "moment": pa.array([moment], pa.timestamp("us")),
            "fine": pa.array([1_000_000_001_234], pa.timestamp("ns", "UTC")),
            "day": pa.array([moment.date()]),
            "raw": [b"\x00\xff"],
            "money": pa.array([decimal.Decimal("1.50")]),
            "nan": [float("nan")],
            "nested": [[{"when": moment.date(), "x": float("inf")}]],
            "none": pa.nulls(1),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = values(tmp_path / "a.parquet")
    assert json.loads(json.dumps(row, allow_nan=False)) == {
        "moment": "2024-05-06T07:08:09",
        "fine": "1970-01-01T00:16:40.000001+00:00",
        "day": "2024-05-06",
        "raw": "AP8=",
        "money": "1.50",
        "nan": None,
        "nested": [{"when": "2024-05-06", "x": None}],
        "none": None,
        "map": [["k", 1]],
    }


def test_parquet_rows_that_python_cannot_hold_are_faults(tmp_path):
    broken = pa.array([b"\xff", b"ok", b"ok"], pa.binary()).view(pa.string())
    times = pa.array([0, 2**50, 0], pa.timestamp("s"))
    pq.write_table(pa.table({"prompt": broken, "time": times}), tmp_path / "a.parquet")
    assert faults(tmp_path / "a.parquet") == ["invalid_utf8", "unsupported_value", None]
    with pytest.raises(RowFault, match="object"):
        to_json_value(object())


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"a": 1', "malformed_json", "column 8"),
        (b'{"a": 1} x', "malformed_json", "Extra data at column 10"),
        (b'{"a": NaN}', "malformed_json", "NaN"),
        (b'{"a": -Infinity}', "malformed_json", "-Infinity"),
        (b'{"a": 1e999}', "malformed_json", "1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "malformed_json", "digits"),
        (b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}", "malformed_json", "levels deep"),
        (b"[" * 100_000, "malformed_json", ""),
        (b'{"a": "\xff"}', "invalid_utf8", "0xff at byte 8"),
        (rb'{"a": "\ud800"}', "invalid_unicode", r"\ud800"),
        (rb'{"\udc00": 1}', "invalid_unicode", r"\udc00"),
        (b"[1]", "not_an_object", "an array"),
        (b'"text"', "not_an_object", "a string"),
        (b"12", "not_an_object", "a number"),
        (b"true", "not_an_object", "a boolean"),
        (b"null", "not_an_object", "null"),
    ],
)
def test_a_bad_json_line_is_a_fault_and_the_next_row_is_read(tmp_path, line, reason, detail):
    rows = read(write(tmp_path, "a.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 2}'))
    assert [row.values for row in rows] == [{"a": 0}, None, {"a": 2}]
    assert rows[1].fault.reason == reason
    assert detail in rows[1].fault.detail


@pytest.mark.parametrize("name", ["array.json", "objects.json"])
def test_rows_of_an_array_can_be_bad_as_long_as_they_are_json(tmp_path, name):
    rows = [
        b'{\n"a": 0}',
        b'{"a": NaN}',
        b'{"a": "\xff"}',
        rb'{"a": "\ud800"}',
        b"3",
        b'{"a": 12345678901234567890123, "b": "\\ud83d\\ude42"}',
    ]
    data = b"[" + b", ".join(rows) + b"]" if name == "array.json" else b"\n".join(rows)
    path = write(tmp_path, name, data)
    expected = ["malformed_json", "invalid_utf8", "invalid_unicode", "not_an_object"]
    assert faults(path) == [None, *expected, None]
    assert values(path)[-1] == {"a": 12345678901234567890123, "b": "🙂"}


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_where_chunks_end_does_not_matter(tmp_path, monkeypatch, size):
    rows = [{"n": -1.25e-30, "t": True, "s": 'é🙂\\"' * 9, "x": [None, {}, [12345]]}] * 5 + [{}]
    for name in ("array.json", "pretty.json"):
        indent = 1 if name == "pretty.json" else None
        path = write(tmp_path, name, json.dumps(rows, indent=indent).encode())
        monkeypatch.setattr(json_values, "_CHUNK_CHARS", size)
        assert values(path) == rows


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (b'[{"a":1},{"a":]', 1),
        (b'[{"a":1},{"a":"never closed]', 1),
        (b'[{"a":1}', 1),
        (b'[{"a":1},]', 1),
        (b'[{"a":1} {"a":2}]', 1),
        (b'[{"a":1}] tail', 1),
        (b"[", 0),
        (b"[" * 200_000, 0),
        (b'{"a":\n1}\n{"a":', 1),
        (b'{"a":\n1},\n{"a":2}', 1),
    ],
)
def test_a_json_file_that_cannot_go_on_is_an_error(tmp_path, data, row):
    path = write(tmp_path, "a.json", data)
    seen = []
    with pytest.raises(InputError, match=f"after row {row}") as caught:
        for item in read_rows(path, "train"):
            seen.append(item)
    assert len(seen) == row
    assert "JSON lines" in caught.value.next_step


def test_a_csv_cell_of_messages_is_a_list_and_any_other_a_text(tmp_path):
    messages = [{"role": "user", "content": 'a "quoted", ☃\nline'}]
    cells = [
        json.dumps(messages, ensure_ascii=False),
        json.dumps([{"from": "human", "value": "Q"}]),
        '[{"role": "user"}]',
        '[{"role": "user", "content": "\\ud800"}]',
        '[{"a": 1}]',
        "[{not json}]",
        "[1, 2]",
        '{"role": "user", "content": "Q"}',
        "[{" * 5000 + "}]",
    ]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["prompt"], *([cell] for cell in cells)])
    rows = read(write(tmp_path, "a.csv", text.getvalue().encode()))
    read_back = [row.values["prompt"] for row in rows]
    assert read_back == [messages, [{"from": "human", "value": "Q"}], *cells[2:]]


def test_bad_csv_records_are_faults(tmp_path):
    data = b'a,b\n1,2\n1\n1,2,3\n"x"y,2\n\xff,2\n\n3,4\n"never closed,5\n6,7\n'
    rows = read(write(tmp_path, "a.csv", data))
    assert [row.fault.reason if row.fault else "good" for row in rows] == [
        "good",
        "wrong_field_count",
        "wrong_field_count",
        "malformed_csv",
        "invalid_utf8",
        "good",
        "malformed_csv",
    ]
    assert rows[5].where == "a.csv:8"


@pytest.mark.parametrize("header", [b"a,a", b"a,\xff", b'a,"b"c'])
def test_a_bad_csv_header_is_an_error(tmp_path, header):
    with pytest.raises(InputError, match=r"header|one name"):
        read(write(tmp_path, "a.csv", header + b"\n1,2\n"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\xef\xbb\xbf\n \n"),
        ("a.json", b""),
        ("a.json", b" [ ] "),
        ("a.csv", b""),
        ("a.csv", b"a,b\n"),
        ("a.txt", b"\n\n"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
    ],
)
def test_an_input_without_rows_is_an_error(tmp_path, name, data):
    with pytest.raises(InputError, match="has no rows"):
        read(write(tmp_path, name, data))


def test_an_empty_parquet_file_has_no_rows_and_an_empty_one_among_others_is_fine(tmp_path):
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no rows"):
        read(tmp_path)
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "b.parquet")
    assert values(tmp_path) == [{"prompt": "x"}]


def test_a_cut_archive_says_after_which_row(tmp_path):
    data = as_lines({"prompt": f"{i * 7919}"} for i in range(100_000))
    for ending in (".gz", ".zst"):
        packed = pack(data, ending)
        path = write(tmp_path, "a.jsonl" + ending, packed[: len(packed) // 2])
        count = 0
        with pytest.raises(InputError) as caught:
            for _ in read_rows(path, "train"):
                count += 1
        assert f"after row {count}" in str(caught.value)
        assert "a.jsonl" in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.zst", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path, name):
    with pytest.raises(InputError, match="after row 0"):
        read(write(tmp_path, name, b"hello, this is plain text\n"))


def test_a_corrupt_parquet_page_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"prompt": [f"prompt {i}" for i in range(2000)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    at = data.index(b"prompt 1500")
    data[at : at + 6] = b"PROMPT"
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read on"):
        read(path)


def test_a_corrupt_parquet_footer_is_an_error(tmp_path):
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "a.parquet", store_schema=False)
    data = (tmp_path / "a.parquet").read_bytes().replace(b"prompt", b"\xffrompt")
    with pytest.raises(InputError, match="after row 0"):
        read(write(tmp_path, "a.parquet", data))


def test_a_parquet_file_with_a_column_twice_is_an_error(tmp_path):
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="one name"):
        read(tmp_path / "a.parquet")


def test_a_missing_file_is_told_with_its_neighbours(tmp_path):
    write(tmp_path, "prompts.jsonl", b"{}")
    with pytest.raises(InputNotFoundError, match=r"did you mean .*prompts\.jsonl"):
        read(tmp_path / "promts.jsonl")
    with pytest.raises(InputNotFoundError, match="there is no folder"):
        read(tmp_path / "nowhere" / "prompts.jsonl")
    with pytest.raises(InputNotFoundError, match="no file matches"):
        read(tmp_path / "*.csv")
    for source in ("", "Write me a story. " * 40, "nul\0"):
        with pytest.raises(InputNotFoundError):
            read_rows(source, "train")


def test_unknown_endings_and_folders_without_parquet_are_errors(tmp_path):
    for name in ("a.xlsx", "a", "a.parquet.gz", "a.gz"):
        with pytest.raises(InputError, match=r"\.ndjson.*\.parquet"):
            read(write(tmp_path, name, b"x"))
    with pytest.raises(InputError, match=r"\*\.jsonl"):
        read(tmp_path)


def fake_datasets(monkeypatch, load) -> None:
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))


def test_a_hub_dataset_is_streamed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return iter([{"q": "x", "when": datetime.date(2024, 1, 2)}, {"q": object()}])

    fake_datasets(monkeypatch, load)
    rows = list(read_rows("org/name:main", "test"))
    assert calls == [(("org/name", "main"), {"split": "test", "streaming": True})]
    assert rows[0].values == {"q": "x", "when": "2024-01-02"}
    assert rows[0].where == "org/name:main:row 1"
    assert rows[1].fault.reason == "unsupported_value"
    list(read_rows("org/name", "train"))
    assert calls[1] == (("org/name", None), {"split": "train", "streaming": True})


def test_faults_of_the_hub_are_input_errors(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def missing(*args, **options):
        raise FileNotFoundError("no such dataset")

    def breaking(*args, **options):
        yield {"a": 1}
        raise ConnectionError("gone")

    fake_datasets(monkeypatch, missing)
    with pytest.raises(InputNotFoundError, match="no such dataset"):
        read("org/name")
    fake_datasets(monkeypatch, breaking)
    with pytest.raises(InputError, match=r"after row 1\n.*ConnectionError: gone"):
        read("org/name")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        read("org/name")


def test_a_path_that_is_misspelt_is_not_looked_up_on_the_hub(monkeypatch, tmp_path):
    def never(*args, **options):
        raise AssertionError("the Hub was asked")

    fake_datasets(monkeypatch, never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for source in ("data/trian", "nowhere/train.jsonl", "nowhere/train.jsonl.gz"):
        with pytest.raises(InputNotFoundError, match="no such input"):
            read(source)


def test_the_real_datasets_library_takes_the_call(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    write(tmp_path, "train.jsonl", as_lines(ROWS))
    assert [row.values for row in read_hub_dataset(str(tmp_path), "train")] == ROWS
    with pytest.raises(InputError, match="Bad split"):
        list(read_hub_dataset(str(tmp_path), "tset"))


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(
        ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.jsonl.gz", "a.parquet"]
    ),
    data=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from([*TOKENS, b'"a"', b"\\ud800", b"\xef\xbb\xbf", b"NaN"]),
            max_size=40,
        ).map(b"".join),
    ),
)
def test_no_bytes_raise_anything_but_our_own_errors(tmp_path_factory, name, data):
    path = write(tmp_path_factory.getbasetemp(), name, data)
    try:
        rows = read(path)
    except BonError:
        return
    assert rows
    assert all((row.values is None) != (row.fault is None) for row in rows)


@given(rows=st.lists(st.dictionaries(st.text(max_size=3), st.text(), max_size=3), min_size=1))
@settings(max_examples=50, deadline=None)
def test_json_rows_come_back_as_they_were_written(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    assert values(write(folder, "b.jsonl", as_lines(rows))) == rows
    assert values(write(folder, "b.json", json.dumps(rows, indent=1).encode())) == rows


@pytest.mark.parametrize("name", ["big.jsonl", "big.json", "big.csv"])
def test_a_large_file_is_streamed(tmp_path, name):
    number = 200_000 if name == "big.jsonl" else 50_000
    text = "x" * 300
    with (tmp_path / name).open("w") as file:
        file.write({"big.jsonl": "", "big.json": "[", "big.csv": "n,prompt\n"}[name])
        for i in range(number):
            row = f'{{"n": {i}, "prompt": "{text}"}}'
            end = "]" if i == number - 1 else ","
            file.write({"big.jsonl": row, "big.json": row + end}.get(name, f"{i},{text}") + "\n")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(str(tmp_path / name), "train")) == number
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000 < (tmp_path / name).stat().st_size


def test_a_folder_leaves_out_the_pools_in_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "a.pool" / "prompts").mkdir(parents=True)
    (tmp_path / "a.pool" / "pool.json").write_text("{}")
    pq.write_table(pa.table({"prompt": ["b"]}), tmp_path / "a.pool" / "prompts" / "b.parquet")

    assert [row.values for row in read_rows(str(tmp_path), "train")] == [{"prompt": "a"}]
