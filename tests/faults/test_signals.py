"""SIGINT, SIGTERM and SIGHUP, once and twice, to a run and to its whole process group.

The first one stops in order: 130, 143 or 129, one line, no trace, no process left. A second one,
while that goes on, ends at once with the code of the first. The same command then goes on to the
bytes of a run that nobody stopped.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from functools import cache
from pathlib import Path

import pytest
from support.commands import bon
from support.given import PART, write_given
from support.started import Started
from support.steps import Step, all_files, bon_until, steps_of

SCORE = ("score", "in.jsonl", "-r", "rule:exact", *PART)
SAID = "interrupted; what is committed stays, the same command goes on\n"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NAMES = [number.name for number in CODES]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


@cache
def whole(place: Path) -> tuple[dict[str, bytes], list[Step]]:
    """Return the files of a run that nobody stopped, and its steps."""
    folder = fresh(place)
    steps = steps_of(*SCORE, cwd=folder)
    return all_files(folder), steps


def fresh(place: Path) -> Path:
    folder = place / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_given(folder / "in.jsonl")
    return folder


def check_goes_on(place: Path, folder: Path) -> None:
    done = bon(*SCORE, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert all_files(folder) == whole(place)[0]


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        pytest.param("SIGINT", marks=pytest.mark.faults),
        pytest.param("SIGHUP", marks=pytest.mark.faults),
    ],
)
def test_stops_in_order_while_its_worker_commits(place: Path, name: str) -> None:
    steps = whole(place)[1]
    step = next(s for s in steps if s.pid != steps[0].pid and s.name == "replace")
    folder = fresh(place)

    done = bon_until(step.number, *SCORE, cwd=folder, signals=(("parent", name),))

    assert done.returncode == CODES[signal.Signals[name]]
    assert done.stderr.endswith(SAID)
    assert done.stderr.count("\n  ") == 0, "nothing else is said"
    assert (folder / "in.pool/.bon/lock").read_text() == "", "the lock was given back"
    check_goes_on(place, folder)


@pytest.mark.faults
@pytest.mark.parametrize("name", NAMES)
def test_stops_in_order_at_every_step(place: Path, name: str) -> None:
    steps = whole(place)[1]
    for step in steps[NAMES.index(name) :: len(NAMES)]:
        folder = fresh(place)
        whose = "self" if step.pid == steps[0].pid else "parent"
        done = bon_until(step.number, *SCORE, cwd=folder, signals=((whose, name),))
        assert done.returncode == CODES[signal.Signals[name]], (step, done.stderr)
        assert done.stderr.endswith(SAID), step
        assert "Traceback" not in done.stderr, step
        check_goes_on(place, folder)


def test_second_signal_ends_at_once_with_the_code_of_the_first(place: Path) -> None:
    last = whole(place)[1][-1].number  # while the lock is given back
    run = Started.paused(last, *SCORE, cwd=fresh(place))
    run.send(signal.SIGTERM)
    run.send(signal.SIGINT)  # of two that wait, the lower number is handled first

    code, err = run.go_on()

    assert code == 130
    assert err.endswith(SAID)
    assert "Traceback" not in err
    check_goes_on(place, place / "run")


@pytest.mark.faults
@pytest.mark.parametrize("to_group", [False, True], ids=["to the run", "to its group"])
def test_at_random_moments_once_or_twice(place: Path, to_group: bool) -> None:
    started_s = time.monotonic()
    Started(*SCORE, cwd=fresh(place)).end()
    whole_s = time.monotonic() - started_s
    draw = random.Random(4 + to_group)
    codes = set()
    for turn in range(25):
        number = draw.choice(list(CODES))
        folder = fresh(place)
        run = Started(*SCORE, cwd=folder)
        time.sleep(draw.uniform(0.03, whole_s))
        run.send(number, to_group=to_group)
        if turn % 2:
            time.sleep(draw.uniform(0, 0.05))
            run.send(number, to_group=to_group)
        code, err = run.end()
        codes.add(code)
        # Before bon's first line is run, and when Python is being left, the kernel's answer stands.
        assert code in (0, CODES[number], -number), (number, err)
        assert "Traceback" not in err or code == -number == -signal.SIGINT, err
        check_goes_on(place, folder)
    assert codes & set(CODES.values())


def test_hangup_that_nohup_has_ignored_stays_ignored(place: Path) -> None:
    steps = whole(place)[1]
    folder = fresh(place)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what a child inherits
    try:
        done = bon_until(steps[5].number, *SCORE, cwd=folder, signals=(("self", "SIGHUP"),))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert done.returncode == 0, done.stderr
    assert all_files(folder) == whole(place)[0]
