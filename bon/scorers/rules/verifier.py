"""math-verify in a process of its own, which may hang, run out of memory or die."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

from bon.errors import EngineError
from bon.records import Drop

__all__ = ["BOXED", "Verifier"]

BOXED = "\\boxed{"
"""What an answer begins with that is nothing but the answer."""
_PROGRAM = Path(__file__).with_name("verifier_process.py")
_START_S = 300.0
_WALL_FACTOR = 10
"""Times the computing time, a busy machine's share of it; only a process that sleeps gets there."""


class Verifier:
    """Compares two answers, each within `limit_s` seconds of computing time (CPU).

    A text that begins with `BOXED` is taken as one formula, in any other one is looked for.

    Computing time, not the clock's: a verdict is then the same on a busy machine. The limit is the
    kernel's, which also stops code that never comes back to Python, and a process that outlived
    its parent. After a limit or a death the next answer gets a new process.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and wait until it has loaded math-verify.

        Raises:
            EngineError: it did not come up.
        """
        self._process = subprocess.Popen(
            # -P: its folder holds a math.py, which must not stand before the standard library's
            [sys.executable, "-P", str(_PROGRAM), str(self._limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        reply = self._reply(_START_S)
        if reply != b"+":
            how = self._end(kill=reply is None)
            raise EngineError(
                "the process of rule:math did not start",
                why=how,
                next_step="see what it wrote above or in the worker's log; "
                "pip install 'bon-cli[curation]' brings what it needs",
            )

    def stop(self) -> None:
        """End the process."""
        if self._process:
            self._end(kill=True)

    def compare(self, reference: str, answer: str) -> bool | Drop:
        """Tell whether math-verify finds the answer equal, or drop it where it did not finish."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        try:
            reply = self._ask(json.dumps([reference, answer]).encode() + b"\n")
        except BrokenPipeError:
            reply = b""
        if reply:
            return reply == b"1"
        how = self._end(kill=reply is None)
        if reply is None or signal.SIGPROF.name in how:
            return Drop("rule_timeout", f"not decided in {self._limit_s:g} s of computing")
        return Drop("rule_crashed", f"math-verify's process died: {how}")

    def _ask(self, request: bytes) -> bytes | None:
        assert self._process is not None and self._process.stdin is not None
        # unbuffered, so that closing the pipe of a dead process has nothing left to flush
        view = memoryview(request)
        while view:
            view = view[os.write(self._process.stdin.fileno(), view) :]
        return self._reply(self._limit_s * _WALL_FACTOR)

    def _reply(self, timeout_s: float) -> bytes | None:
        """One byte; empty where the process is dead, none where it did not answer in time."""
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return None
        return os.read(self._process.stdout.fileno(), 1)

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
