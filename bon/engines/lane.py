"""One worker process at a time, watched: started fresh, heard, given parts, and made to go.

It is spawned, owns its accelerators, asks for one part after the other and commits them itself.
"""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from bon.engines.recovery import Lost, Waiting
from bon.engines.relay import Relay
from bon.engines.shares import Share
from bon.engines.worker import (
    WORKER_BEGINS,
    Asks,
    Failed,
    Finished,
    Next,
    Runs,
    cause_of_end,
    work_alone,
)
from bon.errors import BonError, WorkerDiedError
from bon.protocols import Progress, Ready
from bon.signals import held, received

__all__ = ["Lane"]

_LOG_TAIL_LINES, _LOG_TAIL_BYTES = 15, 1 << 16
_STOP_TIMEOUT_S = 10.0
_LONGEST_LOOK_S = 1.0
Said = TypeVar("Said")


@dataclass(frozen=True, slots=True)
class Lane:
    """Where one worker runs, and after it is lost, the next one in its place."""

    log: Path | None
    """Receives what it prints; none: it goes to stderr."""
    stall_timeout_s: float
    """Seconds without a sign of life after which it is taken for hung."""
    load_timeout_s: float
    """The same while it loads its model, which gives no signs."""
    share: Share
    """What it has of the machine."""
    end_timeout_s: float = 0.0
    """Seconds that it has to end by itself after SIGTERM when nobody wants it any more."""

    def attempt(
        self, work: Runs[Said], parts: Iterable[Any]
    ) -> Generator[Said | Progress | Lost | Waiting, None, None]:
        """Do the work in a fresh process; where that is lost, `Lost` is the last item.

        A process that is silent while it computes gives signs of life: `Progress` of nothing.

        Raises:
            BonError: what the work raised.
        """
        context = multiprocessing.get_context("spawn")
        _start_tracker_quietly()
        receiver, sender = context.Pipe(duplex=False)
        alive, alive_there = context.Pipe()
        relay = Relay()
        given = (work, sender, alive_there, self.log, os.getpid(), relay.writer, self.share)
        process = context.Process(target=work_alone, args=given)
        lost: Lost | None = None
        is_over = False
        try:
            with held():  # a worker that is not all there yet would end with a trace
                process.start()
                sender.close()
                alive_there.close()
                relay.start()
            for event in self._events(process, receiver, alive, iter(parts)):
                if isinstance(event, Lost):
                    lost = event
                else:
                    yield event
            if lost is None:
                yield from _ended(process, _STOP_TIMEOUT_S)  # its own clean-up
            yield from self._made_to_go(process, alive, wait=lost is None)
            is_over = True
        finally:
            if not is_over:  # who runs this wants no more, or was interrupted
                for _ in self._made_to_go(process, alive, wait=received() is None):
                    process.join(_LONGEST_LOOK_S)
            receiver.close()
            relay.stop()
        if lost is not None:
            yield lost

    def _made_to_go(
        self, process: BaseProcess, alive: Connection, *, wait: bool
    ) -> Iterator[Waiting]:
        """Make a worker go; with `wait` it may do so by itself, at the end of `alive`.

        One that even the kernel cannot end at once (a driver that hangs) is waited for, while
        others go on.
        """
        if self.end_timeout_s and process.is_alive():
            process.terminate()
            yield from _ended(process, self.end_timeout_s)
        alive.close()
        if wait:
            yield from _ended(process, _STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            yield from _ended(process, math.inf)

    def _events(
        self,
        process: BaseProcess,
        receiver: Connection,
        alive: Connection,
        parts: Iterator[Any],
    ) -> Iterator[Any]:
        is_ready = False
        watch = _Watch()
        while True:
            limit_s = self.stall_timeout_s if is_ready else self.load_timeout_s
            message = yield from self._message(process, receiver, alive, watch, limit_s)
            if message is None:
                yield (
                    self._hung(limit_s, is_ready)
                    if process.is_alive()
                    else self._died(process, is_ready)
                )
                return
            if isinstance(message, Asks):
                _answer(alive, parts)
                continue
            if isinstance(message, Finished):
                return
            if isinstance(message, Failed) and not message.is_models:
                raise message.error
            if isinstance(message, Failed):
                cause = message.error.what.removeprefix("the worker failed: ")
                yield Lost("worker_failed", f"failed with {cause}", message.error, is_ready)
                return
            is_ready = is_ready or isinstance(message, Ready)
            yield message

    def _message(
        self,
        process: BaseProcess,
        receiver: Connection,
        alive: Connection,
        watch: _Watch,
        limit_s: float,
    ) -> Generator[Waiting, None, Any]:
        """Wait for the worker's next word; none where it is dead, or silent for too long."""
        watch.sees_life()
        look_s = min(_LONGEST_LOOK_S, limit_s / 4)
        is_heard = True  # until the pipe of its signs breaks
        while True:
            listened: tuple[Connection | int, ...] = (receiver, process.sentinel)
            listened += (alive,) if is_heard else ()
            yield Waiting(listened, look_s)
            there = multiprocessing.connection.wait(listened, 0.0)
            try:
                # a dead worker's grandchildren may hold the pipe open: do not wait on it
                if receiver.poll():
                    return receiver.recv()
            except (EOFError, ConnectionResetError):
                yield from _ended(process, math.inf)
                return None
            if process.sentinel in there:
                process.join()
                return None
            if alive in there:
                is_heard = _drained(alive)
                if is_heard:
                    return Progress()  # nothing yet, but whoever watches sees that work goes on
            elif watch.silent_s(2 * look_s) > limit_s:
                return None

    def _died(self, process: BaseProcess, was_ready: bool) -> Lost:
        cause = cause_of_end(process.exitcode)
        error = self._error("the model's process died", cause)
        return Lost("worker_killed", cause, error, was_ready)

    def _hung(self, limit_s: float, was_ready: bool) -> Lost:
        cause = f"no sign of life for {limit_s:g} s"
        error = self._error("the model's process hangs", cause)
        flag = "--stall-timeout" if was_ready else "--load-timeout"
        error.next_step += f"; {flag} allows more time"
        return Lost("worker_hung", cause, error, was_ready)

    def _error(self, what: str, cause: str) -> BonError:
        return WorkerDiedError(
            what,
            where=str(self.log or "stderr"),
            why=cause + _tail(self.log),
            next_step="what is committed stays; the same command goes on from there",
        )


@dataclass
class _Watch:
    """How long nothing was heard, not counting time in which this process itself was stopped."""

    _silent_s: float = 0.0
    _looked_s: float = 0.0

    def sees_life(self) -> None:
        self._silent_s, self._looked_s = 0.0, time.monotonic()

    def silent_s(self, longest_look_s: float) -> float:
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._looked_s, longest_look_s)
        self._looked_s = now_s
        return self._silent_s


def _answer(alive: Connection, parts: Iterator[Any]) -> None:
    """Give a worker its next part."""
    try:
        answer = Next(next(parts))
    except StopIteration:
        answer = Next(None, is_end=True)
    with suppress(OSError):  # it is dead, which the next look will tell
        alive.send(answer)


def _drained(alive: Connection) -> bool:
    """Take the signs of life that are there; tell whether more can come."""
    try:
        while alive.poll():
            alive.recv_bytes()
    except (EOFError, OSError):
        return False
    return True


def _start_tracker_quietly() -> None:
    """Start the process that removes what a dead worker leaves behind: it shall do so in silence.

    Otherwise it warns on our stderr of semaphores that were leaked, which is what it is there for.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _ended(process: BaseProcess, timeout_s: float) -> Iterator[Waiting]:
    """Wait for a process to end, no longer than that."""
    until_s = time.monotonic() + timeout_s
    while process.is_alive() and (left_s := until_s - time.monotonic()) > 0:
        yield Waiting((process.sentinel,), min(left_s, _LONGEST_LOOK_S))


def _tail(log: Path | None) -> str:
    if log is None:
        return ""
    try:
        with log.open("rb") as file:  # runs append to it: it may have gigabytes
            file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = text.rpartition(WORKER_BEGINS)[2].splitlines()[-_LOG_TAIL_LINES:]
    return "; its last words:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
