"""Two runs on one pool: one writes, the other is refused by name, or reads what is complete.

And the locks that are found: of the dead, of another machine, of nobody.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.commands import bon
from support.given import PART, write_given
from support.started import Started
from support.steps import Step, all_files, bon_until, steps_of

FIRST = ("score", "in.jsonl", "-r", "exact=rule:exact", *PART)
SECOND = ("score", "in.pool", "-r", "second=rule:length?max=2")
SELECT = ("select", "in.pool", "--rank-by", "exact", "-o", "new/best.parquet")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@cache
def scored(place: Path) -> tuple[Path, list[Step], dict[str, bytes]]:
    """Return a folder with a scored pool, the steps of a second scorer, and what select gives."""
    start = place / "start"
    start.mkdir()
    write_given(start / "in.jsonl")
    assert bon(*FIRST, cwd=start).returncode == 0
    folder = Path(shutil.copytree(start, place / "whole"))
    steps = steps_of(*SECOND, cwd=folder)
    done = bon(*SELECT, cwd=folder)
    assert done.returncode == 0, done.stderr
    return start, steps, all_files(folder)


@pytest.fixture
def folder(place: Path) -> Iterator[Path]:
    path = Path(shutil.copytree(scored(place)[0], place / "run"))
    yield path
    shutil.rmtree(path)


def test_second_run_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    write_given(tmp_path / "in.jsonl")
    run = Started.paused(9, *FIRST, cwd=tmp_path)

    done = bon(*FIRST, cwd=tmp_path)

    assert done.returncode == 1
    holder = f"process {run.process.pid} on {socket.gethostname()}: bon score in.jsonl"
    said = (
        f"error: another run is writing to this pool\n  where: in.pool\n  why:   held by {holder}"
    )
    assert said in done.stderr
    assert "next:  wait for it, or stop it\n" in done.stderr
    code, err = run.go_on()
    assert code == 0, err


@pytest.mark.faults
def test_while_a_second_scorer_scores(place: Path, folder: Path) -> None:
    _, steps, expected = scored(place)
    parts = [s for s in steps if s.name == "replace" and s.pid != steps[0].pid]
    run = Started.paused(parts[1].number, *SECOND, cwd=folder)
    holder = f"process {run.process.pid} on {socket.gethostname()}: bon score in.pool"

    by_first, by_second = (
        bon(*SELECT, "--rank-by", name, "-o", f"{name}/best.parquet", cwd=folder)
        for name in ("exact", "second")
    )
    seen = bon("inspect", "in.pool", "--json", cwd=folder)
    code, err = run.go_on()

    assert by_first.returncode == 0, by_first.stderr
    first = (folder / "exact/best.parquet").read_bytes()
    assert first == expected["new/best.parquet"], "what is complete can be used meanwhile"
    assert by_second.returncode == 1
    assert "2 of 3 parts have no scores/second yet" in by_second.stderr
    assert f"it is being written, held by {holder}" in by_second.stderr
    assert "next:  wait until that run has ended" in by_second.stderr
    assert not (folder / "second").exists()
    assert json.loads(seen.stdout)["parts"]["scores/second"] == {"done": 1, "to_do": 2, "rows": 9}
    assert code == 0, err
    assert bon(*SELECT, cwd=folder).returncode == 0
    shutil.rmtree(folder / "exact")
    assert all_files(folder) == expected


@pytest.mark.faults
def test_pool_that_is_written_to_while_it_is_read(place: Path, folder: Path) -> None:
    run = Started.paused(1, *SELECT, cwd=folder)  # its books are open, its rows still to be read
    write_given(folder / "in.jsonl", 14)
    assert bon(*FIRST, cwd=folder).returncode == 0

    code, err = run.go_on()

    assert code == 1, err
    assert "error: the pool was written to while it was read\n  where: in.pool\n" in err
    assert "next:  run the same command again once no run writes to the pool" in err
    assert list((folder / "new").glob("*")) == []
    done = bon(*SELECT, "--json", "-q", cwd=folder)
    assert json.loads(done.stdout)["input_rows"] == 14


@pytest.mark.faults
def test_lock_of_a_run_that_was_killed_is_taken_over(place: Path, folder: Path) -> None:
    _, steps, expected = scored(place)
    killed = bon_until(steps[3].number, *SECOND, cwd=folder)
    assert killed.returncode == -9
    left = json.loads((folder / "in.pool/.bon/lock").read_text())
    assert left["command"] == "bon score in.pool -r 'second=rule:length?max=2'"
    assert not Path(f"/proc/{left['pid']}").exists()

    done = bon(*SECOND, cwd=folder)

    assert done.returncode == 0, done.stderr
    assert bon(*SELECT, cwd=folder).returncode == 0
    assert all_files(folder) == expected


@pytest.mark.faults
def test_lock_of_another_machine_is_believed_until_it_is_deleted(folder: Path) -> None:
    lock = folder / "in.pool/.bon/lock"
    lock.write_text(json.dumps({"pid": str(os.getpid()), "host": "node-7", "command": "bon score"}))
    before = all_files(folder)

    for _ in range(2):
        done = bon(*SECOND, cwd=folder)
        assert done.returncode == 1
        assert f"why:   held by process {os.getpid()} on node-7: bon score\n" in done.stderr
        advice = "if that machine is gone, delete in.pool/.bon/lock"
        assert f"next:  wait for it, or stop it; {advice}\n" in done.stderr
    assert bon(*SELECT, cwd=folder).returncode == 0, "reading takes no lock"
    shutil.rmtree(folder / "new")
    assert all_files(folder) == before

    lock.unlink()
    assert bon(*SECOND, cwd=folder).returncode == 0


@pytest.mark.faults
@pytest.mark.parametrize(
    "content", [b"\0" * 64, b'{"pid": 1, "host": {}}', b"{"], ids=["NUL", "types", "cut off"]
)
def test_lock_file_with_garbage_is_nobodys(folder: Path, content: bytes) -> None:
    (folder / "in.pool/.bon/lock").write_bytes(content)
    done = bon(*SECOND, cwd=folder)
    assert done.returncode == 0, done.stderr
