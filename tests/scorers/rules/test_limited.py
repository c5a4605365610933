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
from bon.scorers.rules import limited as module
from bon.scorers.rules.limited import LimitedProcess

EVIL = r"(\w+\s?)*!"
ENDLESS = "word " * 20
SETUP = {"how": "last", "pattern": EVIL, "group": 0}


def finder(limit_s: float = 0.5) -> LimitedProcess:
    """Returns what the evil pattern finds in a text."""
    return LimitedProcess("pattern_work.py", SETUP, limit_s, "rule:regex")


@pytest.fixture
def process() -> Iterator[LimitedProcess]:
    started = finder()
    started.start()
    yield started
    started.stop()


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
    process: LimitedProcess,
) -> None:
    first = process.pid
    started = time.monotonic()
    assert process.ask(ENDLESS) == Drop("rule_timeout", "not decided in 0.5 s of computing")
    assert time.monotonic() - started < 0.5 * 10
    assert process.ask("ab!") == "ab!"
    assert process.pid != first


def test_code_that_never_comes_back_to_python_is_stopped() -> None:
    pytest.importorskip("math_verify", reason="needs bon-cli[curation]")
    process = LimitedProcess("math_work.py", None, 1.0, "rule:math")
    process.start()
    try:
        found = process.ask([r"\boxed{3}", r"\boxed{9^{9^{9^9}}}"])
        assert isinstance(found, Drop)
        assert found.reason == "rule_timeout"
        assert process.ask([r"\boxed{3}", r"\boxed{x=3}"]) is True
        assert process.ask([r"\boxed{3}", "\\odd § token {{{"]) is False
    finally:
        process.stop()


def test_a_killed_process_costs_one_request() -> None:
    process = finder(20.0)
    process.start()
    killer = f"import os, time; time.sleep(0.3); os.kill({process.pid}, 9)"
    with subprocess.Popen([sys.executable, "-c", killer]):
        found = process.ask(ENDLESS)
    assert found == Drop("rule_crashed", "the process of rule:regex died: killed by SIGKILL")
    assert process.ask("no") is None
    process.stop()


def test_a_process_killed_between_two_requests_costs_none(process: LimitedProcess) -> None:
    assert process.ask("a!") == "a!"
    pid = process.pid
    assert pid is not None
    kill(pid)
    assert gone(pid, 5)
    assert process.ask("a!") == "a!"


def test_a_process_that_sleeps_is_stopped(
    process: LimitedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WALL_FACTOR", 0.5)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    found = process.ask("a!")
    assert isinstance(found, Drop)
    assert found.reason == "rule_timeout"


@pytest.mark.parametrize("text", ["", "\ud800", "é\n\0", "x" * 1_000_000])
def test_any_text_goes_there_and_back(text: str) -> None:
    setup = {"how": "last", "pattern": r"(?s)\A.*", "group": 0}
    process = LimitedProcess("pattern_work.py", setup, 5.0, "rule:regex")
    assert process.ask(text) == text
    process.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("busy", [False, True])
def test_no_process_outlives_its_parent(busy: bool) -> None:
    code = (
        "import sys\nfrom bon.scorers.rules.limited import LimitedProcess\n"
        f"p = LimitedProcess('pattern_work.py', {SETUP!r}, 1.0, 'r')\n"
        "p.start()\nprint(p.pid, flush=True)\n"
        f"p.ask({ENDLESS!r}) if {busy} else sys.stdin.read()\n"
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
    with pytest.raises(EngineError, match="the process of rule:regex did not start") as caught:
        finder().start()
    assert caught.value.why == "exit code 7"


def test_nothing_that_work_prints_reaches_the_terminal(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    work = tmp_path / "loud_work.py"
    work.write_text(
        "import sys\n"
        "def prepare(setup):\n"
        "    return lambda text: (print(text), print(text, file=sys.stderr), setup)[-1]\n"
    )
    process = LimitedProcess(str(work), {"said": ["ö"]}, 1.0, "r")
    assert process.ask("loud") == {"said": ["ö"]}
    process.stop()
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
