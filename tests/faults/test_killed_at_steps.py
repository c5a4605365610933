"""kill -9 at each thing that a command does to files, in its own process and in its worker's.

Whatever moment it was, the same command then ends with exit code 0, and every file, of the pool and
of the result, has the bytes of a run where nothing happened. Before that, no part is lost.
"""

from __future__ import annotations

import signal
from functools import cache
from pathlib import Path

import pytest
from support.given import PART
from support.killing import Command, Killable
from support.started import Started, states
from support.steps import KILL_ALL, KILL_RUN

SCORE = ("score", "in.jsonl", "-r", "rule:exact", *PART)
PAID = ("score", "in.jsonl", "-r", "mine=rule:my.py:rate", *PART)
COMMANDS: dict[str, Command] = {
    "score": SCORE,
    "score what grew": PAID,
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
}  # fmt: skip
BEFORE: dict[str, tuple[Command, ...]] = {
    "score what grew": ((*PAID, "--limit", 6),),
    "select": (SCORE,),
    "select again": (SCORE, COMMANDS["select"]),
}
EVERY = {"build-dpo": 2, "filter": 2, "score what grew": 2}
"""Every step, or every second one where many are those of `score`."""
MOMENTS = {
    "candidates there, their prompts not": ("replace", "staging/.part-00001", 1, KILL_RUN),
    "scores of part 1 dropped, the part not there": ("replace", "staging/.part-00001", 3, KILL_ALL),
    "nothing but the worker": ("replace", "staging/.part-00001", 3, KILL_RUN),
}
"""A step by name, beginning of the path below .bon, and how many such steps come before it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@cache
def killable(place: Path, name: str) -> Killable:
    return Killable(place / name, COMMANDS[name], BEFORE.get(name, ()))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_between_two_renames(place: Path, moment: str) -> None:
    call, beginning, before, whom = MOMENTS[moment]
    score = killable(place, "score")
    those = [s for s in score.steps if s.name == call and f".bon/{beginning}" in s.path]
    score.check_killed(those[before], whom)


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_every_step(place: Path, name: str) -> None:
    command = killable(place, name)
    assert len(command.steps) > 10
    for step in command.steps[:: EVERY.get(name, 1)]:
        command.check_killed(step)


@pytest.mark.faults
def test_all_files_of_a_filter_are_on_the_disk_before_one_appears(place: Path) -> None:
    """Killed between two renames, the same command mends what is there by half."""
    written = ("-o", "kept.jsonl", "--train-test-split", 0.5, "--dropped", "gone.jsonl")
    flags = ("--filter", "length:max_words=1", "--max-drops", "100%")
    command = Killable(place / "files", ("filter", "in.pool", *flags, *written), (SCORE,))
    renames = [step for step in command.steps if step.name == "replace"]
    assert [step.path.split(".")[1] for step in renames] == ["kept", "kept", "gone"]
    done = [step for step in command.steps if step.number < renames[0].number]
    synced = {step.path for step in done if step.name == "fsync"}
    assert {step.path for step in renames} <= synced
    for step in renames:
        command.check_killed(step)


@pytest.mark.faults
def test_worker_killed_at_every_step(place: Path) -> None:
    score = killable(place, "score")
    of_worker = [step for step in score.steps if score.is_workers(step)]
    assert len(of_worker) > 10
    for step in of_worker:
        score.check_killed(step, KILL_RUN)


@pytest.mark.faults
def test_no_worker_outlives_its_killed_run(place: Path) -> None:
    score = killable(place, "score")
    step = next(step for step in score.steps if score.is_workers(step))
    folder = score.fresh()
    run = Started.paused(step.number, *SCORE, cwd=folder)
    assert len(states(run.process.pid)) > 1

    run.send(signal.SIGKILL)  # the worker stands still, and can do nothing about it

    assert run.end()[0] == -9, "and nothing of its group is left"
    score.check_same(folder)
