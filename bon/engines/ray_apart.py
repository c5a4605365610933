"""The Ray engine in a process of its own, so that a cluster that is lost is not the run's end.

Where Ray loses its cluster it ends the process that it is in, without a word: two seconds after
that machine's node died, a minute after the head did. Here that process does nothing but talk to
Ray; this one hears of its end, and says what to do.
"""

from __future__ import annotations

import logging
import math
import multiprocessing.connection
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from bon.engines.lane import Lane
from bon.engines.ray import RayEngine
from bon.engines.ray_cluster import lost_cluster
from bon.engines.recovery import Lost, Waiting
from bon.engines.shares import Share
from bon.errors import AccountingError, BonError
from bon.protocols import Event, Parts, PartWork, Scope, Stage

__all__ = ["RayApart"]


@dataclass(frozen=True, slots=True)
class RayApart:
    """Run work on a cluster; connects when there is some, and leaves when it is done."""

    engine: RayEngine

    def run(self, work: PartWork, parts: Parts) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised.
            EngineError: Ray is not there, failed, or was lost.
            WorkerDiedError: a worker was lost again and again.
        """
        numbers = [part for part in parts if part is not None]
        if not numbers:
            return
        lane = Lane(self._log(), math.inf, math.inf, Share())
        with closing(lane.attempt(_OnRay(self.engine, work), numbers)) as events:
            for event in events:
                if isinstance(event, Waiting):
                    multiprocessing.connection.wait(event.on, event.longest_s)
                elif isinstance(event, Lost):
                    raise self._lost(event)
                else:
                    yield event

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        """Refuse: on a cluster stages run one after the other."""
        raise AccountingError("works were begun side by side on Ray", why="this is a bug in bon")

    def why_in_turn(self, has_model: Sequence[bool]) -> str | None:
        """Say why stages cannot run side by side."""
        return self.engine.why_in_turn(has_model)

    def _log(self) -> Path:
        """Return where Ray itself prints: beside what the workers print."""
        log = self.engine.log
        if log is not None and log.parent.is_dir():
            return log.with_name("ray.log")
        return Path(tempfile.mkdtemp(prefix="bon-")) / "ray.log"

    def _lost(self, lost: Lost) -> BonError:
        if lost.reason == "worker_failed":
            return lost.error
        why = f"the process that talked to it ended: {lost.cause}"
        return lost_cluster(self.engine.address, why)


@dataclass(frozen=True, slots=True)
class _OnRay:
    """A work as the process that talks to Ray does it: it only hears."""

    engine: RayEngine
    work: PartWork

    @property
    def scope(self) -> Scope:
        """The prompts that it computes."""
        return self.work.scope

    def within(self, scope: Scope) -> _OnRay:
        """Return the same work for other prompts."""
        return replace(self, work=self.work.within(scope))

    def prompt_ids(self, part: int) -> list[str]:
        """List the prompts of a part that `run` would compute."""
        return self.work.prompt_ids(part)

    def run(self, parts: Parts) -> Iterator[Event]:
        """Connect, have all parts done, and leave."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")  # into the log
        with self.engine as engine:
            yield from engine.run(self.work, parts)
