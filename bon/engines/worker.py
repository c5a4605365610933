"""The body of a worker process: does its work, says what happens, and goes when nobody listens."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from bon.engines.shares import Share
from bon.errors import BonError, EngineError
from bon.heartbeat import send_beats_to
from bon.memory import FREE_MEMORY, is_lack_of_memory
from bon.protocols import Ready
from bon.signals import STOPPING
from bon.standard_streams import forgiving_text
from bon.system_faults import system_fault

__all__ = [
    "WORKER_BEGINS",
    "Asks",
    "Failed",
    "Finished",
    "Next",
    "Runs",
    "begin_below",
    "cause_of_end",
    "work_alone",
]

WORKER_BEGINS = "--- worker of "
"""Begins the first line that each worker writes to the log."""
_NOTHING_FOR_NOW_S = 0.05
Said = TypeVar("Said", covariant=True)


class Runs(Protocol[Said]):
    """What a worker does with the parts that it asks for: a `PartWork`, as a rule."""

    def run(self, parts: Any, /) -> Iterator[Said]:
        """Do the parts and yield what happens."""
        ...


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker's last word: an error of ours, or the text of any other."""

    error: BonError
    is_models: bool
    """It came out of the model's work; another worker, or other prompts, may have better luck."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker did all it was given."""


@dataclass(frozen=True, slots=True)
class Asks:
    """The worker asks for its next part."""


@dataclass(frozen=True, slots=True)
class Next:
    """The answer: a part, or nothing for now; or that there are no more."""

    part: object | None
    is_end: bool = False


def work_alone(
    work: Runs[Any],
    sender: Connection,
    alive: Connection,
    log: Path | None,
    parent: int,
    output: Connection,
    share: Share,
) -> None:
    """Do the work in this process and send its events.

    `alive` carries signs of life to the parent and parts from it, and ends when the parent does;
    `output` takes what is printed and not logged. `share` is what it may use of the machine.
    """
    begin_below(parent)
    answers = SimpleQueue[Next]()
    threading.Thread(target=_hear, args=(alive, answers), daemon=True).start()
    os.dup2(output.fileno(), 2)
    output.close()
    _redirect_output(log)
    share.take()
    send_beats_to(lambda: _send_beat(alive))
    is_ready = False
    try:
        for event in work.run(_asked(sender, answers)):
            is_ready = is_ready or isinstance(event, Ready)
            sender.send(event)
        sender.send(Finished())
    except Exception as error:
        _print_trace()
        ours = _as_ours(error, log)
        sender.send(Failed(ours, is_ready and type(ours) is EngineError))
    finally:
        with suppress(OSError):  # a log on a full disk
            sys.stdout.flush()
            sys.stderr.flush()
        sender.close()


def _as_ours(error: Exception, log: Path | None) -> BonError:
    """Return an error of ours; it is an `EngineError` where it came out of the model's work, not of
    settings, files, servers or the system."""
    if isinstance(error, BonError):
        return error
    if not is_lack_of_memory(error) and (fault := system_fault(error)) is not None:
        return fault
    last = traceback.extract_tb(error.__traceback__)[-1]
    trace = f"its full trace is in {log or 'the output above'}; what is committed stays"
    return EngineError(
        f"the worker failed: {type(error).__name__}: {error}".rstrip(": "),
        where=f"{last.filename}:{last.lineno}",
        next_step=f"{FREE_MEMORY}; {trace}" if is_lack_of_memory(error) else trace,
    )


def _print_trace() -> None:
    with suppress(OSError):
        traceback.print_exc()


def _send_beat(alive: Connection) -> None:
    with suppress(OSError):  # the parent is gone, and this process soon
        alive.send_bytes(b".")


def begin_below(parent: int) -> None:
    """Make this fresh process one that dies with its parent, which decides what signals mean."""
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # see `held`


def cause_of_end(exit_code: int | None) -> str:
    """Say how a process that ended too early did."""
    code = exit_code or 0
    if code >= 0:
        return f"exit code {code}"
    cause = f"killed by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        cause += " (often the system's answer to a machine out of memory)"
    return cause


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, where it can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _hear(alive: Connection, answers: SimpleQueue[Next]) -> None:
    """Take the parent's answers; end the process when the parent is gone or wants no more."""
    while True:
        try:
            answers.put(alive.recv())
        except (EOFError, OSError):
            os._exit(1)


def _asked(sender: Connection, answers: SimpleQueue[Next]) -> Iterator[object | None]:
    """Ask the parent for one part after the other."""
    while True:
        sender.send(Asks())
        answer = answers.get()
        if answer.is_end:
            return
        if answer.part is None:
            time.sleep(_NOTHING_FOR_NOW_S)
        yield answer.part


def _redirect_output(log: Path | None) -> None:
    """Send what models print to the log, or to stderr: stdout carries only results.

    Where the log cannot be opened (a full disk, a read-only folder), it goes to stderr too.
    """
    if log is None or not _append_to(log):
        os.dup2(2, 1)
    # what a model's code prints must not fail because a disk is full
    sys.stdout, sys.stderr = (forgiving_text(fd, "utf-8", "backslashreplace") for fd in (1, 2))


def _append_to(log: Path) -> bool:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with suppress(OSError):
                begun = time.strftime("%Y-%m-%d %H:%M:%S")
                file.write(f"{WORKER_BEGINS}{begun}, pid {os.getpid()}\n".encode())
    except OSError:
        return False
    return True
