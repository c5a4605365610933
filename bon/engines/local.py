"""Runs a stage's work in processes of its own, so that a model's death is not the run's.

This process only watches. When a worker dies, fails or hangs, `recovery` decides how to go on.
Several workers share the parts: each takes the next one when it has room.
"""

from __future__ import annotations

import multiprocessing.connection
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bon.engines.lane import Lane
from bon.engines.recovery import Recovery, Waiting
from bon.engines.shares import Share
from bon.protocols import Event, Parts, PartWork

__all__ = ["LocalEngine"]

Run: TypeAlias = Generator[Event | Waiting, None, None]


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Run work on this machine.

    `log` receives what the first worker prints, and files beside it what the others do (none: all
    goes to stderr).
    """

    log: Path | None = None
    max_restarts: int = 2
    """Workers in a row that may be lost while they load a model."""
    stall_timeout_s: float = 600.0
    """Seconds without a sign of life after which a worker is taken for hung."""
    load_timeout_s: float = 3600.0
    """The same while it loads its model, which gives no signs."""
    shares: tuple[Share, ...] = (Share(),)
    """What each worker has of the machine: as many as there are work side by side."""

    def run(self, work: PartWork, parts: Parts) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised.
            WorkerDiedError: the process died or hung, and starting it again did not help.
        """
        source = iter(parts)
        lanes = [
            Lane(self._log_of(share), self.stall_timeout_s, self.load_timeout_s, share)
            for share in self.shares
        ]
        runs = [Recovery(lane.attempt, self.max_restarts).run(work, source) for lane in lanes]
        yield from _interleaved(runs)

    def _log_of(self, share: Share) -> Path | None:
        """Return the log of one worker: of several, each has its own, so that all can be read."""
        if self.log is None or share.number == 0:
            return self.log
        return self.log.with_stem(f"{self.log.stem}-{share.number}")


def _interleaved(runs: Sequence[Run]) -> Iterator[Event]:
    """Go on with each of several runs when it has something to say; yield what they say."""
    going, waiting = deque(runs), dict[Run, tuple[Waiting, float]]()
    try:
        while going or waiting:
            while going:
                run = going.popleft()
                event = next(run, None)
                if isinstance(event, Waiting):
                    waiting[run] = event, time.monotonic() + event.longest_s
                elif event is not None:
                    going.append(run)
                    yield event
            if waiting:
                going += _woken(waiting)
    finally:
        for run in runs:
            run.close()


def _woken(
    waiting: dict[Run, tuple[Waiting, float]],
) -> list[Run]:
    """Wait until something is there for any run; take those from the waiting that may go on."""
    handles = [handle for one, _ in waiting.values() for handle in one.on]
    left_s = min(until_s for _, until_s in waiting.values()) - time.monotonic()
    there = set(multiprocessing.connection.wait(handles, max(0.0, left_s)))
    now_s = time.monotonic()
    woken = [
        run
        for run, (one, until_s) in waiting.items()
        if until_s <= now_s or not there.isdisjoint(one.on)
    ]
    for run in woken:
        del waiting[run]
    return woken
