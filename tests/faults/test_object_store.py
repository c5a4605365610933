"""Faults of an object store, on a real server: killed runs, refused puts, uploads cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import s3
from support.commands import bon, bon_stopped, pool_files
from support.given import write_given
from support.proxies import proxy_to

from bon.object_store import ObjectPath
from bon.places import place

pytestmark = pytest.mark.faults
COMMAND = ("score", "in.jsonl", "-r", "len=rule:length?max=6", "--part-size", 4, "--pool")
NUM_ROWS = 60
BIG = 40 << 20


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input and the pool that a run without faults makes of it."""
    folder = tmp_path_factory.mktemp("local")
    write_given(folder / "in.jsonl", NUM_ROWS)
    done = bon(*COMMAND, "l.pool", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def pool(bucket: str) -> ObjectPath:
    found = place(f"{bucket}/l.pool")
    assert isinstance(found, ObjectPath)
    return found


def content_of(root: ObjectPath) -> dict[str, bytes]:
    """Return what lies in a pool, `.bon/` aside."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.walk()}
    return {name: content for name, content in found.items() if not name.startswith(".bon/")}


def num_parts(root: ObjectPath, kind: str) -> int:
    return len(list((root / kind).walk()))


@pytest.mark.parametrize(("kind", "count"), [("candidates", 3), ("scores/len", 2)])
def test_a_killed_run_leaves_whole_parts_and_the_next_one_goes_on(
    local: Path, pool: ObjectPath, kind: str, count: int
) -> None:
    wanted = pool_files(local / "l.pool")
    killed = bon_stopped(
        *COMMAND, pool, cwd=local,
        when=lambda: num_parts(pool, kind) >= count, how=signal.SIGKILL,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    left = content_of(pool)
    del left["pool.json"]
    assert left.items() <= wanted.items(), "nothing is half-written"
    assert f"scores/len/part-{NUM_ROWS // 4 - 1:05d}.parquet" not in left
    assert list((pool / ".bon/locks").walk()), "the dead one's word is still there"

    again = bon(*COMMAND, pool, cwd=local)
    assert again.returncode == 0, again.stderr
    assert content_of(pool) == wanted
    assert not list((pool / ".bon/locks").walk())


def test_an_interrupted_run_gives_the_lock_back(local: Path, pool: ObjectPath) -> None:
    stopped = bon_stopped(
        *COMMAND, pool, cwd=local, when=lambda: num_parts(pool, "candidates") >= 2,
        how=signal.SIGINT,
    )  # fmt: skip
    assert stopped.returncode == 130
    assert not list((pool / ".bon/locks").walk())


def test_puts_that_fail_for_the_moment_are_made_again(
    local: Path, pool: ObjectPath, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the SDK itself tries 31 times in 6 s
    left = {"candidates/part-00003": 33, "scores/len/part-00002": 4}

    def refuse(method: str, path: str) -> int | None:
        for name in left:
            if method == "PUT" and name in path and left[name]:
                left[name] -= 1
                return 503
        return None

    with proxy_to(s3_server.port, refuse) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        done = bon(*COMMAND, pool, cwd=local)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.environment["AWS_ENDPOINT_URL"])

    assert done.returncode == 0, done.stderr
    assert len(proxy.refused) == 37
    assert content_of(pool) == pool_files(local / "l.pool")


def test_a_put_that_is_refused_ends_the_run_and_loses_nothing(
    local: Path, pool: ObjectPath, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(method: str, path: str) -> int | None:
        return 403 if method == "PUT" and "scores/len/part-00003" in path else None

    with proxy_to(s3_server.port, refuse) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        failed = bon(*COMMAND, pool, cwd=local)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.environment["AWS_ENDPOINT_URL"])
    assert failed.returncode == 1
    assert "cannot write part-00003.parquet" in failed.stderr
    assert "what is committed stays" in failed.stderr and "Traceback" not in failed.stderr
    assert num_parts(pool, "scores/len") == 3

    again = bon(*COMMAND, pool, cwd=local)
    assert again.returncode == 0, again.stderr
    assert content_of(pool) == pool_files(local / "l.pool")


PUT = (
    "import sys\n"
    "from pathlib import Path\n"
    "from bon.places import place\n"
    "place(sys.argv[1]).write_file(Path(sys.argv[2]))\n"
)


@pytest.mark.parametrize("how", ["refused", "killed"])
def test_an_upload_in_several_parts_that_is_cut_off_is_not_there(
    bucket: str, s3_server: s3.Server, tmp_path: Path, how: str
) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1 << 20) * (BIG >> 20))
    path = place(f"{bucket}/big")
    assert isinstance(path, ObjectPath)
    path.write_text("before")
    seen: list[str] = []
    running: list[subprocess.Popen[bytes]] = []

    def refuse(method: str, target: str) -> int | None:
        if method == "PUT" and "partNumber=3" in target:
            seen.append(target)
            if how == "killed":
                running[0].kill()
            return 403
        return None

    with proxy_to(s3_server.port, refuse) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        running.append(
            subprocess.Popen([sys.executable, "-c", PUT, str(path), str(large)], env=environment)
        )
        code = running[0].wait(timeout=120)
    assert seen and code != 0
    assert path.read_bytes() == b"before"
