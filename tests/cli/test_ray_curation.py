"""`bon select`, `filter` and `build-dpo` on a Ray cluster as a user runs them; pools on a store:
files and reports are those of one process on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import s3
from support.commands import bon, bon_json, pool_files
from support.curated import made_up_pool
from support.given import PART, write_given
from support.ray_cluster import RayCluster, ray_cluster

from bon.object_store import ObjectPath
from bon.places import place

pytestmark = pytest.mark.slow
_SMALL_GROUPS = (
    "import bon.pipeline.frames, bon.cli.mappers; bon.pipeline.frames._FRAME_ROWS = 8; "
    "bon.cli.mappers.FEWEST_GROUPS = 2; from bon.cli.entry import main; main()"
)
"""Groups of a few prompts, so that a small pool has work for a cluster."""


@pytest.fixture(scope="module")
def cluster(s3_server: s3.Server) -> Iterator[RayCluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)  # a user's nodes know the store too
        with ray_cluster(2) as started:
            yield started


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool, in which no node was started."""
    folder = tmp_path_factory.mktemp("shared")
    made_up_pool(folder / "a.pool", 60)
    return folder


def on(cluster: RayCluster) -> tuple[object, ...]:
    return ("--engine", "ray", "--ray-address", cluster.address, "--num-workers", 2)


@pytest.mark.parametrize(
    "said",
    [
        ("select", "--strategy", "top-k", "--k", "2"),
        ("build-dpo", "--strategy", "best-random", "--min-margin", "10%"),
        ("filter", "--filter", "repetition:min_words=5", "--dropped", "dropped.jsonl"),
    ],
    ids=lambda said: said[0],
)
def test_files_and_reports_are_those_of_one_process(
    cluster: RayCluster, here: Path, said: tuple[str, ...]
) -> None:
    found = []
    for flags in ((), on(cluster)):
        arguments = (said[0], "a.pool", *said[1:], "--rank-by", "reward", "-o", "out.parquet")
        done = curated(*arguments, "--json", "-v", *flags, cwd=here)
        assert ("curating in 2 workers on Ray" in done.stderr) == bool(flags)
        files = {one.name: one.read_bytes() for one in here.iterdir() if one.is_file()}
        for name in files:
            (here / name).unlink()
        found.append((json.loads(done.stdout), files))
    assert found[0] == found[1]
    assert found[0][0]["output_rows"] > 5
    assert "out.parquet" in found[0][1]


def test_a_pool_on_an_object_store_is_the_local_one(
    cluster: RayCluster, bucket: str, tmp_path: Path
) -> None:
    write_given(tmp_path / "in.jsonl")
    scoring = ("score", "in.jsonl", "-r", "len=rule:length?max=6", *PART)
    bon_json(*scoring, "--pool", "l.pool", cwd=tmp_path)
    pool = f"{bucket}/runs/l.pool"
    made = bon(*scoring, "--pool", pool, *on(cluster), cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert content_of(pool) == pool_files(tmp_path / "l.pool")

    choosing = ("select", "--rank-by", "len", "-v")
    bon_json(*choosing, "l.pool", "-o", "best.parquet", cwd=tmp_path)
    out = f"{bucket}/best.parquet"
    done = curated(*choosing, pool, "-o", out, *on(cluster), cwd=tmp_path)
    assert "curating in 2 workers on Ray" in done.stderr
    assert place(out).read_bytes() == (tmp_path / "best.parquet").read_bytes()


def curated(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command whose pool is large, as far as it knows; it must succeed."""
    command = [sys.executable, "-c", _SMALL_GROUPS, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def content_of(said: str) -> dict[str, bytes]:
    """Return what lies in a pool on a store, `.bon/` aside."""
    root = place(said)
    assert isinstance(root, ObjectPath)
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.walk()}
    return {name: content for name, content in found.items() if not name.startswith(".bon/")}
