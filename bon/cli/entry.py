"""Entry point of the console script: signals are taken over before anything slow is imported."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from bon import signals
from bon.standard_streams import standard_streams

__all__ = ["main"]


def main() -> None:
    """Run the command of the command line; codes 129, 130 and 143 say which signal stopped it.

    What a stopped command has to put in order is done by then, so it leaves at once: no thread is
    waited for, and a further signal finds nothing to change.
    """
    code, is_interrupted = _run()
    # not in the handler: its trace would keep alive what the frames hold, a worker's pipe among it
    if is_interrupted:
        signals.say()
        _end_children()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(128 + (signals.received() or 0))
    sys.exit(code)


def _run() -> tuple[Any, bool]:
    """Return the exit code, and whether a signal stopped the command.

    Any error on the way of an interruption (the terminal is gone, the worker was stopped) comes
    from it.
    """
    code: Any = 0
    try:
        try:
            signals.take_over()
            with standard_streams():
                from bon.cli.app import main as run

                run()
        except SystemExit as end:
            code = end.code
        signals.ending()
    except BaseException:
        if signals.received() is None:
            raise
        return code, True
    return code, False


def _end_children() -> None:
    """Kill what a signal kept from being stopped in order."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for process in multiprocessing.active_children():
            process.kill()
