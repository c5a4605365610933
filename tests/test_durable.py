"""Files that exist only when they are complete."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bon.durable import has_ended, is_of_the_dead, process_tag, replace_file, scratch_folder
from bon.errors import OutputError, WorkerDiedError
from bon.pool.files import write_table

SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float32())])
TABLE = pa.table({"id": [f"p{n}" for n in range(200)], "score": [0.5] * 200}, SCHEMA)


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def part(tmp_path: Path, staging: Path) -> Path:
    """A committed file."""
    path = tmp_path / "out" / "part.parquet"
    write_table(TABLE, path, staging, {"note": "x"})
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_file_and_folder_are_synced_around_the_rename(
    tmp_path: Path, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.replace
    final = tmp_path / "out" / "f.txt"

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(f"sync {path.relative_to(tmp_path).parts[0]} exists={final.exists()}")
        sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    with replace_file(final, staging) as path:
        path.write_text("hello")
        assert path.parent == staging
        assert not final.exists()

    assert final.read_text() == "hello"
    assert steps == ["sync staging exists=False", "rename", "sync out exists=True"]
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_failing_block_leaves_the_old_file_and_no_staging(
    part: Path, staging: Path, error: BaseException
) -> None:
    before = part.read_bytes()
    with pytest.raises(type(error)), replace_file(part, staging) as path:
        path.write_bytes(b"half")
        raise error

    assert part.read_bytes() == before
    assert list(staging.iterdir()) == []


def test_disk_full_is_an_output_error_and_leaves_nothing(
    part: Path, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = part.read_bytes()

    def write(table: pa.Table, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", write)
    with pytest.raises(OutputError) as caught:
        write_table(TABLE, part, staging)

    assert caught.value.why == "No space left on device"
    assert caught.value.where == str(part)
    assert "make room" in caught.value.next_step
    assert part.read_bytes() == before
    assert list(staging.iterdir()) == []


def test_file_size_limit_in_a_real_process(tmp_path: Path) -> None:
    code = (
        "import resource, sys, pathlib, pyarrow as pa\n"
        "from bon.pool.files import write_table\n"
        "from bon.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "table = pa.table({'n': [str(n * 7919) for n in range(50_000)]})\n"
        "try:\n"
        "    write_table(table, root / 'part.parquet', root / 'staging')\n"
        "except OutputError as error:\n"
        "    print(error.why)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "too large" in done.stdout.lower()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_target_that_is_a_folder_is_an_output_error(tmp_path: Path, staging: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="cannot write out"):
        write_table(TABLE, tmp_path / "out", staging)
    assert list(staging.iterdir()) == []


def test_parent_that_is_a_file_is_an_output_error(tmp_path: Path, staging: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_table(TABLE, tmp_path / "file" / "part.parquet", staging)


def test_errors_of_ours_pass_unchanged_even_where_they_are_os_errors(
    tmp_path: Path, staging: Path
) -> None:
    with pytest.raises(WorkerDiedError), replace_file(tmp_path / "f", staging):
        raise WorkerDiedError("the model's process died")


def test_staging_of_the_dead_is_removed_and_that_of_the_living_kept(
    tmp_path: Path, staging: Path
) -> None:
    staging.mkdir()
    stale = staging / f".part[1].parquet.{process_tag(dead_pid())}.tmp"
    other = staging / f".part1.parquet.{process_tag(dead_pid())}.tmp"
    living = staging / f".part[1].parquet.{process_tag(os.getppid())}.tmp"
    elsewhere = staging / f".part[1].parquet.0123abcd-{dead_pid()}.tmp"
    for path in (stale, other, living, elsewhere):
        path.write_bytes(b"half")

    write_table(TABLE, tmp_path / "part[1].parquet", staging)

    assert not stale.exists()
    assert other.exists(), "the staging of another file"
    assert living.exists()
    assert elsewhere.exists(), "on another machine nobody knows who is alive"


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_scratch_is_gone_with_the_folders_made_for_it(
    tmp_path: Path, error: BaseException | None
) -> None:
    output = tmp_path / "new" / "deep" / "x.parquet"

    def work() -> None:
        with scratch_folder(output) as scratch:
            assert scratch.parent == output.parent
            (scratch / "pool").mkdir()
            (scratch / "pool" / "part").touch()
            if error is not None:
                raise error
            output.touch()

    if error is None:
        work()
        assert [path.name for path in output.parent.iterdir()] == ["x.parquet"]
    else:
        with pytest.raises(type(error)):
            work()
        assert list(tmp_path.iterdir()) == []


def test_scratch_of_the_dead_is_removed_and_that_of_others_kept(tmp_path: Path) -> None:
    stale = tmp_path / f".x.parquet.scratch.{process_tag(dead_pid())}.tmp"
    other = tmp_path / f".y.parquet.scratch.{process_tag(dead_pid())}.tmp"
    living = tmp_path / f".x.parquet.scratch.{process_tag(os.getppid())}.tmp"
    for path in (stale, other, living):
        path.mkdir()
        (path / "part").touch()

    with scratch_folder(tmp_path / "x.parquet") as scratch:
        assert scratch.is_dir()

    assert sorted(tmp_path.iterdir()) == sorted([other, living])


def test_scratch_of_a_dead_process_with_the_same_id_is_in_no_ones_way(tmp_path: Path) -> None:
    """In a container `bon` has the same id at every start."""
    stale = tmp_path / f".x.parquet.scratch.{process_tag(os.getpid())}.tmp"
    (stale / "pool").mkdir(parents=True)
    with scratch_folder(tmp_path / "x.parquet") as scratch:
        assert list(scratch.iterdir()) == []


def test_scratch_beside_a_mounted_folder_is_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked" / "out").mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "locked")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    with scratch_folder(tmp_path / "locked" / "out") as scratch:
        assert scratch.parent == tmp_path / "tmp"

    assert list((tmp_path / "tmp").iterdir()) == []


def test_scratch_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write beside x\.parquet"):
        scratch_folder(tmp_path / "file" / "x.parquet").__enter__()
    assert (tmp_path / "file").is_file()


def test_a_living_process_is_never_taken_for_dead() -> None:
    assert not is_of_the_dead(process_tag(os.getppid())) and not has_ended(1)
    assert is_of_the_dead(process_tag(dead_pid()))
    assert has_ended(dead_pid()) and has_ended(1 << 70)


def test_a_process_that_a_machine_hides_is_not_taken_for_dead() -> None:
    hide = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 "
    look = (
        "import os, sys; from bon.durable import has_ended\n"
        "print(os.path.exists(f'/proc/{sys.argv[1]}'), has_ended(int(sys.argv[1])))"
    )
    said = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'{hide} --clear-groups "$@"',
            "sh",
            sys.executable,
            "-c",
            look,
            str(os.getpid()),
        ],
        capture_output=True,
        text=True,
    )
    if said.returncode:
        pytest.skip("nothing may be mounted here, or nobody may read this Python")
    assert said.stdout.split() == ["False", "False"]


IN_ANOTHER_CONTAINER = """
import sys, time
from pathlib import Path
from bon.durable import replace_file, scratch_folder

here = Path(sys.argv[1])
with scratch_folder(here / "x") as scratch, replace_file(here / "part", here / ".bon") as path:
    path.write_text("theirs")
    (scratch / "row").touch()
    print(path, scratch, sep="\\n", flush=True)
    time.sleep(600)
"""


def test_containers_of_one_name_leave_each_others_files_alone_while_they_live(
    tmp_path: Path,
) -> None:
    """They share the machine's name, and its process ids mean nothing there."""
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    other = subprocess.Popen(
        [*apart, sys.executable, "-c", IN_ANOTHER_CONTAINER, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    theirs = [Path(other.stdout.readline().strip()) for _ in range(2)]
    if not theirs[0].name:
        pytest.skip(f"no other process ids here: {other.communicate()[1]}")
    tag = theirs[0].name.split(".")[-2]
    assert tag.rpartition("-")[2] != tag != process_tag(int(tag.rpartition("-")[2]))
    try:
        write(tmp_path)
        assert theirs[0].read_text() == "theirs"
        assert (theirs[1] / "row").exists()
    finally:
        other.kill()
        other.communicate()

    write(tmp_path)
    assert not any(path.exists() for path in theirs), "what a dead one left is removed"


def write(here: Path) -> None:
    with replace_file(here / "part", here / ".bon") as path:
        path.write_text("mine")
    with scratch_folder(here / "x"):
        pass
