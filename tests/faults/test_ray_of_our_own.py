"""Ray that bon has started itself, and a run on it that is stopped: nothing of it stays."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.commands import bon
from support.ray_cluster import all_below, is_alive
from support.ray_scoring import Scoring
from support.started import wait_until

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("to_group", [False, True], ids=["to the run", "to its group"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_ends_it(tmp_path: Path, number: signal.Signals, code: int, to_group: bool) -> None:
    scoring = Scoring(tmp_path)
    run = scoring.start_held(None, "--cpus-per-worker", 1)
    ours = all_below(run.process.pid)
    assert any("raylet" in said for said in ours.values())
    run.send(number, to_group=to_group)
    found, err = run.end()

    assert found == code, err
    assert err.endswith("interrupted; what is committed stays, the same command goes on\n")
    assert "Traceback" not in err
    left = {pid: said for pid, said in ours.items() if is_alive(pid)}
    assert not left


def test_killed_ends_it(tmp_path: Path) -> None:
    scoring = Scoring(tmp_path)
    run = scoring.start_held(None, "--cpus-per-worker", 1)
    ours = all_below(run.process.pid)
    models = [pid for pid, said in ours.items() if "spawn_main" in said]
    assert len(models) >= 3, "two models, and who talks to Ray"
    run.send(signal.SIGKILL)
    run.process.communicate()  # two helpers of Ray's nodes see only a minute later that it is gone

    wait_until(lambda: not any(map(is_alive, models)))
    scoring.go()
    done = bon(*scoring.on(None, "--cpus-per-worker", 1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scoring.check_as_local()
