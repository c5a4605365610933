from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bon.errors import EngineError
from bon.records import Drop
from bon.scorers.rules import verifier as module
from bon.scorers.rules.verifier import BOXED, Verifier

pytest.importorskip("math_verify", reason="needs bon-cli[curation]")

ENDLESS = f"{BOXED}9^{{9^{{9^9}}}}}}"


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    started = Verifier(1.0)
    started.start()
    yield started
    started.stop()


def boxed(text: str) -> str:
    return f"{BOXED}{text}}}"


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def gone(pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.05)
    return False


def test_what_never_ends_is_stopped_and_the_next_one_gets_a_new_process(
    verifier: Verifier,
) -> None:
    first = verifier.pid
    started = time.monotonic()
    verdict = verifier.compare(boxed("3"), ENDLESS)
    assert verdict == Drop("rule_timeout", "not decided in 1 s of computing")
    assert time.monotonic() - started < 1.0 * 10
    assert verifier.compare(boxed("3"), boxed("x=3")) is True
    assert verifier.pid != first


def test_a_killed_process_costs_one_candidate(verifier: Verifier) -> None:
    killer = f"import os, time; time.sleep(0.3); os.kill({verifier.pid}, 9)"
    with subprocess.Popen([sys.executable, "-c", killer]):
        verdict = verifier.compare(boxed("3"), ENDLESS)
    assert isinstance(verdict, Drop)
    assert verdict.reason == "rule_crashed"
    assert "SIGKILL" in verdict.detail
    assert verifier.compare(boxed("3"), boxed("4")) is False


def test_a_process_killed_between_two_candidates_costs_none(verifier: Verifier) -> None:
    assert verifier.compare(boxed("1/2"), boxed("0.5")) is True
    pid = verifier.pid
    assert pid is not None
    kill(pid)
    assert gone(pid, 5)
    assert verifier.compare(boxed("1/2"), boxed("0.5")) is True


def test_a_process_that_sleeps_is_stopped(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WALL_FACTOR", 0.5)
    assert verifier.pid is not None
    os.kill(verifier.pid, signal.SIGSTOP)
    verdict = verifier.compare(boxed("3"), boxed("3"))
    assert isinstance(verdict, Drop)
    assert verdict.reason == "rule_timeout"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("busy", [False, True])
def test_no_process_outlives_its_parent(busy: bool) -> None:
    code = (
        "import sys\nfrom bon.scorers.rules.verifier import Verifier\n"
        "v = Verifier(1.0)\nv.start()\nprint(v.pid, flush=True)\n"
        f"v.compare('3', {ENDLESS!r}) if {busy} else sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid, 0.3)
        parent.kill()
    assert gone(pid, 10)


def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(7)\n")
    monkeypatch.setattr(module, "_PROGRAM", broken)
    with pytest.raises(EngineError, match="did not start") as caught:
        Verifier(1.0).start()
    assert caught.value.why == "exit code 7"


def test_nothing_a_formula_says_reaches_the_terminal(
    verifier: Verifier, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verifier.compare(boxed("3"), boxed("\\odd § token {{{")) is False
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
