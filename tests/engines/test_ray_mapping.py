"""A function over items as tasks of a real Ray cluster: what local processes do, and lost ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from support.curated import made_up_pool
from support.mapped import die_once, folder, sliced, work
from support.processes import children
from support.ray_cluster import RayCluster, ray_cluster

from bon.config import SelectSettings
from bon.config.filters import parse_filter
from bon.engines.ray_mapping import RayMapper
from bon.engines.ray_origin import Origin
from bon.engines.ray_tasks import TaskSettings
from bon.errors import EngineError, PoolCorruptError, WorkerDiedError
from bon.pipeline.filtering.output import OutputColumns, kept_tables
from bon.pipeline.filtering.plan import run_filters
from bon.pipeline.rewards import Ranking
from bon.pipeline.select import Selector
from bon.pool.pool import Pool
from bon.protocols import Mapper

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(3) as started:
        yield started


@pytest.fixture(scope="module")
def mapper(cluster: RayCluster) -> Iterator[RayMapper]:
    with RayMapper(cluster.address, 2, cpus=1) as started:
        yield started


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return made_up_pool(tmp_path_factory.mktemp("pool") / "p", 40)


def test_results_come_in_order_and_few_are_ahead(mapper: RayMapper) -> None:
    taken: list[int] = []
    due = 0
    who = set()
    for item, process in mapper.map(work, (taken.append(n) or n for n in range(40))):
        assert item == due
        due += 1
        assert len(taken) <= due + 4, "two for each worker"
        who.add(process)
    assert due == 40
    assert os.getpid() not in who


def test_an_error_is_raised_in_its_turn_and_is_the_same(mapper: RayMapper) -> None:
    found = mapper.map(work, [0, "damaged", 3])
    assert next(found)[0] == 0
    with pytest.raises(PoolCorruptError, match="bad part") as caught:
        next(found)
    assert caught.value.next_step == "mend it"
    with pytest.raises(EngineError, match="Unsendable: lost on the way"):
        list(mapper.map(work, ["unsendable"]))


def test_a_lost_task_is_done_again(mapper: RayMapper, tmp_path: Path) -> None:
    items = [(tmp_path, number) for number in range(6)]
    assert list(mapper.map(die_once, items)) == list(range(6))
    assert (tmp_path / "died").exists()


def test_a_task_that_is_lost_again_and_again_ends_it(mapper: RayMapper) -> None:
    with pytest.raises(WorkerDiedError, match="again and again"):
        list(mapper.map(work, [0, "killed"]))


def test_nodes_work_in_the_folder_of_the_command(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RayMapper(cluster.address, 1, cpus=1) as elsewhere:
        assert list(elsewhere.map(folder, [0])) == [str(tmp_path)]


@pytest.mark.parametrize(
    ("settings", "what", "why"),
    [
        (TaskSettings(origin=Origin(version="0.0.1")), "another version of bon", "here is 0.0.1"),
        (TaskSettings(Path("no/a.pool")), "does not see the pool", "there is no /.*/no/a.pool"),
    ],
)
def test_a_node_that_cannot_compute_is_named(
    cluster: RayCluster, settings: TaskSettings, what: str, why: str
) -> None:
    with (
        RayMapper(cluster.address, 1, 1, settings) as mapper,
        pytest.raises(EngineError, match=what) as caught,
    ):
        list(mapper.map(work, range(3)))
    assert caught.value.where == "node 127.0.0.1"
    assert re.search(why, str(caught.value.why))


NO_BON = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bon":
            raise ModuleNotFoundError("No module named 'bon'")

sys.meta_path.insert(0, Blocker())
"""


def test_a_node_without_bon_is_named(cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_BON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        node = cluster.add(5)
    with (
        RayMapper(cluster.address, 1, 5) as mapper,
        pytest.raises(EngineError, match="cannot run bon") as caught,
    ):
        list(mapper.map(work, range(3)))
    cluster.kill(node)
    assert caught.value.where == "node 127.0.0.1"
    assert "No module named 'bon'" in str(caught.value.why)
    assert "install" in str(caught.value.next_step)


def test_ray_is_talked_to_from_one_process_apart_which_ends(cluster: RayCluster) -> None:
    with RayMapper(cluster.address, 2, cpus=1) as mapper:
        assert list(mapper.map(sliced, [])) == []
        there = children(os.getpid())
        assert len(list(mapper.map(work, range(20)))) == 20
        assert children(os.getpid()) == there
        unfinished = mapper.map(work, range(20))
        next(unfinished)
        unfinished.close()
        assert len(children(os.getpid())) == len(there) - 1


def test_of_a_slice_only_its_rows_travel(mapper: RayMapper) -> None:
    (table,) = mapper.map(sliced, [3])
    assert table.equals(sliced(3))
    assert table.get_total_buffer_size() < 10_000


def test_curation_on_ray_gives_the_same(
    mapper: RayMapper, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bon.pipeline.frames._FRAME_ROWS", 1)
    assert curated(pool, mapper) == curated(pool, None)


def curated(pool: Pool, mapper: Mapper | None) -> list[object]:
    ranking = Ranking.of("reward")
    selector = Selector(pool, SelectSettings(), ranking=ranking, seed=0, limit=None, mapper=mapper)
    chosen = pa.concat_tables(selector.tables())
    filters = ["repetition:min_words=5", "near_dedup:num_perm=32,ngram=2", "length:min_words=2"]
    decision = run_filters(
        pool,
        [parse_filter(one) for one in filters],
        kind="candidates",
        ranking=ranking,
        limit=None,
        seed=0,
        mapper=mapper,
    )
    columns = OutputColumns(pool, decision, mapper)
    kept = pa.concat_tables(kept_tables(pool, decision, columns, mapper))
    reports = [selector.report.as_json(), decision.report.as_json()]
    return [chosen.to_pylist(), kept.to_pylist(), *reports]
