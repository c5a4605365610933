"""Files and folders that cannot be read as a whole: an error with what, where, why and what next.

Everything goes through the real readers; through the real command goes one of each family.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import bon

from bon.config import InputSettings, ResponseSettings
from bon.errors import InputError
from bon.records import Drop, Prompt
from bon.sources.prompts import PromptReader
from bon.sources.responses import ResponseReader

LINES = b"".join(b'{"prompt": "%d", "response": "R"}\n' % i for i in range(50))
TEXT = LINES.decode()
GZ, ZST = gzip.compress(LINES, mtime=0), pa.Codec("zstd").compress(LINES, asbytes=True)


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 0x10
    return bytes(changed)


WHOLE_FAULTS: dict[str, tuple[str, bytes, str, str]] = {
    # name of the fault: name of the file, its bytes, why it is refused, what to do next
    "cut_gz": ("a.jsonl.gz", GZ[: len(GZ) // 2], "Truncated", "fetch or write it again"),
    "cut_gz_footer": ("a.jsonl.gz", GZ[:-3], "Truncated", "fetch"),
    "cut_gz_header": ("a.jsonl.gz", GZ[:5], "Truncated", "fetch"),
    "flipped_gz": ("a.jsonl.gz", flipped(GZ, len(GZ) // 2), "inflate", "fetch"),
    "wrong_checksum_gz": ("a.jsonl.gz", flipped(GZ, -6), "data check", "fetch"),
    "garbage_behind_gz": ("a.jsonl.gz", GZ + b"garbage", "header check", "fetch"),
    "cut_zst": ("a.jsonl.zst", ZST[: len(ZST) // 2], "Truncated", "fetch"),
    "cut_zst_header": ("a.jsonl.zst", ZST[:3], "Truncated", "fetch"),
    "garbage_behind_zst": ("a.jsonl.zst", ZST + b"garbage", "frame descriptor", "fetch"),
    "plain_named_gz": ("a.jsonl.gz", LINES, "header check", "not what its name says"),
    "plain_named_parquet": ("a.parquet", LINES, "magic", "not what its name says"),
    "gz_named_plain": ("a.jsonl", GZ, "gzip archive", "ends in .gz"),
    "gz_in_a_gz": ("a.jsonl.gz", gzip.compress(GZ), "gzip archive", "ends in .gz"),
    "zst_named_plain": ("a.csv", ZST, "zstd archive", "ends in .zst"),
    "parquet_named_plain": ("a.json", b"PAR1" + bytes(20), "Parquet file", "ends in .parquet"),
    "spreadsheet_named_csv": ("a.csv", b"PK\x03\x04" + bytes(20), "zip archive", "CSV"),
    "binary_named_text": ("a.txt", bytes(range(3)) * 500, "binary file", "UTF-8"),
    "utf16": ("a.jsonl", TEXT.encode("utf-16"), "UTF-16", "iconv"),
    "utf16_big_end": ("a.csv", TEXT.encode("utf-16-be"), "UTF-16", "iconv"),
    "utf16_without_mark": ("a.txt", TEXT.encode("utf-16-le"), "UTF-16", "iconv"),
    "utf32": ("a.json", TEXT.encode("utf-32"), "UTF-32", "iconv"),
    "lone_cr_lines": ("a.jsonl", LINES.replace(b"\n", b"\r"), "carriage return", "tr "),
    "lone_cr_text": ("a.txt", b"one\rtwo\rthree", "carriage return", "tr "),
    "cut_array": (
        "a.json",
        b'[{"prompt": "a", "response": "b"}, {"prom',
        "Unterminated",
        "JSON lines",
    ),
    "array_never_closed": ("a.json", b'[{"prompt": "a", "response": "b"}', "the end", "JSON lines"),
    "csv_header_twice": ("a.csv", b"prompt,prompt\na,b\n", "lost without a word", "rename"),
    "csv_header_latin_1": ("a.csv", b"prompt,gr\xfc\xdfe\na,b\n", "not UTF-8", "UTF-8"),
    "no_bytes": ("a.jsonl", b"", "empty", "written to its end"),
    "no_bytes_gz": ("a.jsonl.gz", b"", "empty", "written to its end"),
    "blank_lines": ("a.txt", b"\n \n\n", "blank lines", "written to its end"),
    "only_a_header": ("a.csv", b"prompt,x\n", "header", "written to its end"),
    "empty_array": ("a.json", b"[]", "empty", "written to its end"),
    "no_bytes_parquet": ("a.parquet", b"", "0 bytes", "fetch"),
}


def all_of(path: object) -> list[object]:
    """Read by all readers; they must agree on what is wrong."""
    inputs, errors = InputSettings(), []
    given = ResponseSettings(source_kind="responses")
    readers = (
        lambda: PromptReader(str(path), inputs),
        lambda: ResponseReader(str(path), inputs, given, group=True),
    )
    for reader in readers:
        try:
            items = list(reader())
        except InputError as error:
            errors.append(error)
    if not errors:
        return items
    assert len({str(error) for error in errors}) == 1
    raise errors[0]


TEXTS = {
    "par.txt": b"PAR1 is a receptor of thrombin.\nARROW1 is none.\n",
    "arrow.txt": b"ARROW1 is a name\n",
    "bzip.csv": b"BZh,prompt\n1,what is it?\n",
    "version.txt": b"BZh9 begins a file. Of which kind?\n",
    "archive.txt": b"PK is a key\n",
    "cr.txt": b"Explain a\rb",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_begins_like_something_else_is_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TEXTS[name])
    items = list(PromptReader(str(tmp_path / name), InputSettings()))
    assert all(isinstance(item, Prompt) for item in items)
    assert len(items) == TEXTS[name].count(b"\n", 1) - name.endswith(".csv") or name == "cr.txt"


@pytest.mark.parametrize("content", [b"", b"x", LINES * 1000])
def test_other_archives_and_tables_are_known(tmp_path: Path, content: bytes) -> None:
    pq.write_table(pa.table({"prompt": [content.decode()]}), tmp_path / "table.txt")
    (tmp_path / "packed.txt").write_bytes(bz2.compress(content))
    with pa.OSFile(str(tmp_path / "arrow.txt"), "wb") as file:
        pa.ipc.new_file(file, pa.schema([])).close()
    for name, kind in (("table", "Parquet"), ("packed", "bzip2"), ("arrow", "Arrow")):
        with pytest.raises(InputError, match=f"an? {kind}"):
            all_of(tmp_path / f"{name}.txt")


@pytest.mark.parametrize("fault", WHOLE_FAULTS)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, fault: str) -> None:
    name, data, why, advice = WHOLE_FAULTS[fault]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        all_of(tmp_path / name)
    error = caught.value
    assert name in error.what or fault == "csv_header_twice"
    assert str(tmp_path / name) in error.where
    assert why in error.why
    assert advice in error.next_step


def test_rows_before_a_cut_are_counted_in_the_message(tmp_path: Path) -> None:
    many = b"".join(b'{"prompt": "%d"}\n' % (i * 7919) for i in range(20_000))
    for ending, packed in ((".gz", gzip.compress(many)), (".zst", pa.Codec("zstd").compress(many))):
        (tmp_path / f"a.jsonl{ending}").write_bytes(bytes(packed)[:-200])
        count = 0
        with pytest.raises(InputError) as caught:
            for _ in PromptReader(str(tmp_path / f"a.jsonl{ending}"), InputSettings()):
                count += 1
        assert count > 0
        assert f"after row {count}" in caught.value.what


def test_members_of_an_archive_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(GZ + gzip.compress(b"") + GZ)
    (tmp_path / "a.jsonl.zst").write_bytes(ZST + ZST)
    assert len(all_of(tmp_path / "a.jsonl.gz")) == len(all_of(tmp_path / "a.jsonl.zst")) == 100


def test_a_binary_file_without_any_sign_is_all_drops(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(bytes(range(1, 256)) * 8)
    items = all_of(tmp_path / "a.jsonl")
    assert items
    assert all(isinstance(item, Drop) for item in items)


def parquet(path: Path, text: str = "Q") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"prompt": [text], "response": ["R"]}), path)
    return path


def test_a_cut_or_changed_parquet_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"prompt": [f"prompt {i}" for i in range(3000)], "response": ["R"] * 3000})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = path.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], data[:4], flipped(data, 20_000)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.parquet cannot be read on after row"):
            all_of(path)


def test_hidden_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    parquet(tmp_path / ".b.parquet")
    parquet(tmp_path / ".cache" / "c.parquet")
    parquet(tmp_path / "._a.parquet").write_bytes(b"resource fork")
    os.mkfifo(tmp_path / "pipe.parquet")
    assert len(all_of(tmp_path)) == 1


def test_a_link_to_nothing_is_an_error_and_not_fewer_rows(tmp_path: Path) -> None:
    parquet(tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "b.parquet").symlink_to(tmp_path / "blobs" / "b")
    for source in (tmp_path / "in", tmp_path / "in" / "*.parquet"):
        with pytest.raises(InputError, match=r"b\.parquet is a link to nothing") as caught:
            all_of(source)
        assert "rows would be missing" in caught.value.why
    (tmp_path / "blobs").mkdir()
    parquet(tmp_path / "blobs" / "b", "another")
    assert len(all_of(tmp_path / "in")) == 2


READ_AS_NOBODY = """
import os, sys
sys.path.insert(0, os.getcwd())
from bon.config import InputSettings
from bon.sources.prompts import PromptReader
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
try:
    print(len(list(PromptReader(sys.argv[1], InputSettings()))))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_what_is_closed_to_the_user_is_an_error_and_not_fewer_rows(
    tmp_path: Path, closed: str
) -> None:
    parquet(tmp_path / "in" / "a.parquet")
    inner = parquet(tmp_path / "in" / "deep" / "b.parquet")
    ours = [
        one for one in tmp_path.parents if one.stat().st_uid == os.getuid() and one != one.parent
    ]
    for folder in (tmp_path, *ours, tmp_path / "in", inner.parent):
        folder.chmod(folder.stat().st_mode | 0o055)  # root's temporary folders are root's alone
    script = [sys.executable, "-c", READ_AS_NOBODY, str(tmp_path / "in")]
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == "2\n"
    target = inner.parent if closed == "folder" else inner
    target.chmod(0)
    try:
        shown = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    finally:
        target.chmod(0o755)
    assert shown.startswith("InputError cannot ") if closed == "folder" else "b.parquet" in shown
    assert re.search(r"(?i)permission denied", shown)
    assert "next:" in shown


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(tmp_path: Path, rows: int) -> None:
    pq.write_table(pa.table({"prompt": ["Q"] * rows}), tmp_path / "a.parquet")
    data = [{"prompt": "Q"}] * rows
    (tmp_path / "a.json").write_text(json.dumps(data))
    for name in ("a.parquet", "a.json"):
        if rows:
            (prompt,) = PromptReader(str(tmp_path / name), InputSettings())
            assert not isinstance(prompt, Drop)
        else:
            with pytest.raises(InputError, match="has no rows"):
                all_of(tmp_path / name)


@pytest.mark.parametrize(
    "fault",
    [
        "cut_gz",
        pytest.param("utf16", marks=pytest.mark.faults),
        pytest.param("cut_array", marks=pytest.mark.faults),
        pytest.param("plain_named_parquet", marks=pytest.mark.faults),
        pytest.param("no_bytes", marks=pytest.mark.faults),
    ],
)
def test_the_command_says_so_and_writes_nothing(tmp_path: Path, fault: str) -> None:
    name, data, why, advice = WHOLE_FAULTS[fault]
    (tmp_path / name).write_bytes(data)
    done = bon("convert", name, "-o", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    for said in ("error: ", "where: ", "why: ", "next: ", name, why, advice):
        assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ((), 3),
        pytest.param(("--max-drops", "100%"), 0, marks=pytest.mark.faults),
        pytest.param(("--max-drops", "1"), 3, marks=pytest.mark.faults),
    ],
)
def test_a_run_that_keeps_no_row_is_no_success(
    tmp_path: Path, flags: tuple[str, ...], code: int
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"garbage\n[\n")
    done = bon("convert", "a.jsonl", "-o", "out.jsonl", *flags, cwd=tmp_path)
    assert done.returncode == code
    assert "dropped a.jsonl:1: malformed_json" in done.stderr
    assert ("nothing is left: 2 of 2 rows dropped" in done.stderr) is (flags == ())
