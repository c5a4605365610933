"""A pure function computed for many items by several processes of this machine, in their order.

Curation reads only and computes nothing twice that costs much: a process that is lost ends the
command, unlike a model's worker (`bon.engines.lane`).
"""

from __future__ import annotations

import copyreg
import io
import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Self, TypeVar

import pyarrow as pa

from bon.engines.shares import num_cores
from bon.engines.worker import begin_below, cause_of_end
from bon.errors import EngineError, WorkerDiedError
from bon.signals import held

__all__ = ["LocalMapper", "Outcome", "packed"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2
"""Items that a process has at once: the one that it computes, and the next."""


@dataclass(frozen=True, slots=True)
class _Function:
    """What is to be computed of the items that follow."""

    call: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Item:
    """One item, and its place among all."""

    number: int
    item: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an item: a result, or what its function raised."""

    result: Any = None
    error: Exception | None = None
    trace: str = ""

    @classmethod
    def of(cls, function: Callable[[Any], Any], item: Any) -> Outcome:
        """Compute it; an error is made to survive the way."""
        try:
            return cls(function(item))
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            return cls(error=_as_sent(error), trace=trace)

    def get(self) -> Any:
        """Return the result, or raise; the trace of the other process is a note of the error."""
        if self.error is not None:
            self.error.add_note(self.trace)
            raise self.error
        return self.result


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of the item of a number."""

    number: int
    outcome: Outcome


@dataclass(slots=True)
class _Process:
    """One process, and the numbers of the items that it has."""

    process: BaseProcess
    pipe: Connection
    has: set[int] = field(default_factory=set)


class LocalMapper:
    """Computes in processes of its own, started when they are first needed.

    To be used as a context: they end with it, and where this process dies, at once.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self._workers: list[_Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results in the order of the items.

        At most `2 * num_workers` items are taken ahead of the one whose result is due, so results
        in memory are as many. One call at a time.

        Raises:
            Exception: what the function raised for the item whose turn it is.
            WorkerDiedError: a process was killed.
        """
        if any(worker.has for worker in self._workers):
            raise RuntimeError("the call before has not come to its end")
        source = iter(items)
        ready: dict[int, Outcome] = {}
        given = due = 0
        is_open, is_done = True, False
        try:
            if not self._workers:
                self._start()
            for worker in self._workers:
                _tell(worker, _Function(function))
            while True:
                while is_open and given - due < _AHEAD * self.num_workers and self._has_room():
                    is_open = self._give(given, source)
                    given += is_open
                if due == given:
                    is_done = True
                    return
                self._receive(ready, wanted=due)
                result = ready.pop(due).get()
                due += 1
                yield result
        finally:
            if not is_done:  # they compute what nobody wants any more
                self._stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        num_threads = max(1, num_cores() // self.num_workers)
        for _ in range(self.num_workers):
            ours, theirs = context.Pipe()
            given = (theirs, os.getpid(), num_threads)
            process = context.Process(target=_serve, args=given, daemon=True)
            with held():  # one that is not all there yet would end with a trace
                process.start()
                self._workers.append(_Process(process, ours))
            theirs.close()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
        self._workers = []

    def _has_room(self) -> bool:
        return any(len(worker.has) < _AHEAD for worker in self._workers)

    def _give(self, number: int, source: Iterator[Any]) -> bool:
        """Give the next item to the process that has fewest; tell whether there was one."""
        try:
            item = next(source)
        except StopIteration:
            return False
        worker = min(self._workers, key=lambda one: len(one.has))
        worker.has.add(number)
        _tell(worker, _Item(number, item))
        return True

    def _receive(self, ready: dict[int, Outcome], *, wanted: int) -> None:
        """Take in what is there, until the result that is wanted is."""
        of_pipe = {worker.pipe: worker for worker in self._workers}
        is_first = True
        while is_first or wanted not in ready:
            there = wait(list(of_pipe), 0.0 if wanted in ready else None)
            is_first = False
            for pipe in there:
                worker = of_pipe[pipe]  # type: ignore[index]
                try:
                    found: _Found = worker.pipe.recv()
                except (EOFError, OSError):
                    raise _died(worker.process) from None
                worker.has.discard(found.number)
                ready[found.number] = found.outcome


def _tell(worker: _Process, message: _Function | _Item) -> None:
    try:
        worker.pipe.send(message)
    except OSError:
        raise _died(worker.process) from None


def _died(process: BaseProcess) -> WorkerDiedError:
    process.join()
    return WorkerDiedError(
        "a process that computed ended",
        why=cause_of_end(process.exitcode),
        next_step="nothing was written: run the same command again, with a smaller --num-workers "
        "where memory is short",
    )


def _serve(pipe: Connection, parent: int, num_threads: int) -> None:
    """Compute what comes through the pipe, until it ends: a function, then items for it.

    `num_threads` are Arrow's, its share of the cores.
    """
    begin_below(parent)
    os.dup2(2, 1)  # stdout carries only results
    pa.set_cpu_count(num_threads)
    messages = SimpleQueue[bytes]()
    threading.Thread(target=_hear, args=(pipe, messages), daemon=True).start()
    function: Callable[[Any], Any] | None = None
    while True:
        said: _Function | _Item = pickle.loads(messages.get())
        if isinstance(said, _Function):
            function = said.call
            continue
        assert function is not None
        found = _Found(said.number, Outcome.of(function, said.item))
        with suppress(OSError):  # the parent is gone, and this process soon
            pipe.send_bytes(packed(found))


def _hear(pipe: Connection, messages: SimpleQueue[bytes]) -> None:
    """Take all that comes at once, so that the parent never waits; end when it is gone."""
    while True:
        try:
            messages.put(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)


def _as_sent(error: Exception) -> Exception:
    """Return an error that survives the way."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return EngineError(f"{type(error).__name__}: {error}", why="this is a bug in bon")
    return error


def packed(value: object) -> bytes:
    """Pickle what is sent; of a slice of a table only its rows travel."""
    sink = io.BytesIO()
    pickler = pickle.Pickler(sink, pickle.HIGHEST_PROTOCOL)
    # Arrow's own pickling sends all of a table of which a slice is sent.
    pickler.dispatch_table = {**copyreg.dispatch_table, pa.Table: _as_stream}
    pickler.dump(value)
    return sink.getvalue()


def _as_stream(table: pa.Table) -> tuple[Callable[[bytes], pa.Table], tuple[bytes]]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _from_stream, (sink.getvalue().to_pybytes(),)


def _from_stream(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
