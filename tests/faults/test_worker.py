"""Faults of the model's process: a prompt that ends it every time, a hang, a lack of memory."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.commands import GENERATOR, bon, bon_json, pool_files
from support.datasets import write_lines
from support.tiny_models import save_reward

from bon.pool.pool import CANDIDATES, Pool, scores_kind

FUNCTION = """
import ctypes, os, time

def score(prompts, responses, columns):
    for response in responses:
        {trouble}
    return [len(one) for one in responses]
"""
TROUBLES = {
    "segfault": 'if "deadly" in response: ctypes.string_at(0)',
    "kill": 'if "deadly" in response: os.kill(os.getpid(), 9)',
    "exit": 'if "deadly" in response: os._exit(3)',
}
HARMLESS = "pass"
DEADLY = {5, 22}
NUM_PROMPTS = 40


def responses(here: Path) -> None:
    """Write 40 prompts with two responses each; two of them hold what is deadly."""
    rows = [
        {"prompt": f"question {row}", "id": f"p{row}", "responses": [f"answer {row}", f"a{row}"]}
        for row in range(NUM_PROMPTS)
    ]
    for row in DEADLY:
        rows[row]["responses"] = ["harmless", "deadly"]
    write_lines(here / "in.jsonl", rows)


def scores(pool: Path, name: str = "f") -> dict[tuple[str, int], float | None]:
    opened = Pool.open(pool)
    return {
        (row["prompt_id"], row["candidate"]): row["score"]
        for part in opened.parts()
        for row in opened.read(scores_kind(name), part).to_pylist()
    }


@pytest.mark.faults
@pytest.mark.parametrize("trouble", TROUBLES)
def test_responses_that_end_the_scorer_are_found_and_dropped(tmp_path: Path, trouble: str) -> None:
    responses(tmp_path)
    command = ("score", "in.jsonl", "-r", "f=rule:my.py:score", "--part-size", "8")
    (tmp_path / "my.py").write_text(FUNCTION.format(trouble=HARMLESS))
    assert bon(*command, "--pool", "whole.pool", cwd=tmp_path).returncode == 0

    (tmp_path / "my.py").write_text(FUNCTION.format(trouble=TROUBLES[trouble]))
    done = bon(*command, "--pool", "in.pool", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "the model's process was lost" in done.stderr
    assert "dropping the prompt id=p5" in done.stderr
    found, whole = scores(tmp_path / "in.pool"), scores(tmp_path / "whole.pool")
    assert found.keys() == whole.keys()
    assert {prompt_id for (prompt_id, _), score in found.items() if score is None} == {"p5", "p22"}
    assert all(score is None or score == whole[key] for key, score in found.items())
    drops = list(Pool.open(tmp_path / "in.pool").read_drops(scores_kind("f")))
    assert [(drop.id, drop.candidate) for drop in drops] == [
        ("p5", 0), ("p5", 1), ("p22", 0), ("p22", 1),
    ]  # fmt: skip
    assert {drop.reason for drop in drops} == {"worker_killed"}
    assert all(drop.where.startswith("in.jsonl:") for drop in drops)
    before = pool_files(tmp_path / "in.pool")
    shown = bon_json(*command, "--pool", "in.pool", cwd=tmp_path)
    assert shown["candidate_drops"] == {"worker_killed": 4}
    assert pool_files(tmp_path / "in.pool") == before


@pytest.mark.faults
def test_the_last_prompt_that_is_left_ends_the_scorer(tmp_path: Path) -> None:
    """It is all that this run has to do, so nothing but what was done before can tell that it is
    the prompt's fault."""
    rows = [{"prompt": f"question {row}", "responses": [f"answer {row}"]} for row in range(8)]
    write_lines(tmp_path / "in.jsonl", [*rows, {"prompt": "the last", "responses": ["deadly"]}])
    (tmp_path / "my.py").write_text(FUNCTION.format(trouble=TROUBLES["kill"]))
    command = ("score", "in.jsonl", "-r", "f=rule:my.py:score", "--part-size", "8")
    assert bon(*command, "--limit", "8", cwd=tmp_path).returncode == 0

    done = bon(*command, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    (drop,) = Pool.open(tmp_path / "in.pool").read_drops(scores_kind("f"))
    assert (drop.row, drop.reason) == (8, "worker_killed")


@pytest.mark.faults
def test_a_scorer_that_ends_with_everything_ends_the_run(tmp_path: Path) -> None:
    responses(tmp_path)
    (tmp_path / "my.py").write_text(FUNCTION.format(trouble="os._exit(3)"))
    done = bon("score", "in.jsonl", "-r", "f=rule:my.py:score", "--part-size", "64", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: the model's process died" in done.stderr
    assert "exit code 3" in done.stderr
    assert "the same command goes on from there" in done.stderr
    assert not (tmp_path / "in.pool" / "scores").exists()

    (tmp_path / "my.py").write_text(FUNCTION.format(trouble=HARMLESS))
    assert bon("score", "in.jsonl", "-r", "f=rule:my.py:score", cwd=tmp_path).returncode == 0
    assert len(scores(tmp_path / "in.pool")) == 2 * NUM_PROMPTS


def candidates(pool: Pool) -> pa.Table:
    return pa.concat_tables(pool.read(CANDIDATES, part) for part in pool.parts())


def bon_under(
    *command: object,
    cwd: Path,
    environment: dict[str, str] | None = None,
    data_mib: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `bon` with other variables, and no more memory than so much."""

    def limit() -> None:
        if data_mib is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (data_mib << 20, data_mib << 20))

    return subprocess.run(
        [sys.executable, "-m", "bon", *map(str, command)], cwd=cwd, preexec_fn=limit,
        env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


PATCH = """
import os
import sys

if os.environ.get("DEADLY") and "spawn_main" in " ".join(sys.orig_argv):
    import bon.generators.prompting as prompting

    encode = prompting.PromptEncoder.encode

    def deadly(self, request):
        if os.environ["DEADLY"] in request.messages[-1]["content"]:
            os.kill(os.getpid(), 9)
        return encode(self, request)

    prompting.PromptEncoder.encode = deadly
"""


@pytest.mark.faults
def test_a_prompt_that_ends_the_generator_is_found_and_dropped(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {row} + 2?", "id": f"p{row}"} for row in range(12)]
    write_lines(tmp_path / "in.jsonl", rows)
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(PATCH)
    command = (
        "generate", "in.jsonl", "-m", GENERATOR, "-n", 2, "--max-tokens", 8, "--part-size", 4,
        "--generator-engine", "transformers",
    )  # fmt: skip
    whole = bon(*command, "--pool", "whole.pool", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr

    environment = {"PYTHONPATH": str(tmp_path / "patch"), "DEADLY": "What is 6 +"}
    done = bon_under(*command, "--pool", "in.pool", cwd=tmp_path, environment=environment)

    assert done.returncode == 0, done.stderr
    assert "dropping the prompt id=p6" in done.stderr
    found, expected = Pool.open(tmp_path / "in.pool"), Pool.open(tmp_path / "whole.pool")
    ours, theirs = candidates(found), candidates(expected)
    others = theirs.filter(pc.field("prompt_id") != "p6")
    assert ours.drop_columns("logprob").equals(others.drop_columns("logprob"))
    # its last bits may follow the shape of the engine's batches, which the halving changes
    np.testing.assert_allclose(ours["logprob"], others["logprob"], atol=1e-4)
    (drop,) = found.read_drops(CANDIDATES)
    assert (drop.id, drop.where, drop.reason) == ("p6", "in.jsonl:7", "worker_killed")


def children(pid: int) -> list[int]:
    """The worker processes of a run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            continue
    return found


def until(met: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := met()):
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.01)
    return value


@pytest.mark.faults
def test_a_worker_that_hangs_is_started_again(tmp_path: Path) -> None:
    responses(tmp_path)
    waits = 'while "answer 30" in response and not os.path.exists("go"): time.sleep(0.05)'
    (tmp_path / "my.py").write_text(FUNCTION.format(trouble=waits))
    (tmp_path / "go").touch()
    command = ("score", "in.jsonl", "-r", "f=rule:my.py:score", "--part-size", "4")
    assert bon(*command, "--pool", "whole.pool", cwd=tmp_path).returncode == 0

    (tmp_path / "go").unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "bon", *command, "--pool", "in.pool", "--stall-timeout", "3"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: (tmp_path / "in.pool/scores/f/part-00001.parquet").exists())
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGSTOP)  # a hang that nothing in the process can end
    (tmp_path / "go").touch()
    _, stderr = process.communicate(timeout=120)

    assert process.returncode == 0, stderr
    assert "no sign of life for 3 s" in stderr
    assert pool_files(tmp_path / "in.pool") == pool_files(tmp_path / "whole.pool")


@pytest.mark.faults
def test_a_model_that_does_not_fit_into_memory_is_a_clear_error(tmp_path: Path) -> None:
    responses(tmp_path)
    save_reward(tmp_path / "model", hidden_size=1024, intermediate_size=16384)
    command = ("score", "in.jsonl", "-r", "r=model", "--pool", "in.pool")
    weights = sum(file.stat().st_size for file in (tmp_path / "model").glob("*.safetensors"))
    assert weights > 100 << 20

    done = bon_under(*command, cwd=tmp_path, data_mib=600)
    assert done.returncode == 1
    assert "cannot load the reward model" in done.stderr
    assert "free memory that other programs hold" in done.stderr
    assert "Traceback" not in done.stderr

    assert bon(*command, cwd=tmp_path).returncode == 0
