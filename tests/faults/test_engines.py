"""Workers that hang or are lost, with works that have no model, so that each part is seen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ray_cluster import RayCluster
from support.ray_engine import done, ray_engine
from support.started import wait_until
from support.works import PROMPTS, CannotLook, Deadly, Forgetful, Work

from bon.engines.local import LocalEngine
from bon.engines.ray import RayEngine
from bon.errors import PoolNotFoundError, WorkerDiedError
from bon.protocols import Event, PartDone, Restarted

pytestmark = pytest.mark.faults
NODES = (4,)


@pytest.fixture
def engine(cluster: RayCluster, tmp_path: Path) -> Iterator[RayEngine]:
    with ray_engine(cluster, tmp_path, 2) as started:
        yield started


def test_a_worker_of_this_machine_that_hangs_is_given_up(tmp_path: Path) -> None:
    engine = LocalEngine(tmp_path / "log", stall_timeout_s=2.0)
    work = Deadly(tmp_path, frozenset({"1-6"}), "hang")
    events = list(engine.run(work, [0, 1]))
    assert [e.part for e in events if isinstance(e, PartDone)] == [0, 1]
    assert len((tmp_path / "part-1").read_text().split()) == PROMPTS - 1
    causes = {e.cause for e in events if isinstance(e, Restarted)}
    assert causes == {"no sign of life for 2 s"}


def test_a_block_that_is_given_again_is_not_done_again(
    cluster: RayCluster, engine: RayEngine, tmp_path: Path
) -> None:
    events: list[Event] = []
    for event in engine.run(Forgetful(tmp_path), range(80)):
        events.append(event)
        if isinstance(event, PartDone) and event.part == 2:
            (actor, *_) = cluster.actors()
            os.kill(actor, signal.SIGKILL)
    assert done(events) == list(range(80))
    assert any("or its node was lost" in e.cause for e in events if isinstance(e, Restarted))
    times = {part: (tmp_path / f"part-{part}").read_text() for part in range(80)}
    assert set(times.values()) == {"x"}, "what is committed is not done again"


def test_what_a_worker_finds_that_was_started_again_is_said_as_it_is(
    cluster: RayCluster, engine: RayEngine, tmp_path: Path
) -> None:
    with pytest.raises(PoolNotFoundError) as caught:
        for event in engine.run(CannotLook(tmp_path), range(80)):
            if isinstance(event, PartDone) and event.part == 2:
                os.kill(cluster.actors()[0], signal.SIGKILL)
    assert caught.value.where == "/pool, on node 127.0.0.1"
    assert "every node must see it under the same path" in caught.value.next_step


def test_a_worker_that_is_lost_again_and_again_ends_the_run(
    engine: RayEngine, cluster: RayCluster, tmp_path: Path
) -> None:
    with pytest.raises(WorkerDiedError, match="lost again and again") as caught:
        for event in engine.run(Work(tmp_path, "kills_actor", at=3), range(4)):
            assert not isinstance(event, PartDone) or event.part != 3
    assert "what is committed stays" in caught.value.next_step
    wait_until(lambda: not cluster.left())
