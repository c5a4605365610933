"""Faults of the system, forced for real: limits of a process, tiny and read-only disks."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["bon_under", "mounted", "remount"]


def bon_under(
    *arguments: object,
    cwd: Path,
    limits: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120,
    **streams: Any,
) -> subprocess.CompletedProcess[str]:
    """Run the real `bon` under limits of `resource` (number: soft and hard limit), to its end."""

    def limit() -> None:
        for number, most in (limits or {}).items():
            resource.setrlimit(number, (most, most))

    pipe = subprocess.PIPE
    return subprocess.run(
        [sys.executable, "-m", "bon", *map(str, arguments)],
        cwd=cwd,
        text=True,
        check=False,
        timeout=timeout_s,
        preexec_fn=limit,
        env={**os.environ, **(env or {})},
        **{"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **streams},
    )


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Give a disk in memory with these options of tmpfs, such as `size=40k`."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tiny disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a disk that is mounted."""
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
