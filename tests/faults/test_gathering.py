"""Responses that stand apart are sorted on disk: the disk is full, the run is killed meanwhile."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import bon, bon_json, bon_stopped, pool_files
from support.system_faults import mounted

pytestmark = pytest.mark.faults

NUM_ROWS = 6000
FLAGS = ("-r", "rule:length?max=500", "--part-size", "64")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Responses to 375 prompts in no order, some three megabytes."""
    order = list(range(NUM_ROWS))
    random.Random(0).shuffle(order)
    rows = [
        {"id": f"q{n // 16}", "prompt": f"question {n // 16}", "response": f"answer {n} " * 40}
        for n in order
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(source: Path, pool: Path) -> dict[str, bytes]:
    """Score to the end, and return all that the pool holds."""
    result = bon_json("score", source, *FLAGS, "--pool", pool, cwd=source.parent)
    assert result["input_rows"] == result["kept_rows"] == NUM_ROWS / 16
    assert [p for p in (pool / ".bon").iterdir() if "gathered" in p.name] == []
    return pool_files(pool)


def test_a_limit_on_files_ends_it_with_a_word_and_it_goes_on(source: Path, tmp_path: Path) -> None:
    code = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'bon', *sys.argv[1:]])"
    )
    arguments = ["score", str(source), *FLAGS, "--pool", str(tmp_path / "p"), "-q"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot bring the responses to each prompt together" in done.stderr
    assert "ulimit -f" in done.stderr
    assert "make room" not in done.stderr
    assert [p for p in (tmp_path / "p" / ".bon").iterdir() if "gathered" in p.name] == []
    assert score(source, tmp_path / "p") == score(source, tmp_path / "other")


def test_a_disk_without_room_is_said_so(source: Path, tmp_path: Path) -> None:
    arguments = ("score", source, *FLAGS, "-q", "--pool", tmp_path / "disk" / "p")
    with mounted(tmp_path / "disk", "size=1m"):
        done = bon(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert "cannot bring the responses to each prompt together" in done.stderr
        assert "No space left on device" in done.stderr
        assert "make room" in done.stderr
        assert list((tmp_path / "disk").rglob("*gathered*")) == []


def test_killed_while_it_sorts_it_leaves_nothing_for_long(source: Path, tmp_path: Path) -> None:
    pool = tmp_path / "p"

    def sorts() -> bool:
        return any((pool / ".bon").glob(".gathered*/rows.jsonl"))

    arguments = ("score", source, *FLAGS, "--pool", pool, "-q")
    done = bon_stopped(*arguments, cwd=tmp_path, when=sorts, how=signal.SIGKILL)
    assert done.returncode == -signal.SIGKILL
    assert score(source, pool) == score(source, tmp_path / "other")
