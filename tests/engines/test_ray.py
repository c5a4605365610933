"""The Ray engine on a real cluster: its events, its errors, what it does again, and its end."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ray_cluster import RayCluster, is_alive, ray_cluster
from support.ray_engine import done, ray_engine
from support.started import wait_until
from support.works import Deadly, Forgetful, Work

from bon.engines.ray import RayEngine, _Run
from bon.engines.ray_blocks import ever_smaller
from bon.engines.ray_cluster import RayWorkers
from bon.engines.ray_lane import Begun, Said
from bon.errors import (
    EngineError,
    PoolCorruptError,
    SettingsError,
    WorkerDiedError,
)
from bon.protocols import PartDone, Progress, Ready, Restarted, Stage

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(4) as started:
        yield started


@pytest.fixture
def engine(cluster: RayCluster, tmp_path: Path) -> Iterator[RayEngine]:
    with ray_engine(cluster, tmp_path, 2) as started:
        yield started


def test_each_part_is_done_once_by_one_of_the_workers(
    engine: RayEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events = list(engine.run(Work(tmp_path), range(40)))

    assert done(events) == list(range(40))
    assert {(tmp_path / f"part-{part}").read_text() for part in range(40)} == {"x"}
    computed = [event for event in events if isinstance(event, Progress)]
    assert sum(event.num_candidates for event in computed) == 2 * 40, "none is told twice or lost"
    pids = set((tmp_path / "pids").read_text().split())
    assert sum(isinstance(event, Ready) for event in events) == len(pids) == 2
    assert "the model is loading" in (tmp_path / ".bon" / "worker.log").read_text()
    assert "the model is loading" in (tmp_path / ".bon" / "worker-1.log").read_text()
    assert capfd.readouterr() == ("", ""), "Ray is silent"
    assert list(engine.run(Work(tmp_path), [])) == []


def test_an_error_crosses_with_its_type_and_words(engine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(PoolCorruptError) as caught:
        list(engine.run(Work(tmp_path, "bon_error", at=5), range(1000)))
    assert (caught.value.what, caught.value.next_step) == ("bad part", "delete it")
    assert caught.value.where == "here, on node 127.0.0.1"
    assert not (tmp_path / "part-999").exists()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(map(is_alive, pids)))


def test_a_prompt_that_kills_its_worker_is_dropped(engine: RayEngine, tmp_path: Path) -> None:
    events = list(engine.run(Deadly(tmp_path, frozenset({"3-5"})), range(8)))
    assert done(events) == list(range(8))
    assert any(isinstance(event, Restarted) for event in events)
    kept = [one for part in range(8) for one in (tmp_path / f"part-{part}").read_text().split()]
    assert "3-5" not in kept
    assert len(kept) == len(set(kept)) == 8 * 8 - 1


def test_a_worker_that_hangs_is_noticed(cluster: RayCluster, tmp_path: Path) -> None:
    with (
        RayEngine(cluster.address, stall_timeout_s=1.5) as engine,
        pytest.raises(WorkerDiedError, match="hangs") as caught,
    ):
        list(engine.run(Work(tmp_path, "hang", at=0), [0]))
    assert "no sign of life for 1.5 s" in caught.value.why


def test_why_a_worker_cannot_be_started_is_said(
    engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("from support.works import Work as Here\n"
                                           "class Mine(Here):\n    pass\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").Mine(tmp_path)
    with pytest.raises(EngineError, match="Ray failed") as caught:
        list(engine.run(work, [0]))
    assert "No module named 'only_here'" in caught.value.why


def test_workers_are_added_as_long_as_there_is_work(cluster: RayCluster, tmp_path: Path) -> None:
    with RayEngine(cluster.address, RayWorkers(1, 4)) as engine:
        events = list(engine.run(Forgetful(tmp_path), range(100)))
    assert done(events) == list(range(100))
    assert sum(isinstance(event, Ready) for event in events) > 1
    assert {(tmp_path / f"part-{part}").read_text() for part in range(100)} == {"x"}
    assert not any(isinstance(event, Restarted) for event in events), "none is ended that has work"


def test_losses_are_counted_only_while_no_worker_does_a_part(tmp_path: Path) -> None:
    stage = Stage(Work(tmp_path), range(9))
    run = _Run(RayEngine(max_restarts=2), [stage], [RayWorkers()])
    lost = Begun(0, "10.0.0.7", is_again=True)
    for _ in range(5):
        assert [type(event) for event in run._events_of(0, lost)] == [Restarted]
        assert list(run._events_of(0, lost))
        assert list(run._events_of(0, Said(1, (PartDone(3),)))) == [PartDone(3)]
    with pytest.raises(WorkerDiedError, match=r"10\.0\.0\.7"):
        for _ in range(3):
            list(run._events_of(0, lost))


def test_no_node_can_hold_such_a_worker(cluster: RayCluster, tmp_path: Path) -> None:
    for workers, text in ((RayWorkers(1, 1, cpus=64), "64 CPUs"), (RayWorkers(gpus=2), "2 GPUs")):
        with RayEngine(cluster.address, workers) as engine, pytest.raises(SettingsError) as caught:
            list(engine.run(Work(tmp_path), [0]))
        assert text in caught.value.what


def test_no_cluster_answers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with RayEngine("127.0.0.1:9") as engine, pytest.raises(EngineError, match="no Ray") as caught:
        list(engine.run(Work(tmp_path), [0]))
    assert "127.0.0.1:9" in caught.value.where
    assert "ray start" in caught.value.next_step
    assert capfd.readouterr() == ("", "")


def test_what_ray_says_is_logged(
    engine: RayEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from bon.engines.ray_cluster import import_ray

    ray = import_ray(is_ours=False)
    with caplog.at_level(logging.INFO, "bon"):
        ray._private.worker.print_to_stdstream({"lines": ["\nno room\nmore"]}, ignore_prefix=False)
    assert "Ray says: no room" in caplog.messages


def test_interrupted_nothing_is_left(cluster: RayCluster, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from bon.signals import take_over, Interrupted\n"
        "from bon.engines.ray import RayEngine; from bon.engines.ray_cluster import RayWorkers\n"
        "from support.chained import Waits\n"
        "take_over()\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    with RayEngine(sys.argv[2], RayWorkers(2, 2)) as engine:\n"
        "        list(engine.run(Waits(folder, folder / 'never'), range(8)))\n"
        "except Interrupted: sys.exit(130)\n"
    )
    paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), cluster.address],
        env={**os.environ, "PYTHONPATH": paths},
    ) as run:
        # each waits after its first part, whichever that is; were it idle, Ray would end it
        wait_until(lambda: any(tmp_path.glob("part-*")) and len(cluster.left()) == 4)
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 130
    wait_until(lambda: not cluster.left())


def test_blocks_are_small_not_too_many_and_the_last_ones_parts() -> None:
    for num_parts, num_workers in ((1, 4), (7, 2), (1000, 2), (780_000, 256)):
        blocks = ever_smaller(range(num_parts), num_workers)
        parts = [[one["part"] for one in block["parts"][0].as_py()] for block in blocks]
        sizes = [len(some) for some in parts]
        assert [part for some in parts for part in some] == list(range(num_parts))
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 1
        assert sizes[0] <= max(4, num_parts // 4_000 + 1), "what a lost worker keeps"
        assert len(blocks) < 10_000
