"""Workers on a Ray cluster that are lost: a model's process, an actor, a whole node.

Each time the run goes on, nothing that was committed is computed again, and the pool has the bytes
of the local engine's.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.commands import GENERATOR, assert_same_pool, bon
from support.datasets import write_lines
from support.ray_cluster import RayCluster, ray_cluster
from support.ray_scoring import PART_SIZE, Scoring, parent
from support.started import Started, wait_until
from support.works import Forgetful

from bon.engines.ray import RayEngine
from bon.engines.ray_cluster import RayWorkers
from bon.pool.pool import Pool, scores_kind
from bon.protocols import PartDone, Restarted

pytestmark = pytest.mark.faults
NODES = (1, 1, 1)


def node_of(cluster: RayCluster, model: int) -> object:
    (node,) = (node for node in cluster.nodes if model in cluster.models(node))
    return node


@pytest.mark.parametrize("lost", ["model", "actor", "node"])
def test_scoring_goes_on_without(cluster: RayCluster, tmp_path: Path, lost: str) -> None:
    scoring = Scoring(tmp_path)
    run = scoring.start_held(cluster)
    committed, held = scoring.committed(), scoring.holder()
    if lost == "node":
        cluster.kill(node_of(cluster, held))
    else:
        os.kill(held if lost == "model" else parent(held), signal.SIGKILL)
    scoring.go()
    code, err = run.end()

    assert code == 0, err
    assert "Traceback" not in err
    assert "lost" in err, "it is told"
    scoring.check_redone(committed)
    scoring.check_as_local()
    wait_until(lambda: not cluster.left())


@pytest.mark.parametrize("lost", ["model", "actor", "node"])
def test_generation_goes_on_without(cluster: RayCluster, tmp_path: Path, lost: str) -> None:
    rows = [{"prompt": f"What is {row} + 2?", "id": f"p{row}"} for row in range(40)]
    write_lines(tmp_path / "in.jsonl", rows)
    command = (
        "generate", "in.jsonl", "-m", GENERATOR, "-n", 2, "--max-tokens", 16, "--part-size", 2,
        "--generator-engine", "transformers",
    )  # fmt: skip
    whole = bon(*command, "--pool", "whole.pool", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr

    on_ray = ("--engine", "ray", "--ray-address", cluster.address, "--num-workers", 2)
    run = Started(*command, "--pool", "in.pool", *on_ray, cwd=tmp_path)
    parts = tmp_path / "in.pool/candidates"
    wait_until(lambda: len(list(parts.glob("part-*"))) > 1)
    model, *others = cluster.models()
    for one in (model, *others):
        os.kill(one, signal.SIGSTOP)  # else the others may be done before it is lost
    before = {path: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    if lost == "node":
        cluster.kill(node_of(cluster, model))
    else:
        os.kill(model if lost == "model" else parent(model), signal.SIGKILL)
    for one in others:
        os.kill(one, signal.SIGCONT)
    code, err = run.end()

    assert code == 0, err
    assert "Traceback" not in err
    assert "lost" in err, "it was still running"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "not written again"
    assert_same_pool(tmp_path / "in.pool", tmp_path / "whole.pool")


def test_without_a_spare_node_nearly_all_is_done_by_the_others(tmp_path: Path) -> None:
    num_done, num_at_restart = 0, 0
    with (
        ray_cluster(1, 1) as cluster,
        RayEngine(cluster.address, RayWorkers(2, 2, cpus=1)) as engine,
    ):
        for event in engine.run(Forgetful(tmp_path), range(120)):
            num_done += isinstance(event, PartDone)
            if isinstance(event, PartDone) and event.part == 2:
                wait_until(lambda: len(cluster.models()) == 2)
                cluster.kill(cluster.nodes[0])
            if isinstance(event, Restarted):
                num_at_restart = num_done
    assert num_done == 120
    assert num_at_restart >= 120 - 8, "it held no more than two blocks of four parts"


def test_a_response_that_ends_its_model_is_found_and_dropped(
    cluster: RayCluster, tmp_path: Path
) -> None:
    scoring = Scoring(tmp_path)
    scoring.go()
    scoring.set_trouble('if response == "answer-6": os.kill(os.getpid(), 9)')

    done = bon(*scoring.on(cluster), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "dropping the prompt id=p6" in done.stderr
    drops = list(Pool.open(tmp_path / "in.pool").read_drops(scores_kind("f")))
    assert [(drop.id, drop.where, drop.reason) for drop in drops] == [
        ("p6", "in.jsonl:7", "worker_killed")
    ]
    scoring.check_as_local()  # which drops it too


@pytest.mark.parametrize("which", ["answer-6", "answer"], ids=["of one part", "of every part"])
def test_an_actor_that_keeps_dying_ends_the_run(
    cluster: RayCluster, tmp_path: Path, which: str
) -> None:
    scoring = Scoring(tmp_path)
    scoring.go()
    scoring.set_trouble(f'if (response + "-").startswith("{which}-"): os.kill(os.getppid(), 9)')

    done = bon(*scoring.on(cluster), cwd=tmp_path, timeout_s=180)

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: a worker is lost again and again" in done.stderr
    assert "the same command goes on" in done.stderr
    assert bool(scoring.committed()) == (which == "answer-6")
    wait_until(lambda: not cluster.left())

    committed = scoring.committed()
    (tmp_path / "computed").unlink()
    scoring.cure()
    again = bon(*scoring.on(cluster), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert not {PART_SIZE * part for part in committed} & set(scoring.times_computed())
    scoring.check_as_local()
