"""The process that runs a stage on Ray is killed or stopped, and its command is given again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from support.commands import bon
from support.ray_cluster import RayCluster, is_alive
from support.ray_scoring import Scoring
from support.started import wait_until

pytestmark = pytest.mark.faults
NODES = (1, 1)
WATCH = """
import sys, threading
model, here = threading.main_thread().ident, HERE

def note():
    names = []
    while "_asked" not in names:
        time.sleep(0.01)
        frame, names = sys._current_frames()[model], []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
    (here / f"asked-{os.getpid()}").touch()

threading.Thread(target=note, daemon=True).start()
"""
"""Notes that a worker is asking for its next part: what it had in hand is committed, or left."""
SAID = "interrupted; what is committed stays, the same command goes on\n"


def test_killed_leaves_nobody_and_the_same_command_goes_on(
    cluster: RayCluster, tmp_path: Path
) -> None:
    scoring = Scoring(tmp_path)
    run = scoring.start_held(cluster)
    left = cluster.left()
    run.send(signal.SIGKILL)
    run.end()
    wait_until(lambda: not any(map(is_alive, left)), timeout_s=5)
    committed = scoring.committed()
    scoring.go()

    done = bon(*scoring.on(cluster), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    scoring.check_redone(committed)
    scoring.check_as_local()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("to_group", [False, True], ids=["to the run", "to its group"])
def test_stopped_leaves_nobody(
    cluster: RayCluster, tmp_path: Path, number: signal.Signals, code: int, to_group: bool
) -> None:
    scoring = Scoring(tmp_path)
    run = scoring.start_held(cluster)
    left = cluster.left()
    run.send(number, to_group=to_group)
    found, err = run.end()

    assert found == code, err
    assert err.endswith(SAID)
    assert "Traceback" not in err
    wait_until(lambda: not any(map(is_alive, left)), timeout_s=5)
    assert (tmp_path / "in.pool/.bon/lock").read_text() == "", "the lock was given back"
    last = (tmp_path / "in.pool/.bon/run.log").read_text().splitlines()[-1]
    assert json.loads(last)["status"] == "interrupted"
    committed = scoring.committed()
    scoring.go()

    done = bon(*scoring.on(cluster), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scoring.check_redone(committed)
    scoring.check_as_local()


def test_what_an_old_run_still_commits_changes_nothing(cluster: RayCluster, tmp_path: Path) -> None:
    scoring = Scoring(tmp_path)
    (tmp_path / "watch.py").write_text(WATCH)
    scoring.set_trouble('exec((HERE / "watch.py").read_text(), globals())')
    run = scoring.start_held(cluster)
    model = scoring.holder()
    (node,) = (node for node in cluster.nodes if model in cluster.models(node))
    cluster.send(node, signal.SIGSTOP)  # it does not hear that its run has ended
    run.send(signal.SIGKILL)
    run.end()
    scoring.go()
    done = bon(*scoring.on(cluster, workers=1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = tmp_path / "in.pool/scores/f"
    before = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert is_alive(model)

    for path in tmp_path.glob("asked-*"):
        path.unlink()  # of parts before

    os.kill(model, signal.SIGCONT)  # what it had in hand is done now
    wait_until(lambda: (tmp_path / f"asked-{model}").exists())
    assert scoring.times_computed()[19] == 2

    assert {path: path.stat().st_mtime_ns for path in parts.iterdir()} == before
    scoring.check_as_local()
    cluster.send(node, signal.SIGCONT)
    wait_until(lambda: not is_alive(model))
