"""`--engine ray` and `--num-workers` as a user runs them: the pool's bytes are those of one worker
on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import GENERATOR, PROMPTS, REWARD, assert_same_pool, bon, bon_json, pool_files
from support.ray_cluster import RayCluster, ray_cluster

from bon.cli.engines import make_engine
from bon.cli.flags import Invocation
from bon.errors import SettingsError

SAMPLING = ("-m", GENERATOR, "-n", 2, "--max-tokens", 8, "--part-size", 4)
TRANSFORMERS = (*SAMPLING, "--generator-engine", "transformers")
RULE = ("-r", "rule:length?max=600")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(4) as started:
        yield started


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of one worker on this machine; it computes with one thread, as one on Ray does."""
    folder = tmp_path_factory.mktemp("local")
    bon_json("generate", PROMPTS, *TRANSFORMERS, "--limit", 32, "--pool", "a.pool",
             "--cpus-per-worker", 1, cwd=folder)  # fmt: skip
    bon_json("score", "a.pool", *RULE, cwd=folder)
    return folder / "a.pool"


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_a_pool_made_on_ray_is_the_local_one(
    cluster: RayCluster, local: Path, tmp_path: Path, num_workers: int
) -> None:
    ray = ("--engine", "ray", "--ray-address", cluster.address, "--num-workers", num_workers)
    made = bon("score", PROMPTS, *TRANSFORMERS, *RULE, "--limit", 32, "--pool", "a.pool", *ray,
               cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stdout == "a.pool\n", "Ray prints nothing there"
    assert "score rule-length: 8/8 parts" in made.stderr
    assert "ray::" not in made.stderr
    assert "Traceback" not in made.stderr
    assert pool_files(tmp_path / "a.pool") == pool_files(local)
    logs = [log.stem for log in (tmp_path / "a.pool/.bon").glob("worker*.log")]
    num_sampled = sum("stage" not in log for log in logs)  # the second stage's say so
    assert (num_sampled > 1) == (num_workers > 1), "each worker that was given a part has a log"


@pytest.mark.slow
def test_two_models_side_by_side_on_ray_make_the_pool_of_one_after_the_other_here(
    cluster: RayCluster, tmp_path: Path
) -> None:
    models = (*TRANSFORMERS, "-r", f"r={REWARD}", "--scorer-engine", "transformers")
    ray = ("--engine", "ray", "--ray-address", cluster.address, "--num-workers", 2)
    for pool, flags in (
        ("a.pool", ()),
        ("b.pool", ray),
        ("c.pool", (*ray, "--placement", "stream")),
    ):
        made = bon("score", PROMPTS, *models, "--limit", 16, "--cpus-per-worker", 1, "-v",
                   "--pool", pool, *flags, cwd=tmp_path)  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert ("each part is scored as soon as it is sampled" in made.stderr) == (pool != "a.pool")
        assert pool_files(tmp_path / pool) == pool_files(tmp_path / "a.pool")
    refused = bon("score", PROMPTS, *models, *ray, "--cpus-per-worker", 2, "--placement", "stream",
                  "--pool", "d.pool", cwd=tmp_path)  # fmt: skip
    assert refused.returncode == 2
    assert "need 6 CPUs, the cluster has 4" in " ".join(refused.stderr.split())
    assert not (tmp_path / "d.pool" / "pool.json").exists()


@pytest.mark.slow
def test_a_pool_goes_on_with_another_engine(
    cluster: RayCluster, local: Path, tmp_path: Path
) -> None:
    ray = ("--engine", "ray", "--ray-address", cluster.address, "--num-workers", "1..2")
    for limit, engine in ((8, ()), (20, ray), (32, ("--num-workers", 2))):
        made = bon_json("generate", PROMPTS, *TRANSFORMERS, "--limit", limit, "--pool", "a.pool",
                        "--cpus-per-worker", 1, *engine, cwd=tmp_path)  # fmt: skip
        assert made["stages"][0]["num_parts_done"] == {8: 2, 20: 3, 32: 3}[limit]
    bon_json("score", "a.pool", *RULE, "--num-workers", 2, cwd=tmp_path)
    found, wanted = pool_files(tmp_path / "a.pool"), pool_files(local)
    assert found == wanted


@pytest.mark.slow
@pytest.mark.vllm
def test_vllm_on_ray_is_vllm_here(cluster: RayCluster, tmp_path: Path) -> None:
    common = ("--limit", 8, "--cpus-per-worker", 1, "--kv-cache-gib", "0.5")
    bon_json("generate", PROMPTS, *SAMPLING, *common, "--pool", "a.pool", cwd=tmp_path)
    ray = ("--engine", "ray", "--ray-address", cluster.address)
    bon_json("generate", PROMPTS, *SAMPLING, *common, "--pool", "b.pool", *ray, cwd=tmp_path)
    assert_same_pool(tmp_path / "b.pool", tmp_path / "a.pool")


@pytest.mark.slow
def test_ray_that_bon_starts_itself_is_gone_with_it(local: Path, tmp_path: Path) -> None:
    made = bon("score", local, "-r", "again=rule:length?max=600", "--engine", "ray", "--repair",
               "--json", "-q", cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    assert json.loads(made.stdout)["stages"][0]["num_parts_done"] == 8
    left = [
        folder.name
        for folder in Path("/proc").glob("[0-9]*")
        if folder.name != str(os.getpid()) and _works_in(folder) == tmp_path
    ]
    assert left == []


def _works_in(folder: Path) -> Path | None:
    try:
        return (folder / "cwd").readlink()
    except OSError:
        return None


def call(**flags: object) -> Invocation:
    return Invocation("a.jsonl", None, False, False, False, False, flags, typed=frozenset(flags))


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"ray_address": "auto"}, "--ray-address does nothing without --engine ray"),
        ({"num_workers": "2..8"}, "only a Ray cluster"),
        ({"num_workers": "10000"}, "10000 workers with 1"),
        ({"num_workers": "0"}, "bad value for --num-workers"),
        ({"num_workers": "8..2"}, "bad value for --num-workers"),
        ({"num_workers": "many", "engine": "ray"}, "bad value for --num-workers"),
    ],
)
def test_workers_that_mean_nothing_are_refused(flags: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text.replace(".", r"\.")):
        make_engine(call(**flags), None)


def test_workers_that_mean_something_are_not() -> None:
    make_engine(call(engine="ray", ray_address="auto", num_workers="2..8"), None)
    make_engine(call(num_workers="1"), None)
    make_engine(call(), None)
