"""Pools on a real S3-compatible server: the same bytes, few requests, one writer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from support import s3

from bon import object_lock
from bon.errors import PoolCorruptError, PoolLockedError, SystemFaultError
from bon.object_lock import holder_of
from bon.object_store import ObjectPath
from bon.places import Place, place
from bon.pool import run_log
from bon.pool.layout import PoolLayout
from bon.pool.lock import pool_lock, refuse_held
from bon.pool.manifest import Manifest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.pool.run_log import RunLog
from bon.records import CANDIDATES_SCHEMA, PROMPTS_SCHEMA, SCORES_SCHEMA, Drop

HOLD = (
    "import sys\n"
    "from bon.places import place\n"
    "from bon.pool.lock import pool_lock\n"
    "with pool_lock(place(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def write_pool(root: Place, num_parts: int = 3) -> Pool:
    """Write a pool of two prompts a part, two candidates each, one of them dropped in part 1."""
    manifest = Manifest(part_size=2, input={"settings": {}, "rows": 2 * num_parts})
    pool = Pool(PoolLayout(root), manifest).save(manifest)
    for part in range(num_parts):
        ids = [f"p{part}-{n}" for n in range(2)]
        prompts = [
            {"prompt_id": one, "prompt": [{"role": "user", "content": one}], "extra": "{}",
             "row": 2 * part + n, "where": f"in:{n}"}
            for n, one in enumerate(ids)
        ]  # fmt: skip
        pool.commit(PROMPTS, part, pa.Table.from_pylist(prompts, PROMPTS_SCHEMA), [], covers=2)
        candidates = [
            {"prompt_id": i, "candidate": n, "response": "r" * n} for i in ids for n in (0, 1)
        ]
        drops = [Drop("empty", "why", "in:1", "p", part)] if part == 1 else []
        pool.commit(
            CANDIDATES, part, pa.Table.from_pylist(candidates, CANDIDATES_SCHEMA), drops, covers=2
        )
        scores = [{"prompt_id": i, "candidate": n, "score": 1.0} for i in ids for n in (0, 1)]
        pool.commit(
            scores_kind("a"), part, pa.Table.from_pylist(scores, SCORES_SCHEMA), [], covers=2
        )
    return pool


def files_of(root: Place) -> dict[str, bytes]:
    """Return what a pool holds outside `.bon`."""
    if isinstance(root, ObjectPath):
        found = {str(path.relative_to(root)): path.read_bytes() for path in root.walk()}
    else:
        found = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }
    return {name: content for name, content in found.items() if not name.startswith(".bon/")}


@pytest.fixture
def root(bucket: str) -> ObjectPath:
    found = place(f"{bucket}/runs/my.pool")
    assert isinstance(found, ObjectPath)
    return found


def test_a_pool_has_the_bytes_of_a_local_one_and_is_read_as_it_is(
    root: ObjectPath, tmp_path: Path
) -> None:
    local, remote = write_pool(tmp_path / "my.pool"), write_pool(root)

    assert files_of(root) == files_of(tmp_path / "my.pool")
    opened = Pool.open(root)
    assert opened.parts() == [0, 1, 2] and opened.layout.scorer_names() == ["a"]
    assert opened.pending(CANDIDATES) == [] == opened.pending(scores_kind("a"))
    assert opened.prompts_digest() == local.prompts_digest()
    assert list(opened.read_drops(CANDIDATES)) == list(local.read_drops(CANDIDATES)) != []
    for kind in (PROMPTS, CANDIDATES, scores_kind("a")):
        assert opened.read(kind, 2).equals(local.read(kind, 2))
    assert opened.read(CANDIDATES, 0, ["response"]).column_names == ["response"]
    assert remote.manifest == opened.manifest


def test_what_is_put_again_is_seen_at_once(root: ObjectPath) -> None:
    pool = write_pool(root, 1)
    assert pool.covers(CANDIDATES, 0) == 2
    pool.commit(CANDIDATES, 0, pool.read(CANDIDATES, 0).slice(0, 2), [], covers=1)

    assert pool.covers(CANDIDATES, 0) == 1
    assert pool.pending(CANDIDATES) == [0]


@pytest.mark.slow
def test_damage_is_damage_and_a_store_that_refuses_is_not(root: ObjectPath) -> None:
    pool = write_pool(root, 1)
    part = root / "candidates/part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(bytes(content))
    with pytest.raises(PoolCorruptError) as caught:
        Pool.open(root).read(CANDIDATES, 0)
    assert caught.value.where == str(part)

    elsewhere = ObjectPath("s3", root.key, "endpoint_override=127.0.0.1:9&scheme=http")
    unreachable = Pool(PoolLayout(elsewhere), pool.manifest)
    with pytest.raises(SystemFaultError, match="the object store refuses"):
        unreachable.read(PROMPTS, 0)


def test_a_part_is_read_by_few_requests(root: ObjectPath, s3_server: s3.Server) -> None:
    write_pool(root, 12)
    before = len(s3_server.requests())
    script = (
        "import sys\n"
        "from bon.places import place\n"
        "from bon.pool.pool import Pool\n"
        "pool = Pool.open(place(sys.argv[1]))\n"
        "assert pool.pending('candidates') == [] == pool.pending('scores/a')\n"
        "for part in pool.parts():\n"
        "    pool.read('candidates', part)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(root)], check=True)

    asked = [(m, path) for m, path, _ in s3_server.requests()[before:] if "part-" in path]
    per_part = Counter(path.rpartition("part-")[2][:5] for _, path in asked)
    # a footer is HEAD and GET: of prompts, candidates and scores; then HEAD and GET of the rows
    assert max(per_part.values()) <= 8, asked
    assert sum(per_part.values()) <= 8 * 12


@pytest.fixture
def holder(root: ObjectPath) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root / ".bon/locks"), "--model {x}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_with_the_first_ones_name(
    root: ObjectPath, holder: subprocess.Popen[str]
) -> None:
    lock = root / ".bon/locks"
    with pytest.raises(PoolLockedError) as caught, pool_lock(lock):
        pass
    assert f"process {holder.pid} on {socket.gethostname()}" in caught.value.why
    assert "--model {x}" in caught.value.why
    assert caught.value.where == str(root)
    with pytest.raises(PoolLockedError):
        refuse_held(lock)

    holder.kill()
    holder.wait()
    refuse_held(lock)
    with pool_lock(lock):  # of the dead it is taken over
        assert len(list(lock.iterdir())) == 1
    assert not list(lock.walk())


def test_another_machines_word_is_believed_until_it_is_deleted(root: ObjectPath) -> None:
    lock = root / ".bon/locks"
    said = {"pid": "1", "host": "elsewhere", "command": "bon", "machine": "x", "started": "1"}
    (lock / "0.json").write_text(json.dumps(said))
    with pytest.raises(PoolLockedError) as caught, pool_lock(lock):
        pass
    assert f"if that machine is gone, delete {lock / '0.json'}" in caught.value.next_step

    (lock / "0.json").unlink()
    with pool_lock(lock):
        pass


def test_a_process_with_the_pid_of_a_dead_one_does_not_hold_its_lock(root: ObjectPath) -> None:
    lock = root / ".bon/locks"
    with pool_lock(lock):
        (ours,) = lock.iterdir()
        said = json.loads(ours.read_text())
    (lock / "0.json").write_text(json.dumps({**said, "started": "1"}))
    assert said["pid"] == str(os.getpid())
    assert holder_of(lock) is None


def test_the_word_of_a_process_before_this_machine_was_started_again_can_be_deleted(
    root: ObjectPath,
) -> None:
    lock = root / ".bon/locks"
    with pool_lock(lock):
        (ours,) = lock.iterdir()
        said = json.loads(ours.read_text())
    (lock / "0.json").write_text(json.dumps({**said, "pid": "999999", "machine": "boot before"}))
    with pytest.raises(PoolLockedError) as caught, pool_lock(lock):
        pass
    assert f"if that process is gone, delete {lock / '0.json'}" in caught.value.next_step


@pytest.mark.parametrize("said", ["5", "?"])
def test_a_living_process_that_the_machine_hides_holds_its_lock(
    root: ObjectPath, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    lock = root / ".bon/locks"
    with pool_lock(lock):
        (ours,) = lock.iterdir()
        name = {**json.loads(ours.read_text()), "started": said}
    (lock / "0.json").write_text(json.dumps(name))
    if said != "?":
        monkeypatch.setattr(object_lock, "_started", lambda pid: None)  # as with hidepid=2
    assert holder_of(lock) is not None


def test_of_many_that_begin_at_once_never_two_hold_the_lock(root: ObjectPath) -> None:
    lock, inside, most, held = root / ".bon/locks", [0], [0], [0]
    faults: list[Exception] = []
    guard, begin = threading.Lock(), threading.Barrier(6)

    def run() -> None:
        begin.wait()
        try:
            with pool_lock(lock):
                with guard:
                    inside[0] += 1
                    held[0] += 1
                    most[0] = max(most[0], inside[0])
                threading.Event().wait(0.05)
                with guard:
                    inside[0] -= 1
        except PoolLockedError:
            pass
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert held[0] >= 1 and most[0] == 1
    assert not list(lock.walk()), "whoever gave up took its word back"


def test_a_lock_where_nothing_can_be_put_is_said(bucket: str) -> None:
    lock = ObjectPath("s3", "no-such-bucket/p/.bon/locks")
    with pytest.raises(SystemFaultError, match="refuses") as caught, pool_lock(lock):
        pass
    assert "NO_SUCH_BUCKET" in caught.value.why and "no-such-bucket" in caught.value.where


def test_a_pool_may_be_copied_to_a_disk_and_gone_on_with(root: ObjectPath, tmp_path: Path) -> None:
    write_pool(root, 1)
    with pool_lock(PoolLayout(root).lock), RunLog(PoolLayout(root).run_log):
        copied = {str(path.relative_to(root)): path.read_bytes() for path in root.walk()}
    for name, content in copied.items():
        (tmp_path / "my.pool" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my.pool" / name).write_bytes(content)

    layout = PoolLayout(tmp_path / "my.pool")
    assert (tmp_path / "my.pool/.bon/locks").is_dir()
    with pool_lock(layout.lock), RunLog(layout.run_log):
        assert Pool.open(layout.root).pending(CANDIDATES) == []


def test_which_scorers_there_are_costs_a_request_each(
    root: ObjectPath, s3_server: s3.Server
) -> None:
    layout = write_pool(root, 3).layout
    before = len(s3_server.requests())
    assert layout.scorer_names() == ["a"]
    assert len(s3_server.requests()) - before <= 3
    layout.part("scores/a", 0).unlink()
    assert layout.scorer_names() == ["a"] and not layout.has_part("scores/a", 0)
    for part in (1, 2):
        layout.part("scores/a", part).unlink()
    assert layout.scorer_names() == []


def test_a_long_log_is_put_as_several_objects(
    root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "_OBJECT_BYTES", 1000)
    with RunLog(root / ".bon/run.log") as log:
        for number in range(20):
            log.write("note", text="x" * 100, number=number)
    logs = sorted((root / ".bon").iterdir(), key=str)
    assert len(logs) > 3 and logs[0].name.endswith("-00000.log")
    assert max(path.stat().st_size for path in logs) < 1400
    lines = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    assert [one.get("number") for one in lines] == [None, *range(20), None]


def test_each_run_has_a_log_of_its_own(root: ObjectPath) -> None:
    for text in ("first", "second"):
        with RunLog(root / ".bon/run.log") as log:
            log.write("note", text=text)
    logs = sorted(path for path in (root / ".bon").iterdir() if path.suffix == ".log")
    events = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    assert [one["event"] for one in events] == ["start", "note", "end"] * 2
    assert [one["text"] for one in events if "text" in one] == ["first", "second"]
