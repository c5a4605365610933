"""Outputs and inputs at awkward places: links, pipes, devices, long, foreign and spoiled names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest
from support.commands import bon

from bon.durable import replace_file, scratch_folder
from bon.errors import InputError, OutputError
from bon.exports.formats import choose_format
from bon.exports.target import check_output
from bon.exports.writer import DatasetWriter
from bon.sources.locate import find_files

ROW = '{"prompt": "a", "response": "b"}\n'
NATIVE = choose_format("bon", "prompts")
SCHEMA = pa.schema([("prompt", pa.list_(pa.struct([("role", pa.string())])))])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(output: Path) -> None:
    with DatasetWriter(output, schema=SCHEMA, kind="prompts", format=NATIVE) as writer:
        writer.write(pa.table({"prompt": [[{"role": "user"}]]}, SCHEMA))


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "real.jsonl").write_text("old")
    (tmp_path / "latest.jsonl").symlink_to("big/real.jsonl")
    (tmp_path / "dangling.jsonl").symlink_to("big/new.jsonl")
    write(tmp_path / "latest.jsonl")
    write(tmp_path / "dangling.jsonl")
    assert (tmp_path / "latest.jsonl").is_symlink()
    assert (tmp_path / "dangling.jsonl").is_symlink()
    written = (tmp_path / "big" / "real.jsonl").read_text()
    assert '"user"' in written
    assert (tmp_path / "big" / "new.jsonl").read_text() == written
    assert names(tmp_path / "big") == ["new.jsonl", "real.jsonl"]


def test_a_link_that_leads_to_itself_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    with pytest.raises(OutputError, match="cannot be written to") as caught:
        check_output(tmp_path / "loop.jsonl", NATIVE)
    assert caught.value.why == "a symbolic link that leads to itself"


def test_pipes_and_devices_are_refused_and_stay_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "null.jsonl").symlink_to("/dev/null")
    for path in (tmp_path / "pipe.jsonl", tmp_path / "null.jsonl", Path("/dev/null")):
        with pytest.raises(OutputError, match="is no regular file"):
            write(path)
    assert (tmp_path / "pipe.jsonl").is_fifo()
    assert Path("/dev/null").is_char_device()


@pytest.mark.faults
def test_the_file_of_a_second_split_is_looked_at_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "q", "responses": ["a", "b"]}\n' * 9)
    os.mkfifo(tmp_path / "best.test.jsonl")
    (tmp_path / "other.test.jsonl").mkdir()
    flags = ("in.jsonl", "--filter", "exact_dedup:", "-q")
    for name, said in (("best", "is no regular file"), ("other", "is a folder, not a file")):
        done = bon("filter", *flags, "-o", f"{name}.jsonl", "--train-test-split", 0.5, cwd=tmp_path)
        assert done.returncode == 1
        assert f"{name}.test.jsonl {said}" in done.stderr
    assert names(tmp_path) == ["best.test.jsonl", "in.jsonl", "other.test.jsonl"]
    assert (tmp_path / "best.test.jsonl").is_fifo()
    assert bon("filter", *flags, "-o", "best.jsonl", cwd=tmp_path).returncode == 0, "no split"


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    most = os.pathconf(tmp_path, "PC_NAME_MAX")
    output = tmp_path / ("ü" * ((most - 6) // 2) + ".jsonl")
    write(output)
    with scratch_folder(output) as scratch:
        (scratch / "part").touch()
    with (
        replace_file(output, tmp_path) as path,
        replace_file(Path(f"{output}"[:-7]), tmp_path) as other,
    ):
        assert path != other, "two names that begin alike"
        path.write_text("x")
        other.write_text("y")
    assert output.read_text() == "x"
    assert len(names(tmp_path)) == 2


@pytest.mark.faults
def test_a_name_that_is_too_long_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ROW)
    name = "x" * 300
    for words in (
        f"convert in.jsonl -o {name}.jsonl",
        f"convert in.jsonl -o {name}/a.jsonl",
        f"convert in.jsonl -o out.jsonl --pool {name}",
    ):
        done = bon(*words.split(), cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert os.strerror(errno.ENAMETOOLONG) in done.stderr
        assert "choose a shorter name" in done.stderr
        assert "bug in bon" not in done.stderr
    assert names(tmp_path) == ["in.jsonl"]


@pytest.mark.faults
def test_the_input_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ROW)
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    (tmp_path / "hard.jsonl").hardlink_to(tmp_path / "in.jsonl")
    for source, output in (("in", "in"), ("in", "link"), ("link", "in"), ("link", "link")):
        done = bon("convert", f"{source}.jsonl", "-o", f"{output}.jsonl", cwd=tmp_path)
        assert done.returncode == 2
        assert "the output would lie in the input" in done.stderr
    assert (tmp_path / "in.jsonl").read_text() == ROW
    done = bon("convert", "in.jsonl", "-o", "hard.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "in.jsonl").read_text() == ROW, "another name of it was replaced, it was not"
    assert (tmp_path / "hard.jsonl").read_text() != ROW


@pytest.mark.faults
def test_names_with_foreign_bytes_are_said_and_control_characters_are_names(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ROW)
    foreign = os.fsdecode(b"f\xff")
    (tmp_path / f"{foreign}.jsonl").write_text(ROW)
    for words in (
        ["convert", f"{foreign}.jsonl"],
        ["convert", "in.jsonl", "-o", f"{foreign}.parquet"],
        ["score", "in.jsonl", "-r", "rule:length?max=3", "--pool", foreign],
        ["inspect", f"{foreign}.pool"],
    ):
        done = bon(*words, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "a name that is not UTF-8 cannot be used" in done.stderr
        assert r"f\xff" in done.stderr
    assert len(names(tmp_path)) == 2
    done = bon("convert", "in.jsonl", "-o", "new\nline\x1b[31m.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new\nline\x1b[31m.jsonl").exists()
    assert "\x1b" not in done.stderr


def test_a_foreign_name_in_a_folder_that_is_read_is_said(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"f\xff.parquet")).touch()
    with pytest.raises(InputError, match="not UTF-8"):
        find_files(str(tmp_path))


@pytest.mark.faults
def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ROW)
    (tmp_path / "file").touch()
    for words in (
        "convert in.jsonl -o file/x.jsonl",
        "convert in.jsonl -o x.jsonl --pool file/p.pool",
        "convert in.jsonl -o x.jsonl --pool file",
    ):
        done = bon(*words.split(), cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "next:" in done.stderr
        assert "bug in bon" not in done.stderr
    assert names(tmp_path) == ["file", "in.jsonl"]
