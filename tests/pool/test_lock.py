"""One writer at a time, across real processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bon.errors import OutputError, PoolLockedError
from bon.pool.lock import PoolLock

HOLD = (
    "import sys, pathlib\n"
    "from bon.pool.lock import PoolLock\n"
    "with PoolLock(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my.pool" / ".bon" / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path, "--model {x}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_second_holder_is_refused_with_the_first_ones_name(
    holder: subprocess.Popen[str], path: Path
) -> None:
    with pytest.raises(PoolLockedError) as caught, PoolLock(path):
        pass

    error = pickle.loads(pickle.dumps(caught.value))
    assert f"process {holder.pid} on {socket.gethostname()}" in error.why
    assert "--model {x}" in error.why
    assert error.where == str(path.parent.parent)
    assert error.next_step == "wait for it, or stop it", "deleting the file would let in a second"
    assert isinstance(error, BlockingIOError)
    with pytest.raises(PoolLockedError), PoolLock(path):
        pass  # being refused has freed nothing


def test_killed_holders_lock_is_taken_over(holder: subprocess.Popen[str], path: Path) -> None:
    holder.kill()
    holder.wait()
    assert json.loads(path.read_text())["pid"] == str(holder.pid), "it left its name"

    with PoolLock(path):
        assert json.loads(path.read_text())["pid"] == str(os.getpid())


def test_lock_is_free_once_its_holder_ends(holder: subprocess.Popen[str], path: Path) -> None:
    holder.communicate("")
    assert path.read_text() == ""
    with PoolLock(path):
        pass


def test_one_process_cannot_hold_it_twice(path: Path) -> None:
    with PoolLock(path), pytest.raises(PoolLockedError), PoolLock(path):
        pass


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_released_on_an_exception(path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind), PoolLock(path):
        raise kind
    assert path.read_text() == ""
    with PoolLock(path):
        pass


def test_holder_on_another_machine_is_believed_until_the_file_goes(path: Path) -> None:
    path.parent.mkdir(parents=True)
    words = {"pid": "12", "host": "node-7", "command": "bon generate x.jsonl"}
    path.write_text(json.dumps(words))

    for _ in range(2):
        with pytest.raises(PoolLockedError) as caught, PoolLock(path):
            pass
        assert caught.value.why == "held by process 12 on node-7: bon generate x.jsonl"
        assert f"delete {path}" in caught.value.next_step
    assert json.loads(path.read_text()) == words

    path.unlink()
    with PoolLock(path):
        pass


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe", b'"x"', b'{"host": 5}', b'{"host": null}', b"[" * 4096],
    ids=["empty", "cut off", "list", "no UTF-8", "text", "number", "null", "deep"],
)
def test_unreadable_name_does_not_block(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with PoolLock(path):
        pass


def test_what_dead_runs_left_half_written_is_removed_with_the_lock(path: Path) -> None:
    staging = path.with_name("staging")
    (staging / "folder").mkdir(parents=True)
    for name in (".part-00000.parquet.0123abcd-5.tmp", "folder/file"):
        (staging / name).write_bytes(b"half")
    with PoolLock(path):
        assert list(staging.iterdir()) == []


def test_the_refused_remove_nothing(holder: subprocess.Popen[str], path: Path) -> None:
    (path.with_name("staging")).mkdir()
    (path.with_name("staging") / "part").touch()
    with pytest.raises(PoolLockedError), PoolLock(path):
        pass
    assert (path.with_name("staging") / "part").exists()


def test_secrets_of_the_command_are_not_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "server:https://me:hunter22@host/v1?api_key=k-12345678"
    monkeypatch.setattr(sys, "argv", ["/bin/bon", "score", url, "--hub-token", "hf_x" + "y" * 20])
    with PoolLock(path):
        text = path.read_text()
    assert "bon score" in text and "host/v1" in text
    for secret in ("hunter22", "k-12345678", "yyyy"):
        assert secret not in text


def test_a_lock_whose_file_was_deleted_meanwhile_is_taken_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, num_taken = fcntl.flock, 0

    def flock(descriptor: int, how: int) -> None:
        nonlocal num_taken
        num_taken += 1
        lock(descriptor, how)
        if num_taken == 1:
            path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with PoolLock(path):
        assert num_taken == 2
        with pytest.raises(PoolLockedError), PoolLock(path):
            pass


def test_who_only_looks_does_not_stop_a_run(path: Path) -> None:
    with PoolLock(path):
        pass
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    timer = threading.Timer(0.02, os.close, [looking])
    timer.start()
    with PoolLock(path):
        pass
    timer.join()


def test_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="cannot write to the pool"),
        PoolLock(tmp_path / "file" / ".bon" / "lock"),
    ):
        pass


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [(os, "pwrite", errno.ENOSPC), (fcntl, "flock", errno.ENOLCK)],
)
def test_full_disk_or_no_locks_is_an_output_error_and_leaks_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    num_open = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        with pytest.raises(OutputError) as caught, PoolLock(path):
            pass
    assert caught.value.why == os.strerror(number)
    assert ("that has locks" in caught.value.next_step) == (name == "flock")
    assert len(list(Path("/proc/self/fd").iterdir())) == num_open
    with PoolLock(path):
        pass
