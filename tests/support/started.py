"""A `bon` that runs in a process group of its own while a test goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from support.steps import armed


class Started:
    """A command that was started; all of its group must end with it."""

    def __init__(
        self, *arguments: object, cwd: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bon", *map(str, arguments)],
            cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env=environment,
        )  # fmt: skip
        _begun.add(self)

    @classmethod
    def paused(cls, step: int, *arguments: object, cwd: Path) -> Started:
        """Start a command and wait until the process that comes to a step stands still there."""
        log = cwd.parent / f"{cwd.name}.paused"
        log.unlink(missing_ok=True)
        wanted = {"log": str(log), "roots": [str(cwd)], "at": step}
        environment = armed({**wanted, "signals": [("self", "SIGSTOP")]})
        run = cls(*arguments, cwd=cwd, environment=environment)

        def is_there() -> bool:
            assert run.process.poll() is None, run.process.communicate()
            return log.exists() and log.read_text().count("\n") >= step

        wait_until(is_there)
        wait_until(lambda: any(state == "T" for state in states(run.process.pid).values()))
        return run

    def send(self, number: signal.Signals, *, to_group: bool = False) -> None:
        """Send a signal; one that has ended gets none."""
        try:
            (os.killpg if to_group else os.kill)(self.process.pid, number)
        except ProcessLookupError:
            return

    def go_on(self) -> tuple[int, str]:
        """Wake all that stand still, and wait for the end."""
        self.send(signal.SIGCONT, to_group=True)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Return exit code and stderr, once no process of the group is left."""
        err = self.process.communicate(timeout=120)[1]
        wait_until(lambda: not states(self.process.pid))
        return self.process.returncode, err


_begun: weakref.WeakSet[Started] = weakref.WeakSet()
"""Those that someone holds, as a failed test's traceback does; of others Python itself warns."""


def end_all() -> None:
    """End what a test that failed has left, so that the next ones do not fail because of it."""
    for run in list(_begun):
        if run.process.poll() is None:
            run.send(signal.SIGKILL, to_group=True)
            run.process.communicate()


def states(group: int) -> dict[int, str]:
    """Return the states of a group's processes that are alive, by id."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # no process, or one that has just ended
        if int(its_group) == group and state not in "ZX":
            found[int(folder.name)] = state
    return found


def wait_until(met: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.01)
