"""SIGINT, SIGTERM and SIGHUP: the first stops a command in order, the next one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = [
    "MESSAGE",
    "STOPPING",
    "Interrupted",
    "ending",
    "held",
    "received",
    "say",
    "take_over",
]

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP is what a terminal sends when it is closed; `nohup` has it ignored, and that stays so."""
MESSAGE = "interrupted; what is committed stays, the same command goes on\n"
_AGAIN_S = 0.05


class Interrupted(BaseException):
    """A command is to stop; raised by the first signal, wherever the main thread is."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    """What this process was told; it has one main thread, so it has one state."""

    first: int | None = None
    is_raised = False
    is_ending = False
    is_said = False
    num_held = 0


def take_over() -> None:
    """Have signals raise `Interrupted`; those that whoever started us had ignored stay ignored."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    sys.unraisablehook = _on_unraisable


def received() -> int | None:
    """Return the signal that this process is stopping for, none where it is not."""
    return _State.first


def ending() -> None:
    """Have signals end the process at once from now on: all that is left is to leave."""
    _State.is_ending = True


def say() -> None:
    """Tell on stderr, once, that the command was interrupted; a closed terminal does not matter."""
    if not _State.is_said:
        _State.is_said = True
        with suppress(OSError):
            os.write(2, MESSAGE.encode())


@contextmanager
def held() -> Iterator[None]:
    """Let no signal stop what the block does; one that comes meanwhile does so at its end.

    A process that is started in the block has the signals blocked: it unblocks those that it wants.
    """
    _State.num_held += 1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _State.num_held -= 1
        _raise_first()


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.first is not None or _State.is_ending:
        _end_at_once(_State.first or number)
    _State.first = number
    _raise_first()


def _raise_first() -> None:
    is_due = _State.first is not None and not _State.is_raised and not _State.num_held
    if is_due and threading.current_thread() is threading.main_thread():
        _State.is_raised = True
        raise Interrupted(_State.first or 0)


def _end_at_once(number: int) -> None:
    """End without any clean-up: the next run removes what is staged, the kernel ends the worker."""
    say()
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")  # a progress bar hides the cursor
    os._exit(128 + number)


def _on_unraisable(problem: Any) -> None:
    """Send a signal again that came where nothing can be raised, such as in a destructor."""
    if not isinstance(problem.exc_value, Interrupted):
        sys.__unraisablehook__(problem)
        return
    _State.first, _State.is_raised = None, False
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), problem.exc_value.number))
    again.daemon = True
    again.start()
