"""kill -9 at each thing that a command does to files, in its own process and in its worker's.

Whatever moment it was, the same command then ends with exit code 0, and every file, of the pool and
of the result, has the bytes of a run where nothing happened.
"""

from __future__ import annotations

import shutil
import signal
from functools import cache
from pathlib import Path

import pytest
from support.commands import GENERATOR, bon
from support.given import PART, write_given, write_prompts
from support.started import Started, states
from support.steps import KILL_ALL, KILL_RUN, Step, all_files, bon_until, steps_of

SCORE = ("score", "in.jsonl", "-r", "rule:exact", *PART)
SAMPLED = (
    "select", "prompts.jsonl", "-m", GENERATOR, "--generator-engine", "transformers", "-n", 2,
    "--max-tokens", 8, "-r", "rule:exact", "--part-size", 3, "-o", "best.parquet",
)  # fmt: skip
COMMANDS: dict[str, tuple[object, ...]] = {
    "score": SCORE,
    "build-dpo": (
        "build-dpo", "in.jsonl", "--strategy", "verified", "--rule", "exact", *PART,
        "-o", "pairs.parquet", "--train-test-split", 0.4,
    ),
    "filter": (
        "filter", "in.jsonl", "-r", "rule:exact", "--pool", "in.pool", *PART,
        "--filter", "length:max_words=1", "-o", "kept", "--dropped", "dropped.jsonl",
    ),
    "select": ("select", "in.pool", "-o", "best", "--format", "trl-sft"),
    "select again": ("select", "in.pool", "--strategy", "top-k", "--k", 2, "-o", "best"),
    "sampled": (*SAMPLED, "--limit", 7),
    "grown": (*SAMPLED, "--limit", 7),
}  # fmt: skip
BEFORE: dict[str, tuple[tuple[object, ...], ...]] = {
    "select": (SCORE,),
    "select again": (SCORE, COMMANDS["select"]),
    "grown": ((*SAMPLED, "--limit", 5),),
}
EVERY = {"score": 1, "build-dpo": 2, "filter": 2, "select": 1, "select again": 1}
"""Every step, or every second one where many are those of `score`."""
MOMENTS = {
    "candidates there, their prompts not": ("replace", "staging/.part-00001", 1, KILL_RUN),
    "scores of part 1 dropped, the part not there": ("replace", "staging/.part-00001", 3, KILL_ALL),
    "nothing but the worker": ("replace", "staging/.part-00001", 3, KILL_RUN),
}
"""A step by name, beginning of the path below .bon, and how many such steps come before it."""


def prepared(folder: Path, name: str) -> Path:
    """Make a folder as it is before the command."""
    folder.mkdir(parents=True)
    write_given(folder / "in.jsonl")
    write_prompts(folder / "prompts.jsonl")
    for before in BEFORE.get(name, ()):
        done = bon(*before, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@cache
def whole(place: Path, name: str) -> tuple[Path, dict[str, bytes], list[Step]]:
    """Return a folder as it is before the command, its files after it, and the command's steps."""
    start = prepared(place / name / "start", name)
    folder = Path(shutil.copytree(start, place / name / "run"))
    steps = steps_of(*COMMANDS[name], cwd=folder)
    return start, all_files(folder), steps


def check_killed(place: Path, name: str, step: Step, whom: tuple[tuple[str, str], ...]) -> None:
    """Kill the command before a step, run it again, and compare."""
    start, expected, steps = whole(place, name)
    folder = place / name / "run"  # the same name each time, since some results say where they are
    shutil.rmtree(folder)
    shutil.copytree(start, folder)
    in_worker = step.pid != steps[0].pid

    killed = bon_until(step.number, *COMMANDS[name], cwd=folder, signals=whom)

    goes_on = in_worker and whom == KILL_RUN
    assert killed.returncode == (0 if goes_on else -9), (step, killed.stderr)
    assert "Traceback" not in killed.stderr, (step, killed.stderr)
    if goes_on:
        assert "killed by SIGKILL" in killed.stderr, step
    else:
        done = bon(*COMMANDS[name], cwd=folder)
        assert done.returncode == 0, (step, done.stderr)
    assert all_files(folder) == expected, step


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_between_two_renames(place: Path, moment: str) -> None:
    call, beginning, before, whom = MOMENTS[moment]
    steps = whole(place, "score")[2]
    those = [s for s in steps if s.name == call and f".bon/{beginning}" in s.path]
    check_killed(place, "score", those[before], whom)


@pytest.mark.faults
@pytest.mark.parametrize("name", EVERY)
def test_killed_at_every_step(place: Path, name: str) -> None:
    steps = whole(place, name)[2]
    assert len(steps) > 10
    for step in steps[:: EVERY[name]]:
        in_worker = step.pid != steps[0].pid
        check_killed(place, name, step, KILL_ALL if in_worker else KILL_RUN)


@pytest.mark.faults
def test_no_worker_outlives_its_killed_run(place: Path) -> None:
    start, expected, steps = whole(place, "score")
    folder = place / "score" / "run"
    shutil.rmtree(folder)
    shutil.copytree(start, folder)
    step = next(step for step in steps if step.pid != steps[0].pid)
    run = Started.paused(step.number, *SCORE, cwd=folder)
    assert len(states(run.process.pid)) > 1

    run.send(signal.SIGKILL)  # the worker stands still, and can do nothing about it

    assert run.end()[0] == -9, "and nothing of its group is left"
    assert bon(*SCORE, cwd=folder).returncode == 0
    assert all_files(folder) == expected


@pytest.mark.faults
def test_worker_killed_at_every_step(place: Path) -> None:
    steps = whole(place, "score")[2]
    of_worker = [step for step in steps if step.pid != steps[0].pid]
    assert len(of_worker) > 10
    for step in of_worker:
        check_killed(place, "score", step, KILL_RUN)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["sampled", "grown"])
def test_killed_at_every_rename_while_a_model_samples(place: Path, name: str) -> None:
    steps = whole(place, name)[2]
    renames = [step for step in steps if step.name in ("replace", "unlink")]
    assert len(renames) > 8
    for step in renames:
        in_worker = step.pid != steps[0].pid
        check_killed(place, name, step, KILL_ALL if in_worker else KILL_RUN)
