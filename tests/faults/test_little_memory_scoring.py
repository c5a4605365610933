"""Memory runs out while `bon score` scores: the batch is halved, and the run goes on.

Forced: the worker, its model loaded and warm, stands still while it commits the scores of short
conversations, and may from then on have little more memory than it has. Long ones come next.
"""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path

import pytest
from support.scoring import largest_difference
from support.started import Started, states
from support.steps import steps_of
from support.tiny_models import save_reward

from bon.pool.files import read_table
from bon.records import SCORES_SCHEMA

pytestmark = pytest.mark.faults

SHORT, LONG = 8, 4
"""Prompts; those of 900 tokens are the last part alone."""
MORE_BYTES = 80 << 20
"""One matrix of all long conversations takes 58 MiB, three of them at a time; of half, they fit."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    prompts = ["short"] * SHORT + [letter * 900 for letter in "abcd"[:LONG]]
    rows = [
        {"id": f"q{n}", "prompt": text, "responses": ["b", "bb", "bbb"]}
        for n, text in enumerate(prompts)
    ]
    save_reward(tmp_path / "model", intermediate_size=4096)
    for name in ("unlimited", "limited"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def scores(folder: Path) -> list[float]:
    parts = sorted((folder / "in.pool" / "scores" / "reward").glob("*.parquet"))
    return [one for part in parts for one in read_table(part, SCORES_SCHEMA)["score"].to_pylist()]


def test_a_batch_that_does_not_fit_is_halved(place: Path) -> None:
    command = (
        "score", "in.jsonl", "-r", f"reward={place / 'model'}", "--scorer-engine", "transformers",
        "--reward-batch-tokens", 1 << 14, "--pool", "in.pool", "--part-size", LONG,
    )  # fmt: skip
    steps = steps_of(*command, cwd=place / "unlimited")
    last_short = f"part-{SHORT // LONG - 1:05d}"
    (commit,) = [
        step
        for step in steps
        if step.name == "replace" and last_short in step.path and step.pid != steps[0].pid
    ]
    run = Started.paused(commit.number, *command, cwd=place / "limited")
    (worker,) = [pid for pid, state in states(run.process.pid).items() if state == "T"]
    said = Path(f"/proc/{worker}/status").read_text()
    most = int(re.findall(r"VmData:\s+(\d+) kB", said)[0]) * 1024 + MORE_BYTES
    resource.prlimit(worker, resource.RLIMIT_DATA, (most, most))

    code, stderr = run.go_on()

    assert code == 0, stderr
    halved = re.findall(r"out of memory, halved to[^\d]*([\d,]+) tokens a batch", stderr)
    assert len(halved) == 1, stderr
    assert int(halved[0].replace(",", "")) < 3_724, "tokens of the long conversations, once each"
    found, want = scores(place / "limited"), scores(place / "unlimited")
    assert len(found) == 3 * (SHORT + LONG)
    assert largest_difference(found, want) < 1e-5
