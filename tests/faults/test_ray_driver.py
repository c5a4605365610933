"""The process that runs a stage on Ray is killed or stopped, and its command is given again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support.commands import bon
from support.ray_cluster import RayCluster, is_alive
from support.ray_scoring import Scoring
from support.started import wait_until

pytestmark = pytest.mark.faults
NODES = (1, 1)
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

    os.kill(model, signal.SIGCONT)  # what it had in hand is done now
    wait_until(lambda: scoring.times_computed()[19] == 2)
    time.sleep(1.0)  # what it does next takes milliseconds

    assert {path: path.stat().st_mtime_ns for path in parts.iterdir()} == before
    scoring.check_as_local()
    cluster.send(node, signal.SIGCONT)
    wait_until(lambda: not is_alive(model))
