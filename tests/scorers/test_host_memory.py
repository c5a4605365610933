"""Memory that a process keeps; each in a process of its own, since it cannot be undone."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from bon.scorers import host_memory

_FAULTS = """
import resource
import sys

import numpy as np

from bon.scorers.host_memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def work():
    np.ones(40 << 20, np.uint8)  # above every size that glibc keeps by itself


work()
before = faults()
for _ in range(5):
    work()
print(faults() - before)
"""


def faults(how: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is known")
def test_memory_that_was_freed_is_used_again_without_asking_the_system() -> None:
    assert faults("kept") < 100
    assert faults("plain") > 100


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not host_memory.keep_freed_memory()
