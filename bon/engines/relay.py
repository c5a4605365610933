"""What a worker prints, shown on stderr: a model's library may print anything that it was given."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from bon.shown import shown

__all__ = ["Relay"]

_PIECE_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 20
_LAST_WORDS_S = 2.0


class Relay:
    """A pipe for a worker's output, each line of which comes out on stderr, safe to show.

    Of a progress bar, the last state of each line does.
    """

    def __init__(self) -> None:
        self._ours, self.writer = get_context("spawn").Pipe(duplex=False)
        self._thread = threading.Thread(target=_show_lines, args=(self._ours,), daemon=True)

    def start(self) -> None:
        """Begin to show, and leave the pipe's other end to the worker, which has it by now."""
        self.writer.close()
        self._thread.start()

    def stop(self) -> None:
        """Show the last words of a worker that has ended.

        A process of its own that outlives it and still holds the pipe is not waited for.
        """
        if self._thread.ident is not None:
            self._thread.join(_LAST_WORDS_S)
        if not self._thread.is_alive():
            self.writer.close()
            self._ours.close()


def _show_lines(ours: Connection) -> None:
    rest = b""
    with suppress(OSError):
        while piece := os.read(ours.fileno(), _PIECE_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                _show(line)
            if len(rest) > _LONGEST_LINE_BYTES:
                _show(rest)
                rest = b""
    if rest:
        _show(rest)


def _show(line: bytes) -> None:
    states = [state for state in line.decode("utf-8", "replace").split("\r") if state.strip()]
    with suppress(OSError, ValueError):  # stderr is closed; what comes is still taken
        print(shown(states[-1]) if states else "", file=sys.stderr, flush=True)
