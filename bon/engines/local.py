"""Runs a stage's work in processes of its own, so that a model's death is not the run's.

This process only watches. When a worker dies, fails or hangs, `recovery` decides how to go on.
Several workers share the parts: each takes the next one when it has room.
"""

from __future__ import annotations

import multiprocessing.connection
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from bon.engines.chain import Chain, workers_of
from bon.engines.lane import Lane
from bon.engines.recovery import Recovery, Waiting
from bon.engines.shares import Share, split_machine
from bon.errors import SettingsError
from bon.protocols import Event, Needs, PartDone, Parts, PartWork, Stage

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
    split: Callable[[int], tuple[Share, ...]] = split_machine
    """Gives other shares of it, where stages side by side need more of them."""

    def run(self, work: PartWork, parts: Parts, needs: Needs = Needs()) -> Iterator[Event]:
        """Do all parts and yield events as they come; nobody else waits for this machine's GPUs.

        Raises:
            BonError: what the work raised.
            WorkerDiedError: the process died or hung, and starting it again did not help.
        """
        runs = self._runs(work, parts, self.shares)
        for _, event in _interleaved(dict.fromkeys(runs, 0)):
            yield event

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        """Do several works side by side; yield events, each with its stage's number.

        A stage's workers are started when its first part comes, and end with its last one.

        Raises:
            BonError: what a work raised.
            SettingsError: the machine has too little for all: see `why_in_turn`.
            WorkerDiedError: a process died or hung, and starting it again did not help.
        """
        dealt = self._dealt([stage.needs for stage in stages])
        chain, runs = Chain([stage.parts for stage in stages]), dict[Run, int]()
        for number, shares in enumerate(dealt):
            source = chain.source(number)
            runs |= dict.fromkeys(self._runs(stages[number].work, source, shares), number)
        for number, event in _interleaved(runs):
            if isinstance(event, PartDone):
                chain.done(number, event.part)
            yield number, event

    def why_in_turn(self, needs: Sequence[Needs]) -> str | None:
        """Say why such stages cannot run side by side; none: they can."""
        try:
            self._dealt(needs)
        except SettingsError as error:
            return f"{error.what}: {error.why}"
        return None

    def close(self) -> None:
        """Do nothing: no worker outlives its run."""

    def _dealt(self, needs: Sequence[Needs]) -> list[tuple[Share, ...]]:
        """Return each stage's workers; one without a model has a process that has no share.

        Raises:
            SettingsError: the machine has too little for all of them.
        """
        counts = workers_of([one.has_model for one in needs], len(self.shares))
        num_shares = sum(counts)
        shares = self.shares if num_shares <= len(self.shares) else self.split(num_shares)
        ends = list(accumulate(counts))
        return [
            shares[end - count : end] or (Share(num_shares + number),)
            for number, (count, end) in enumerate(zip(counts, ends, strict=True))
        ]

    def _runs(self, work: PartWork, parts: Parts, shares: Sequence[Share]) -> list[Run]:
        """Return one run for each share; they take parts from one source."""
        source = iter(parts)
        lanes = [
            Lane(self._log_of(share), self.stall_timeout_s, self.load_timeout_s, share)
            for share in shares
        ]
        return [Recovery(lane.attempt, self.max_restarts).run(work, source) for lane in lanes]

    def _log_of(self, share: Share) -> Path | None:
        """Return the log of one worker: of several, each has its own, so that all can be read."""
        if self.log is None or share.number == 0:
            return self.log
        return self.log.with_stem(f"{self.log.stem}-{share.number}")


def _interleaved(runs: Mapping[Run, int]) -> Iterator[tuple[int, Event]]:
    """Go on with each of several runs when it has something to say.

    What they say is yielded, each with the number of its run.
    """
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
                    yield runs[run], event
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
