"""Runs a stage's work in one worker process, so that a model's death is not the run's.

The worker is started fresh (spawned), owns the accelerator, and commits parts itself; the parent
only watches. When the worker dies it is started again and the uncommitted parts are redone.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from bon.errors import BonError, EngineError, WorkerDiedError
from bon.protocols import Event, PartDone, PartWork

__all__ = ["LocalEngine"]

_LOG_TAIL_LINES = 15
_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Failed:
    """The worker's last word: an error of ours, or the text of any other."""

    error: BonError


@dataclass(frozen=True, slots=True)
class _Finished:
    """The worker did all it was given."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Run work on this machine.

    `log` receives what the worker prints (none: it goes to stderr). A worker that dies is started
    again as long as it commits at least one part between two deaths.
    """

    log: Path | None = None
    max_restarts: int = 1
    """Deaths in a row without a committed part after which the run ends."""

    def run(self, work: PartWork, parts: Sequence[int]) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised.
            WorkerDiedError: the process died and starting it again did not help.
        """
        left = list(parts)
        deaths = 0
        while left:
            died = None
            for event in self._run_once(work, left):
                if isinstance(event, WorkerDiedError):
                    died = event
                    break
                if isinstance(event, PartDone):
                    left.remove(event.part)
                    deaths = 0
                yield event
            if died is None:
                return
            deaths += 1
            if deaths > self.max_restarts:
                raise died
            print(f"{died.what}; starting it again", file=sys.stderr)

    def _run_once(self, work: PartWork, parts: list[int]) -> Iterator[Event | WorkerDiedError]:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        alive_receiver, alive_sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(work, parts, sender, alive_receiver, self.log, os.getpid())
        )
        process.start()
        sender.close()
        alive_receiver.close()
        try:
            while True:
                multiprocessing.connection.wait([receiver, process.sentinel])
                try:
                    # a dead worker's grandchildren may hold the pipe open: do not wait on it
                    message = receiver.recv() if receiver.poll() else None
                except (EOFError, ConnectionResetError):
                    message = None
                if message is None:
                    process.join()
                    yield self._death(process)
                    return
                if isinstance(message, _Finished):
                    process.join(_STOP_TIMEOUT_S)  # its own clean-up, before it is made to go
                    return
                if isinstance(message, _Failed):
                    raise message.error
                yield message
        finally:
            alive_sender.close()
            _stop(process)
            receiver.close()

    def _death(self, process: BaseProcess) -> WorkerDiedError:
        code = process.exitcode or 0
        if code < 0:
            how = f"killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += " (often the system's answer to a machine out of memory)"
        else:
            how = f"exit code {code}"
        return WorkerDiedError(
            "the model's process died",
            where=str(self.log or "stderr"),
            why=how + _tail(self.log),
            next_step="what is committed stays; the same command goes on from there",
        )


def _stop(process: BaseProcess) -> None:
    """Make a worker go that has not gone by itself at the end of `alive`."""
    process.join(_STOP_TIMEOUT_S)
    if process.is_alive():
        process.kill()
        process.join()


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "; its last words:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""


def _work(
    work: PartWork,
    parts: list[int],
    sender: Connection,
    alive: Connection,
    log: Path | None,
    parent: int,
) -> None:
    """Body of the worker process."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_exit_at_end_of, args=(alive,), daemon=True).start()
    _redirect_output(log)
    try:
        for event in work.run(parts):
            sender.send(event)
        sender.send(_Finished())
    except BonError as error:
        traceback.print_exc()
        sender.send(_Failed(error))
    except Exception as error:
        traceback.print_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        sender.send(
            _Failed(
                EngineError(
                    f"the worker failed: {type(error).__name__}: {error}",
                    where=f"{last.filename}:{last.lineno}",
                    next_step=f"its full trace is in {log or 'the output above'}; what is "
                    "committed stays",
                )
            )
        )
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sender.close()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, where it can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _exit_at_end_of(alive: Connection) -> None:
    """End the process when the parent is gone or wants no more."""
    while True:
        try:
            alive.recv()
        except (EOFError, OSError):
            os._exit(1)


def _redirect_output(log: Path | None) -> None:
    """Send what models print to the log, or to stderr: stdout carries only results."""
    if log is None:
        os.dup2(2, 1)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as file:
        file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} pid {os.getpid()}\n".encode())
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
