"""Work on a response in a process of its own, which may hang, run out of memory or die."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from bon.errors import WorkerDiedError
from bon.records import Drop

__all__ = ["LimitedProcess"]

_PROGRAM = Path(__file__).with_name("limited_process.py")
_START_S = 300.0
_WALL_FACTOR = 10
"""Times the computing time, a busy machine's share of it; only a process that sleeps gets there."""


class LimitedProcess:
    """Answers requests, each within `limit_s` seconds of computing time (CPU).

    `work` is a file of this folder, see `limited_process.py`; `rule` names the rule in messages.

    Computing time, not the clock's: an answer is then the same on a busy machine. The limit is the
    kernel's, which also stops code that never comes back to Python, and a process that outlived
    its parent. After a limit or a death the next request gets a new process.
    """

    def __init__(self, work: str, setup: Any, limit_s: float, rule: str) -> None:
        self._work = Path(__file__).parent / work
        self._setup = setup
        self._limit_s = limit_s
        self._rule = rule
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and wait until it is prepared.

        Raises:
            WorkerDiedError: it did not come up.
        """
        self._process = subprocess.Popen(
            # -P: its folder holds a math.py, which must not stand before the standard library's
            [sys.executable, "-P", str(_PROGRAM), str(self._limit_s), str(self._work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        reply = self._exchanged(self._setup, _START_S)
        if not reply:
            how = self._end(kill=reply is None)
            raise WorkerDiedError(
                f"the process of {self._rule} did not start",
                why=how,
                next_step="see what it wrote above or in the worker's log; "
                "pip install 'bon-cli[curation]' brings what it needs",
            )

    def stop(self) -> None:
        """End the process."""
        if self._process:
            self._end(kill=True)

    def ask(self, request: Any) -> Any:
        """Return the answer, or a drop where there was none: `rule_timeout` or `rule_crashed`."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        reply = self._exchanged(request, self._limit_s * _WALL_FACTOR)
        if reply:
            return json.loads(reply)
        how = self._end(kill=reply is None)
        if reply is None or signal.SIGPROF.name in how:
            return Drop("rule_timeout", f"not decided in {self._limit_s:g} s of computing")
        return Drop("rule_crashed", f"the process of {self._rule} died: {how}")

    def _exchanged(self, request: Any, timeout_s: float) -> bytes | None:
        """Send a line and return the one that comes back.

        Empty where the process is dead, none where it did not answer in time.
        """
        assert self._process is not None and self._process.stdin is not None
        # unbuffered, so that closing the pipe of a dead process has nothing left to flush
        view = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while view:
                view = view[os.write(self._process.stdin.fileno(), view) :]
        except BrokenPipeError:
            return b""
        return self._reply(timeout_s)

    def _reply(self, timeout_s: float) -> bytes | None:
        assert self._process is not None and self._process.stdout is not None
        reply = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not reply.endswith(b"\n"):
                if not selector.select(timeout_s):
                    return None
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    return b""
                reply += piece
        return reply

    def _end(self, *, kill: bool) -> str:
        """See the process off and say how it ended."""
        process, self._process = self._process, None
        assert process is not None
        if kill:
            process.kill()
        code = process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
