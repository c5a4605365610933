"""Several workers on one machine: they share the parts, and each has a share of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.works import Deadly, Scoped, Work

from bon.engines.local import LocalEngine
from bon.engines.shares import Share, split_machine
from bon.errors import PoolCorruptError, SettingsError
from bon.protocols import Event, PartDone, Parts, Ready, Restarted, Scope


@dataclass(frozen=True)
class Tells(Scoped):
    """Writes who did a part, and what of the machine it saw; a part takes a moment."""

    folder: Path
    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        yield Ready(0.0)
        for part in parts:
            if part is None:
                (self.folder / "paused").touch()
                continue
            time.sleep(0.2)
            cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            devices = os.environ.get("CUDA_VISIBLE_DEVICES")
            (self.folder / f"part-{part}").write_text(f"{os.getpid()} {cores} {devices}")
            yield PartDone(part)


def engine(folder: Path, num_workers: int) -> LocalEngine:
    shares = tuple(Share(number) for number in range(num_workers))
    return LocalEngine(folder / "worker.log", shares=shares)


def done(events: list[Event]) -> list[int]:
    return sorted(event.part for event in events if isinstance(event, PartDone))


def who(folder: Path) -> set[str]:
    return {path.read_text().split()[0] for path in folder.glob("part-*")}


def test_workers_share_the_parts_and_each_is_done_once(tmp_path: Path) -> None:
    events = list(engine(tmp_path, 3).run(Tells(tmp_path), range(12)))
    assert done(events) == list(range(12))
    assert len(who(tmp_path)) == 3
    logs = sorted(path.name for path in tmp_path.glob("*.log"))
    assert logs == ["worker-1.log", "worker-2.log", "worker.log"]


def test_where_there_are_fewer_parts_than_workers_no_model_is_loaded_for_nothing(
    tmp_path: Path,
) -> None:
    events = list(engine(tmp_path, 4).run(Tells(tmp_path), [0]))
    assert done(events) == [0]
    assert sum(isinstance(event, Ready) for event in events) == 1


def test_one_that_dies_does_not_stop_the_others(tmp_path: Path) -> None:
    events = list(engine(tmp_path, 2).run(Deadly(tmp_path, frozenset({"3-5"})), range(8)))
    assert done(events) == list(range(8))
    assert any(isinstance(event, Restarted) for event in events)
    kept = [one for part in range(8) for one in (tmp_path / f"part-{part}").read_text().split()]
    assert "3-5" not in kept
    assert len(kept) == len(set(kept)) == 8 * 8 - 1


def test_an_error_of_one_ends_all(tmp_path: Path) -> None:
    with pytest.raises(PoolCorruptError):
        list(engine(tmp_path, 2).run(Work(tmp_path, "bon_error", at=5), range(1000)))
    assert not (tmp_path / "part-999").exists()
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_a_source_may_have_nothing_for_now(tmp_path: Path) -> None:
    def source() -> Iterator[int | None]:
        yield from [None, 0, None, None, 1]
        while not (tmp_path / "part-1").exists():
            yield None
        yield 2

    assert done(list(engine(tmp_path, 1).run(Tells(tmp_path), source()))) == [0, 1, 2]
    assert (tmp_path / "paused").exists()
    assert len(who(tmp_path)) == 1, "the model stays loaded"


def test_a_share_is_all_that_a_worker_sees(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    shares = (Share(0, devices=("1", "3"), cores=(core,)),)
    list(LocalEngine(tmp_path / "log", shares=shares).run(Tells(tmp_path), [0]))
    assert (tmp_path / "part-0").read_text().split()[1:] == [str(core), "1,3"]


def test_accelerators_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [one.devices for one in split_machine(4)] == [("4",), ("5",), ("6",), ("7",)]
    assert [one.devices for one in split_machine(2, 2)] == [("4", "5"), ("6", "7")]
    with pytest.raises(SettingsError, match="5 workers with 1 accelerators"):
        split_machine(5)
    assert all(one.devices is None and one.cores for one in split_machine(1, 0, 1))


def test_without_accelerators_cores_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("bon.engines.shares._cores", lambda: {0, 1, 2, 3, 5})
    assert [one.cores for one in split_machine(2)] == [(0, 1), (2, 3)]
    assert [one.cores for one in split_machine(3, cpus_per_worker=1)] == [(0,), (1,), (2,)]
    with pytest.raises(SettingsError, match="6 workers with 1 cores"):
        split_machine(6)
    with pytest.raises(SettingsError, match="accelerators"):
        split_machine(1, 1)


def test_one_worker_that_asks_for_nothing_has_the_whole_machine() -> None:
    assert split_machine(1) == (Share(),)


def test_workers_go_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from support.works import Work\n"
        "from bon.engines.local import LocalEngine; from bon.engines.shares import Share\n"
        "f = Path(sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    e = LocalEngine(f / 'log', shares=(Share(0), Share(1)))\n"
        "    list(e.run(Work(f, 'hang', at=0), [0, 1, 2, 3]))\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    paths = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env={**os.environ, "PYTHONPATH": paths}
    )
    pids = tmp_path / "pids"
    deadline_s = time.monotonic() + 60
    while len(pids.read_text().split() if pids.exists() else ()) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
