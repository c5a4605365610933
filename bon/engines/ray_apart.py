"""The Ray engine in a process of its own, so that a cluster that is lost is not the run's end.

Where Ray loses its cluster it ends the process that it is in, without a word: two seconds after
that machine's node died, a minute after the head did. Here that process does nothing but talk to
Ray; this one hears of its end, and says what to do.
"""

from __future__ import annotations

import logging
import math
import multiprocessing.connection
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from bon.engines.lane import Lane
from bon.engines.ray import RayEngine
from bon.engines.ray_cluster import lost_cluster
from bon.engines.recovery import Lost, Waiting
from bon.engines.shares import Share
from bon.protocols import Event, Parts, PartWork, Stage

__all__ = ["RayApart"]

_END_TIMEOUT_S = 30.0
"""That process has so long to leave the cluster, or to end one of our own."""


@dataclass(slots=True)
class RayApart:
    """Run work on a cluster; connects when there is some, and leaves when it is closed."""

    engine: RayEngine
    _asked: deque[_Asked] = field(default_factory=deque)
    _said: Generator[Any, None, None] | None = None
    """What that process says, as long as it is there."""

    def __enter__(self) -> RayApart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End that process, and with it all that runs in the cluster for us."""
        said, self._said = self._said, None
        self._asked.clear()
        if said is not None:
            said.close()

    def run(self, work: PartWork, parts: Parts) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised.
            EngineError: Ray is not there, failed, or was lost.
            WorkerDiedError: a worker was lost again and again.
        """
        numbers = [part for part in parts if part is not None]
        for _, event in self.run_chain([Stage(work, numbers, has_model=True)]):
            yield event

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        """Do several works side by side; yield events, each with its stage's number.

        Raises:
            BonError, EngineError, WorkerDiedError: see `run`.
        """
        if any(stage.parts for stage in stages):
            yield from self._answers(_Chain(tuple(stages)))

    def why_in_turn(self, has_model: Sequence[bool]) -> str | None:
        """Say why such stages cannot run side by side; none: the cluster has room for all.

        Raises:
            EngineError: Ray is not there, or was lost.
            SettingsError: no node can hold a worker.
        """
        why: str | None
        (why,) = self._answers(_WhyInTurn(tuple(has_model)))
        return why

    def _answers(self, asked: _Asked) -> Iterator[Any]:
        """Have that process answer; it is started where it is not there yet."""
        self._asked.append(asked)
        if self._said is None:
            lane = Lane(self._log(), math.inf, math.inf, Share(), _END_TIMEOUT_S)
            self._said = lane.attempt(_TalksToRay(self.engine), self._questions())
        try:
            while not isinstance(said := next(self._said), _Answered):
                if isinstance(said, Waiting):
                    multiprocessing.connection.wait(said.on, said.longest_s)
                elif isinstance(said, Lost):
                    why = f"the process that talked to it ended: {said.cause}"
                    raise lost_cluster(self.engine.address, why)
                elif isinstance(said, _Answer):
                    yield said.answer
        except BaseException:
            self.close()  # nobody wants the rest
            raise

    def _questions(self) -> Iterator[_Asked | None]:
        while True:
            yield self._asked.popleft() if self._asked else None

    def _log(self) -> Path:
        """Return where Ray itself prints: beside what the workers print."""
        log = self.engine.log
        if log is not None and log.parent.is_dir():
            return log.with_name("ray.log")
        return Path(tempfile.mkdtemp(prefix="bon-")) / "ray.log"


@dataclass(frozen=True, slots=True)
class _Chain:
    """That process is to run this."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class _WhyInTurn:
    """It is to answer this."""

    has_model: tuple[bool, ...]


_Asked: TypeAlias = _Chain | _WhyInTurn


@dataclass(frozen=True, slots=True)
class _Answer:
    """One of the answers to what was asked last."""

    answer: Any


@dataclass(frozen=True, slots=True)
class _Answered:
    """There are no more."""


@dataclass(frozen=True, slots=True)
class _TalksToRay:
    """What that process does until it is made to end."""

    engine: RayEngine

    def run(self, asked: Iterable[_Asked | None]) -> Iterator[_Answer | _Answered]:
        """Answer one question after the other."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")  # into the log
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        with self.engine as engine:
            for one in asked:
                if isinstance(one, _Chain):
                    for event in engine.run_chain(one.stages):
                        yield _Answer(event)
                elif one is not None:
                    yield _Answer(engine.why_in_turn(one.has_model))
                if one is not None:
                    yield _Answered()
