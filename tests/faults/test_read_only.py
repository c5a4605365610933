"""Folders that are read-only, inputs and pools that may not be read.

Tests may run as root, whom modes do not stop: a disk is mounted and made read-only, and the
capabilities that pass modes over are given up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import bon, pool_files
from support.fakes import Run, prompt
from support.system_faults import mounted, remount

ROWS = '{"prompt": "a", "responses": ["b", "cc dd"]}\n'
SCORE = ("score", "in.jsonl", "-r", "rule:length?max=3", "--pool")


def bon_as_a_user(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `bon` with modes that count: root without the capabilities that pass them over."""
    command = [sys.executable, "-m", "bon", *map(str, arguments)]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root, and no setpriv to give up its rights")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.faults
def test_a_read_only_disk(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ROWS)
    free = bon(*SCORE, "free.pool", cwd=tmp_path)
    assert free.returncode == 0, free.stderr
    with mounted(tmp_path / "disk", "size=10m") as disk:
        shutil.copytree(tmp_path / "free.pool", disk / "p.pool")
        remount(disk, "ro")
        for words in (
            ("select", "free.pool", "-o", "disk/best.parquet"),
            ("select", "free.pool", "-o", "disk/best"),
            ("convert", "in.jsonl", "-o", "disk/new/best.jsonl"),
            (*SCORE, "disk/new.pool"),
            ("score", "disk/p.pool", "-r", "second=rule:length?max=9"),
        ):
            done = bon(*words, cwd=tmp_path)
            assert done.returncode == 1, done.stderr
            assert "Read-only file system" in done.stderr or "no permission" in done.stderr
            assert "next:" in done.stderr
            assert "bug in bon" not in done.stderr
        reading = bon("select", "disk/p.pool", "-o", "best.jsonl", "-q", cwd=tmp_path)
        assert reading.returncode == 0, reading.stderr
        assert bon("inspect", "disk/p.pool", cwd=tmp_path).returncode == 0
        remount(disk, "rw")
        assert [path.name for path in disk.iterdir()] == ["p.pool"]
        assert pool_files(disk / "p.pool") == pool_files(tmp_path / "free.pool")
        again = bon("select", "free.pool", "-o", "disk/best.jsonl", "-q", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert (disk / "best.jsonl").read_bytes() == (tmp_path / "best.jsonl").read_bytes()


@pytest.mark.faults
def test_what_may_not_be_read_is_not_called_missing_or_damaged(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ROWS)
    pool = Run([prompt(0), prompt(1)]).scores(tmp_path / "p.pool").layout.root
    part = pool / "candidates" / "part-00000.parquet"
    cases = (
        (tmp_path / "in.jsonl", ("convert", "in.jsonl", "-o", "never.jsonl")),
        (part, ("select", "p.pool", "-o", "never.jsonl")),
        (pool / "pool.json", ("select", "p.pool", "-o", "never.jsonl")),
    )
    for closed, words in cases:
        closed.chmod(0)
        done = bon_as_a_user(*words, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "Permission denied" in done.stderr
        assert closed.name in done.stderr
        assert "give yourself the right to it" in done.stderr
        for wrong in ("bug in bon", "--repair", "no pool here", "damaged", "no such"):
            assert wrong not in done.stderr
        closed.chmod(0o644)
    assert not (tmp_path / "never.jsonl").exists()


@pytest.mark.faults
def test_a_folder_that_is_closed_to_me(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(ROWS)
    tmp_path.chmod(0o555)
    for words in (("convert", "in.jsonl", "-o", "out.jsonl"), (*SCORE, "new.pool")):
        done = bon_as_a_user(*words, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "ermission" in done.stderr
        assert "next:" in done.stderr
        assert "bug in bon" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    tmp_path.chmod(0o755)
