"""The Ray engine in a process of its own, so that a cluster that is lost is not the run's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bon.engines.apart import Apart, Question
from bon.engines.ray import RayEngine
from bon.protocols import Event, Needs, Parts, PartWork, Stage

__all__ = ["RayApart"]


@dataclass(slots=True)
class RayApart:
    """Run work on a cluster; connects when there is some, and leaves when it is closed."""

    engine: RayEngine
    _apart: Apart[RayEngine] = field(init=False)

    def __post_init__(self) -> None:
        self._apart = Apart(self.engine, self.engine.address)

    def __enter__(self) -> RayApart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End that process, and with it all that runs in the cluster for us."""
        self._apart.close()

    def run(self, work: PartWork, parts: Parts, needs: Needs = Needs()) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised.
            EngineError: Ray is not there, failed, or was lost.
            WorkerDiedError: a worker was lost again and again.
        """
        numbers = [part for part in parts if part is not None]
        for _, event in self.run_chain([Stage(work, numbers, replace(needs, has_model=True))]):
            yield event

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        """Do several works side by side; yield events, each with its stage's number.

        Raises:
            BonError, EngineError, WorkerDiedError: see `run`.
        """
        if any(stage.parts for stage in stages):
            yield from self._answers(_Chain(tuple(stages)))

    def why_in_turn(self, needs: Sequence[Needs]) -> str | None:
        """Say why such stages cannot run side by side; none: the cluster has room for all.

        Raises:
            EngineError: Ray is not there, or was lost.
            SettingsError: no node can hold a worker.
        """
        why: str | None
        (why,) = self._answers(_WhyInTurn(tuple(needs)))
        return why

    def _answers(self, question: Question[RayEngine]) -> Iterator[Any]:
        return self._apart.answers(question, log=self._log())

    def _log(self) -> Path | None:
        """Return where Ray itself prints: beside what the workers print."""
        log = self.engine.log
        return log.with_name("ray.log") if log is not None and log.parent.is_dir() else None


@dataclass(frozen=True, slots=True)
class _Chain:
    """That process is to run this."""

    stages: tuple[Stage, ...]

    def answers(self, engine: RayEngine, _: Iterator[Any]) -> Iterator[tuple[int, Event]]:
        yield from engine.run_chain(self.stages)


@dataclass(frozen=True, slots=True)
class _WhyInTurn:
    """It is to answer this."""

    needs: tuple[Needs, ...]

    def answers(self, engine: RayEngine, _: Iterator[Any]) -> Iterator[str | None]:
        yield engine.why_in_turn(self.needs)
