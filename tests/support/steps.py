"""Runs the real `bon`, and stops it at the k-th thing that it does to files.

A step is a call that makes, syncs, renames or removes something below the folder that it runs in,
in the command's own process or in its worker's; between two steps nothing on the disk changes but
the content of files that are being staged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from support.datasets import left_over

ARMED = Path(__file__).parent / "armed"
KILL_RUN = (("self", "SIGKILL"),)
"""Whichever process does the step is killed; where that is the worker, the run goes on."""
KILL_ALL = (("parent", "SIGKILL"), ("self", "SIGKILL"))


class Step(NamedTuple):
    """One call."""

    number: int
    pid: int
    name: str
    path: str
    """From the folder in which the command ran."""


def steps_of(*arguments: object, cwd: Path) -> list[Step]:
    """Run a command to its end and list what it did to files."""
    log = cwd.parent / f"{cwd.name}.steps"
    done = _run(arguments, cwd, {"log": str(log), "roots": [str(cwd)]})
    assert done.returncode == 0, done.stderr
    found = []
    for number, line in enumerate(log.read_text().splitlines(), 1):
        pid, name, path = line.split(" ", 2)
        found.append(Step(number, int(pid), name, os.path.relpath(path, cwd)))
    return found


def bon_until(
    step: int, *arguments: object, cwd: Path, signals: Sequence[tuple[str, str]] = KILL_RUN
) -> subprocess.CompletedProcess[str]:
    """Run a command until the moment before a step, send the signals, and wait for the end.

    A signal goes to `self`, the process that does the step, or to its `parent`.
    """
    log = cwd.parent / f"{cwd.name}.until-{step}"
    log.unlink(missing_ok=True)
    wanted = {"log": str(log), "roots": [str(cwd)], "at": step, "signals": list(signals)}
    done = _run(arguments, cwd, wanted)
    assert log.exists() and log.read_text().count("\n") >= step, f"no step {step}: {done.stderr}"
    return done


def armed(wanted: dict[str, object]) -> dict[str, str]:
    """Return the environment in which every Python counts steps."""
    path = os.pathsep.join(filter(None, [str(ARMED), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "BON_STEPS": json.dumps(wanted)}


def all_files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, but for locks and logs; staging must be gone."""
    assert left_over(folder) == []
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".bon" not in path.parts
    }


def _run(
    arguments: Sequence[object], cwd: Path, wanted: dict[str, object]
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bon", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, env=armed(wanted)
    )
