"""Runs the real `bon` in a process of its own, as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"
GENERATOR = ROOT / "sample_data" / "models" / "generator"
REWARD = ROOT / "sample_data" / "models" / "reward"
PROMPTS = ROOT / "sample_data" / "prompts.jsonl"
MODELS = ("-m", str(GENERATOR), "-r", f"reward={REWARD}", "--kv-cache-gib", "0.5")


def bon(*arguments: object, cwd: Path, timeout_s: float = 400) -> subprocess.CompletedProcess[str]:
    """Run `bon` to its end."""
    return subprocess.run(
        _command(arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def bon_json(*arguments: object, cwd: Path) -> dict[str, Any]:
    """Run `bon … --json`, which must succeed, and return the object."""
    done = bon(*arguments, "--json", "-q", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def bon_stopped(
    *arguments: object, cwd: Path, when: Callable[[], bool], how: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Run `bon`, send it a signal as soon as `when` says so, and wait for its end."""
    process = subprocess.Popen(
        _command(arguments), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not when():
        assert process.poll() is None, f"it ended before it could be stopped: {process.stderr}"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.002)
    os.kill(process.pid, how)
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def pool_files(pool: Path) -> dict[str, bytes]:
    """Return the content of every file of a pool outside `.bon/`."""
    return {
        str(path.relative_to(pool)): path.read_bytes()
        for path in sorted(pool.rglob("*"))
        if path.is_file() and ".bon" not in path.parts
    }


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "bon", *(str(argument) for argument in arguments)]


def assert_same_pool(pool: Path, expected: Path) -> None:
    """Assert that two pools hold the same files, byte for byte.

    Candidates are compared by value, with 1e-4 for `logprob`: its last bits may follow the shape of
    the engine's batches, which an interruption changes (on the sample models they have not).
    """
    found, wanted = pool_files(pool), pool_files(expected)
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name.startswith("candidates/"):
            ours, theirs = pq.read_table(pool / name), pq.read_table(expected / name)
            assert ours.drop_columns("logprob").equals(theirs.drop_columns("logprob")), name
            np.testing.assert_allclose(ours["logprob"], theirs["logprob"], atol=1e-4)
        else:
            assert found[name] == wanted[name], name
