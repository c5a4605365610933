"""Program of the process that `LimitedProcess` talks to; imports nothing of `bon`.

Its arguments are the limit in seconds and a file whose `prepare(setup)` returns the function that
answers. The first line of stdin is the setup, each further one a request; each reply on stdout is
a line. All of them are JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MAX_BYTES = 4 << 30
"""Address space: a power tower must not take the machine's memory."""


def main(limit_s: float, work: Path) -> None:
    """Answer until stdin ends."""
    replies = _claim_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the limit kills, even inside C code
    _limit_memory()
    answer = _prepared(work, json.loads(sys.stdin.buffer.readline()))
    _write(replies, True)
    nowhere = os.open(os.devnull, os.O_WRONLY)  # a parser may write a line for every odd token
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        reply = answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(replies, reply)


def _claim_stdout() -> int:
    """Keep stdout for replies; whatever a library prints goes to stderr."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MAX_BYTES if hard == resource.RLIM_INFINITY else min(_MAX_BYTES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (OSError, ValueError):  # macOS has the name but not the limit
        return


def _prepared(work: Path, setup: Any) -> Callable[[Any], Any]:
    spec = importlib.util.spec_from_file_location(work.stem, work)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer: Callable[[Any], Any] = module.prepare(setup)
    return answer


def _write(replies: int, reply: Any) -> None:
    view = memoryview(json.dumps(reply).encode() + b"\n")
    while view:
        view = view[os.write(replies, view) :]


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
