"""The worker process: its events, its errors, its death, and its parent's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.works import PROMPTS, Deadly, DiesAfterEachPart, HangsWhileLoading, Work

from bon.engines.local import LocalEngine
from bon.errors import EngineError, PoolCorruptError, WorkerDiedError
from bon.protocols import PartDone, Progress, Ready, Restarted

TESTS = Path(__file__).parent.parent


@pytest.fixture
def engine(tmp_path: Path) -> LocalEngine:
    return LocalEngine(tmp_path / ".bon" / "worker.log")


def log(engine: LocalEngine) -> str:
    assert engine.log is not None
    return engine.log.read_text()


def pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def within(timeout_s: float, met: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not met() and time.monotonic() < deadline:
        time.sleep(0.02)
    return met()


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_events_come_through_and_prints_go_to_the_log(
    tmp_path: Path, engine: LocalEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    events = list(engine.run(Work(tmp_path), [3, 1]))

    assert events == [
        Ready(0.5), Progress(1, 2, 3), PartDone(3), Progress(1, 2, 3), PartDone(1),
    ]  # fmt: skip
    assert capfd.readouterr() == ("", "")
    assert "the model is loading\na library writes to descriptor 2\n" in log(engine)
    (pid,) = pids(tmp_path)
    assert pid != os.getpid()
    assert is_gone(pid)


def test_without_a_log_prints_go_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    list(LocalEngine().run(Work(tmp_path), [0]))
    out, err = capfd.readouterr()
    assert out == ""
    assert "the model is loading" in err


def test_no_parts_no_worker(tmp_path: Path, engine: LocalEngine) -> None:
    assert list(engine.run(Work(tmp_path), [])) == []
    assert pids(tmp_path) == []


def test_our_error_crosses_with_its_type_and_words(tmp_path: Path, engine: LocalEngine) -> None:
    with pytest.raises(PoolCorruptError) as caught:
        list(engine.run(Work(tmp_path, "bon_error"), [0, 1, 2]))
    error = caught.value
    assert (error.what, error.where, error.why, error.next_step) == (
        "bad part", "here", "bits", "delete it",
    )  # fmt: skip
    assert "Traceback" in log(engine)
    assert len(pids(tmp_path)) == 1, "an error is no death"


@pytest.mark.parametrize(
    ("trouble", "text"), [("other_error", "KeyError: 'lost key'"), ("unpicklable", "ValueError")]
)
def test_any_other_error_becomes_an_engine_error(
    tmp_path: Path, engine: LocalEngine, trouble: str, text: str
) -> None:
    with pytest.raises(EngineError) as caught:
        list(engine.run(Work(tmp_path, trouble), [1]))
    assert text in caught.value.what
    assert "works.py:" in caught.value.where
    assert str(engine.log) in caught.value.next_step
    assert not isinstance(caught.value, WorkerDiedError)
    assert "Traceback" in log(engine)


def test_killed_once_is_restarted_and_only_uncommitted_parts_are_redone(
    tmp_path: Path, engine: LocalEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    events = list(engine.run(Work(tmp_path, "die_once"), [0, 1, 2]))

    assert [e.part for e in events if isinstance(e, PartDone)] == [0, 1, 2]
    assert sum(e.num_candidates for e in events if isinstance(e, Progress)) == 3 * 2
    assert [(tmp_path / f"part-{n}").read_text() for n in range(3)] == ["x", "x", "x"]
    assert sum(isinstance(e, Ready) for e in events) == len(set(pids(tmp_path))) == 2
    (restarted,) = [e for e in events if isinstance(e, Restarted)]
    assert restarted.cause.startswith("killed by SIGKILL")
    assert capfd.readouterr() == ("", "")


def test_prompts_that_live_nowhere_end_the_run_with_the_workers_last_words(
    tmp_path: Path, engine: LocalEngine
) -> None:
    done: list[int] = []
    with pytest.raises(WorkerDiedError) as caught:
        for event in engine.run(Work(tmp_path, "die"), [0, 1]):
            done += [event.part] if isinstance(event, PartDone) else []
    assert done == [0]
    assert (tmp_path / "part-0").read_text() == "x", "it is not done twice"
    assert "SIGKILL" in caught.value.why
    assert "out of memory, said the model" in caught.value.why
    assert caught.value.where == str(engine.log)
    assert "the same command goes on" in caught.value.next_step
    assert isinstance(caught.value, ChildProcessError)


def test_deaths_with_progress_between_them_do_not_end_the_run(
    tmp_path: Path, engine: LocalEngine
) -> None:
    events = list(engine.run(DiesAfterEachPart(tmp_path), [0, 1, 2]))
    assert [e.part for e in events if isinstance(e, PartDone)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("how", "reason"),
    [("die", "worker_killed"), ("other_error", "worker_failed"), ("loses_worker", "worker_failed")],
)
def test_the_prompt_that_ends_the_worker_is_found(
    tmp_path: Path, engine: LocalEngine, how: str, reason: str
) -> None:
    events = list(engine.run(Deadly(tmp_path, frozenset({"1-6"}), how), [0, 1, 2]))
    assert [e.part for e in events if isinstance(e, PartDone)] == [0, 1, 2]
    texts = [(tmp_path / f"part-{part}").read_text().split() for part in range(3)]
    assert [len(text) for text in texts] == [PROMPTS, PROMPTS - 1, PROMPTS]
    assert "1-6" not in texts[1]
    assert (tmp_path / "workers").stat().st_size <= 14


def test_a_worker_that_gives_signs_of_life_is_waited_for(tmp_path: Path) -> None:
    engine = LocalEngine(tmp_path / "log", stall_timeout_s=1.5)
    events = list(engine.run(Work(tmp_path, "beats"), [0, 1, 2]))  # 3 s for one part
    assert [e.part for e in events if isinstance(e, PartDone)] == [0, 1, 2]
    assert not [e for e in events if isinstance(e, Restarted)]


def test_a_hang_while_loading_has_a_limit_of_its_own(tmp_path: Path) -> None:
    engine = LocalEngine(tmp_path / "log", 0, stall_timeout_s=600.0, load_timeout_s=0.5)
    with pytest.raises(WorkerDiedError) as caught:
        list(engine.run(HangsWhileLoading(), [0]))
    assert "no sign of life for 0.5 s" in caught.value.why
    assert "--load-timeout" in caught.value.next_step


def test_time_in_which_the_parent_was_stopped_is_not_the_workers(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "support.works", tmp_path, "beats"],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
    )  # fmt: skip
    assert within(30, lambda: (tmp_path / "part-0").exists())
    parent.send_signal(signal.SIGSTOP)
    (pid,) = pids(tmp_path)
    os.kill(pid, signal.SIGSTOP)  # as Ctrl-Z does
    time.sleep(4)
    os.kill(pid, signal.SIGCONT)
    parent.send_signal(signal.SIGCONT)
    assert parent.wait(30) == 0
    assert len(pids(tmp_path)) == 1


def test_exit_of_the_worker_is_a_death_with_its_code(tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        list(LocalEngine(tmp_path / "log", max_restarts=0).run(Work(tmp_path, "exit"), [1]))
    assert caught.value.why.startswith("exit code 7")


def test_closing_the_iterator_ends_the_worker(tmp_path: Path, engine: LocalEngine) -> None:
    events = engine.run(Work(tmp_path, "hang"), [0, 1])
    while not isinstance(next(events), PartDone):
        pass
    (pid,) = pids(tmp_path)
    assert not is_gone(pid)

    started_s = time.monotonic()
    events.close()  # type: ignore[attr-defined]

    assert is_gone(pid)
    assert time.monotonic() - started_s < 5


def test_interrupt_of_the_parent_is_not_the_workers(tmp_path: Path, engine: LocalEngine) -> None:
    events = engine.run(Work(tmp_path, "hang"), [0, 1])
    while not isinstance(next(events), PartDone):
        pass
    (pid,) = pids(tmp_path)
    os.kill(pid, signal.SIGINT)  # what a terminal sends to the whole group
    time.sleep(0.2)
    assert not is_gone(pid)
    events.close()  # type: ignore[attr-defined]
    assert is_gone(pid)


def test_worker_goes_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "support.works", tmp_path], stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
    )  # fmt: skip
    assert within(30, lambda: (tmp_path / "part-0").exists())
    (pid,) = pids(tmp_path)
    assert not is_gone(pid)

    parent.kill()
    parent.wait()

    assert within(5, lambda: is_gone(pid))
