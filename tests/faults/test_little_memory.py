"""Too little memory for the commands that curate: refused, or an error that says so."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.commands import bon
from support.fakes import Run, prompt
from support.system_faults import bon_under

from bon.errors import SystemFaultError
from bon.pool.files import read_table
from bon.system_faults import advice, reason, system_fault

MIB = 1 << 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    Run([prompt(n) for n in range(8)]).scores(folder / "p.pool")
    return folder


@pytest.mark.parametrize(
    ("limit", "most"), [(resource.RLIMIT_AS, 300 * MIB), (resource.RLIMIT_DATA, 60 * MIB)]
)
def test_a_limit_under_which_libraries_hang_is_refused(place: Path, limit: int, most: int) -> None:
    done = bon_under("select", "p.pool", cwd=place, limits={limit: most}, timeout_s=60)
    assert done.returncode == 1
    assert "error: not enough memory" in done.stderr
    assert f"this process may have {most // MIB} MiB" in done.stderr
    assert "next:  raise the limit: `ulimit" in done.stderr


@pytest.mark.faults
def test_memory_that_runs_out_on_the_way(tmp_path: Path) -> None:
    """Three rows of 40 MB under a limit that leaves 60 MB or so behind what is loaded."""
    with (tmp_path / "in.jsonl").open("w") as file:
        for number in range(3):
            text = f"word{number} " * (40 * MIB // 6)
            file.write(f'{{"prompt": "p{number}", "response": "{text}"}}\n')
    words = ("convert", "in.jsonl", "-o", "out.jsonl")
    limits = {resource.RLIMIT_DATA: 256 * MIB}
    done = bon_under(*words, cwd=tmp_path, limits=limits, timeout_s=300)
    assert done.returncode == 1
    assert "not enough memory" in done.stderr, done.stderr
    assert "ulimit -d" in done.stderr
    assert "bug in bon" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    again = bon(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr


ERRORS = [
    (MemoryError(), errno.ENOMEM),
    (pa.ArrowMemoryError("malloc of size 64 failed"), errno.ENOMEM),
    (np._core._exceptions._ArrayMemoryError((3,), np.dtype("f4")), errno.ENOMEM),
    (RuntimeError("can't start new thread"), errno.EAGAIN),
    (ImportError("libx.so: failed to map segment from shared object"), errno.ENOMEM),
    (ImportError("libx.so: cannot open shared object file: Too many open files"), errno.EMFILE),
    (pa.ArrowException("Failed to launch worker thread: Resource temporarily unavailable"),
     errno.EAGAIN),
    (OSError(errno.EDQUOT, "Error writing bytes to file. Detail: …"), errno.EDQUOT),
]  # fmt: skip


@pytest.mark.parametrize(("error", "number"), ERRORS, ids=[str(n) for n in range(len(ERRORS))])
def test_what_libraries_say_of_the_system(error: Exception, number: int) -> None:
    fault = system_fault(error, "here")
    assert fault is not None
    assert fault.why == reason(error) == os.strerror(number)
    assert fault.where == "here"
    assert advice(error, "nothing") in fault.next_step


@pytest.mark.parametrize(
    "error", [ValueError("row 3: Too many open files"), OSError("Corrupt snappy"), KeyError("x")]
)
def test_what_is_said_of_data_is_no_fault_of_the_system(error: Exception) -> None:
    assert system_fault(error, is_boundary=True) is None
    assert advice(error, "look at the row") == "look at the row"


def test_an_unknown_number_is_only_told_at_the_boundary() -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "gone.jsonl")
    assert system_fault(error) is None
    fault = system_fault(error, is_boundary=True)
    assert fault is not None
    assert fault.where == "gone.jsonl"


def test_a_part_that_cannot_be_opened_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SystemFaultError) as caught:
        read_table(tmp_path / "part-00000.parquet", pa.schema([]))
    assert caught.value.why == "Input/output error"
    assert "repair" not in caught.value.next_step
