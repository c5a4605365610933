"""stdout, stderr and stdin closed, full, or with a reader that has gone.

A command whose result is a set or a pool ends with 0, or 3 for drops, and with the same bytes,
whatever becomes of what it prints; one whose result is what it prints says by 1 that it was lost.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import pool_files
from support.system_faults import bon_under

from bon.standard_streams import ForgivingFile, forgiving_text

BON = f"{sys.executable} -m bon"
SCORE = "score in.jsonl -r rule:length?max=3"
ROWS = '{"prompt": "a", "responses": ["b", "cc dd ee ff"]}\n'
CLOSED = "<&- >&- 2>&-"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input, one that has a bad row, a pool of the first and a set of that."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "in.jsonl").write_text(ROWS)
    (folder / "bad.jsonl").write_text(ROWS + "{\n")
    for words in (f"{SCORE} --pool free.pool", "select free.pool -o free.jsonl -q"):
        done = bon_under(*words.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def in_shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; the exit code is that of the first command of a pipe."""
    line = f"set -o pipefail; {command}"
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


SETS = [
    (">/dev/full", 0, "warning: the result is complete, but stdout did not take what tells of it"),
    ("--json >/dev/full", 0, "warning: the result is complete"),
    ("| true", 0, ""),
    (">&-", 0, ""),
    ("2>&-", 0, ""),
    ("2>/dev/full", 0, ""),
    (CLOSED, 0, ""),
]


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        pytest.param(*one, marks=[] if number in (0, 2) else pytest.mark.faults)
        for number, one in enumerate(SETS)
    ],
)
def test_a_set_is_complete_whoever_reads(
    place: Path, tmp_path: Path, streams: str, code: int, said: str
) -> None:
    output = tmp_path / "out.jsonl"
    done = in_shell(f"{BON} select free.pool -q -o {output} {streams}", place)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert output.read_bytes() == (place / "free.jsonl").read_bytes()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", pytest.param("ascii", marks=pytest.mark.faults)])
@pytest.mark.parametrize(
    "words", [pytest.param("inspect →.pool", marks=pytest.mark.faults), "validate →.pool"]
)
def test_stdout_that_lacks_a_character_gets_its_escape(
    place: Path, tmp_path: Path, words: str, encoding: str
) -> None:
    (tmp_path / "→.pool").symlink_to(place / "free.pool")
    done = in_shell(f"PYTHONIOENCODING={encoding} {BON} {words} > out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"\\u2192.pool" in (tmp_path / "out").read_bytes()


@pytest.mark.faults
def test_drops_are_told_by_the_exit_code_alone(place: Path, tmp_path: Path) -> None:
    done = in_shell(f"{BON} convert bad.jsonl -o {tmp_path}/x.jsonl --max-drops 0 {CLOSED}", place)
    assert done.returncode == 3
    assert (tmp_path / "x.jsonl").exists()


def test_with_all_streams_closed_nothing_is_printed_into_the_pool(
    place: Path, tmp_path: Path
) -> None:
    """The first files that are opened would get the numbers of stdin, stdout and stderr."""
    done = in_shell(f"{BON} {SCORE} --pool {tmp_path}/p.pool {CLOSED}", place)
    assert done.returncode == 0
    pool, free = pool_files(tmp_path / "p.pool"), pool_files(place / "free.pool")
    assert {**pool, "run.log": b""} == {**free, "run.log": b""}


PRINTED = [
    ("inspect free.pool >/dev/full", 1, "error: the result could not be printed\n  where: stdout"),
    ("inspect free.pool | true", 0, ""),
    ("inspect free.pool --json | head -c 1 >/dev/null", 0, ""),
    ("inspect free.pool >&-", 0, ""),
    ("--version >/dev/full", 1, "why:   No space left on device"),
    ("--help | true", 0, ""),
    ("select free.pool --dry-run >/dev/full", 1, "error: the result could not be printed"),
    ("inspect free.pool 2>&-", 0, ""),
    ("select nosuch.jsonl 2>&-", 1, ""),
    ("select nosuch.jsonl 2>/dev/full", 1, ""),
    ("select nosuch.jsonl >/dev/full", 1, "no such input"),
]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        pytest.param(*one, marks=[] if number < 2 else pytest.mark.faults)
        for number, one in enumerate(PRINTED)
    ],
)
def test_what_is_printed_is_lost_or_unwanted(
    place: Path, command: str, code: int, said: str
) -> None:
    done = in_shell(f"{BON} {command}", place)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug in bon" not in done.stderr


@pytest.mark.faults
def test_stderr_whose_reader_goes_in_the_middle(place: Path, tmp_path: Path) -> None:
    """`-v` has the worker print to stderr too."""
    done = in_shell(f"{BON} {SCORE} -v --pool {tmp_path}/p.pool 2> >(head -c 1 >/dev/null)", place)
    assert done.returncode == 0
    parts = {
        name: found for name, found in pool_files(tmp_path / "p.pool").items() if "part" in name
    }
    free = pool_files(place / "free.pool")
    assert parts == {name: free[name] for name in parts}
    assert len(parts) == 3


def test_a_forgiving_file_writes_until_it_cannot() -> None:
    reader, writer = os.pipe()
    file = ForgivingFile(writer)
    assert file.write(b"one") == 3
    assert os.read(reader, 10) == b"one"
    os.close(reader)
    assert file.write(b"two") == 3
    assert isinstance(file.error, BrokenPipeError)
    assert not file.is_lost
    os.close(writer)


def test_a_full_device_is_a_loss() -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        stream = forgiving_text(full.fileno(), "utf-8", "surrogateescape")
        print("line", file=stream, flush=True)
        raw = stream.buffer.raw
        assert isinstance(raw, ForgivingFile)
        assert raw.is_lost
        assert raw.fileno() == full.fileno()


def test_a_terminal_that_does_not_block_gets_everything(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(1 << 20)
    drain = subprocess.Popen(["sha256sum"], stdin=reader, stdout=subprocess.PIPE, text=True)
    os.close(reader)
    with io.BufferedWriter(ForgivingFile(writer)) as file:
        file.write(data)
    os.close(writer)
    assert (drain.communicate()[0]).split()[0] == hashlib.sha256(data).hexdigest()
